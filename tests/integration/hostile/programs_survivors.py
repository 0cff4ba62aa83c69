"""Programs that try to outlive their attempt, or to end another attempt."""

from __future__ import annotations

from remit.backends.outcome import ExitReason
from remit.sandbox import Layer

from .case import EXITED, Program

ENDED = (*EXITED, ExitReason.TIMED_OUT, ExitReason.SIGNALED)


def survivor(name: str, attack: str, **changes: object) -> Program:
    """Declares an attack that leaves a descendant. The test searches for it outside by the folder's name, which is in
    its argv."""
    return Program(
        name=name,
        wants="to go on running after the timeout",
        control="KILL to the init of its pid namespace, and to its cgroup; else a supervisor outside its domain",
        attack=f"print('TRIED', flush=True)\n{attack}",
        ends=(ExitReason.TIMED_OUT,),
        timeout=0.7,
        tried=False,
        **changes,
    )


CASES = [
    survivor(
        "a daemon that forks twice",
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: linger()\n    os._exit(0)\nlinger()",
    ),
    survivor("a daemon in its own session", "if os.fork() == 0: os.setsid(); linger()\nlinger()"),
    survivor(
        "a daemon that ignores TERM",
        "for n in (1, 2, 3, 15): signal.signal(n, signal.SIG_IGN)\nif os.fork() == 0: os.setsid()\nlinger()",
    ),
    survivor("a daemon that stops itself", "if os.fork() == 0: os.kill(os.getpid(), signal.SIGSTOP)\nlinger()"),
    survivor(
        "a daemon that will not die with its parent",
        "checked(libc.prctl(1, 0, 0, 0, 0))\nif os.fork() == 0: os.setsid(); libc.prctl(36, 1, 0, 0, 0)\nlinger()",
    ),
    survivor(
        "one that runs ahead of the killer",
        "first = os.getpid()\n"
        "while True:\n"
        "    pid = os.fork()\n"
        "    if pid: os._exit(0) if os.getpid() != first else linger()\n"
        "    time.sleep(0.01)",
    ),
    Program(
        name="a background child that holds the output open",
        wants="to have the operator wait for it for ever",
        control="the end of the attempt is the end of its pid namespace",
        attack="if os.fork() == 0: os.setsid(); linger()",
    ),
    Program(
        name="forge the exit code",
        wants="to have a failure told as a success, by the descriptors that bubblewrap reports it with",
        control="seccomp, which refuses pidfd_getfd; descriptors that are not inherited",
        layer=Layer.SECCOMP,
        exits=7,
        stopped_by=("EPERM", "EACCES", "ENXIO", "EBADF", "ENOSYS"),
        attack="""
            init = syscall(434, 1, 0)
            for number in range(16):
                for way in (lambda: os.open(f'/proc/1/fd/{number}', 1), lambda: syscall(438, init, number, 0)):
                    try: target = way()
                    except FileNotFoundError: continue
                    except OSError as error: stopped(error); continue
                    if 'pipe' not in os.readlink(f'/proc/self/fd/{target}') and number > 2: won(number)
                    if number > 2: os.write(target, struct.pack('Q', 1)); os.write(target, b'{ "exit-code": 0 }')
            print('TRIED', flush=True)
            os._exit(7)
        """,
    ),
    Program(
        name="forge the exit code from within PID 1",
        wants="the same by code of its own in the memory of the process that reports it, which has the same user",
        control="a /proc in which PID 1 is covered; descriptors of the host's /proc are nowhere to be had",
        exits=7,
        stopped_by=("ENOENT", "EROFS", "EACCES", "EPERM"),
        attack="""
            for folder in ('/proc/1', '/proc/1/task/1'):
                try:
                    target = next(int(name) for name in os.listdir(f'{folder}/fd')
                                  if 'eventfd' in os.readlink(f'{folder}/fd/{name}'))
                    returns_to = int(open(f'{folder}/syscall').read().split()[-1], 16)
                    memory = os.open(f'{folder}/mem', os.O_RDWR)
                except OSError as error: stopped(error); continue
                # write(target, &one, 8), and again pause(), where it comes back from waiting
                code = (b'\\x6a\\x01\\x48\\x89\\xe6\\xbf' + struct.pack('I', target) + b'\\xba\\x08\\x00\\x00\\x00'
                        b'\\xb8\\x01\\x00\\x00\\x00\\x0f\\x05\\xb8\\x22\\x00\\x00\\x00\\x0f\\x05\\xeb\\xf7')
                os.pwrite(memory, code, returns_to)
                won('its code')
            print('TRIED', flush=True)
            os._exit(7)
        """,
    ),
    Program(
        name="kill everything in sight",
        wants="to end the operator or another task",
        control="a pid namespace of its own",
        ends=ENDED,
        stopped_by=("EPERM", "ESRCH"),
        attack="""
            for pid in (scene['pid'], scene['operator'], 1):
                try: os.kill(pid, signal.SIGKILL); won(pid) if pid != 1 else print('TRIED', flush=True)
                except OSError as error: stopped(error)
        """,
    ),
    Program(
        name="kill by broadcast",
        wants="to end every process of its user",
        control="a pid namespace of its own",
        ends=ENDED,
        tried=False,
        attack="signal.signal(15, signal.SIG_IGN); print('TRIED', flush=True); os.kill(-1, signal.SIGKILL)",
    ),
    Program(
        name="stop the operator by its group",
        wants="to stop the process group that it was started in",
        control="a session of its own; a pid namespace",
        ends=ENDED,
        attack="""
            if os.getpgid(0) == 0 or os.getsid(0) == 0: won('shares a group with somebody outside')
            os.killpg(os.getpgid(0), signal.SIGCONT)
        """,
    ),
]
