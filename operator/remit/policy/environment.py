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
    "FPATH", "PS4", "SHELL", "SHELLOPTS", "ZDOTDIR",
    # interpreters and runtimes
    "CLASSPATH", "*JAVA*OPTIONS", "JAVA_OPTS", "JDK_*", "DOTNET_*", "COMPLUS_*", "GOFLAGS", "LUA_*", "NODE_*", "NPM_*",
    "npm_*", "PERL*", "PHP*", "PYTHON*", "RUBY*", "GEM_*", "R_*", "TCLLIBPATH",
    "AWK*", "CAML*", "COMPlus_*", "CORECLR_*", "DENO_*", "BUN_*", "ELECTRON_*", "ELIXIR_*", "ERL_*",
    "GUILE_*", "JAVA_HOME", "JULIA_*", "MIX_*", "OCAML*", "PSModulePath", "*_OPTS",
    # package managers, and what builds
    "BUNDLE_*", "CARGO_*", "RUSTC*", "RUSTFLAGS", "RUSTUP_*", "MAVEN_*", "GRADLE_*", "CONDA_*", "NIX_*", "PIP_*",
    "PNPM_*", "POETRY_*", "UV_*", "YARN_*", "AR", "AS", "CC", "CGO_*", "CMAKE_*", "COMPILER_PATH", "CPP", "CXX",
    "GCC_EXEC_PREFIX", "GNUMAKEFLAGS", "GOENV", "GOPATH", "GOPROXY", "GOROOT", "GOTOOL*", "LD", "MAKE", "MAKEFILES",
    "PKG_CONFIG*",
    # libraries that load others
    "GIO_*", "GST_*", "GTK_*", "KRB5*", "LIBGL_*", "LIBVA_*", "OCL_*", "P11_KIT*", "QT_*", "SASL_*", "VK_*",
    # programs that are told what else to run, or where to read it
    "ANSIBLE_*", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "EXINIT", "GNUPGHOME", "INPUTRC", "KUBECONFIG",
    "AZURE_CONFIG_DIR", "AZURE_EXTENSION_DIR", "BUILDKIT_*", "CLOUDSDK_CONFIG", "CLOUDSDK_PYTHON*", "CONTAINER_HOST",
    "CONTAINERS_*", "EMACS*", "GS_LIB", "GS_OPTIONS", "HELM_PLUGINS", "HELM_*_HOME", "KUBECTL_*", "KUBERC", "MAGICK_*",
    "MYSQL_HOME", "MYVIMRC", "NVIM_*", "PSQLRC", "TERMCAP", "TERMINFO*", "TEXMF*", "TF_CLI_*", "TF_PLUGIN*", "VIM",
    "VIMINIT", "VIMRUNTIME",
    "DOCKER_*", "EDITOR", "*_EDITOR", "GIT_*", "HGEDITOR", "HGMERGE", "HGRCPATH", "LESS*", "MAKEFLAGS", "MANPAGER",
    "MANPATH", "MANROFFOPT", "PAGER", "*_PAGER",
    "CVS_*", "RSYNC_*", "ZIPOPT",
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
