from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.cli.tasks import for_command, from_file, read_standard_input
from remit.errors import InvalidInput


def test_a_command_becomes_the_smallest_task() -> None:
    assert for_command(["/usr/bin/My_Tool", "-x"]) == {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "ExecutionTask",
        "metadata": {"generateName": "run-my-tool-"},
        "spec": {"command": {"argv": ["/usr/bin/My_Tool", "-x"]}},
    }


def test_flags_become_fields() -> None:
    task = for_command(
        ["sh"], name="n", labels={"a": "b"}, env={"K": "v"}, stdin="in", timeout=3, retries=2, cpu="1", memory="1Gi"
    )
    assert task["metadata"] == {"name": "n", "labels": {"a": "b"}}
    assert task["spec"] == {
        "command": {"argv": ["sh"]},
        "env": [{"name": "K", "value": "v"}],
        "stdin": "in",
        "timeoutSeconds": 3,
        "retry": {"maxRetries": 2},
        "resources": {"cpu": "1", "memory": "1Gi"},
    }


@given(st.text(min_size=1, max_size=100))
def test_any_program_gives_a_name_that_kubernetes_takes(program: str) -> None:
    name = for_command([program])["metadata"]["generateName"]
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*)", name)
    assert len(name) <= 50


@pytest.mark.parametrize(
    ("fields", "where"),
    [({"memory": "lots"}, "spec.resources.memory"), ({"env": {"A B": "c"}}, r"spec.env\[0\].name")],
)
def test_what_no_server_would_take_is_refused_with_its_field(fields: dict[str, object], where: str) -> None:
    with pytest.raises(InvalidInput, match=where):
        for_command(["sh"], **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("", "one ExecutionTask"),
        ("kind: CommandPolicy", "one ExecutionTask"),
        ("kind: ExecutionTask\nspec: {command: {line: ls}}", "no metadata.name"),
        ("kind: ExecutionTask\nmetadata: {name: a}\nspec: {command: {line: ls}, file: {}}", "spec"),
        ("kind: ExecutionTask\nmetadata: {name: a}\nspec: {comand: {line: ls}}", "comand"),
    ],
)
def test_a_file_that_is_no_task_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=re.escape(message)):
        from_file(path)


def test_a_name_given_replaces_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "kind: ExecutionTask\nmetadata: {generateName: a-}\nspec: {command: {line: ls}}"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert from_file(Path("-"), "b")["metadata"] == {"name": "b"}


@pytest.mark.parametrize(("data", "message"), [(b"x" * 300_000, "262144 bytes"), (b"ok\xff", "byte 2 is 0xff")])
def test_standard_input_must_fit_into_a_task(monkeypatch: pytest.MonkeyPatch, data: bytes, message: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    with pytest.raises(InvalidInput, match=message):
        read_standard_input()
