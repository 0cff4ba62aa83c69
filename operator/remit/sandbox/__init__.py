"""The sandbox of a command, and what this host offers for it."""

from remit.sandbox.bare import BareLaunch
from remit.sandbox.cgroup import AttemptCgroup, CgroupSpec, CgroupUsage, kill_cgroups, remove_cgroups
from remit.sandbox.cgrouptree import beside
from remit.sandbox.fencing import fence
from remit.sandbox.forkserver import (
    KILL_GRACE_SECONDS,
    TELL_SECONDS,
    Execute,
    ForkedProcess,
    ForkServer,
    Job,
    Listen,
    Supervise,
    end_work,
    extend_deadline,
    fork_server,
)
from remit.sandbox.forkserver.supervise import STOP
from remit.sandbox.identity import closed_ancestor, reader_group, service_user, with_group
from remit.sandbox.launch import Launch
from remit.sandbox.memory import sealed_memory, shared_memory
from remit.sandbox.model import (
    Ability,
    Bare,
    Bubblewrap,
    CgroupTree,
    ClaimMount,
    Confinement,
    EmptyMount,
    FilesMount,
    Host,
    HostMount,
    Identities,
    Layer,
    Limits,
    MemoryBudget,
    Mount,
    MountedFile,
    Network,
    Plan,
)
from remit.sandbox.mounts import Mounts
from remit.sandbox.planning import NETWORK_PACE, NOT_ENFORCED, plan
from remit.sandbox.probe import probe_host
from remit.sandbox.processes import (
    ProcessHandle,
    boot_id,
    init_of,
    kill_session,
    pid_namespace,
    start_time,
    tasks_of_this_user,
)
from remit.sandbox.programs import explain_absence
from remit.sandbox.rlimits import rlimits
from remit.sandbox.stdinfile import open_stdin_file

__all__ = [
    "KILL_GRACE_SECONDS",
    "NETWORK_PACE",
    "NOT_ENFORCED",
    "STOP",
    "TELL_SECONDS",
    "Ability",
    "AttemptCgroup",
    "Bare",
    "BareLaunch",
    "Bubblewrap",
    "CgroupSpec",
    "CgroupTree",
    "CgroupUsage",
    "ClaimMount",
    "Confinement",
    "EmptyMount",
    "Execute",
    "FilesMount",
    "ForkServer",
    "ForkedProcess",
    "Host",
    "HostMount",
    "Identities",
    "Job",
    "Launch",
    "Layer",
    "Limits",
    "Listen",
    "MemoryBudget",
    "Mount",
    "MountedFile",
    "Mounts",
    "Network",
    "Plan",
    "ProcessHandle",
    "Supervise",
    "beside",
    "boot_id",
    "closed_ancestor",
    "end_work",
    "explain_absence",
    "extend_deadline",
    "fence",
    "fork_server",
    "init_of",
    "kill_cgroups",
    "kill_session",
    "open_stdin_file",
    "pid_namespace",
    "plan",
    "probe_host",
    "reader_group",
    "remove_cgroups",
    "rlimits",
    "sealed_memory",
    "service_user",
    "shared_memory",
    "start_time",
    "tasks_of_this_user",
    "with_group",
]
