from __future__ import annotations

import os
from pathlib import Path

import pytest

from remit.errors import InvalidInput
from remit.sandbox import AttemptCgroup, CgroupTree, Limits
from remit.sandbox.cgrouptree import Mount, _prepare_v2, own_folder, parse_membership, parse_mounts

MOUNTINFO = """\
22 1 0:20 / /proc rw - proc proc rw
31 22 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
32 22 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
33 22 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
"""
LIMITS = Limits(memory_bytes=1 << 20, cpu_cores=0.25, pids=9)


def test_mounts_are_read_from_mountinfo():
    cpu, memory, unified = parse_mounts(MOUNTINFO)
    assert (cpu.version, {"cpu", "cpuacct"} <= cpu.controllers) == (1, True)
    assert (memory.root, memory.point) == ("/docker/abc", Path("/sys/fs/cgroup/memory"))
    assert (unified.version, unified.controllers) == (2, frozenset())


def test_membership_is_by_controller():
    found = parse_membership("4:cpu,cpuacct:/a:b\n1:name=systemd:/\n0::/user.slice\n")
    assert found == {"cpu": "/a:b", "cpuacct": "/a:b", "name=systemd": "/", "": "/user.slice"}


def test_a_container_sees_a_part_of_its_path(tmp_path):
    (tmp_path / "job").mkdir()
    mount = Mount(1, tmp_path, "/docker/abc", frozenset({"memory"}))
    assert own_folder(mount, "/docker/abc/job") == tmp_path / "job"
    assert own_folder(mount, "/elsewhere") == tmp_path


@pytest.fixture
def v2(tmp_path, monkeypatch) -> CgroupTree:
    """A folder that has what the kernel would put into a new v2 cgroup."""
    files = ("cgroup.procs", "memory.max", "memory.swap.max", "cpu.max", "pids.max")
    real = Path.mkdir

    def mkdir(self: Path, **options: object) -> None:
        real(self, **options)
        for name in files:
            (self / name).touch()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    return CgroupTree(2, dict.fromkeys(("memory", "cpu", "pids", "blkio"), tmp_path))


def test_v2_limits_and_usage(v2):
    cgroup = AttemptCgroup.create(v2, "one", LIMITS)
    (folder,) = cgroup.paths
    written = {path.name: path.read_text() for path in folder.iterdir()}
    assert written["memory.max"] == "1048576"
    assert written["memory.swap.max"] == "0"
    assert written["cpu.max"] == "25000 100000"
    assert written["pids.max"] == "9"
    assert cgroup.joining() == ("join_cgroups", [str(folder)], "cgroup.procs")
    (folder / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (folder / "memory.peak").write_text("777\n")
    (folder / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    (folder / "io.stat").write_text("8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n")
    used = cgroup.usage()
    assert (used.cpu_seconds, used.max_memory_bytes) == (2.5, 777)
    assert (used.read_bytes, used.written_bytes) == (11, 22)
    assert cgroup.oom_kills() == 1


def test_what_a_kernel_does_not_count_is_none(v2):
    used = AttemptCgroup.create(v2, "one", Limits()).usage()
    assert (used.cpu_seconds, used.max_memory_bytes, used.read_bytes) == (None, None, None)


def test_a_tiny_share_of_cpu_is_the_least_the_kernel_takes(v2):
    (folder,) = AttemptCgroup.create(v2, "one", Limits(cpu_cores=0.001)).paths
    assert (folder / "cpu.max").read_text() == "1000 100000"


def test_a_limit_that_is_refused_leaves_nothing(tmp_path):
    tree = CgroupTree(2, {"memory": tmp_path})
    with pytest.raises(FileNotFoundError):  # an ordinary folder has no memory.max
        AttemptCgroup.create(tree, "one", LIMITS)
    assert list(tmp_path.iterdir()) == []


def test_a_delegated_v2_subtree_is_prepared(tmp_path):
    """The files are the kernel's; what is written to them, and where, is what matters."""
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids rdma")
    (tmp_path / "cgroup.subtree_control").write_text("")
    reasons: list[str] = []
    base = _prepare_v2(tmp_path, Mount(2, tmp_path, "/", frozenset()), reasons)
    assert base is not None, reasons
    assert base.parent == tmp_path / "remit"
    for folder in (tmp_path, tmp_path / "remit", base):
        assert (folder / "cgroup.subtree_control").read_text() == "+cpu +io +memory +pids"


def test_a_v2_tree_without_controllers_says_so(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("")
    reasons: list[str] = []
    assert _prepare_v2(tmp_path, Mount(2, tmp_path, "/", frozenset()), reasons) is None
    assert "controllers are none" in reasons[0]


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "a/b", "a\0b"])
def test_a_name_cannot_leave_the_tree(tmp_path, name):
    with pytest.raises(InvalidInput, match="cannot name a cgroup"):
        AttemptCgroup.create(CgroupTree(2, {"memory": tmp_path}), name, Limits())


def test_a_delegated_cgroup_with_other_processes_is_left_alone(tmp_path):
    for name, text in {
        "cgroup.controllers": "memory pids",
        "cgroup.subtree_control": "",
        "cgroup.type": "domain",
        "cgroup.procs": f"1\n{os.getpid()}\n",
    }.items():
        (tmp_path / name).write_text(text)
    reasons: list[str] = []
    assert _prepare_v2(tmp_path, Mount(2, tmp_path, "/", frozenset()), reasons) is None
    assert "other processes are in it" in reasons[0]
    assert not (tmp_path / "remit-operator").exists()


def test_an_operator_alone_in_its_cgroup_moves_to_a_leaf(tmp_path, monkeypatch):
    for name, text in {
        "cgroup.controllers": "memory pids",
        "cgroup.subtree_control": "",
        "cgroup.type": "domain",
        "cgroup.procs": f"{os.getpid()}\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert _prepare_v2(tmp_path, Mount(2, tmp_path, "/", frozenset()), []) is not None
    assert (tmp_path / "remit-operator" / "cgroup.procs").read_text() == str(os.getpid())
