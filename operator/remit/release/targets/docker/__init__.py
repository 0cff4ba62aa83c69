"""The docker target: containers on an engine, local or remote, behind the proxy."""

from remit.release.targets.docker.connection import Secret, check_supported
from remit.release.targets.docker.planning import Owner
from remit.release.targets.docker.replicas import Admit
from remit.release.targets.docker.target import DockerTarget

__all__ = ["Admit", "DockerTarget", "Owner", "Secret", "check_supported"]
