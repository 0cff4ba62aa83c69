import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import allowing, policy, request
from remit.api.executiontask import ExecutionTask
from remit.api.operations import PostgresOperation, ScriptOperation
from remit.errors import InvalidInput
from remit.policy.deciding import decide
from remit.policy.limits import Limits
from remit.policy.match import Command
from remit.policy.rate import RateClaim, RateSpec
from remit.policy.request import Installation, PolicyRequest, argv_of, request_for
from remit.policy.rules import RULES
from remit.policy.verdict import Reason

OPERATOR = "remit-system"
TEAM = {"selector": {"matchLabels": {"team": "data"}}}


def ceiling(*patterns, name="ceiling", **spec):
    return allowing(*patterns, name=name, namespace=OPERATOR, **spec)


class TestDefaultDeny:
    def test_no_policy_no_run(self):
        decision = decide(request("ls"), [])
        assert (decision.allowed, decision.reason) == (False, Reason.NO_POLICY)
        assert decision.message == "nothing allows `ls`: there is no CommandPolicy in namespace data"

    def test_none_that_selects_the_task(self):
        decision = decide(request("ls", labels={"team": "web"}), [allowing("ls", name="team", **TEAM)])
        assert decision.reason == Reason.NO_POLICY
        assert decision.message.endswith("selects a task with the labels team=web (team wants team=data)")

    def test_a_policy_without_rules_allows_nothing(self):
        decision = decide(request("ls"), [policy()])
        assert decision.reason == Reason.NOT_ALLOWED
        assert "it has no spec.commands.allow" in decision.message

    def test_a_ceiling_grants_nothing(self):
        assert decide(request("ls"), [], [ceiling(".*")]).reason == Reason.NO_POLICY

    def test_a_command_task_without_a_command(self):
        decision = decide(PolicyRequest(namespace="data"), [allowing(".*")])
        assert (decision.allowed, decision.reason) == (False, Reason.INVALID_COMMAND)

    def test_an_operation_that_no_rule_is_about(self, monkeypatch):
        monkeypatch.delitem(RULES, "process")  # as if a check were added without its rules
        decision = decide(PolicyRequest(namespace="data", operation="process"), [allowing(".*")])
        assert (decision.allowed, decision.reason) == (False, Reason.OPERATION_NOT_ALLOWED)

    def test_a_program_that_does_not_exist(self):
        decision = decide(request("nope", resolved=None), [allowing("nope")])
        assert (decision.allowed, decision.reason) == (False, Reason.EXECUTABLE_NOT_FOUND)


class TestWork:
    SLOW = "(.*(a|b|ab|ba)){1000}c"
    """A pattern that fills RE2's cache of states repeatedly, and then takes a step for each of its instructions."""

    def long(self, program="echo"):
        return request(program, "".join(random.Random(7).choices("ab", k=60_000)))

    def test_patterns_that_would_take_too_long_deny(self):
        decision = decide(self.long(), [allowing(self.SLOW, "echo .*")])
        assert (decision.allowed, decision.reason) == (False, Reason.TOO_COSTLY)
        assert "shorter repetitions" in decision.message

    def test_the_same_patterns_decide_on_what_is_short(self):
        policies = [allowing(self.SLOW, "echo .*")]
        assert decide(request("echo", "ab"), policies).rule == "commands.allow[1]"

    def test_a_deny_rule_that_could_not_be_asked_is_not_passed_over(self):
        denying = policy(name="slow", commands={"deny": [{"pattern": self.SLOW}]})
        decision = decide(self.long(), [allowing("echo .*", name="a"), denying])
        assert (decision.reason, decision.policy) == (Reason.TOO_COSTLY, "slow")

    def test_many_policies_share_what_one_may_take(self):
        fair = "[ab ]*echo( [ab]{1,100}){0,9}"
        one, many = ([allowing(fair, ".*", name=f"p{number}") for number in range(count)] for count in (1, 300))
        assert decide(request("echo", "a" * 5000), one).allowed
        assert decide(request("echo", "a" * 5000), many).reason == Reason.TOO_COSTLY

    def test_what_an_audit_policy_cannot_judge_is_recorded_and_not_denied(self):
        decision = decide(self.long(), [allowing("echo .*", name="a"), allowing(self.SLOW, enforcement="Audit")])
        assert decision.allowed
        assert [denial.reason for denial in decision.audited] == [Reason.TOO_COSTLY]

    def test_a_ceiling_has_its_own_share(self):
        slow = [allowing(self.SLOW, name=f"p{number}", enforcement="Audit") for number in range(10)]
        decision = decide(self.long(), [*slow, allowing("echo .*", name="z")], [ceiling("echo .*")])
        assert decision.allowed

    def test_rules_about_other_programs_take_none(self):
        others = [f"tool-{number}( --[a-z]{{1,40}}=[^ ]{{0,40}}){{0,4}}" for number in range(120)]
        assert decide(self.long(), [allowing(*others, "echo [ab]+")]).allowed

    @pytest.mark.parametrize("glob", ["*B{}*", "B{}*"])
    def test_names_by_the_thousand_under_hundreds_of_globs(self, glob):
        names = frozenset(f"A{number}" for number in range(1500))
        many = [
            allowing("ls", name=f"p{n}", environment={"allow": [glob.format(i) for i in range(128)]}) for n in range(10)
        ]
        assert decide(request("ls", environment=names), many).reason == Reason.TOO_COSTLY
        assert decide(request("ls", environment=frozenset({"B1"})), many).allowed

    def test_a_script_is_held_to_it_too(self):
        source = self.long().command.argv[1]
        script = ScriptOperation(interpreter="python3", source=source)
        known = policy(scripts={"interpreters": ["python3"], "patterns": [self.SLOW]})
        asked = request("python3", "/run/remit/script", operation="script", subject=script)
        assert decide(asked, [known]).reason == Reason.TOO_COSTLY

    @pytest.mark.parametrize(("count", "reason"), [(2, Reason.ALLOWED), (3, Reason.TOO_COSTLY)])
    def test_statements_are_parsed_up_to_a_length_together(self, count, reason):
        statements = [{"sql": f"select '{'x' * 30_000}'"}] * count
        connection = {"name": "db", "key": "url"}
        asked = PostgresOperation.model_validate({"connection": connection, "statements": statements})
        known = policy(databases={"postgres": {"secrets": ["db"], "statements": ["select"]}})
        decision = decide(PolicyRequest(namespace="data", operation="postgres", subject=asked), [known])
        assert decision.reason == reason


class TestSeveralPolicies:
    def test_one_that_allows_is_enough(self):
        decision = decide(request("ls"), [allowing("cat", name="a"), allowing("id", "ls", name="b")])
        assert (decision.allowed, decision.policy, decision.rule) == (True, "b", "commands.allow[1]")
        assert decision.message == "allowed by commands.allow[1] of policy b"

    def test_one_that_denies_is_enough_too(self):
        denying = policy(name="z", commands={"deny": [{"pattern": "ls.*", "reason": "we do not look"}]})
        decision = decide(request("ls"), [allowing("ls", name="a"), denying])
        assert (decision.allowed, decision.reason, decision.policy) == (False, Reason.DENIED_BY_RULE, "z")
        assert decision.rule == "commands.deny[0]"
        assert decision.message == "`ls` is denied by commands.deny[0] of policy data/z: we do not look"

    def test_a_policy_for_others_says_nothing(self):
        denying = policy(name="z", commands={"deny": [{"pattern": ".*"}]}, **TEAM)
        assert decide(request("ls"), [allowing("ls"), denying]).allowed

    def test_the_first_by_name_says_the_terms(self):
        one = allowing("ls", name="a", limits={"pids": {"default": 10}})
        other = allowing("ls", name="b", limits={"pids": {"default": 5}})
        assert decide(request("ls"), [other, one]).limits.pids == 10

    def test_a_policy_that_allows_less_does_not_hide_one_that_allows_more(self):
        small = allowing("ls", name="a", limits={"pids": {"max": 1}})
        decision = decide(request("ls", limits=Limits(pids=5)), [small, allowing("ls", name="b")])
        assert (decision.allowed, decision.policy) == (True, "b")

    def test_the_nearest_denial_is_reported(self):
        small = allowing("ls", name="b", limits={"pids": {"max": 1}})
        decision = decide(request("ls", limits=Limits(pids=5)), [allowing("x", name="a"), small])
        assert (decision.reason, decision.policy) == (Reason.LIMIT_EXCEEDED, "b")
        assert decision.message.endswith("Also asked, and not allowing it: data/a")


class TestOneAspectAtATime:
    @pytest.mark.parametrize(
        ("fields", "reason", "message"),
        [
            ({"backend": "docker"}, Reason.BACKEND_NOT_ALLOWED, "allows the backends process, not docker"),
            ({"network": "host"}, Reason.NETWORK_NOT_ALLOWED, "allows network none, not host"),
            ({"limits": Limits(pids=11)}, Reason.LIMIT_EXCEEDED, "pids 11 is above the 10 that policy data/p allows"),
        ],
    )
    def test_denied_with_what_would_be_needed(self, fields, reason, message):
        decision = decide(request("ls", **fields), [allowing("ls", limits={"pids": {"max": 10}})])
        assert decision.reason == reason
        assert message in decision.message

    def test_images(self):
        compiled = allowing("ls", backends=["docker"], images={"allow": ["registry.example/*"]})
        allowed = request("ls", backend="docker", image="registry.example/x", resolved=None)
        assert decide(allowed, [compiled]).allowed
        for image in ["evil.example/x", None]:
            decision = decide(request("ls", backend="docker", image=image, resolved=None), [compiled])
            assert decision.reason == Reason.IMAGE_NOT_ALLOWED

    @pytest.mark.parametrize(
        ("rule", "argv", "told"),
        [
            ({"executable": "git", "args": ["clone", "…"]}, ["git", "push"],
             "commands.allow[0] allows `git clone …`, but argument 1 is 'push', which does not match 'clone'"),
            ({"executable": "git", "args": ["clone", "x"]}, ["git", "clone"],
             "argument 2 is missing; it must match 'x'"),
            ({"executable": "git", "args": []}, ["git", "x"], "only 0 arguments are allowed, 1 are given"),
            ({"pattern": "git clone .*", "reason": "to read"}, ["git", "push"],
             "commands.allow[0] (to read) allows `git clone .*`"),
            ({"pattern": "git clone .*"}, ["ls"], "what spec.commands.allow has is about git"),
            ({"pattern": "(git|hg) .*"}, ["ls"], "what spec.commands.allow has is about `(git|hg) .*`"),
        ],
    )  # fmt: skip
    def test_a_near_miss_is_explained(self, rule, argv, told):
        decision = decide(request(*argv), [policy(commands={"allow": [rule]})])
        assert told in decision.message

    def test_a_long_command_is_shortened_in_messages(self):
        assert len(decide(request("ls", "x" * 5000), [allowing("cat")]).message) < 500

    def test_words_for_a_shell_are_warned_about(self):
        decision = decide(request("echo", "a", "|", "wc"), [allowing("echo .*")])
        assert decision.warnings == ("'|' is handed to echo as it is: there is no shell to act on it",)


class TestCeilings:
    def test_every_one_must_allow(self):
        own = [allowing("ls", "id")]
        assert decide(request("ls"), own, [ceiling("ls"), ceiling("ls|id", name="other")]).allowed
        decision = decide(request("id"), own, [ceiling("ls"), ceiling("ls|id", name="other")])
        assert (decision.reason, decision.policy) == (Reason.CEILING_EXCEEDED, "remit-system/ceiling")
        assert decision.message.startswith("a ceiling for every namespace stands in the way: no rule of policy")

    def test_its_denials_and_limits_hold_everywhere(self):
        denying = policy("c", OPERATOR, commands={"allow": [{"pattern": ".*"}], "deny": [{"pattern": "rm.*"}]})
        decision = decide(request("rm"), [allowing(".*")], [denying])
        assert (decision.reason, decision.policy) == (Reason.DENIED_BY_RULE, "remit-system/c")
        low = ceiling(".*", limits={"pids": {"max": 5}})
        assert decide(request("ls", limits=Limits(pids=9)), [allowing(".*")], [low]).reason == Reason.CEILING_EXCEEDED
        assert decide(request("ls"), [allowing(".*", limits={"pids": {"default": 9}})], [low]).limits.pids == 5

    def test_one_that_does_not_select_the_task(self):
        assert decide(request("ls"), [allowing("ls")], [ceiling("id", **TEAM)]).allowed

    def test_terms_add_up(self):
        own = allowing(".*", sandbox={"require": ["seccomp"]}, rate={"perMinute": 5})
        above = ceiling(".*", sandbox={"require": ["namespaces"]}, rate={"maxConcurrent": 2})
        decision = decide(request("ls"), [own], [above, ceiling(".*", name="quiet")])
        assert decision.layers == ("namespaces", "seccomp")
        assert decision.rates == (
            RateClaim("data/p", RateSpec(5, 5)),
            RateClaim("remit-system/ceiling", RateSpec(max_concurrent=2)),
        )

    def test_in_the_operators_own_namespace_a_policy_is_both(self):
        both = ceiling("ls", rate={"perMinute": 5})
        decision = decide(request("ls", namespace=OPERATOR), [both], [both])
        assert decision.allowed
        assert len(decision.rates) == 1


class TestNotReady:
    def test_it_allows_nothing_and_no_other_policy_can_allow_it(self):
        broken = allowing("ls", "(", name="broken")
        for policies in ([broken], [allowing("ls"), broken]):
            decision = decide(request("ls"), policies)
            assert (decision.reason, decision.policy) == (Reason.POLICY_NOT_READY, "broken")
            assert "spec.commands.allow[1].pattern: column 1: missing )" in decision.message
        assert decide(request("ls"), [allowing("ls")], [ceiling("(")]).reason == Reason.POLICY_NOT_READY

    def test_it_matters_only_where_it_selects(self):
        assert decide(request("ls"), [allowing("ls"), allowing("(", name="b", **TEAM)]).allowed

    def test_a_selector_that_is_wrong_selects_everything(self):
        selector = {"matchLabels": {"team": "x"}, "matchExpressions": [{"key": "a", "operator": "In"}]}
        decision = decide(request("ls"), [allowing("ls"), allowing("ls", name="b", selector=selector)])
        assert decision.reason == Reason.POLICY_NOT_READY


class TestAudit:
    def audit(self, *patterns, name="audit", **spec):
        return allowing(*patterns, name=name, enforcement="Audit", **spec)

    def test_a_task_that_only_it_selects_runs_and_the_denial_is_recorded(self):
        decision = decide(request("rm"), [self.audit("ls")])
        assert (decision.allowed, decision.reason, decision.policy) == (True, Reason.AUDITED, "audit")
        (denial,) = decision.audited
        assert (denial.reason, denial.policy) == (Reason.NOT_ALLOWED, "data/audit")

    def test_what_it_would_allow_is_not_recorded(self):
        decision = decide(request("ls"), [self.audit("ls")])
        assert (decision.allowed, decision.audited, decision.rule) == (True, (), "")

    def test_it_does_not_deny(self):
        auditing = policy("audit", enforcement="Audit", commands={"deny": [{"pattern": "ls"}]})
        decision = decide(request("ls"), [allowing("ls"), auditing])
        assert (decision.allowed, decision.policy) == (True, "p")
        assert [denial.reason for denial in decision.audited] == [Reason.DENIED_BY_RULE]

    def test_it_does_not_widen_what_enforced_policies_allow(self):
        decision = decide(request("rm"), [allowing("ls"), self.audit("rm")])
        assert (decision.allowed, decision.reason, decision.audited) == (False, Reason.NOT_ALLOWED, ())

    def test_nothing_is_recorded_when_enforcing_it_would_change_nothing(self):
        assert decide(request("ls"), [allowing("ls"), self.audit("id")]).audited == ()

    def test_a_ceiling_in_audit(self):
        decision = decide(request("id"), [allowing("id")], [ceiling("ls", enforcement="Audit")])
        assert decision.allowed
        assert [denial.reason for denial in decision.audited] == [Reason.CEILING_EXCEEDED]

    def test_enforced_ceilings_hold_over_it(self):
        decision = decide(request("rm"), [self.audit(".*")], [ceiling("ls")])
        assert (decision.allowed, decision.reason) == (False, Reason.CEILING_EXCEEDED)

    def test_one_that_is_not_ready_denies_nothing(self):
        decision = decide(request("ls"), [allowing("ls"), self.audit("(")])
        assert decision.allowed
        assert [denial.reason for denial in decision.audited] == [Reason.POLICY_NOT_READY]

    def test_its_defaults_are_given_but_its_maxima_layers_and_rates_do_not_bind(self):
        auditing = self.audit(
            ".*",
            limits={"pids": {"default": 5, "max": 10}},
            sandbox={"require": ["cgroup"]},
            rate={"perMinute": 1},
        )
        assert decide(request("ls"), [auditing]).limits.pids == 5
        decision = decide(request("ls", limits=Limits(pids=50)), [auditing])
        assert (decision.limits.pids, decision.layers, decision.rates) == (50, (), ())
        assert [denial.reason for denial in decision.audited] == [Reason.LIMIT_EXCEEDED]

    def test_what_is_no_command_runs_nowhere(self):
        assert decide(request("ls", "a\nb"), [self.audit(".*")]).reason == Reason.INVALID_COMMAND


class TestSelectors:
    @pytest.mark.parametrize(
        ("expression", "labels", "selected"),
        [
            ({"key": "e", "operator": "In", "values": ["a", "b"]}, {"e": "b"}, True),
            ({"key": "e", "operator": "In", "values": ["a"]}, {}, False),
            ({"key": "e", "operator": "NotIn", "values": ["a"]}, {"e": "a"}, False),
            ({"key": "e", "operator": "NotIn", "values": ["a"]}, {}, True),
            ({"key": "e", "operator": "Exists"}, {"e": ""}, True),
            ({"key": "e", "operator": "Exists"}, {}, False),
            ({"key": "e", "operator": "DoesNotExist"}, {}, True),
            ({"key": "e", "operator": "DoesNotExist"}, {"e": "a"}, False),
        ],
    )
    def test_expressions_mean_what_they_mean_in_kubernetes(self, expression, labels, selected):
        selective = allowing("ls", selector={"matchExpressions": [expression]})
        decision = decide(request("ls", labels=labels), [selective])
        assert decision.allowed is selected
        if not selected:
            assert decision.reason == Reason.NO_POLICY
            assert "p wants " in decision.message

    def test_all_parts_must_match(self):
        selector = {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]}
        selective = allowing("ls", selector=selector)
        assert decide(request("ls", labels={"a": "1", "b": "2"}), [selective]).allowed
        assert not decide(request("ls", labels={"a": "1"}), [selective]).allowed
        assert not decide(request("ls", labels={"b": "2"}), [selective]).allowed


def test_a_task_as_a_request():
    task = ExecutionTask.parse(
        {
            "metadata": {"name": "t", "namespace": "data", "labels": {"team": "data"}},
            "spec": {"command": {"line": "ls '-l'"}, "network": "host", "resources": {"pids": 3}},
        }
    )
    assert task.spec.command is not None
    argv = argv_of(task.spec.command)
    assert argv == ["ls", "-l"]
    asked = request_for(task, Command(tuple(argv), "/usr/bin/ls"))
    assert (asked.namespace, asked.labels, asked.network) == ("data", {"team": "data"}, "host")
    assert (asked.operation, asked.limits.pids) == ("command", 3)
    broken = task.spec.command.model_copy(update={"line": "ls 'x"})
    with pytest.raises(InvalidInput):
        argv_of(broken)


words = st.sampled_from(["ls", "id", "rm", "ls x"])
rules = st.lists(st.sampled_from(["ls", "id", "ls.*", ".*", "(", "rm|id"]), max_size=2)
enforcement = st.sampled_from(["Enforce", "Enforce", "Audit"])
spec = st.tuples(rules, rules, enforcement)


def build(specs, namespace="data"):
    return [
        policy(
            f"p{index}",
            namespace,
            enforcement=mode,
            commands={"allow": [{"pattern": p} for p in allow], "deny": [{"pattern": p} for p in deny]},
        )
        for index, (allow, deny, mode) in enumerate(specs)
    ]


class TestMonotone:
    @given(words, st.lists(spec, min_size=1, max_size=3), st.lists(spec, max_size=2), st.data())
    def test_another_deny_rule_never_lets_anything_in(self, word, specs, above, data):
        ceilings = build(above, OPERATOR)
        before = decide(request(*word.split()), build(specs), ceilings)
        index = data.draw(st.integers(0, len(specs) - 1))
        allow, deny, mode = specs[index]
        denied_too = [*deny, data.draw(st.sampled_from(["ls", ".*", "("]))]
        changed = [
            *specs[:index],
            (allow, denied_too, mode),
            *specs[index + 1 :],
        ]
        assert decide(request(*word.split()), build(changed), ceilings).allowed <= before.allowed

    @given(words, st.lists(spec, max_size=3), st.lists(spec, max_size=2))
    def test_another_ceiling_never_lets_anything_in(self, word, specs, above):
        own = build(specs)
        ceilings = build(above, OPERATOR)
        assert decide(request(*word.split()), own, ceilings).allowed <= decide(request(*word.split()), own).allowed

    @given(words, st.lists(spec, max_size=3))
    def test_the_order_of_policies_does_not_matter(self, word, specs):
        policies = build(specs)
        assert decide(request(*word.split()), policies) == decide(request(*word.split()), policies[::-1])

    @given(words, st.lists(spec, min_size=1, max_size=3))
    def test_auditing_everything_lets_everything_run(self, word, specs):
        audited = build([(allow, deny, "Audit") for allow, deny, _ in specs])
        enforced = build([(allow, deny, "Enforce") for allow, deny, _ in specs])
        decision = decide(request(*word.split()), audited)
        assert decision.allowed
        assert bool(decision.audited) == (not decide(request(*word.split()), enforced).allowed)


def test_policies_of_other_namespaces_are_passed_over():
    assert decide(request("ls"), [allowing("ls", namespace="other")]).reason == Reason.NO_POLICY


def test_a_message_fits_into_an_event():
    compiled = policy(commands={"allow": [{"executable": "ls", "args": ["x" * 2000, "y" * 2000]}]})
    assert len(decide(request("ls", "z" * 2000), [compiled]).message) <= 1000


class TestWhatTheInstallationSays:
    """Tests where a task runs that does not specify it."""

    CLUSTER = Installation(backend="kubernetes", image="base:1")

    @staticmethod
    def asked(**spec):
        task = {"metadata": {"name": "t", "namespace": "data"}, "spec": {"command": {"line": "ls"}, **spec}}
        return ExecutionTask.parse(task)

    def decided(self, installation, spec, **policy):
        return decide(
            request_for(self.asked(**spec), Command(("ls",), "/usr/bin/ls"), installation=installation),
            [allowing("ls", **policy)],
        )

    @pytest.mark.parametrize("installation", [Installation(), CLUSTER])
    def test_a_policy_without_backends_allows_its_default(self, installation):
        assert self.decided(installation, {}).allowed

    def test_other_backends_are_denied(self):
        assert self.decided(self.CLUSTER, {"backend": "process"}).reason == Reason.BACKEND_NOT_ALLOWED
        denied = self.decided(Installation(), {"backend": "docker", "image": "base:1"})
        assert denied.reason == Reason.BACKEND_NOT_ALLOWED

    def test_a_policy_with_backends_means_what_it_says(self):
        assert self.decided(self.CLUSTER, {}, backends=["process"]).reason == Reason.BACKEND_NOT_ALLOWED
        assert self.decided(self.CLUSTER, {"backend": "process"}, backends=["process"]).allowed

    def test_only_its_own_image_needs_no_permission(self):
        assert self.decided(self.CLUSTER, {"image": "base:1"}).allowed
        assert self.decided(self.CLUSTER, {"image": "base:2"}).reason == Reason.IMAGE_NOT_ALLOWED
        nothing = Installation(backend="kubernetes")
        assert self.decided(nothing, {}).reason == Reason.IMAGE_NOT_ALLOWED

    def test_what_remit_performs_itself_has_no_backend(self):
        task = {"metadata": {"name": "t", "namespace": "data"}, "spec": {"http": {"url": "http://a/"}}}
        request = request_for(ExecutionTask.parse(task), None, installation=self.CLUSTER)
        assert request.backend == "operator"
        rules = {"allow": [{"hosts": ["a"], "methods": ["GET"], "ports": [80]}]}
        for backends in (["process"], ["docker"], None):
            policy = {"backends": backends} if backends else {}
            assert decide(request, [allowing("ls", http=rules, **policy)]).allowed

    def test_what_names_an_image_runs_where_images_run(self):
        here = Installation(for_images="docker")
        assert here.placed(self.asked(image="i")) == ("docker", "i")
        assert here.placed(self.asked()) == ("process", None)
        assert here.placed(self.asked(backend="process")) == ("process", None)
        assert Installation().placed(self.asked(image="i")) == ("process", "i")  # this is refused later
        assert self.CLUSTER.placed(self.asked(image="i")) == ("kubernetes", "i")
        denied = self.decided(here, {"image": "i"}, images={"allow": ["i"]})
        assert denied.reason == Reason.BACKEND_NOT_ALLOWED
        assert self.decided(here, {"image": "i"}, images={"allow": ["i"]}, backends=["docker"]).allowed

    def test_what_was_chosen_once_stays(self):
        task = self.asked()
        chosen = task.status.model_copy(update={"backend": "process"})
        assert self.CLUSTER.placed(task.model_copy(update={"status": chosen})) == ("process", None)

    def upgraded(self, spec=None, *, finished_at=None, phase="Running"):
        """Returns a task of an operator whose own image was another one."""
        attempt = {"id": "a-1", "number": 1, "backend": "kubernetes", "startedAt": "2026-01-01T00:00:00Z"}
        attempt |= {"finishedAt": finished_at} if finished_at else {}
        status = {"phase": phase, "backend": "kubernetes", "image": "base:0", "attempts": [attempt]}
        task = {"metadata": {"name": "t", "namespace": "data"}, "spec": {"command": {"line": "ls"}, **(spec or {})}}
        return ExecutionTask.parse({**task, "status": status})

    def test_what_runs_stays_with_the_image_that_the_installation_had(self):
        for installation in (self.CLUSTER, Installation(backend="kubernetes")):
            request = request_for(self.upgraded(), Command(("ls",), "/usr/bin/ls"), installation=installation)
            assert request.image == "base:0"
            assert decide(request, [allowing("ls")]).allowed
        task = self.upgraded({"image": "base:0"})
        request = request_for(task, Command(("ls",), "/usr/bin/ls"), installation=self.CLUSTER)
        assert decide(request, [allowing("ls")]).reason == Reason.IMAGE_NOT_ALLOWED

    def test_what_is_yet_to_run_gets_the_image_that_the_installation_has(self):
        ended = "2026-01-01T00:01:00Z"
        again = self.upgraded(finished_at=ended, phase="Backoff")
        assert self.CLUSTER.placed(again) == ("kubernetes", "base:1")
        request = request_for(again, Command(("ls",), "/usr/bin/ls"), installation=self.CLUSTER)
        assert decide(request, [allowing("ls")]).allowed
        assert self.CLUSTER.placed(self.upgraded(finished_at=ended, phase="Failed")) == ("kubernetes", "base:0")
