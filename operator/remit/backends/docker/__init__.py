"""Work in containers of a Docker engine. Not imported with `remit.backends`: the SDK takes its time to import."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.backends.docker.backend import DockerBackend
    from remit.backends.docker.engine import DEFAULT_HOST, OFF, Engine, create, inspect_image, look
    from remit.backends.docker.folders import NOBODY, Staging
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = ["DEFAULT_HOST", "NOBODY", "OFF", "DockerBackend", "Engine", "Staging", "create", "inspect_image", "look"]
