from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from remit.errors import InvalidInput
from remit.sandbox import AttemptCgroup, CgroupSpec, CgroupTree, Limits
from remit.sandbox.cgrouptree import (
    Mount,
    _make_room_in,
    _own_v2,
    _prepare_v2,
    own_folder,
    parse_membership,
    parse_mounts,
)

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
    """Provides a folder with the files of a new cgroup of version 2."""
    files = ("cgroup.procs", "memory.max", "memory.swap.max", "cpu.max", "pids.max", "io.max")
    real = Path.mkdir

    def mkdir(self: Path, **options: object) -> None:
        real(self, **options)
        for name in files:
            (self / name).touch()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    return CgroupTree(2, dict.fromkeys(("memory", "cpu", "pids", "blkio"), tmp_path))


def test_v2_limits_and_usage(v2):
    cgroup = AttemptCgroup.create(CgroupSpec(v2, LIMITS), "one")
    (folder,) = cgroup.paths
    written = {path.name: path.read_text() for path in folder.iterdir()}
    assert written["memory.max"] == "1048576"
    assert written["memory.swap.max"] == "0"
    assert written["cpu.max"] == "25000 100000"
    assert written["pids.max"] == "9"
    assert cgroup.joining() == ("join_cgroups", [str(folder)], "cgroup.procs")
    (folder / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\nnr_throttled 3\nthrottled_usec 1500000\n")
    (folder / "pids.peak").write_text("7\n")
    (folder / "pids.events").write_text("max 4\n")
    (folder / "memory.peak").write_text("777\n")
    (folder / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    (folder / "io.stat").write_text("8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n")
    used = cgroup.usage()
    assert (used.cpu_seconds, used.max_memory_bytes) == (2.5, 777)
    assert (used.read_bytes, used.written_bytes) == (11, 22)
    assert (used.throttled_seconds, used.max_tasks) == (1.5, 7)
    assert (cgroup.oom_kills(), cgroup.refused_tasks()) == (1, 4)


def test_v2_bandwidth_is_given_for_each_disk(v2, monkeypatch):
    written = []
    monkeypatch.setattr("remit.sandbox.cgroup.write_files", written.extend)
    AttemptCgroup.create(CgroupSpec(v2, Limits(disk_bytes_per_second=5), ("8:0", "259:0")), "one")
    values = [("io.max", "8:0 rbps=5 wbps=5"), ("io.max", "259:0 rbps=5 wbps=5")]
    assert [(Path(path).name, value) for path, value, _ in written] == values


@pytest.fixture
def v1(tmp_path, monkeypatch) -> CgroupTree:
    """Provides a folder for each controller with the files of a new cgroup of version 1."""
    files = {
        "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        "pids": ("pids.max",),
        "cpu": ("cpu.cfs_period_us", "cpu.cfs_quota_us"),
        "cpuacct": (),
        "blkio": ("blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"),
    }
    for controller in files:
        (tmp_path / controller).mkdir()
    real = Path.mkdir

    def mkdir(self: Path, **options: object) -> None:
        real(self, **options)
        for name in files[self.parent.name]:
            (self / name).touch()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    return CgroupTree(1, {controller: tmp_path / controller for controller in files})


def test_v1_limits_and_usage(v1, tmp_path):
    limits = replace(LIMITS, disk_bytes_per_second=5)
    cgroup = AttemptCgroup.create(CgroupSpec(v1, limits, ("8:0",)), "one")
    written = {path.name: path.read_text() for folder in cgroup.paths for path in folder.iterdir()}
    assert written == {
        "memory.limit_in_bytes": "1048576",
        "memory.memsw.limit_in_bytes": "1048576",
        "pids.max": "9",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "25000",
        "blkio.throttle.read_bps_device": "8:0 5",
        "blkio.throttle.write_bps_device": "8:0 5",
    }
    for name, text in {
        "memory/one/memory.max_usage_in_bytes": "777\n",
        "memory/one/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
        "pids/one/pids.events": "max 4\n",
        "pids/one/pids.peak": "7\n",
        "cpu/one/cpu.stat": "nr_periods 9\nnr_throttled 3\nthrottled_time 1500000000\n",
        "cpuacct/one/cpuacct.usage": "2500000000\n",
        "blkio/one/blkio.throttle.io_service_bytes": "8:0 Read 10\n8:0 Write 20\nTotal 30\n",
    }.items():
        (tmp_path / name).write_text(text)
    used = cgroup.usage()
    assert (used.cpu_seconds, used.max_memory_bytes, used.read_bytes, used.written_bytes) == (2.5, 777, 10, 20)
    assert (used.throttled_seconds, used.max_tasks) == (1.5, 7)
    assert (cgroup.oom_kills(), cgroup.refused_tasks()) == (1, 4)


def test_a_kernel_that_does_not_account_for_swap_is_no_error(v1, tmp_path, monkeypatch):
    filled = Path.mkdir

    def mkdir(self: Path, **options: object) -> None:
        filled(self, **options)
        (self / "memory.memsw.limit_in_bytes").unlink(missing_ok=True)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    AttemptCgroup.create(CgroupSpec(v1, LIMITS), "one")
    assert (tmp_path / "memory/one/memory.limit_in_bytes").read_text() == "1048576"


def test_refusals_are_unknown_where_nothing_counts_processes(tmp_path):
    assert (
        AttemptCgroup.create(CgroupSpec(CgroupTree(2, {"memory": tmp_path}), Limits()), "one").refused_tasks() is None
    )


def test_counters_that_the_kernel_lacks_are_none(v2):
    used = AttemptCgroup.create(CgroupSpec(v2, Limits()), "one").usage()
    assert (used.cpu_seconds, used.max_memory_bytes, used.read_bytes) == (None, None, None)


def test_a_tiny_share_of_cpu_is_the_least_the_kernel_takes(v2):
    (folder,) = AttemptCgroup.create(CgroupSpec(v2, Limits(cpu_cores=0.001)), "one").paths
    assert (folder / "cpu.max").read_text() == "1000 100000"


def test_a_limit_that_is_refused_leaves_nothing(tmp_path):
    tree = CgroupTree(2, {"memory": tmp_path})
    with pytest.raises(FileNotFoundError):  # an ordinary folder has no memory.max
        AttemptCgroup.create(CgroupSpec(tree, LIMITS), "one")
    assert list(tmp_path.iterdir()) == []


def test_a_delegated_v2_subtree_is_prepared(tmp_path):
    """The kernel provides the files; the test checks what is written to which of them."""
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids rdma")
    (tmp_path / "cgroup.subtree_control").write_text("")
    reasons: list[str] = []
    base = _prepare_v2(tmp_path, Mount(2, tmp_path, "/", frozenset()), reasons)
    assert base is not None, reasons
    assert base.parent == tmp_path / "remit"
    for folder in (tmp_path, tmp_path / "remit", base):
        assert (folder / "cgroup.subtree_control").read_text() == "+cpu +io +memory +pids"


def test_a_v2_tree_without_controllers_reports_it(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("")
    reasons: list[str] = []
    assert _prepare_v2(tmp_path, Mount(2, tmp_path, "/", frozenset()), reasons) is None
    assert "controllers are none" in reasons[0]


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "a/b", "a\0b"])
def test_a_name_cannot_leave_the_tree(tmp_path, name):
    with pytest.raises(InvalidInput, match="cannot name a cgroup"):
        AttemptCgroup.create(CgroupSpec(CgroupTree(2, {"memory": tmp_path}), Limits()), name)


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


def test_an_operator_uses_the_cgroup_above_that_its_supervisor_left(tmp_path):
    """Both are in the leaf then, and the cgroup itself has no processes."""
    top = tmp_path / "scope"
    top.mkdir()
    for name, text in {
        "cgroup.controllers": "memory pids",
        "cgroup.subtree_control": "",
        "cgroup.type": "domain",
        "cgroup.procs": f"{os.getpid()}\n",
    }.items():
        (top / name).write_text(text)
    _make_room_in(top)
    assert (top / "remit-operator" / "cgroup.procs").read_text() == str(os.getpid())
    (top / "cgroup.procs").write_text("")  # as the kernel does
    mount = Mount(2, tmp_path, "/", frozenset())
    own = _own_v2(mount, {"": "/scope/remit-operator"})
    assert own == top
    base = _prepare_v2(own, mount, [])
    assert base is not None
    assert base.parent == top / "remit"


def test_no_room_is_made_where_children_have_their_controllers(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("memory pids")
    (tmp_path / "cgroup.subtree_control").write_text("memory pids")
    _make_room_in(tmp_path)
    assert not (tmp_path / "remit-operator").exists()
