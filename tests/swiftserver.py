"""OpenStack Swift with its S3 API, with all its servers in one process.

    python swiftserver.py FOLDER HOST PORT TLS-PORT CERTIFICATE

prints `ready` when it answers. Its users are `test:tester` with the secret `testing`, and `test:guest` with `guesting`,
who has no permissions.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
import eventlet  # noqa: E402

eventlet.monkey_patch()
from eventlet import wsgi  # noqa: E402
from swift.common import utils  # noqa: E402
from swift.common.ring import RingBuilder  # noqa: E402
from swift.common.storage_policy import reload_storage_policies  # noqa: E402
from swift.common.wsgi import loadapp  # noqa: E402

_STORING = ("account", "container", "object")
_FILTERS = {
    "catch_errors": {},
    "gatekeeper": {},
    "listing_formats": {},
    "s3api": {"location": "us-east-1"},
    "tempauth": {"user_test_tester": "testing .admin", "user_test_guest": "guesting"},
    "bulk": {},
    "slo": {},
    "dlo": {},
}


def _configuration(sections: dict[str, dict[str, object]]) -> str:
    lines = []
    for name, values in sections.items():
        lines += [f"[{name}]", *(f"{key} = {value}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def main() -> None:
    root, host, certificate = Path(sys.argv[1]), sys.argv[2], sys.argv[5]
    port, tls_port = int(sys.argv[3]), int(sys.argv[4])
    devices = root / "devices"
    (devices / "d1").mkdir(parents=True, exist_ok=True)
    utils.SWIFT_CONF_FILE = str(root / "swift.conf")
    utils.HASH_PATH_PREFIX = utils.HASH_PATH_SUFFIX = b"test"
    (root / "swift.conf").write_text(
        _configuration(
            {
                "swift-hash": {"swift_hash_path_prefix": "test", "swift_hash_path_suffix": "test"},
                "storage-policy:0": {"name": "only", "default": "yes"},
            }
        )
    )
    reload_storage_policies()
    general = {"swift_dir": root, "log_level": "CRITICAL"}
    storing = general | {
        "devices": devices,
        "mount_check": "false",
        "fallocate_reserve": 0,
        "disable_fallocate": "true",
    }
    for name in _STORING:
        listener = eventlet.listen(("127.0.0.1", 0))
        port_of = listener.getsockname()[1]
        device = {"id": 0, "region": 1, "zone": 1, "ip": "127.0.0.1", "port": port_of, "device": "d1"}
        ring = RingBuilder(4, 1, 1)
        ring.add_dev(
            device | {"weight": 1.0, "replication_ip": "127.0.0.1", "replication_port": device["port"], "meta": ""}
        )
        ring.rebalance()
        ring.get_ring().save(str(root / f"{name}.ring.gz"))
        serving = {"DEFAULT": storing, "pipeline:main": {"pipeline": name}, f"app:{name}": {"use": f"egg:swift#{name}"}}
        _serve(root, name, serving, listener)
    proxy = {
        "DEFAULT": general,
        "pipeline:main": {"pipeline": " ".join([*_FILTERS, "proxy-server"])},
        "app:proxy-server": {"use": "egg:swift#proxy", "account_autocreate": "true"},
    }
    proxy |= {f"filter:{name}": {"use": f"egg:swift#{name}"} | more for name, more in _FILTERS.items()}
    plain, encrypted = (eventlet.listen((host, number)) for number in (port, tls_port))
    _serve(root, "proxy", proxy, plain, eventlet.wrap_ssl(encrypted, certfile=certificate, server_side=True))
    print("ready", flush=True)
    eventlet.Event().wait()


class _Cache(dict[str, object]):
    """Replaces a memcached, without which Swift looks everything up for each request."""

    def get(self, key: str, *_: object, **__: object) -> object:
        return super().get(key)

    def set(self, key: str, value: object, *_: object, **__: object) -> None:
        self[key] = value

    def delete(self, key: str, *_: object, **__: object) -> None:
        self.pop(key, None)

    def incr(self, key: str, delta: int = 1, *_: object, **__: object) -> int:
        self[key] = number = int(str(super().get(key, 0))) + delta
        return number


def _serve(root: Path, name: str, configuration: dict[str, dict[str, object]], *listeners: object) -> None:
    path = root / f"{name}.conf"
    path.write_text(_configuration(configuration))
    loaded, cache = loadapp(str(path)), _Cache()

    def app(environ: dict[str, object], start_response: object) -> object:
        environ["swift.cache"] = cache
        return loaded(environ, start_response)

    nowhere = Path(os.devnull).open("w")  # noqa: SIM115
    for listener in listeners:
        eventlet.spawn(wsgi.server, listener, app, nowhere, log_output=False)


if __name__ == "__main__":
    main()
