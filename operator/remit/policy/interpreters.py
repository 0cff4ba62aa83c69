"""Programs that run what their arguments or their input say: a rule that names one says little of what runs. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from typing import Final

_VERSION: Final = re.compile(r"[0-9][0-9.]*(-dbg|[a-z])?\Z")
_CODE_FLAGS: Final = {
    **dict.fromkeys(("sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "python", "pypy", "busybox"), "c"),
    **dict.fromkeys(("csh", "tcsh", "mksh", "oksh", "yash", "rbash", "rksh", "rzsh", "tclsh", "wish", "expect"), "c"),
    **dict.fromkeys(("pwsh", "powershell"), "cCeE"),
    **dict.fromkeys(("perl", "ruby"), "eE"),
    **dict.fromkeys(("node", "deno", "bun"), "ep"),
    **dict.fromkeys(("php",), "rBRE"),
    **dict.fromkeys(("lua", "Rscript", "osascript", "groovy"), "e"),
    **dict.fromkeys(("psql", "mysql", "sqlite", "redis-cli"), "ce"),
}
"""Letters of options that take program text, by the program's name without its version."""
_LONG_FLAGS: Final = frozenset({"--eval", "--print", "--command", "--execute", "eval"})
_STARTERS: Final = frozenset(
    {"env", "xargs", "nohup", "nice", "timeout", "sudo", "su", "doas", "setsid", "ssh", "find", "watch", "parallel",
     "strace", "ltrace", "gdb", "flock", "unshare", "nsenter", "chroot", "setpriv", "runuser", "pkexec", "gosu",
     "su-exec", "systemd-run", "script", "time", "ionice", "chrt", "taskset", "numactl", "prlimit", "stdbuf", "entr",
     "unbuffer", "tini", "dumb-init", "bwrap", "firejail", "fakeroot", "docker", "podman", "nerdctl", "kubectl", "npx",
     "bunx", "pnpx", "uvx", "pipx", "vi", "vim", "nvim", "ex"}
)  # fmt: skip
_LOADER: Final = re.compile(r"ld-(linux|musl)|ld(64)?\.so")
_TEXT_FIRST: Final = frozenset({"awk", "gawk", "mawk", "nawk", "sed", "jq", "eval"})
"""Programs whose first argument is program text."""


def runs_text(argv: Sequence[str], *, stdin: bool = False) -> str | None:
    """None, or what the command runs besides its program: a text among its arguments, its input, another program."""
    name = _VERSION.sub("", posixpath.basename(argv[0])) or posixpath.basename(argv[0])
    arguments = argv[1:]
    if name in _STARTERS or _LOADER.match(name):
        return f"{argv[0]} starts other programs: its arguments say which"
    if name in _TEXT_FIRST:
        return f"an argument of {argv[0]} is a program"
    if (letters := _CODE_FLAGS.get(name)) is None:
        return None
    if any(_is_code_flag(argument, letters) for argument in arguments):
        return f"{argv[0]} runs whatever text follows its option"
    if stdin or not any(argument != "-" and not argument.startswith("-") for argument in arguments):
        return f"{argv[0]} runs its standard input, which is under no rule"
    return f"{argv[0]} runs a file, and no rule says what is in it"


def _is_code_flag(argument: str, letters: str) -> bool:
    if argument.startswith("--") or argument == "eval":
        return argument.partition("=")[0] in _LONG_FLAGS
    return argument.startswith("-") and any(letter in argument[1:] for letter in letters)
