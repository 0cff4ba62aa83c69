"""Programs that request more from the kernel than they may have."""

from __future__ import annotations

from remit.sandbox import Layer

from .case import Program

REFUSED = ("EPERM", "EACCES")
ABSENT = (*REFUSED, "ENOSYS")

CASES = [
    Program(
        name="mount a file system",
        wants="to lay a file system of its own over the system's",
        control="no capabilities; seccomp",
        stopped_by=REFUSED,
        outside="root",
        attack="""
            os.makedirs('/tmp/remit-hostile-mount', exist_ok=True)
            checked(libc.mount(b'none', b'/tmp/remit-hostile-mount', b'tmpfs', 0, None))
            won('mounted')
            libc.umount2(b'/tmp/remit-hostile-mount', 0)
        """,
    ),
    Program(
        name="mount with the new calls",
        wants="to mount by fsopen, which older filters do not know",
        control="no capabilities; seccomp",
        stopped_by=ABSENT,
        outside="root",
        attack="os.close(syscall(430, b'tmpfs', 0)); won('fsopen')",
    ),
    Program(
        name="remount the root writable",
        wants="to write where only reading is allowed",
        control="no capabilities; a locked mount",
        stopped_by=REFUSED,
        attack="checked(libc.mount(None, b'/', None, 32 | 4096, None)); won('writable')",
    ),
    Program(
        name="unmount what hides the host",
        wants="to uncover what lies under a mount",
        control="no capabilities; locked mounts",
        stopped_by=(*REFUSED, "EINVAL"),
        attack="""
            for point in (b'/proc', b'/dev', b'/workspace', b'/usr', b'/'):
                try: checked(libc.umount2(point, 2)); won(point)
                except OSError as error: stopped(error)
        """,
    ),
    Program(
        name="chroot",
        wants="to leave a root directory by the classic double chroot",
        control="no capabilities",
        stopped_by=REFUSED,
        outside="root",
        attack="os.chroot('/tmp'); won('chroot')",
    ),
    Program(
        name="pivot the root",
        wants="to swap the root for another",
        control="no capabilities; seccomp",
        stopped_by=(*REFUSED, "EINVAL"),
        attack="syscall(155, b'/workspace', b'/workspace'); won('pivoted')",
    ),
    Program(
        name="make a device node",
        wants="to read the host's disk through a device node of its own",
        control="no capabilities; nodev",
        stopped_by=REFUSED,
        outside="root",
        attack="""
            path = f'/tmp/remit-hostile-{os.getpid()}'
            os.mknod(path, 0o600 | 0o020000, os.makedev(1, 1)); won('node'); os.unlink(path)
        """,
    ),
    Program(
        name="find a device that is a disk",
        wants="to read the host's memory or disk by a device that was left there",
        control="a /dev of its own",
        stopped_by=("ENOENT", "EACCES", "EPERM"),
        attack="""
            for name in ('mem', 'kmem', 'port', 'kmsg', 'sda', 'vda', 'nvme0n1', 'kvm', 'fuse', 'net/tun'):
                try: os.close(os.open(f'/dev/{name}', os.O_RDONLY)); won(name)
                except OSError as error: stopped(error)
        """,
    ),
    Program(
        name="open a file by its handle",
        wants="to open a file of the host by number instead of by name",
        control="no capabilities",
        stopped_by=(*ABSENT, "EOPNOTSUPP", "EBADF", "ESTALE"),
        attack="""
            folder = os.open('/', os.O_RDONLY)
            handle = struct.pack('II16s', 8, 1, struct.pack('II', 2, 0))  # inode 2, a root directory
            fd = syscall(304, folder, handle, os.O_RDONLY)
            won(os.listdir(fd))
        """,
    ),
    Program(
        name="make a user namespace",
        wants="to become root in a user namespace, where the kernel's bugs are",
        control="bubblewrap's --disable-userns; seccomp",
        stopped_by=(*REFUSED, "ENOSPC", "EUSERS"),
        outside="root",
        attack="checked(libc.unshare(0x10000000)); won('user namespace')",
    ),
    Program(
        name="clone into a user namespace",
        wants="the same by clone, which a filter of unshare alone would miss",
        control="bubblewrap's --disable-userns; seccomp",
        stopped_by=(*ABSENT, "ENOSPC", "EUSERS"),
        outside="root",
        attack="""
            pid = syscall(56, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
            if pid == 0: os._exit(0)
            os.waitpid(pid, 0); won('user namespace')
        """,
    ),
    Program(
        name="clone3 into a user namespace",
        wants="the same by clone3, whose flags no filter can read",
        control="bubblewrap's --disable-userns; seccomp answers ENOSYS",
        stopped_by=(*ABSENT, "ENOSPC", "EUSERS"),
        outside="root",
        attack="""
            arguments = struct.pack('8Q', 0x10000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
            pid = syscall(435, arguments, len(arguments))
            if pid == 0: os._exit(0)
            os.waitpid(pid, 0); won('user namespace')
        """,
    ),
    Program(
        name="join the namespaces of PID 1",
        wants="to get into a namespace that bubblewrap came through",
        control="no capabilities; a pid namespace of its own",
        stopped_by=(*ABSENT, "EINVAL", "ENOENT"),
        attack="""
            for name in ('user', 'mnt', 'net', 'pid', 'uts', 'ipc'):
                try:
                    fd = os.open(f'/proc/1/ns/{name}', os.O_RDONLY)
                    syscall(308, fd, 0); won(name)
                except OSError as error: stopped(error)
        """,
    ),
    Program(
        name="become root",
        wants="to be another user",
        control="a user namespace with one user in it",
        stopped_by=(*REFUSED, "EINVAL"),
        attack="""
            for change in (lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgroups([0]),
                           lambda: os.write(os.open('/proc/self/uid_map', os.O_WRONLY), b'0 0 1')):
                try: change(); won(os.getresuid())
                except OSError as error: stopped(error)
        """,
    ),
    Program(
        name="a set-user-ID program",
        wants="to have su or mount run as root for it",
        control="no_new_privs",
        attack="""
            import glob, stat
            programs = [p for p in glob.glob('/usr/bin/*') + glob.glob('/usr/sbin/*')
                        if os.access(p, os.X_OK) and os.stat(p).st_mode & (stat.S_ISUID | stat.S_ISGID)]
            status = open('/proc/self/status').read()
            if 'NoNewPrivs:\\t1' not in status: won('new privileges may come of', programs)
        """,
        outside="anybody",
    ),
    Program(
        name="take capabilities back",
        wants="to get a capability by capset or by keeping it",
        control="an empty bounding set",
        stopped_by=REFUSED,
        attack="""
            held = [line for line in open('/proc/self/status') if line.startswith('Cap') and int(line.split()[1], 16)]
            if held: won(held)
            header = struct.pack('Ii', 0x20080522, 0)
            syscall(126, header, struct.pack('6I', 1 << 21, 1 << 21, 1 << 21, 0, 0, 0)); won('CAP_SYS_ADMIN')
        """,
    ),
    Program(
        name="trace PID 1",
        wants="to take over the process that holds the sandbox together",
        control="a process that cannot be dumped; seccomp",
        stopped_by=(*REFUSED, "ESRCH"),
        layer=Layer.SECCOMP,
        attack="checked(libc.ptrace(16, 1, None, None)); won('attached'); libc.ptrace(17, 1, None, None)",
    ),
    Program(
        name="trace a child",
        wants="to use ptrace at all, which has had ways around filters",
        control="seccomp",
        stopped_by=ABSENT,
        layer=Layer.SECCOMP,
        outside="anybody",
        attack="""
            pid = os.fork()
            if pid == 0: linger()
            try:
                checked(libc.ptrace(16, pid, None, None)); won('attached')
            finally:
                os.kill(pid, 9)
        """,
    ),
    *(
        Program(
            name=name,
            wants=wants,
            control="seccomp",
            stopped_by=ABSENT,
            layer=Layer.SECCOMP,
            outside=outside,
            attack=attack,
        )
        for name, wants, outside, attack in (
            (
                "add a key to a keyring",
                "to leave data in, or read it from, a keyring that other tasks of the user have",
                "anybody",
                "syscall(248, b'user', b'remit-hostile', b'x', 1, -2); won('added')",
            ),
            (
                "list a keyring",
                "to read the keys of the operator's session",
                "anybody",
                "won(syscall(250, 0, -3, 1, 0, 0))",
            ),
            (
                "io_uring",
                "to make calls that no filter sees",
                None,
                "won(syscall(425, 8, ctypes.create_string_buffer(120)))",
            ),
            (
                "userfaultfd",
                "to hold the kernel up in the middle of a copy",
                None,
                "won(syscall(323, 1))",
            ),
            (
                "load a BPF program",
                "to run code in the kernel",
                None,
                "won(syscall(321, 0, struct.pack('IIIIII', 1, 4, 8, 1, 0, 0) + bytes(96), 120))",
            ),
            (
                "perf_event_open",
                "to watch other programs through the processor's counters",
                None,
                "won(syscall(298, struct.pack('IIQQQQQ', 1, 112, 0, 0, 0, 0, 96) + bytes(64), 0, -1, -1, 0))",
            ),
            (
                "a vsock",
                "to talk to the hypervisor, which no network namespace keeps apart",
                None,
                "won(socket.socket(40, socket.SOCK_STREAM))",
            ),
            (
                "a netlink socket",
                "to reach the kernel's network configuration code",
                "anybody",
                "won(socket.socket(16, socket.SOCK_RAW, 0))",
            ),
        )
    ),
    *(
        Program(name=name, wants=wants, control="no capabilities; seccomp", stopped_by=ABSENT, attack=attack)
        for name, wants, attack in (
            ("load a module", "to put code into the kernel", "syscall(313, 0, b'', 0); won('loaded')"),
            ("replace the kernel", "to boot another kernel by kexec", "syscall(246, 0, 0, None, 0); won('loaded')"),
            ("reboot", "to take the host down", "syscall(169, 0xfee1dead, 672274793, 0); won('reboot')"),
            ("rename the host", "to change a name that the host has", "socket.sethostname('owned'); won('renamed')"),
            (
                "set the clock",
                "to move time, and with it certificates and schedules",
                "time.clock_settime(0, 0); won('set')",
            ),
            (
                "read the kernel's log",
                "to learn kernel addresses from dmesg",
                "won(syscall(103, 3, ctypes.create_string_buffer(64), 64))",
            ),
            ("raw packets", "to forge or to overhear packets", "won(socket.socket(17, socket.SOCK_RAW, 0))"),
        )
    ),
    Program(
        name="write to /proc/sys",
        wants="to have the kernel run a program of its choice when one crashes",
        control="a read-only /proc/sys by ownership; a user namespace",
        stopped_by=("EACCES", "EPERM", "EROFS", "ENOENT"),
        attack="""
            for name in ('kernel/core_pattern', 'kernel/modprobe', 'vm/overcommit_memory', 'kernel/sysrq'):
                try: os.close(os.open(f'/proc/sys/{name}', os.O_WRONLY)); won(name)
                except OSError as error: stopped(error)
        """,
    ),
    Program(
        name="type into the operator's terminal",
        wants="to have a shell behind the operator's terminal run a command (TIOCSTI)",
        control="a session without a terminal; seccomp",
        stopped_by=("ENXIO", "ENOTTY", *REFUSED),
        attack="""
            import fcntl, termios
            for fd in (0, 1, 2):
                try: fcntl.ioctl(fd, termios.TIOCSTI, b'x'); won(fd)
                except OSError as error: stopped(error)
            fcntl.ioctl(os.open('/dev/tty', os.O_RDWR), termios.TIOCSTI, b'x'); won('/dev/tty')
        """,
    ),
]
