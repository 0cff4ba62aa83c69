"""What the API server, the operator and the Python API report. Pure."""

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
        "Use the kubeconfig that belongs to this server.", NO),
    _out("BadEvent", "What answers a watch is no API server.", "Correct the kubeconfig's server."),
    _out("EventTooLarge", "An event of a watch is larger than any object may be.", "See what answers at that address."),
    _out("LeaseLost", "Another operator may be at work, so this one must not be.",
        "Wait: one of them takes the Lease."),
    _out("NotificationFailed", "A notification could not be delivered.",
        "See whether the receiver that the message names answers, and its address and login: `remit notify --test`."),
    Code("InvalidInput", Category.INVALID, "What was written cannot be right.", NO,
        "Correct the field that the message names."),
    Code("NotSupported", Category.INVALID, "This operator does not do that; the message says what to use instead.", NO,
        "Use what the message names, or another backend."),
    Code("MissingReference", Category.INVALID, "A Secret, a ConfigMap or a key of one is not there.", WAITS,
        "Create it, or correct the name."),
    Code("WaitTimeout", Category.TIMEOUT, "Whoever waited gave up; what was waited for goes on.", NO,
        "Wait again, or longer."),
    _out("RemitError", "Something failed on purpose, without a word of its own.", "Do what the message says.", NO),
)  # fmt: skip
