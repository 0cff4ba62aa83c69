"""The docker target: containers on an engine, local or remote, behind the proxy."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.release.targets.docker.connection import Secret, check_supported
    from remit.release.targets.docker.planning import Owner
    from remit.release.targets.docker.replicas import Admit
    from remit.release.targets.docker.target import DockerTarget
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = ["Admit", "DockerTarget", "Owner", "Secret", "check_supported"]
