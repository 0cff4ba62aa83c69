"""The codes of the API server, the operator and the Python API. Pure."""

from __future__ import annotations

from typing import Final

from remit.reasons.code import NO, WAITS, Category, Code


def _out(name: str, meaning: str, remedy: str, retried: str = "yes, after a pause") -> Code:
    return Code(name, Category.INFRASTRUCTURE, meaning, retried, remedy)


CODES: Final = (
    _out("ApiError", "The API server refused a request.", "Do what its message says.",
        "if the HTTP status is temporary"),
    _out("ServiceUnavailable", "The API server does not answer.",
        "See whether it runs; `remit up` starts one on this machine."),
    _out("CertificateNotTrusted", "The API server's certificate is not trusted.",
        "Use the kubeconfig of this server; `remit up` writes a new one at each start.", NO),
    _out("BadEvent", "The answer to a watch is not that of an API server.", "Correct `server` in the kubeconfig."),
    _out("EventTooLarge", "An event of a watch is larger than any object may be.",
        "Find out what answers at the address that the kubeconfig names."),
    _out("LeaseLost", "The Lease could not be renewed, so another operator may be at work and this one stopped.",
        "Wait: one operator takes the Lease. If it happens often, see whether the API server answers slowly."),
    _out("NotificationFailed", "A notification could not be delivered.",
        "See whether the receiver that the message names answers, and its address and login: `remit notify --test`."),
    Code("InvalidInput", Category.INVALID, "What was written cannot be right.", NO,
        "Correct the field that the message names."),
    Code("NotSupported", Category.INVALID, "This operator does not do that; the message says what to use instead.", NO,
        "Use what the message names, or another backend."),
    Code("MissingReference", Category.INVALID, "A Secret, a ConfigMap or a key of one is not there.", WAITS,
        "Create it, or correct the name."),
    Code("WaitTimeout", Category.TIMEOUT, "Whoever waited gave up; what was waited for goes on.", NO,
        "Wait again, or allow more time."),
    _out("RemitError", "Something failed that has no more specific code.", "Do what the message says.", NO),
)  # fmt: skip
