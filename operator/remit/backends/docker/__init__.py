"""Work in containers of a Docker engine. Not imported with `remit.backends`: the SDK takes its time to import."""

from remit.backends.docker.backend import DockerBackend
from remit.backends.docker.engine import DEFAULT_HOST, OFF, Engine, create, inspect_image, look
from remit.backends.docker.folders import NOBODY, Staging

__all__ = ["DEFAULT_HOST", "NOBODY", "OFF", "DockerBackend", "Engine", "Staging", "create", "inspect_image", "look"]
