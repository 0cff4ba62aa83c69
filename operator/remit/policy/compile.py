"""Compiles a policy for decisions. All mistakes are reported at once, each with its place."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from remit.api import egress
from remit.api.base import LabelSelector
from remit.api.commandpolicy import NAMESPACE_LABEL, CommandPolicy, CommandPolicySpec, CommandRule, HttpRule
from remit.policy.argv import refused_character, takes_a_detour
from remit.policy.egress import Egress, EgressRule
from remit.policy.engines import EnginePattern
from remit.policy.filerules import (
    CompiledFileRule,
    CompiledHostPathRule,
    compile_file_rules,
    compile_host_path_rules,
    folder_glob,
)
from remit.policy.hostpatterns import HostPattern
from remit.policy.httprules import CompiledHttpRule, compile_http_rules
from remit.policy.images import ImagePattern
from remit.policy.limits import Bounds, bounds_of, contradictions
from remit.policy.match import ExecutableMatcher, Matcher, PatternMatcher
from remit.policy.patterns import BadPattern, Pattern, any_of, glob, path_glob
from remit.policy.rate import RateSpec
from remit.policy.selector import unmet
from remit.policy.sqlfunctions import function_glob

MAX_PROGRAM: Final = 500_000
"""How big all patterns of one policy may be together, in RE2 instructions of 16 bytes."""
_PATTERN_OVERHEAD: Final = 100
Parsed = TypeVar("Parsed")
_ELLIPSES: Final = frozenset({"…", "..."})


_CEILING_SELECTOR: Final = (
    "whoever creates a task chooses its labels, and with others this ceiling does not hold it; leave the selector out,"
    " so that it holds every task, or select by spec.namespaceSelector"
)
_NO_CEILING: Final = (
    "goes with ceilings, which are in the operator's namespace; this policy speaks for its own namespace alone"
)
_SELECTORS: Final = ("spec.selector", "spec.namespaceSelector")


@dataclass(frozen=True)
class PolicyProblem:
    """Why a policy is not ready. `field` is a path such as `spec.commands.allow[2].pattern`."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


@dataclass(frozen=True)
class CompiledRule:
    """A rule by its name in the policy, such as `commands.allow[2]`."""

    name: str
    matcher: Matcher
    reason: str = ""


@dataclass(frozen=True, eq=False)
class CompiledPolicy:
    """A policy that can decide. One with problems is not ready: it allows nothing."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: CommandPolicySpec
    allow: tuple[CompiledRule, ...]
    deny: tuple[CompiledRule, ...]
    environment: tuple[Pattern, ...]
    images: tuple[ImagePattern, ...]
    scripts: tuple[Pattern, ...]
    file_allow: tuple[CompiledFileRule, ...]
    file_deny: tuple[CompiledFileRule, ...]
    host_paths: tuple[CompiledHostPathRule, ...]
    workspaces: tuple[Pattern | None, ...]
    """The names of each rule of `spec.volumes.workspaces`."""
    released: Pattern | None
    """The pattern of `spec.volumes.releases`."""
    egress: Egress
    http: tuple[CompiledHttpRule, ...]
    functions: Pattern | None
    """PostgreSQL functions that may be called besides those that only read; see `qualified`."""
    container_mounts: tuple[Pattern, ...]
    container_folders: tuple[Pattern, ...]
    """The patterns of `spec.containers.workingDirs`."""
    container_others: tuple[Pattern, ...]
    engines: tuple[EnginePattern, ...]
    """The Docker engines of `spec.releases`."""
    release_places: Mapping[str, tuple[Pattern, ...]]
    """Patterns by the field of `spec.releases`, except its engines."""
    pods: Mapping[str, tuple[Pattern, ...]]
    """Patterns by the field of `spec.pods`."""
    bounds: Bounds
    rate: RateSpec | None
    problems: tuple[PolicyProblem, ...] = ()

    @property
    def ready(self) -> bool:
        return not self.problems

    @property
    def enforced(self) -> bool:
        return self.spec.enforcement == "Enforce"

    def selects(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether it speaks for a task of `namespace` with `labels`. A selector that is wrong selects everything."""
        unsound = any(problem.field.startswith(_SELECTORS) for problem in self.problems)
        return unsound or self.unmet(namespace, labels) is None

    def unmet(self, namespace: str, labels: Mapping[str, str]) -> str | None:
        """None, or the first requirement of its selectors that such a task does not meet."""
        own_name = {NAMESPACE_LABEL: namespace}
        return unmet(self.spec.namespace_selector, own_name) or unmet(self.spec.selector, labels)

    def warnings(self, ceiling_namespace: str) -> tuple[PolicyProblem, ...]:
        """Warn of what is in force as it is written, and likely not what was meant."""
        if self.namespace != ceiling_namespace:
            useless = self.spec.namespace_selector != LabelSelector()
            return (PolicyProblem("spec.namespaceSelector", _NO_CEILING),) if useless else ()
        return (PolicyProblem("spec.selector", _CEILING_SELECTOR),) if self.spec.selector != LabelSelector() else ()

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


def compile_policy(policy: CommandPolicy) -> CompiledPolicy:
    """Never raises for what users wrote: mistakes are in `problems`, for the condition Ready and for refusals.

    What comes back depends on `metadata` and `spec` alone, so it can be kept by uid and generation.
    """
    spec = policy.spec
    problems: list[PolicyProblem] = []
    allow = tuple(_rules("commands.allow", spec.commands.allow, problems))
    deny = tuple(_rules("commands.deny", spec.commands.deny, problems))
    environment = tuple(_globs("spec.environment.allow", spec.environment.allow, problems))
    images = tuple(_each("spec.images.allow", spec.images.allow, ImagePattern.parse, problems))
    named = spec.databases.postgres.functions if spec.databases.postgres else []
    functions = any_of(tuple(_globs("spec.databases.postgres.functions", named, problems, function_glob)))
    mounts = tuple(_globs("spec.containers.mounts", spec.containers.mounts, problems, path_glob))
    folders = tuple(_each("spec.containers.workingDirs", spec.containers.working_dirs, folder_glob, problems))
    others = tuple(_globs("spec.containers.others", spec.containers.others, problems))
    releases = spec.releases.model_dump(by_alias=True)
    engines = tuple(_each("spec.releases.engines", releases.pop("engines"), EnginePattern.parse, problems))
    places = {name: tuple(_globs(f"spec.releases.{name}", globs, problems)) for name, globs in releases.items()}

    allowed = spec.pods.model_dump(by_alias=True)
    pods = {name: tuple(_globs(f"spec.pods.{name}", globs, problems)) for name, globs in allowed.items()}

    def report(field: str, message: str) -> None:
        problems.append(PolicyProblem(field, message))

    file_allow = tuple(compile_file_rules("files.allow", spec.files.allow, report))
    file_deny = tuple(compile_file_rules("files.deny", spec.files.deny, report))
    host_paths = tuple(compile_host_path_rules(spec.volumes.host_paths, report))
    workspaces = tuple(
        any_of(tuple(_globs(f"spec.volumes.workspaces[{index}].names", rule.names, problems)))
        for index, rule in enumerate(spec.volumes.workspaces)
    )
    released = any_of(tuple(_globs("spec.volumes.releases", spec.volumes.releases, problems)))
    scripts = tuple(_patterns("spec.scripts.patterns", spec.scripts.patterns, problems))
    reachable = tuple(_egress_rules("egress.allow", spec.egress.allow, problems))
    hosts = tuple(_egress_rules("http.allow", spec.http.allow, problems))
    requests = tuple(compile_http_rules(spec.http.allow, hosts, report))
    if reachable and "restricted" not in spec.networks:
        problems.append(
            PolicyProblem("spec.egress.allow", "is about network: restricted; add restricted to spec.networks")
        )
    bounds = bounds_of(spec.limits)
    problems += [
        PolicyProblem(f"spec.limits.{name}", "the default is above the maximum; lower one or raise the other")
        for name in contradictions(bounds)
    ]
    problems += _selector_problems("spec.selector", spec.selector)
    problems += _selector_problems("spec.namespaceSelector", spec.namespace_selector)
    problems += _namespace_labels(spec.namespace_selector)
    size = sum(rule.matcher.size + _PATTERN_OVERHEAD for rule in (*allow, *deny))
    size += sum(pattern.size + _PATTERN_OVERHEAD for pattern in scripts)
    if size > MAX_PROGRAM:
        problems.append(
            PolicyProblem("spec.commands", "all patterns together are too big; use shorter or fewer repetitions")
        )
    return CompiledPolicy(
        name=policy.metadata.name,
        namespace=policy.metadata.namespace,
        uid=policy.metadata.uid,
        generation=policy.metadata.generation,
        spec=spec,
        allow=allow,
        deny=deny,
        environment=environment,
        images=images,
        scripts=scripts,
        file_allow=file_allow,
        file_deny=file_deny,
        host_paths=host_paths,
        workspaces=workspaces,
        released=released,
        egress=Egress(f"{policy.metadata.namespace}/{policy.metadata.name}", reachable),
        http=requests,
        functions=functions,
        container_mounts=mounts,
        container_folders=folders,
        container_others=others,
        engines=engines,
        release_places=places,
        pods=pods,
        bounds=bounds,
        rate=RateSpec.of(spec.rate),
        problems=tuple(problems),
    )


def _rules(name: str, rules: Sequence[CommandRule], problems: list[PolicyProblem]) -> Iterator[CompiledRule]:
    for index, rule in enumerate(rules):
        matcher = _matcher(f"spec.{name}[{index}]", rule, problems)
        if matcher is not None:
            yield CompiledRule(f"{name}[{index}]", matcher, rule.reason)


def _matcher(field: str, rule: CommandRule, problems: list[PolicyProblem]) -> Matcher | None:
    if rule.pattern is not None:
        if rule.args is not None:
            problems.append(
                PolicyProblem(f"{field}.args", "goes with executable; a pattern already covers the arguments")
            )
        pattern = _pattern(f"{field}.pattern", rule.pattern, problems)
        return None if pattern is None else PatternMatcher(pattern)
    executable = rule.executable or ""
    if mistake := _executable_mistake(executable):
        problems.append(PolicyProblem(f"{field}.executable", mistake))
        return None
    if rule.args is None:
        return ExecutableMatcher(executable)
    more = bool(rule.args) and rule.args[-1] in _ELLIPSES
    patterns: list[Pattern] = []
    sources = rule.args[:-1] if more else rule.args
    for index, source in enumerate(sources):
        where = f"{field}.args[{index}]"
        if source in _ELLIPSES:
            problems.append(PolicyProblem(where, f"{source} stands for all further arguments, so it must be the last"))
        elif pattern := _pattern(where, source, problems):
            patterns.append(pattern)
    return ExecutableMatcher(executable, tuple(patterns), more) if len(patterns) == len(sources) else None


def _executable_mistake(executable: str) -> str | None:
    if refused := refused_character(executable):
        return f"column {refused[0]}: {refused[1]} never matches"
    if "/" in executable and not executable.startswith("/"):
        return f"{executable!r} is neither a bare name such as git nor an absolute path such as /usr/bin/git"
    if takes_a_detour(executable):
        return f"{executable!r} takes a detour; write the path without '..', '.', '//' or a final '/'"
    return None


def _pattern(field: str, source: str, problems: list[PolicyProblem]) -> Pattern | None:
    try:
        return Pattern(source)
    except BadPattern as error:
        problems.append(PolicyProblem(field, str(error)))
        return None


def _patterns(field: str, sources: Sequence[str], problems: list[PolicyProblem]) -> Iterator[Pattern]:
    for index, source in enumerate(sources):
        if pattern := _pattern(f"{field}[{index}]", source, problems):
            yield pattern


def _globs(
    field: str, globs: Sequence[str], problems: list[PolicyProblem], compiled: Callable[[str], Pattern] = glob
) -> Iterator[Pattern]:
    for index, text in enumerate(globs):
        try:
            yield compiled(text)
        except BadPattern as error:
            problems.append(PolicyProblem(f"{field}[{index}]", str(error)))


def _egress_rules(
    field: str, rules: Sequence[egress.EgressRule | HttpRule], problems: list[PolicyProblem]
) -> Iterator[EgressRule]:
    for index, rule in enumerate(rules):
        name = f"{field}[{index}]"
        hosts = _each(f"spec.{name}.hosts", rule.hosts, HostPattern.parse, problems)
        addresses = _each(f"spec.{name}.addresses", rule.addresses, ipaddress.ip_network, problems)
        yield EgressRule(name, tuple(hosts), frozenset(rule.ports), tuple(addresses))


def _each(
    field: str, texts: Sequence[str], parse: Callable[[str], Parsed], problems: list[PolicyProblem]
) -> Iterator[Parsed]:
    for index, text in enumerate(texts):
        try:
            yield parse(text)
        except ValueError as error:
            problems.append(PolicyProblem(f"{field}[{index}]", str(error)))


def _namespace_labels(selector: LabelSelector) -> Iterator[PolicyProblem]:
    for key in (*selector.match_labels, *(each.key for each in selector.match_expressions)):
        if key != NAMESPACE_LABEL:
            message = f"the label {key} of namespaces is not read; select by {NAMESPACE_LABEL}"
            yield PolicyProblem("spec.namespaceSelector", message)


def _selector_problems(name: str, selector: LabelSelector) -> Iterator[PolicyProblem]:
    for index, requirement in enumerate(selector.match_expressions):
        field = f"{name}.matchExpressions[{index}].values"
        if requirement.operator in {"In", "NotIn"} and not requirement.values:
            yield PolicyProblem(field, f"{requirement.operator} needs at least one value")
        if requirement.operator in {"Exists", "DoesNotExist"} and requirement.values:
            yield PolicyProblem(field, f"{requirement.operator} takes no values")
