from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from remit.errors import InvalidInput
from remit.kube.kubeconfig import extension, merge, state_dir_of


def kubeconfig(path: Path, name: str, server: str, **cluster: object) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, **cluster}}],
        "users": [{"name": name, "user": {"token": "t"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_the_state_directory_is_found_again(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", "remit", "https://127.0.0.1:1")
    assert state_dir_of(path) is None
    kubeconfig(path, "remit", "https://127.0.0.1:1", extensions=[extension(tmp_path / "state")])
    assert state_dir_of(path) == tmp_path / "state"
    assert state_dir_of(path, "remit") == tmp_path / "state"
    assert state_dir_of(path, "another") is None


def test_it_is_found_through_the_usual_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kubeconfig(tmp_path / "config", "remit", "https://127.0.0.1:1", extensions=[extension(tmp_path)])
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'missing'}:{path}")
    assert state_dir_of(None) == tmp_path


@pytest.mark.parametrize("text", ["", "[]", "{}", "contexts: 5", "a: [", "current-context: x\ncontexts: [{}]"])
def test_a_strange_kubeconfig_tells_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    assert state_dir_of(path) is None


def test_merging_keeps_what_is_of_others(tmp_path: Path) -> None:
    ours = kubeconfig(tmp_path / "ours", "remit", "https://127.0.0.1:2")
    theirs = kubeconfig(tmp_path / "theirs", "work", "https://cluster.example")
    merge(ours, theirs)
    kubeconfig(ours, "remit", "https://127.0.0.1:3")
    merge(ours, theirs)
    merged = yaml.safe_load(theirs.read_text())
    servers = {entry["name"]: entry["cluster"]["server"] for entry in merged["clusters"]}
    assert servers == {"work": "https://cluster.example", "remit": "https://127.0.0.1:3"}
    assert [entry["name"] for entry in merged["users"]] == ["work", "remit"]
    assert merged["current-context"] == "remit"
    assert theirs.stat().st_mode & 0o777 == 0o600


def test_merging_into_a_new_file_makes_its_folder(tmp_path: Path) -> None:
    ours = kubeconfig(tmp_path / "ours", "remit", "https://127.0.0.1:2")
    merge(ours, tmp_path / "new" / "config")
    assert yaml.safe_load((tmp_path / "new" / "config").read_text()) == yaml.safe_load(ours.read_text())


def test_what_is_no_kubeconfig_is_left_alone(tmp_path: Path) -> None:
    ours = kubeconfig(tmp_path / "ours", "remit", "https://127.0.0.1:2")
    target = tmp_path / "notes.txt"
    target.write_text("remember the milk")
    with pytest.raises(InvalidInput, match="is not a kubeconfig"):
        merge(ours, target)
    assert target.read_text() == "remember the milk"
