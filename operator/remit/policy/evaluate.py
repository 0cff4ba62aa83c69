"""One policy's verdict on one request: what its rules say of the operation, then what it says of everything else."""

from __future__ import annotations

from typing import Final

from remit.policy import needs
from remit.policy.compile import CompiledPolicy
from remit.policy.environment import unlisted_files, unlisted_names, unlisted_names_message
from remit.policy.limits import excess
from remit.policy.patterns import TooMuchWork, at_most
from remit.policy.pods import judge_pod
from remit.policy.request import WITH_IMAGES, PolicyRequest
from remit.policy.rules import RULES
from remit.policy.verdict import Allowance, Denial, Reason
from remit.policy.volumes import judge_volumes

_SHOWN_NAMES = 3


MAX_WORK: Final = 32_000_000
"""Limit of the matching work in one decision, see `at_most`: less than 0.1 s, in which nothing else is decided."""


def evaluate(policy: CompiledPolicy, request: PolicyRequest, most_work: int = MAX_WORK) -> Allowance | Denial:
    """The verdict of `policy` alone on `request`, which it selects."""
    try:
        with at_most(most_work):
            return _evaluate(policy, request)
    except TooMuchWork:
        message = (
            f"the patterns of policy {policy.key} are too big, or policies too many, for something as long as this;"
            " pass long text by stdin or in a file, or write patterns with shorter repetitions"
        )
        return Denial(Reason.TOO_COSTLY, message, policy.key)


def _evaluate(policy: CompiledPolicy, request: PolicyRequest) -> Allowance | Denial:
    if not policy.ready:
        return Denial(
            Reason.POLICY_NOT_READY,
            f"policy {policy.key} selects the task but is not ready, so nothing may run: {policy.problems[0]}",
            policy.key,
        )
    rules = RULES.get(request.operation)
    if rules is None:
        message = f"policy {policy.key} has no rule for the operation {request.operation}"
        return Denial(Reason.OPERATION_NOT_ALLOWED, message, policy.key)
    allowing = rules.judge(policy, request)
    if isinstance(allowing, Denial):
        return allowing
    return _surroundings(policy, request) or Allowance(policy, allowing)


def _surroundings(policy: CompiledPolicy, request: PolicyRequest) -> Denial | None:
    """Judge where it runs, what it sees and how much it may use, which is the same for every operation."""

    def denied(reason: Reason, message: str, rule: str, lacking: needs.Part | None) -> Denial:
        return Denial(reason, message, policy.key, rule, lacking)

    backends = policy.spec.backends or [request.installation.backend]
    if request.on_a_backend and request.backend not in backends:
        return denied(
            Reason.BACKEND_NOT_ALLOWED,
            f"policy {policy.key} allows the backends {', '.join(backends)}, not {request.backend} (spec.backends)",
            "backends",
            needs.backends(request.backend),
        )
    if request.network not in policy.spec.networks:
        return denied(
            Reason.NETWORK_NOT_ALLOWED,
            f"policy {policy.key} allows network {' or '.join(policy.spec.networks)}, not {request.network}"
            " (spec.networks)",
            "networks",
            needs.networks(request.network),
        )
    if names := unlisted_names(request.environment, policy.environment):
        return denied(
            Reason.ENVIRONMENT_NOT_ALLOWED,
            unlisted_names_message(policy.key, names, policy.spec.environment.allow),
            "environment.allow",
            needs.environment(names),
        )
    if files := unlisted_files(request.private_files, policy.spec.private_files.allow):
        return denied(
            Reason.PRIVATE_FILE_NOT_ALLOWED,
            f"a program may take {', '.join(files[:_SHOWN_NAMES])} for its configuration; put private files below"
            f" /run/private, or policy {policy.key} would have to allow it in spec.privateFiles.allow",
            "privateFiles.allow",
            needs.private_files(files),
        )
    if denial := judge_volumes(policy, request):
        return denial
    if request.raw_output and not policy.spec.output.allow_raw:
        return denied(
            Reason.RAW_OUTPUT_NOT_ALLOWED,
            f"policy {policy.key} does not allow raw output, which is kept with the secrets in it; its spec needs"
            f" `{needs.line(needs.raw_output())}`",
            "output.allowRaw",
            needs.raw_output(),
        )
    if (
        request.backend in WITH_IMAGES
        and not request.installation.is_own(request.image or "", request.operation)
        and not any(image.matches(request.image or "") for image in policy.images)
    ):
        return denied(
            Reason.IMAGE_NOT_ALLOWED,
            f"no image that policy {policy.key} allows matches {request.image or '(none)'}; spec.images.allow has"
            f" {', '.join(policy.spec.images.allow) or 'no entry'}",
            "images.allow",
            needs.images(request.image or ""),
        )
    if denial := judge_pod(policy, request):
        return denial
    if over := excess(request.limits, policy.bounds.max):
        return denied(
            Reason.LIMIT_EXCEEDED,
            f"{over.name} {over.asked} is above the {over.max} that policy {policy.key} allows at most"
            f" (spec.limits.{over.name}.max); ask for {over.max} or less",
            f"limits.{over.name}",
            needs.limit(over.name, over.needed),
        )
    return None
