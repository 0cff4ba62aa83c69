"""Programs that try to affect the host's other processes, and files that they may not open."""

from __future__ import annotations

from .case import Program

UNREACHABLE = ("ESRCH", "EPERM", "EACCES")
UNTOUCHED = ("ENOENT", "EPERM", "EACCES")
_CONTROL = "a pid namespace of its own; else seccomp, which lets it speak of itself only"

CASES = [
    *(
        Program(name=name, wants=wants, control=_CONTROL, stopped_by=UNREACHABLE, outside="anybody", attack=attack)
        for name, wants, attack in (
            (
                "set another process's limits",
                "to starve the operator of files or memory",
                "won(resource.prlimit(scene['pid'], resource.RLIMIT_CORE, (0, 0)))",
            ),
            (
                "lower another process's priority",
                "to keep the operator from its processor",
                "os.setpriority(os.PRIO_PROCESS, scene['pid'], 19); won('lowered')",
            ),
            (
                "move another process to one processor",
                "the same by its affinity",
                "os.sched_setaffinity(scene['pid'], {min(os.sched_getaffinity(0))}); won('moved')",
            ),
            (
                "change another process's scheduler",
                "the same by its class",
                "os.sched_setscheduler(scene['pid'], os.SCHED_BATCH, os.sched_param(0)); won('changed')",
            ),
        )
    ),
    Program(
        name="signal another process",
        wants="to end or to stop what runs as the same user",
        control="a pid namespace of its own; Landlock's scope",
        stopped_by=UNREACHABLE,
        outside="anybody",
        attack="os.kill(scene['pid'], signal.SIGCONT); won('signalled')",
    ),
    Program(
        name="kill its own supervisor",
        wants="to have nobody left who could end it",
        control="PID 1 is deaf to its own; a supervisor outside the domain",
        attack="""
            for number in (signal.SIGSTOP, signal.SIGQUIT, signal.SIGTERM, signal.SIGKILL):
                try: os.kill(os.getppid(), number)
                except OSError as error: stopped(error)
        """,
    ),
    *(
        Program(
            name=name,
            wants=wants,
            control="a mount namespace; a user of its own, else seccomp",
            stopped_by=UNTOUCHED,
            outside="anybody",
            attack=attack,
        )
        for name, wants, attack in (
            (
                "open the operator's files to all",
                "to change a mode, for which Landlock has no right",
                "os.chmod(scene['file'], 0o666); won('changed'); os.chmod(scene['file'], 0o644)",
            ),
            (
                "change the times of the operator's files",
                "to have a cache or a backup go wrong",
                "os.utime(scene['file'], ns=(1, 1)); won('changed')",
            ),
            (
                "watch the operator's folder",
                "to hear the names of its files by inotify",
                "checked(libc.inotify_add_watch(libc.inotify_init1(0), scene['folder'].encode(), 4095)); won(1)",
            ),
        )
    ),
    Program(
        name="a datagram from a pair of sockets",
        wants="to send to a service of the host by a socket that it may have",
        control="a mount namespace; else seccomp, which knows pairs of streams only",
        stopped_by=UNTOUCHED,
        attack="""
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            ours.sendto(b'hello', scene['unix']); won('sent')
        """,
    ),
]
