"""Programs that try to exhaust the resources of the host."""

from __future__ import annotations

from remit.backends.outcome import ExitReason
from remit.sandbox import Limits

from .case import EXITED, MEBIBYTE, Program

EITHER = (*EXITED, ExitReason.SIGNALED, ExitReason.OOM_KILLED)
TINY = Limits(memory_bytes=96 * MEBIBYTE, pids=24, disk_bytes=4 * MEBIBYTE, cpu_cores=1.0)

CASES = [
    Program(
        name="fork bomb",
        wants="to leave the host without a process to start",
        control="the pids cgroup, or RLIMIT_NPROC in a user namespace of its own",
        stopped_by=("EAGAIN",),
        limits=TINY,
        attack="""
            children = 0
            while children < 200:
                if os.fork() == 0: linger()
                children += 1
            won(children)
        """,
    ),
    Program(
        name="fork bomb of grandchildren",
        wants="the same, with nobody who could be waited for",
        control="the pids cgroup, or RLIMIT_NPROC; the death of the pid namespace",
        ends=(*EITHER, ExitReason.TIMED_OUT),
        timeout=3,
        limits=TINY,
        tried=False,
        attack="""
            print('TRIED', flush=True)
            born = 0
            while True:
                try: pid = os.fork()
                except OSError: time.sleep(0.01); continue
                if pid == 0:
                    os.setsid()
                    continue
                born += 1
                alive = sum(name.isdigit() for name in os.listdir('/proc'))
                if alive > 40: won(alive)
        """,
    ),
    Program(
        name="thread bomb",
        wants="the same by threads, which a count of processes would miss",
        control="the pids cgroup, or RLIMIT_NPROC",
        limits=TINY,
        ends=EITHER,
        attack="""
            threading.stack_size(65536)
            started = 0
            try:
                while started < 200:
                    threading.Thread(target=linger, daemon=True).start(); started += 1
                won(started)
            except RuntimeError: print('STOPPED EAGAIN', flush=True)
            print('TRIED', flush=True)
            os._exit(0)
        """,
        stopped_by=("EAGAIN",),
    ),
    Program(
        name="memory bomb",
        wants="to have the host's memory, or a neighbour killed for it",
        control="the memory cgroup (OOMKilled), or RLIMIT_AS",
        limits=TINY,
        ends=EITHER,
        tried=False,
        attack="""
            held = []
            try:
                while len(held) < 512: held.append(bytearray(b'x' * (1 << 20)))
                won(len(held))
            except MemoryError: print('STOPPED ENOMEM')
        """,
    ),
    Program(
        name="memory bomb in many processes",
        wants="to have more memory than one process may, in several",
        control="the memory cgroup; without one only RLIMIT_AS times the number of processes",
        limits=TINY,
        ends=EITHER,
        tried=False,
        attack="""
            for _ in range(8):
                if os.fork() == 0:
                    try: held = bytearray(b'x' * (80 << 20))
                    except MemoryError: os._exit(1)
                    linger()
            # Alone, eight such children hold 640 MiB. A cgroup kills at 96; rlimits bound each to 96.
            largest = 0
            for _ in range(20):
                time.sleep(0.05)
                for name in os.listdir('/proc'):
                    if name.isdigit():
                        try: text = open(f'/proc/{name}/statm').read().split()
                        except OSError: continue
                        largest = max(largest, (int(text[1]) - int(text[2])) * 4096)  # files are nobody's memory
            if largest > 97 << 20: won(largest)
        """,
    ),
    *(
        Program(
            name=f"disk bomb in {folder}",
            wants="to fill the host's disk or, by a tmpfs, its memory",
            control="the size of each tmpfs",
            stopped_by=("ENOSPC",),
            bare_stopped_by=("EFBIG", "EACCES"),
            limits=TINY,
            attack=f"""
                with open('{folder}/big', 'wb', buffering=0) as file:
                    for written in range(64): file.write(b'x' * (1 << 20))
                won(written)
            """,
        )
        for folder in ("/workspace", "/tmp", "/dev/shm")
    ),
    Program(
        name="a disk bomb anywhere else",
        wants="to find a place that can be written and has no size",
        control="everything but three sized tmpfs is read-only",
        attack="""
            import pathlib
            for top in pathlib.Path('/').iterdir():
                for folder in (top, *(inner for inner in (top.iterdir() if top.is_dir() else ()) if inner.is_dir())):
                    if str(folder).startswith(('/proc', '/tmp', '/workspace', '/dev/shm')): continue
                    try: (folder / 'probe').write_text('x'); won(folder)
                    except OSError: pass
        """,
    ),
    Program(
        name="a file larger than allowed",
        wants="to write a single file without end",
        control="RLIMIT_FSIZE",
        stopped_by=("EFBIG",),
        limits=Limits(memory_bytes=96 * MEBIBYTE, pids=24, disk_bytes=64 * MEBIBYTE, file_bytes=MEBIBYTE),
        attack="""
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            with open('/workspace/big', 'wb', buffering=0) as file:
                file.write(b'x' * (1 << 20)); file.write(b'x')
            won('more than a mebibyte')
        """,
    ),
    Program(
        name="empty files without end",
        wants="to use up the kernel's memory with files that take no room on the disk",
        control="the memory cgroup, which counts inodes; without one only timeoutSeconds",
        limits=TINY,
        ends=(*EITHER, ExitReason.TIMED_OUT),
        timeout=5,
        tried=False,
        # Half as many again as the cgroup's limit. Where nothing limits them, more would only exhaust the machine.
        attack="""
            print('TRIED', flush=True)
            for made in range(150_000):
                os.close(os.open(f'/workspace/{made}', os.O_CREAT | os.O_WRONLY))
            time.sleep(60)
            won('time')
        """,
    ),
    Program(
        name="descriptor bomb",
        wants="to use up the host's table of open files",
        control="RLIMIT_NOFILE",
        stopped_by=("EMFILE",),
        attack="""
            held = []
            while len(held) < 4096: held.append(os.dup(1))
            won(len(held))
        """,
    ),
    Program(
        name="raise a limit",
        wants="to lift its own rlimits",
        control="hard limits; no CAP_SYS_RESOURCE",
        stopped_by=("EPERM",),
        attack="""
            for name in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE):
                most = resource.getrlimit(name)[1]
                try: resource.setrlimit(name, (most + 1, most + 1)); won(name)
                except ValueError: print('STOPPED EPERM')
        """,
    ),
    Program(
        name="a core dump",
        wants="to write memory, secrets in it, to the host's core pattern",
        control="RLIMIT_CORE of 0",
        attack="""
            if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0): won('core dumps')
            if os.fork() == 0: os.abort()
            _, status = os.wait()
            if os.WCOREDUMP(status): won('dumped')
        """,
    ),
    Program(
        name="output bomb",
        wants="to fill the operator's memory or disk with what it says",
        control="a ring of files of bounded size, and a tail of bounded length",
        limits=TINY,
        attack="""
            for stream in (1, 2):
                for _ in range(200): os.write(stream, b'x' * (1 << 16))
        """,
    ),
    Program(
        name="run for ever",
        wants="to keep a place for good",
        control="timeoutSeconds, and KILL after the grace",
        ends=(ExitReason.TIMED_OUT,),
        timeout=0.5,
        tried=False,
        attack="""
            for number in range(1, 65):
                try: signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError): pass
            linger()
        """,
    ),
    Program(
        name="shared memory that outlives its maker",
        wants="to leave System V memory behind that nobody's limit counts",
        control="an ipc namespace of its own; the memory cgroup",
        limits=TINY,
        attack="""
            before = len(open('/proc/sysvipc/shm').readlines())
            if before > 1: won('segments of others', before - 1)
            libc.shmget(0, 1 << 20, 0o1600)
        """,
    ),
    Program(
        name="real-time priority",
        wants="to starve the host of processor time by priority",
        control="no capabilities; RLIMIT_RTPRIO of 0",
        stopped_by=("EPERM", "EACCES"),
        attack="""
            for attempt in (lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)),
                            lambda: os.setpriority(os.PRIO_PROCESS, 0, -20)):
                try: attempt(); won('priority')
                except OSError as error: stopped(error)
        """,
    ),
]
