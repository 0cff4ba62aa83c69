"""Takes screenshots of the page for the documentation: `python tests/pageshots.py` writes docs/images.

The state is created on a `remit up`: tasks that run, wait and fail, schedules, and a release that waits for promotion.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import threading
import urllib.request
from pathlib import Path

import parts
from browsers import Tab, browser
from pages import login_link
from ports import free_port
from remitup import RemitUp, until

IMAGES = Path(__file__).parents[1] / "docs/images"
WIDE, NARROW = {"width": 1280, "height": 820}, {"width": 420, "height": 820}
SHOTS = (
    ("page-overview-light", "/", "light", WIDE),
    ("page-overview-narrow", "/", "dark", NARROW),
    ("page-task-dark", "/tasks/default/nightly-report", "dark", WIDE),
    ("page-release-light", "/releases/default/shop", "light", WIDE),
    ("page-release-dark", "/releases/default/shop", "dark", WIDE),
    ("page-why-light", "/tasks/default/install-tool/why", "light", WIDE),
)


def play(up: RemitUp, folder: Path) -> threading.Event:
    """Creates what the screenshots show and waits until it has the state that they need. Requests continue until the
    returned event is set."""
    port, preview, over = free_port(), free_port(), threading.Event()
    versions = [folder / f"shop-1.{number}" for number in (8, 9)]
    for each in versions:
        each.mkdir()
        (each / "index.html").write_text(f"<h1>{each.name}</h1>")
    up.kubectl("apply", "-f", "-", stdin="\n---\n".join([_POLICY, _report()]))
    until(lambda: up.phase("nightly-report") == "Failed", "the report")
    up.kubectl("apply", "-f", "-", stdin=_tasks())
    for each in versions:
        text = _SHOP.replace("FOLDER", str(folder)).replace("ARTIFACT", str(each))
        up.kubectl("apply", "-f", "-", stdin=text.replace("18080", str(port)).replace("18081", str(preview)))
        phase = "Healthy" if each is versions[0] else "AwaitingPromotion"
        until(lambda phase=phase: up.read("deployments", "shop").get("status", {}).get("phase") == phase, phase)  # type: ignore[misc]

    def browse() -> None:
        for number in itertools.count():
            if over.wait(0.02 + 0.02 * (number % 7 == 0)):
                return
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer,
            ):
                answer.read()

    threading.Thread(target=browse, daemon=True).start()
    return over


def main() -> None:
    kubectl = parts.kubectl()
    assert kubectl
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="remit-pageshots-") as place, browser() as opened:
        folder = Path(place)
        folder.chmod(0o755)
        with RemitUp(folder / "state", kubectl) as up:
            over = play(up, folder)
            for name, path, scheme, viewport in SHOTS:
                tab = Tab(opened, login_link(up), viewport=viewport, color_scheme=scheme)
                page = tab.go(path)
                page.wait_for_timeout(9000 if "release" in name else 2000)  # so that rates are measured
                page.screenshot(path=IMAGES / f"{name}.png")
                tab.close()
            over.set()


def _tasks() -> str:
    crunch = "i=0; while [ $i -lt 900 ]; do echo step $i; i=$((i+1)); sleep 1; done"
    names = (
        "index-orders",
        "train-model",
        "import-prices",
        "render-tiles",
        "sync-mirror",
        "check-links",
        "resize-images",
    )
    return "\n---\n".join(
        [
            *(_task(name, ["sh", "-c", crunch], ", timeoutSeconds: 3000") for name in names),
            *(_task(f"mail-{number}", ["echo", "sent"]) for number in range(41, 46)),
            _task("install-tool", ["curl", "https://example.com/install.sh"]),
            _task("nightly-dump", ["echo", "dump"], ', schedule: {cron: "0 2 * * *", timeZone: Europe/Paris}'),
        ]
    )


def _report() -> str:
    return _task("nightly-report", ["sh", "-c", _REPORT], ", retry: {maxRetries: 2, backoff: {initialSeconds: 2}}")


def _task(name: str, argv: list[str], more: str = "") -> str:
    command = ", ".join("'" + each.replace("'", "''") + "'" for each in argv)
    kind = "apiVersion: remit.dev/v1alpha1\nkind: ExecutionTask\n"
    return f"{kind}metadata: {{name: {name}, labels: {{team: data}}}}\nspec: {{command: {{argv: [{command}]}}{more}}}\n"


_REPORT = (
    r"for i in $(seq 12); do printf '\033[32mPASS\033[0m tests/test_orders_%s.py \033[36m[%3d%%]\033[0m\n' $i $((i*7));"
    r" sleep 0.1; done; printf '\033[1;31mFAIL\033[0m tests/test_totals.py::test_sums \033[33m(1 warning)\033[0m\n';"
    r" echo 'AssertionError: 1204.50 is not 1204.05' >&2; exit 1"
)
_POLICY = r"""
apiVersion: remit.dev/v1alpha1
kind: CommandPolicy
metadata: {name: data-team}
spec:
  selector: {matchLabels: {team: data}}
  commands: {allow: [{executable: sh, args: [-c, '(?s).*']}, {executable: echo}]}
  rate: {maxConcurrent: 6}
"""
_SHOP = r"""
apiVersion: remit.dev/v1alpha1
kind: CommandPolicy
metadata: {name: site}
spec:
  selector: {matchLabels: {site: shop}}
  commands: {allow: [{executable: python3, args: [-c, '.*http\.server.*']}]}
  networks: [none, host]
  files: {allow: [{paths: ['FOLDER/**'], operations: [read]}]}
---
apiVersion: remit.dev/v1alpha1
kind: Deployment
metadata: {name: shop, labels: {site: shop}}
spec:
  artifact: {path: ARTIFACT}
  target:
    process:
      command:
      - python3
      - -c
      - >-
        import os, http.server as s;
        s.test(s.SimpleHTTPRequestHandler, s.ThreadingHTTPServer, port=int(os.environ['PORT']), bind='127.0.0.1')
  replicas: 2
  ports: [{name: http, containerPort: 8000, published: 18080}]
  healthCheck: {http: {path: /, port: http}}
  strategy: {blueGreen: {autoPromote: false, previewPort: 18081}}
  stages: {bakeSeconds: 0}
"""

if __name__ == "__main__":
    main()
