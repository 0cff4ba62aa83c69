"""May it run? Pure: data in, an explained decision out."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.policy.argv import canonical, split_line, unacceptable
    from remit.policy.compile import CompiledPolicy, PolicyProblem, compile_policy
    from remit.policy.deciding import Decision, decide
    from remit.policy.egress import Egress, Forbidden, Permit, permits
    from remit.policy.grant import Grant
    from remit.policy.hosts import Address, BadHost, Destination, Host, canonical_host, plain_address
    from remit.policy.limits import DEFAULT_TIMEOUT_SECONDS, Limits
    from remit.policy.match import Command
    from remit.policy.rate import Bucket, RateClaim, RateSpec, full_at, give_back, replay, take
    from remit.policy.request import (
        BY_BACKENDS,
        OPERATOR,
        SCRIPT_PATH,
        WITH_IMAGES,
        Installation,
        PolicyRequest,
        ReleasePlace,
        argv_of,
        executed,
        request_for,
    )
    from remit.policy.rules import describe
    from remit.policy.selector import selects
    from remit.policy.urls import BadUrl, Url, display_url
    from remit.policy.verdict import Denial, Reason
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = [
    "BY_BACKENDS",
    "DEFAULT_TIMEOUT_SECONDS",
    "OPERATOR",
    "SCRIPT_PATH",
    "WITH_IMAGES",
    "Address",
    "BadHost",
    "BadUrl",
    "Bucket",
    "Command",
    "CompiledPolicy",
    "Decision",
    "Denial",
    "Destination",
    "Egress",
    "Forbidden",
    "Grant",
    "Host",
    "Installation",
    "Limits",
    "Permit",
    "PolicyProblem",
    "PolicyRequest",
    "RateClaim",
    "RateSpec",
    "Reason",
    "ReleasePlace",
    "Url",
    "argv_of",
    "canonical",
    "canonical_host",
    "compile_policy",
    "decide",
    "describe",
    "display_url",
    "executed",
    "full_at",
    "give_back",
    "permits",
    "plain_address",
    "replay",
    "request_for",
    "selects",
    "split_line",
    "take",
    "unacceptable",
]
