"""Attacks on operations that Remit performs itself and on network access. Their tests are beside those of these
operations."""

from __future__ import annotations

from dataclasses import dataclass

from .case import Case

_FILES = "integration/operations/test_files.py"
_HTTP = "integration/operations/test_http.py"
_CANONICAL = "integration/operations/test_http_canonical.py"
_POSTGRES = "integration/operations/test_postgres.py"
_SQL = "integration/operations/test_sql_smuggling.py"
_REDIS = "integration/operations/test_redis.py"
_PROXY = "integration/sandbox/test_egress_proxy.py"
_SANDBOX = "integration/sandbox/test_egress_sandbox.py"


@dataclass(frozen=True, kw_only=True)
class Elsewhere(Case):
    """An attack whose test is the function `test` in the file `where`, below `tests`."""

    where: str
    test: str


def _case(where: str, test: str, name: str, wants: str, control: str) -> Elsewhere:
    return Elsewhere(name=name, wants=wants, control=control, where=where, test=test)


FILES = [
    _case(
        _FILES,
        "test_a_path_has_one_spelling",
        "a path that takes a detour",
        "to have policy judge another path than the one that is opened",
        "a path has one spelling: `..`, `.`, doubled slashes and invisible characters are refused",
    ),
    _case(
        _FILES,
        "test_a_link_leads_nowhere",
        "a symbolic link to a file outside",
        "to read or write what the link leads to",
        "the last component is never followed",
    ),
    _case(
        _FILES,
        "test_a_directory_that_is_a_link_leads_nowhere",
        "a symbolic link for a directory",
        "to leave the allowed root in the middle of the path",
        "resolution beneath the root by descriptor (openat2, or component by component)",
    ),
    _case(
        _FILES,
        "test_a_link_within_the_root_is_judged_by_where_it_leads",
        "a symbolic link to a closed place within the root",
        "to reach by an open name what a deny rule closes",
        "policy is asked about the path that was resolved",
    ),
    _case(
        _FILES,
        "test_a_file_with_a_second_name_is_refused",
        "a hard link to a file outside",
        "to read or write it by a name that is allowed",
        "files with a second name are refused",
    ),
    _case(
        _FILES,
        "test_a_swap_between_check_and_use_never_leads_out",
        "a race between the check and the use",
        "to swap a directory for a link, again and again, while it is being opened",
        "what was checked is a descriptor, and that descriptor is used",
    ),
    _case(
        _FILES,
        "test_a_deny_rule_applies_to_the_content_of_a_directory",
        "a file moved along with its directory",
        "to move, copy or delete what a deny rule names by naming what it is in",
        "policy is asked about everything below",
    ),
    _case(
        _FILES,
        "test_a_deny_rule_applies_to_the_destination_of_a_tree",
        "a tree put where part of it may not be",
        "to write to a denied path by moving a tree that has it",
        "policy is asked about every place that something comes to",
    ),
    _case(
        _FILES,
        "test_the_operators_own_files_are_closed",
        "a file operation on the operator's own files",
        "to read tokens or to rewrite the audit trail",
        "the state directory is closed whatever a policy says",
    ),
    _case(
        _FILES,
        "test_kernel_files_are_no_files",
        "a file operation on /proc, /sys or /dev",
        "to read the operator's environment, or devices",
        "these file systems are closed whatever a policy says",
    ),
    _case(
        _FILES,
        "test_a_pipe_does_not_hang_it",
        "a named pipe where a file should be",
        "to have the operator wait for ever",
        "opened without blocking; only regular files are read",
    ),
    _case(
        _FILES,
        "test_set_user_id",
        "a set-user-id program to write to",
        "to put its own words into a program that runs as somebody else",
        "files with these bits are not written to",
    ),
    _case(
        _FILES,
        "test_a_full_disk_changes_nothing",
        "a write onto a full disk",
        "to leave half of a file in the place of a whole one",
        "a temporary file, fsync and rename",
    ),
]

REQUESTS = [
    _case(
        _HTTP,
        "test_smuggled_hosts",
        "a host in disguise",
        "to have policy read another host than the one that is connected to",
        "user information and odd spellings of addresses are refused",
    ),
    _case(
        _CANONICAL,
        "test_a_detour_is_refused_in_every_spelling",
        "dot segments in a URL, in every encoding",
        "to have policy match one path and the server another",
        "policy, the request and the records share one canonical URL; a URL that servers read differently has none",
    ),
    _case(
        _CANONICAL,
        "test_a_detour_is_refused_in_a_redirect",
        "dot segments in a redirect",
        "to have the server that is allowed send the operator to a path that is not",
        "each redirect is put into the canonical form and judged as a request of its own",
    ),
    _case(
        _HTTP,
        "test_the_host_and_the_framing_are_remits_own",
        "a header that names another host, path or method",
        "to have the server act on another request than the one that was judged",
        "headers that steer requests are refused, with `-` or `_`, whatever policies say",
    ),
    _case(
        _HTTP,
        "test_a_name_that_leads_inside_is_denied",
        "a public name with a private address",
        "to reach loopback, private networks or the metadata service",
        "the resolved address is judged, too",
    ),
    _case(
        _HTTP,
        "test_a_name_is_resolved_once",
        "DNS rebinding",
        "to have one address judged and another connected to",
        "the address that was judged is the one connected to",
    ),
    _case(
        _HTTP,
        "test_redirects_are_judged",
        "a redirect to where policy does not lead",
        "to reach by an allowed host what is not allowed",
        "each redirect is judged as a request of its own",
    ),
    _case(
        _HTTP,
        "test_credentials_stay_with_their_origin",
        "a redirect that carries credentials away",
        "to have a secret header sent to another origin",
        "secret headers and credentials stay with their origin",
    ),
    _case(
        _HTTP,
        "test_a_header_has_one_line",
        "a line break in a header's value",
        "to write a header, or a request, of its own",
        "values with line breaks are refused",
    ),
    _case(
        _HTTP,
        "test_size_is_capped",
        "an answer without end",
        "to fill the operator's memory",
        "maxResponseBytes, counted on what arrives; compressed bodies are not asked for and not unfolded",
    ),
    _case(
        _POSTGRES,
        "test_kinds_of_statement_are_allowed_one_by_one",
        "a statement inside a statement",
        "to run COPY … PROGRAM, DROP, SET ROLE or a writing CTE where only others are allowed",
        "every word that may begin a change counts; one statement each",
    ),
    _case(
        _POSTGRES,
        "test_the_server_takes_one_statement_at_a_time",
        "a second statement after a semicolon",
        "to run what the parser did not see",
        "the extended protocol takes one statement",
    ),
    _case(
        _POSTGRES,
        "test_read_only_is_held_by_policy_and_by_the_server",
        "a function that writes, called by SELECT",
        "to write where readOnly is set",
        "the server's own read-only transaction",
    ),
    _case(
        _POSTGRES,
        "test_read_only_cannot_be_talked_out_of",
        "set_config against readOnly",
        "to turn the read-only transaction off from inside, for itself or for the next task",
        "PostgreSQL refuses it once the transaction reads; sessions are discarded between tasks",
    ),
    _case(
        _POSTGRES,
        "test_nothing_of_a_session_is_left_for_the_next_task",
        "a poisoned session",
        "to leave a search_path, a role, a lock or a temporary table to the next task on a pooled connection",
        "DISCARD ALL before a connection goes back to its pool",
    ),
    _case(
        _SQL,
        "test_a_statement_cannot_be_hidden_from_the_parser",
        "a DELETE inside what looks like a string",
        "to have `#--` or a continued string read as text by the parser, and as code by the server",
        "strings and comments are told apart by PostgreSQL's own rules too, and both readings count",
    ),
    _case(
        _SQL,
        "test_the_rules_of_reading_stay_as_they_are",
        "backslashes that begin to escape",
        "to change by set_config how the server reads the next statement",
        "set_config has to be named; the session's reading is checked before each statement",
    ),
    _case(
        _SQL,
        "test_the_servers_own_setting_does_not_change_what_is_read",
        "a role for which backslashes escape",
        "the same by settings that the server has for the role",
        "standard_conforming_strings and UTF-8 are set for each transaction",
    ),
    _case(
        _SQL,
        "test_a_function_that_reaches_further_has_to_be_named",
        "a function that does more than a SELECT",
        "to read the server's files, write them, connect elsewhere or change roles: pg_read_file, lo_export, dblink",
        "such functions are refused unless the policy names them",
    ),
    _case(
        _SQL,
        "test_what_can_be_read_in_two_ways_is_refused",
        "a name written in escapes, or a NUL",
        "to call a function by a name that the policy cannot read",
        "what can be read in two ways is refused",
    ),
    _case(
        _SQL,
        "test_read_only_is_not_lifted_by_a_statement",
        "SET TRANSACTION READ WRITE",
        "to lift readOnly, or to end its transaction, where the policy allows SET and COMMIT",
        "only reading kinds under readOnly, whatever the policy allows",
    ),
    _case(
        _POSTGRES,
        "test_what_a_connection_may_say",
        "options in a connection string",
        "to have libpq read the operator's files or run with other settings",
        "a short list of options; password and certificate files are turned off",
    ),
    _case(
        _REDIS,
        "test_commands_are_allowed_one_by_one",
        "a Redis command that is not a plain one",
        "to run EVAL, CONFIG, FLUSHALL, another database or a transaction of its own",
        "commands are allowed by name; SELECT and MULTI are Remit's own",
    ),
]

WAY_OUT = [
    _case(
        _PROXY,
        "test_a_request_that_can_be_read_in_two_ways_is_refused",
        "a request that can be read in two ways",
        "to have the proxy judge one host, and the server see another (39 spellings)",
        "whatever is not exactly one reading is refused before a name is looked up",
    ),
    _case(
        _PROXY,
        "test_a_second_request_on_the_same_connection_goes_nowhere",
        "a second request behind an allowed one",
        "to smuggle a request past the judgement of the first",
        "one request a connection",
    ),
    _case(
        _PROXY,
        "test_a_name_that_leads_inwards_is_refused",
        "an allowed name that leads inwards",
        "to reach the host's loopback, private networks or the metadata service",
        "the resolved address is judged, too",
    ),
    _case(
        _PROXY,
        "test_an_address_is_judged_in_every_spelling",
        "an address in another spelling",
        "to pass 127.0.0.1 as 0x7f.1, 2130706433 or ::ffff:7f00:1",
        "addresses are read before they are judged",
    ),
    _case(
        _PROXY,
        "test_rebinding_gains_nothing",
        "DNS rebinding through the proxy",
        "to have one address judged and another connected to",
        "the address that was judged is the one connected to",
    ),
    _case(
        _PROXY,
        "test_a_port_that_is_not_listed_is_refused",
        "another port of an allowed host",
        "to reach a service that the policy does not name",
        "rules name ports, and are for 443 where they name none",
    ),
    _case(
        _PROXY,
        "test_a_wildcard_is_not_its_apex_and_a_look_alike_is_another_name",
        "a look-alike of an allowed host",
        "to be taken for a host of the policy's wildcard",
        "whole labels, in their ASCII form",
    ),
    _case(
        _PROXY,
        "test_a_header_bomb_is_cut_off",
        "a head without end",
        "to fill the operator's memory",
        "a most for the head",
    ),
    _case(
        _PROXY,
        "test_the_machines_own_address_is_not_the_internet",
        "the machine's own public address",
        "to reach what a firewall keeps from everybody else, by a name of its own that leads there",
        "the address that the machine would connect from must be named, like a private one",
    ),
    _case(
        _PROXY,
        "test_one_namespace_cannot_use_up_all_look_ups",
        "names that no server answers for",
        "to hold every thread that looks names up, so that nobody else gets out",
        "a most for each namespace, which counts until the thread is free",
    ),
    _case(
        _PROXY,
        "test_a_slow_head_is_not_waited_for",
        "a head that never ends",
        "to hold connections open",
        "a time for the head, and for a silent tunnel",
    ),
    _case(
        _SANDBOX,
        "test_nothing_is_reached_without_the_proxy",
        "a way around the proxy",
        "to connect by itself: TCP, UDP, raw, by name or address",
        "the network namespace has nothing but loopback",
    ),
    _case(
        _SANDBOX,
        "test_the_proxy_cannot_be_taken_over",
        "the proxy's place",
        "to listen where another program expects the proxy",
        "the operator holds the listening socket before the program starts",
    ),
    _case(
        _SANDBOX,
        "test_attempts_have_a_proxy_each",
        "the proxy of another attempt",
        "to use what another task's policy allows",
        "a proxy, and a network namespace, for each attempt",
    ),
    _case(
        _SANDBOX,
        "test_a_flood_of_connections_ends_with_the_attempt",
        "a flood of connections",
        "to use up the operator's descriptors",
        "a most for each attempt and for all together",
    ),
]
