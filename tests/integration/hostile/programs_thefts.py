"""Programs that search for data of others: the operator's environment, memory, files, sockets, other tasks."""

from __future__ import annotations

from .case import Program

GONE = ("ENOENT", "EACCES", "EPERM", "ESRCH")
NO_NETWORK = ("ENETUNREACH", "ECONNREFUSED", "EPERM", "EACCES", "EHOSTUNREACH", "EADDRNOTAVAIL", "EAFNOSUPPORT")

CASES = [
    Program(
        name="read the operator's environment",
        wants="tokens and passwords that the operator was started with",
        control="an empty environment, for bubblewrap too; a /proc of its own",
        outside="anybody",
        attack="""
            if 'REMIT_HOSTILE_CANARY' in os.environ: won('inherited')
            for name in filter(str.isdigit, os.listdir('/proc')):
                try: text = open(f'/proc/{name}/environ').read()
                except OSError: continue
                if scene['canary'] in text: won(name)
        """,
    ),
    Program(
        name="read the operator's command line",
        wants="what is passed as arguments to others",
        control="a /proc of its own",
        outside="anybody",
        attack="""
            pids = [int(name) for name in os.listdir('/proc') if name.isdigit()]
            if scene['pid'] in pids: won(open(f"/proc/{scene['pid']}/cmdline").read())
            if len(pids) > 3: won(pids)
        """,
    ),
    Program(
        name="read another process's memory",
        wants="secrets in the memory of the operator or of another task",
        control="a pid namespace of its own; a user of its own; seccomp",
        stopped_by=("ESRCH", "ENOENT", "EPERM", "EACCES", "ENOSYS"),
        attack="""
            for pid in (scene['pid'], scene['operator']):
                try:
                    local = ctypes.create_string_buffer(64)
                    vector = struct.pack('QQ', ctypes.addressof(local), 64)
                    syscall(310, pid, vector, 1, vector, 1, 0); won('process_vm_readv')
                except OSError as error: stopped(error)
                try: os.open(f'/proc/{pid}/mem', os.O_RDONLY); won('mem')
                except OSError as error: stopped(error)
        """,
    ),
    Program(
        name="read the operator's files",
        wants="a file of the host, by its own path",
        control="a mount namespace that holds the system and nothing else",
        stopped_by=GONE,
        outside="anybody",
        attack="won(open(scene['file']).read())",
    ),
    Program(
        name="read what only root reads",
        wants="password hashes, keys, kubelet's and root's files",
        control="a mount namespace; a user that is nobody outside",
        stopped_by=GONE,
        attack="""
            for path in ('/etc/shadow', '/etc/gshadow', '/root/.ssh/id_rsa', '/root/.kube/config',
                         '/etc/kubernetes/admin.conf',
                         '/var/lib/kubelet/config.yaml', '/etc/ssh/ssh_host_ed25519_key', '/proc/kcore'):
                try: won(path, open(path, 'rb').read(10))
                except OSError as error: stopped(error)
        """,
    ),
    Program(
        name="read the service account token",
        wants="the operator's credentials for the API server",
        control="a mount namespace without /var/run",
        stopped_by=GONE,
        attack="""
            for root in ('/var/run', '/run'):
                try: won(os.listdir(f'{root}/secrets/kubernetes.io/serviceaccount'))
                except OSError as error: stopped(error)
        """,
    ),
    Program(
        name="go through /proc to another root",
        wants="the host's files by the root or the working directory of another process",
        control="a pid namespace of its own",
        attack="""
            for name in ('1', 'self', str(scene['pid']), str(scene['operator'])):
                for way in ('root', 'cwd'):
                    try: text = open(f"/proc/{name}/{way}{scene['file']}").read(); won(text)
                    except OSError as error: stopped(error)
        """,
        stopped_by=GONE,
    ),
    Program(
        name="climb out of the working directory",
        wants="a file of the host by way of ..",
        control="the root of a mount namespace, above which nothing is",
        stopped_by=GONE,
        attack="won(open('../' * 40 + scene['file'].lstrip('/')).read())",
    ),
    Program(
        name="a symbolic link out of the workspace",
        wants="to have somebody outside follow a link to a file that it cannot read itself",
        control="a link is resolved inside, where its end is not",
        stopped_by=GONE,
        attack="""
            os.symlink(scene['file'], '/workspace/link')
            won(open('/workspace/link').read())
        """,
    ),
    Program(
        name="a hard link to a system file",
        wants="to keep a set-user-ID program, or to write to a system file by another name",
        control="another file system; read-only mounts",
        stopped_by=("EXDEV", "EPERM", "EROFS", "EACCES"),
        attack="""
            for target in ('/usr/bin/su', '/usr/bin/env', '/etc/passwd'):
                for folder in ('/workspace', '/tmp', '/usr/bin'):
                    try: os.link(target, f'{folder}/linked'); won(target, folder)
                    except FileNotFoundError: pass
                    except OSError as error: stopped(error)
        """,
    ),
    Program(
        name="a race of renames against the walls",
        wants="to swap a folder for a link between a check and a use, and be where it must not",
        control="no check by name: the walls are mounts",
        attack="""
            os.mkdir('/workspace/real'); os.symlink(scene['folder'], '/workspace/fake')
            def swap():
                for _ in range(2000):
                    syscall(316, -100, b'/workspace/real', -100, b'/workspace/fake', 2)  # RENAME_EXCHANGE
            thread = threading.Thread(target=swap); thread.start()
            while thread.is_alive():
                try: won(open('/workspace/real/token').read())
                except OSError: pass
            thread.join()
        """,
    ),
    Program(
        name="replace a private file",
        wants="to change what a later program reads as configuration",
        control="a read-only root; files of mode 0400",
        stopped_by=("EROFS", "EACCES", "EPERM", "EBUSY"),
        attack="""
            for path in ('/etc/passwd', '/etc/ld.so.cache', '/etc/nsswitch.conf', '/etc/ld.so.preload'):
                try: open(path, 'a').close(); won('writable', path)
                except OSError as error: stopped(error)
                try: os.rename(path, path + '.old'); won('renamed', path)
                except FileNotFoundError: pass
                except OSError as error: stopped(error)
        """,
    ),
    Program(
        name="write to the system",
        wants="to plant a program that others run later",
        control="read-only mounts; a user that is nobody outside",
        stopped_by=("EROFS", "EACCES", "EPERM", "ENOENT"),
        attack="""
            for folder in ('/usr/bin', '/usr/local/bin', '/usr/lib', '/lib', '/bin', '/sbin'):
                try: os.close(os.open(f'{folder}/remit-hostile', os.O_CREAT | os.O_WRONLY)); won(folder)
                except OSError as error: stopped(error)
        """,
    ),
    Program(
        name="descriptors that were left open",
        wants="a file or socket of the operator that its child inherited",
        control="close-on-exec everywhere; bubblewrap closes what it was given",
        attack="""
            for name in os.listdir('/proc/self/fd'):
                try: target = os.readlink(f'/proc/self/fd/{name}')
                except OSError: continue
                if int(name) > 2 and not target.startswith('/proc/'): won(name, target)
                if int(name) <= 2 and not (target.startswith('pipe:') or target == '/dev/null'): won(name, target)
        """,
    ),
    Program(
        name="shared memory of the host",
        wants="memory that the operator shares with another program",
        control="an ipc namespace of its own; a /dev/shm of its own",
        stopped_by=("EINVAL", "EACCES", "EIDRM"),
        outside="anybody",
        attack="""
            libc.shmat.restype = ctypes.c_void_p
            if os.path.isdir('/dev/shm') and os.listdir('/dev/shm'): print(os.listdir('/dev/shm'))
            address = libc.shmat(scene['shared'], None, 0o10000)
            checked(-1 if address in (None, ctypes.c_void_p(-1).value) else 0)
            won(ctypes.string_at(address, 40))
        """,
    ),
    Program(
        name="the docker socket",
        wants="to be root on the host by asking the Docker daemon",
        control="a mount namespace without /var/run",
        stopped_by=(*GONE, "ENOTDIR", "ECONNREFUSED", "EAFNOSUPPORT"),
        attack="""
            for path in ('/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock',
                         '/run/dbus/system_bus_socket'):
                try: socket.socket(socket.AF_UNIX).connect(path); won(path)
                except OSError as error: stopped(error)
        """,
    ),
    Program(
        name="a Unix socket of the host, by path",
        wants="to talk to a service of the host that anybody may connect to",
        control="a mount namespace that holds the system and nothing else",
        stopped_by=GONE,
        outside="anybody",
        attack="s = socket.socket(socket.AF_UNIX); s.connect(scene['unix']); won(s.recv(100))",
    ),
    Program(
        name="an abstract Unix socket of the host",
        wants="the same where no file system is in the way",
        control="a network namespace of its own",
        stopped_by=("ECONNREFUSED", "EPERM", "EACCES"),
        outside="anybody",
        attack="s = socket.socket(socket.AF_UNIX); s.connect(chr(0) + scene['abstract']); won(s.recv(100))",
    ),
    Program(
        name="a server on the host's loopback",
        wants="a database or an API that trusts whoever is on the machine",
        control="a network namespace of its own",
        stopped_by=NO_NETWORK,
        outside="anybody",
        attack="""
            for address in (scene['tcp'],):
                s = socket.create_connection(tuple(address) if isinstance(address, list) else ('127.0.0.1', address), 5)
                won(s.recv(100))
        """,
    ),
    Program(
        name="a datagram to the host's loopback",
        wants="the same by UDP, which Landlock does not know",
        control="a network namespace of its own",
        outside="anybody",
        attack="""
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)
            s.sendto(b'hello', ('127.0.0.1', scene['udp']))
            won(s.recv(100))
        """,
    ),
    Program(
        name="the cloud's metadata service",
        wants="the machine's credentials from 169.254.169.254",
        control="a network namespace with nothing but its own loopback",
        stopped_by=NO_NETWORK,
        attack="""
            for address in (('169.254.169.254', 80), ('fd00:ec2::254', 80), ('1.1.1.1', 53)):
                try: socket.create_connection(address, 2); won(address)
                except OSError as error: stopped(error)
        """,
    ),
    Program(
        name="the host's network devices",
        wants="to see, and then to use, what the host is connected to",
        control="a network namespace of its own",
        attack="""
            names = [name for _, name in socket.if_nameindex()] if os.path.exists('/proc/net/dev') else []
            listed = [line.split(':')[0].strip() for line in open('/proc/net/dev') if ':' in line]
            if set(names) | set(listed) > {'lo'}: won(names, listed)
        """,
    ),
    Program(
        name="what another attempt left behind",
        wants="the workspace, temporary files or shared memory of a task before it",
        control="new tmpfs for each attempt",
        attack="""
            for folder in ('/workspace', '/tmp', '/dev/shm'):
                if os.listdir(folder): won(folder, os.listdir(folder))
                open(f'{folder}/left-behind', 'w').write('x')
        """,
    ),
    Program(
        name="the host's cgroups",
        wants="to raise its own limits in the cgroup file system",
        control="no /sys; a cgroup namespace",
        stopped_by=GONE,
        attack="""
            membership = open('/proc/self/cgroup').read()
            if 'remit' in membership: won(membership)
            won(os.listdir('/sys/fs/cgroup'))
        """,
    ),
]
