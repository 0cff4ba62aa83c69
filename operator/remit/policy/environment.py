"""Variables and files that steer: by them a program can be made to load or run something that no rule has seen.

`git clone` with `GIT_SSH_COMMAND` set runs any program; so does anything with `LD_PRELOAD`. A policy that allows the
command has not thereby allowed that, so such names are refused unless `spec.environment.allow` has them. The list
cannot be complete; a policy for programs that read more of their environment than this should allow few of them.
A private file in a program's home does the same, by its `.gitconfig`, `.npmrc`, `.ssh/config` and so on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

STEERING: Final = (
    # the dynamic loader and the C library
    "LD_*", "GCONV_PATH", "GETCONF_DIR", "GLIBC_TUNABLES", "HOSTALIASES", "LOCALDOMAIN", "LOCPATH", "MALLOC_*",
    "NIS_PATH", "NLSPATH", "RESOLV_*", "RES_OPTIONS", "TZDIR",
    # where programs are found, and what shells read
    "PATH", "HOME", "XDG_*", "BASH_*", "BASHOPTS", "CDPATH", "ENV", "GLOBIGNORE", "IFS", "KSH_*", "PROMPT_COMMAND",
    "PS4", "SHELL", "SHELLOPTS", "ZDOTDIR",
    # interpreters and runtimes
    "CLASSPATH", "*JAVA*OPTIONS", "JAVA_OPTS", "JDK_*", "DOTNET_*", "COMPLUS_*", "GOFLAGS", "LUA_*", "NODE_*", "NPM_*",
    "npm_*", "PERL*", "PHP*", "PYTHON*", "RUBY*", "GEM_*", "R_*", "TCLLIBPATH",
    "BUNDLE_*", "CARGO_*", "RUSTC*", "RUSTFLAGS", "MAVEN_*", "GRADLE_*",
    # programs that are told what else to run, or where to read it
    "ANSIBLE_*", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "EXINIT", "GNUPGHOME", "INPUTRC", "KUBECONFIG",
    "MYSQL_HOME", "PSQLRC", "VIMINIT",
    "DOCKER_*", "EDITOR", "*_EDITOR", "GIT_*", "HGRCPATH", "LESS*", "MAKEFLAGS", "MANPAGER", "PAGER", "*_PAGER",
    "RSYNC_*",
    "SSH_*", "SUDO_*", "SVN_*", "VISUAL", "BROWSER", "*_ASKPASS", "TAR_OPTIONS", "WGETRC", "CURL_HOME", "OPENSSL_*",
    "SSLKEYLOGFILE",
)  # fmt: skip


FREE_FILES: Final = ("/run/*",)
"""Where no program looks for anything that it was not told of."""


def steering(names: Iterable[str], allowed: Sequence[str]) -> list[str]:
    """Those of `names` that steer programs and that no glob of `allowed` covers, sorted."""
    return sorted(
        name
        for name in names
        if any(fnmatchcase(name, pattern) for pattern in STEERING)
        and not any(fnmatchcase(name, pattern) for pattern in allowed)
    )


def steering_files(paths: Iterable[str], allowed: Sequence[str]) -> list[str]:
    """Those of `paths` that a program may read unasked, such as `/workspace/.gitconfig`, and that no glob of `allowed`
    covers, sorted."""
    return sorted(path for path in paths if not any(fnmatchcase(path, glob) for glob in (*FREE_FILES, *allowed)))
