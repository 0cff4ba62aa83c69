"""May it run? The one place where policies are put together. Pure.

A task runs if a policy that selects it allows it, none that selects it denies it, and every ceiling that selects it
(a policy in the operator's own namespace) allows it too. No policy, no run. A ceiling grants nothing by itself.

A policy in `Audit` enforcement is not enforced, in either direction: it does not deny, and where any enforced policy
selects the task it does not allow either. A task that only Audit policies select runs. What is recorded is what the
decision would have been, had every Audit policy been enforced.

A policy that is not ready allows nothing, and what it selects does not run on another policy's word either: nobody can
say what its deny rules would have been.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from remit.policy.argv import refused_character, shell_words, unacceptable
from remit.policy.compile import CompiledPolicy
from remit.policy.egress import Egress, objection
from remit.policy.environment import misplaced_working_dir, refused_names
from remit.policy.evaluate import MAX_WORK, evaluate
from remit.policy.hosts import Destination
from remit.policy.limits import Bounds, Limits, effective
from remit.policy.match import Command
from remit.policy.rate import RateClaim
from remit.policy.request import PolicyRequest
from remit.policy.rules import describe
from remit.policy.rules import unacceptable as unacceptable_operation
from remit.policy.verdict import Allowance, Denial, Reason
from remit.policy.volumes import unacceptable_volumes

_SHOWN_POLICIES = 5
MAX_MESSAGE: Final = 1000
"""Limit of a message in characters: an Event accepts 1024."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A decision, with its reason and the terms of a task that may run."""

    allowed: bool
    reason: Reason
    message: str
    """The rule that decided, or what would have been needed, in words for people."""
    policy: str = ""
    """The policy that decided: its name; `namespace/name` where it is not in the task's namespace."""
    rule: str = ""
    """The rule of it that matched, such as `commands.allow[2]`."""
    audited: tuple[Denial, ...] = ()
    """What would have been denied, had Audit policies been enforced."""
    warnings: tuple[str, ...] = ()
    """What is allowed, but probably not what was meant."""
    limits: Limits = field(default_factory=Limits)
    """What the task gets."""
    layers: tuple[str, ...] = ()
    """Confinement layers without which it must not run, sorted."""
    egress: tuple[Egress, ...] = ()
    """For `network: restricted`: the rules of the policy that allowed and of every ceiling, all of which must allow a
    connection."""
    binding: tuple[CompiledPolicy, ...] = ()
    """The policy that allowed and the ceilings: those whose terms hold while it runs."""
    rates: tuple[RateClaim, ...] = ()
    """Rates that its start must respect, all of them."""

    def objection(self, destinations: Iterable[Destination]) -> str | None:
        """Why the first of these that is refused cannot be reached; None where all can, as far as that can be told
        without resolving a name."""
        ordered = sorted(destinations, key=str)
        return next((why for each in ordered if (why := objection(each, self.egress))), None)


@dataclass(frozen=True)
class _Verdict:
    policy: CompiledPolicy
    outcome: Allowance | Denial


def decide(
    request: PolicyRequest, policies: Sequence[CompiledPolicy], ceilings: Sequence[CompiledPolicy] = ()
) -> Decision:
    """Decide on `request`, given the policies of its namespace and, as `ceilings`, those of the operator's own.

    Among `policies`, those of other namespaces are passed over. The order of either does not matter: where several
    policies allow, the first by name says the terms.
    """
    command = request.command
    if (never := _never_allowed(request)) is not None:
        return _denied(request, never, ())
    policies = [policy for policy in policies if policy.namespace == request.namespace]
    verdicts = _verdicts(request, policies)
    ceiling_verdicts = _verdicts(request, ceilings)
    actual = _judge(request, policies, _enforced(verdicts), _enforced(ceiling_verdicts), audited=bool(verdicts))
    audited = _audited(request, policies, verdicts, ceiling_verdicts)
    if isinstance(actual, Denial):
        return _denied(request, actual, audited)
    chosen = actual.policy if actual else verdicts[0].policy
    if request.beside_the_operator and command is not None and command.resolved is None:
        message = f"{command.program!r} is not a program of the operator's PATH; install it or write an absolute path"
        return _denied(request, Denial(Reason.EXECUTABLE_NOT_FOUND, message, chosen.key), audited)
    name = _name(request, chosen.key)
    # The egress rules of an Audit policy apply too, because `network: restricted` is meaningless without rules.
    terms = {policy.key: policy for policy in (chosen, *(each.policy for each in _enforced(ceiling_verdicts)))}.values()
    binding = [policy for policy in terms if policy.enforced]
    return Decision(
        allowed=True,
        reason=Reason.ALLOWED if actual else Reason.AUDITED,
        message=f"allowed by {actual.rule} of policy {name}" if actual else f"policy {name} only audits",
        policy=name,
        rule=actual.rule if actual else "",
        audited=audited,
        warnings=_warnings(command),
        limits=_limits(request, chosen, binding),
        binding=tuple(terms),
        egress=tuple(policy.egress for policy in terms) if request.network == "restricted" else (),
        layers=tuple(sorted({layer for policy in binding for layer in policy.spec.sandbox.require})),
        rates=tuple(RateClaim(policy.key, policy.rate) for policy in binding if policy.rate),
    )


def _audited(
    request: PolicyRequest,
    policies: Sequence[CompiledPolicy],
    verdicts: Sequence[_Verdict],
    ceilings: Sequence[_Verdict],
) -> tuple[Denial, ...]:
    """The denials by policies that only audit, as if every policy were enforced."""
    keys = {verdict.policy.key for verdict in (*verdicts, *ceilings) if not verdict.policy.enforced}
    strict = _judge(request, policies, verdicts, ceilings, audited=False) if keys else None
    return (strict,) if isinstance(strict, Denial) and strict.policy in keys else ()


def _never_allowed(request: PolicyRequest) -> Denial | None:
    """The reason for which a request is refused before any policy is asked."""
    command = request.command
    wrong = unacceptable(command.argv if command else ()) if request.operation == "command" or command else None
    if wrong:
        return Denial(Reason.INVALID_COMMAND, wrong)
    if wrong := unacceptable_operation(request):
        return Denial(Reason.INVALID_REQUEST, wrong)
    if wrong := refused_names(request.environment):
        return Denial(Reason.ENVIRONMENT_NOT_ALLOWED, wrong)
    if wrong := _invisible(request):
        return Denial(Reason.INVALID_REQUEST, wrong)
    if wrong := unacceptable_volumes(request):
        return Denial(Reason.INVALID_REQUEST, wrong)
    mounted = [mount.mount_path for mount in request.mounts]
    if wrong := misplaced_working_dir(request.working_dir, mounted, starts_program=request.starts_program):
        return Denial(Reason.WORKING_DIR_NOT_ALLOWED, wrong)
    return None


def _invisible(request: PolicyRequest) -> str | None:
    """Find characters that are not seen where a text is shown, though rules were written for what is seen. Operations
    look at their own."""
    texts = {"image": request.image or "", "workingDir": request.working_dir}
    texts |= {f"privateFiles of {path}": path for path in request.private_files}
    for where, text in texts.items():
        if refused := refused_character(text):
            return f"spec.{ascii(where)[1:-1]} has {refused[1]} in column {refused[0]}"
    return None


def _limits(request: PolicyRequest, chosen: CompiledPolicy, binding: Sequence[CompiledPolicy]) -> Limits:
    """Under the policy that allowed and every ceiling. An Audit policy only suggests defaults."""
    bounds = [policy.bounds for policy in binding]
    if not chosen.enforced:
        bounds.append(Bounds(default=effective(Limits(), [chosen.bounds])))
    return effective(request.limits, bounds)


def _verdicts(request: PolicyRequest, policies: Sequence[CompiledPolicy]) -> list[_Verdict]:
    selecting = (policy for policy in policies if policy.selects(request.namespace, request.labels))
    chosen = sorted(selecting, key=lambda policy: policy.key)
    share = MAX_WORK // max(1, len(chosen))
    return [_Verdict(policy, evaluate(policy, request, share)) for policy in chosen]


def _enforced(verdicts: Sequence[_Verdict]) -> list[_Verdict]:
    return [verdict for verdict in verdicts if verdict.policy.enforced]


def _judge(
    request: PolicyRequest,
    policies: Sequence[CompiledPolicy],
    verdicts: Sequence[_Verdict],
    ceilings: Sequence[_Verdict],
    *,
    audited: bool,
) -> Allowance | Denial | None:
    """Decide by the given verdicts. None: nothing is in the way, but only because policies audit."""
    denials = [verdict.outcome for verdict in (*verdicts, *ceilings) if isinstance(verdict.outcome, Denial)]
    if final := next((denial for denial in denials if denial.final), None):
        return final
    allowance = next((verdict.outcome for verdict in verdicts if isinstance(verdict.outcome, Allowance)), None)
    if allowance is None:
        own = [verdict.outcome for verdict in verdicts if isinstance(verdict.outcome, Denial)]
        if own:
            return _nearest(own)
        if not audited:
            return Denial(Reason.NO_POLICY, _no_policy(request, policies))
    for verdict in ceilings:
        if isinstance(verdict.outcome, Denial):
            message = f"a ceiling for every namespace stands in the way: {verdict.outcome.message}"
            return replace(verdict.outcome, reason=Reason.CEILING_EXCEEDED, message=message)
    return allowance


def _nearest(denials: Sequence[Denial]) -> Denial:
    """The denial that is easiest to help: of a policy whose rule matched, if there is one."""
    nearest = max(denials, key=lambda denial: denial.reason not in {Reason.NOT_ALLOWED, Reason.OPERATION_NOT_ALLOWED})
    others = [denial.policy for denial in denials if denial is not nearest]
    if not others:
        return nearest
    listed = ", ".join(others[:_SHOWN_POLICIES])
    return replace(nearest, message=f"{nearest.message}. Also asked, and not allowing it: {listed}")


def _no_policy(request: PolicyRequest, policies: Sequence[CompiledPolicy]) -> str:
    what = describe(request)
    if not policies:
        return f"nothing allows {what}: there is no CommandPolicy in namespace {request.namespace}"
    labels = ",".join(f"{key}={value}" for key, value in sorted(request.labels.items())) or "(none)"
    wanted = [
        f"{policy.name} wants {policy.unmet(request.namespace, request.labels)}"
        for policy in policies[:_SHOWN_POLICIES]
    ]
    return (
        f"nothing allows {what}: no CommandPolicy in namespace {request.namespace} selects a task with the labels"
        f" {labels} ({'; '.join(wanted)})"
    )


def _denied(request: PolicyRequest, denial: Denial, audited: tuple[Denial, ...]) -> Decision:
    return Decision(
        allowed=False,
        reason=denial.reason,
        message=denial.message if len(denial.message) <= MAX_MESSAGE else f"{denial.message[: MAX_MESSAGE - 2]} …",
        policy=_name(request, denial.policy),
        rule=denial.rule,
        audited=audited,
    )


def _warnings(command: Command | None) -> tuple[str, ...]:
    if command is None:
        return ()
    words = dict.fromkeys(shell_words(command.argv))
    return tuple(f"{word!r} is handed to {command.program} as it is: there is no shell to act on it" for word in words)


def _name(request: PolicyRequest, key: str) -> str:
    return key.removeprefix(f"{request.namespace}/")
