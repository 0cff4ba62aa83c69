"""Tests the arguments of `remit run` about files, and the task references of `remit cp`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from remit.api.executiontask import ExecutionTask
from remit.cli.artifacts import find
from remit.cli.runfiles import require_same_machine, secrets
from remit.cli.tasks import for_command
from remit.errors import InvalidInput, RemitError
from remit.execution.artifacts.stored import StoredArtifact, StoredFile
from remit.execution.mountwords import artifacts, volumes


def test_mounts_and_workspaces_become_volumes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    made = volumes(["./shop:/src", "/opt/x:/x:rw"], ["cache:/cache", "tools:/tools:ro"])
    assert [volume.get("hostPath") or volume.get("workspace") for volume in made["volumes"]] == [
        {"path": str(tmp_path / "shop")},
        {"path": "/opt/x"},
        {"name": "cache"},
        {"name": "tools"},
    ]
    assert [(mount["mountPath"], mount["access"]) for mount in made["volumeMounts"]] == [
        ("/src", "ReadOnly"),
        ("/x", "ReadWrite"),
        ("/cache", "ReadWrite"),
        ("/tools", "ReadOnly"),
    ]
    for_command(["ls"], **made)  # the API server accepts it


def test_a_file_for_standard_input_becomes_a_volume_that_is_mounted_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    made = volumes(["./shop:/src"], [], "./dump.sql")
    assert made["volumes"][1] == {"name": "stdin", "hostPath": {"path": str(tmp_path / "dump.sql")}}
    assert len(made["volumeMounts"]) == 1
    task = ExecutionTask.parse(for_command(["cat"], name="t", **made))
    assert task.spec.stdin_from is not None
    assert task.spec.stdin_from.volume is not None
    assert (task.spec.stdin_from.volume.name, task.spec.stdin_from.volume.path) == ("stdin", None)


@pytest.mark.parametrize("word", ["shop", ":/src", "shop:", "shop:src", "shop:/src:rwx", "shop:/src:rw:z"])
def test_a_mount_that_cannot_be_read_is_told_with_an_example(word: str) -> None:
    with pytest.raises(InvalidInput, match=r"mounts: .* such as \./shop:/src"):
        volumes([word], [])


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (["dist/*.whl"], {"dist": "dist/*.whl"}),
        (["report.html"], {"report-html": "report.html"}),
        (["*"], {"files": "*"}),
        (["/src/**/*.xml"], {"src": "/src/**/*.xml"}),
        (["a/x", "b/x"], {"x": "a/x", "x-2": "b/x"}),
        (["wheel=dist/*.whl"], {"wheel": "dist/*.whl"}),
    ],
)
def test_artifacts_are_named_after_their_paths(words: list[str], made: dict[str, str]) -> None:
    assert {each["name"]: each["path"] for each in artifacts(words)} == made


def test_secrets() -> None:
    made = secrets(["PGPASSWORD=db/password"])
    assert made == [{"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]
    with pytest.raises(InvalidInput, match="NAME=SECRET/KEY"):
        secrets(["PGPASSWORD=db"])


def test_folders_are_those_of_the_operator_s_machine(tmp_path: Path) -> None:
    require_same_machine(tmp_path, "https://127.0.0.1:6443")
    for elsewhere in (None, tmp_path / "none"):
        with pytest.raises(InvalidInput, match="https://shop:6443 does not run on this machine"):
            require_same_machine(elsewhere, "https://shop:6443")


def kept(**files: list[str]) -> list[StoredArtifact]:
    return [
        StoredArtifact(name, tuple(StoredFile(path, 1, "0" * 64) for path in paths)) for name, paths in files.items()
    ]


@pytest.mark.parametrize(
    ("path", "found"),
    [("site", "site"), ("site/index.html", "index.html"), ("a/b.txt", "a/b.txt"), ("log", "log")],
)
def test_cp_takes_an_artifact_a_file_in_one_or_a_file_that_only_one_has(path: str, found: str) -> None:
    there: Any = find(kept(site=["index.html", "a/b.txt"], log=["log"]), path)
    assert found in {getattr(there, "name", None), getattr(there, "path", None)}


def test_cp_says_what_there_is() -> None:
    with pytest.raises(RemitError, match="name one: one/x, two/x"):
        find(kept(one=["x"], two=["x"]), "x")
    with pytest.raises(RemitError, match="its artifacts are one"):
        find(kept(one=["x"]), "y")
