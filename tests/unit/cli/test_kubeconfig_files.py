from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from remit.cli.connect import connected
from remit.errors import InvalidInput
from remit.kube.kubeconfig import extension, is_of_server, merge, state_dir_of


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


def test_of_several_files_the_first_says_which_context_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = kubeconfig(tmp_path / "work", "work", "https://cluster.example")
    own = kubeconfig(tmp_path / "own", "remit", "https://127.0.0.1:1", extensions=[extension(tmp_path)])
    monkeypatch.setenv("KUBECONFIG", f"{work}:{own}")
    assert state_dir_of(None) is None
    assert state_dir_of(None, "remit") == tmp_path
    monkeypatch.setenv("KUBECONFIG", f"{own}:{work}")
    assert state_dir_of(None) == tmp_path
    assert state_dir_of(None, "work") is None


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


@pytest.mark.parametrize(
    ("written", "is_its"),
    [("https://10.0.0.1:6443", True), ("https://10.0.0.1:6443/", True), ("https://127.0.0.1:6443", False)],
)
def test_a_state_directory_is_of_the_server_that_it_names(tmp_path: Path, written: str, is_its: bool) -> None:
    assert is_of_server(tmp_path, "https://10.0.0.1:6443"), "remit operator writes no kubeconfig"
    kubeconfig(tmp_path / "kubeconfig", "remit", written)
    assert is_of_server(tmp_path, "https://10.0.0.1:6443") is is_its
    (tmp_path / "kubeconfig").write_text("clusters: 5")
    assert not is_of_server(tmp_path, "https://10.0.0.1:6443")


async def test_the_trail_of_another_servers_operator_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default, told = tmp_path / "default", tmp_path / "told"
    for folder in (default, told):
        folder.mkdir()
    monkeypatch.setattr("remit.cli.connect.default_state_dir", lambda: default)
    kubeconfig(default / "kubeconfig", "remit", "https://127.0.0.1:1")
    cluster = kubeconfig(tmp_path / "cluster", "prod", "https://10.0.0.1:6443")
    own = kubeconfig(tmp_path / "own", "remit", "https://127.0.0.1:2", extensions=[extension(told)])

    async def looked_at(*where: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        async with connected(where[0], state_dir=where[1] if len(where) > 1 else None) as connection:
            return connection.own_state_dirs, connection.state_dirs

    assert await looked_at(cluster) == ((), (default,))
    assert await looked_at(default / "kubeconfig") == ((default,), (default,))
    assert await looked_at(own) == ((told,), (told, default))
    assert await looked_at(cluster, told) == ((told,), (told, default)), "whoever names it knows"
