"""Tests `remit backup` while `remit up` runs, and `remit restore` at another place."""

from __future__ import annotations

import stat
from pathlib import Path

from remitup import RemitUp

POLICY = """
apiVersion: remit.dev/v1alpha1
kind: CommandPolicy
metadata: {name: all}
spec:
  commands:
    allow:
      - {executable: echo}
      - {executable: sleep, args: ['[0-9]+']}
      - {executable: cp, args: [/usr/bin/env, /cache/kept]}
  volumes: {workspaces: [{names: [cache]}]}
"""
TASKS = """
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: hello}
spec: {command: {argv: [echo, hello]}}
---
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: keeps}
spec:
  command: {argv: [cp, /usr/bin/env, /cache/kept]}
  volumes: [{name: cache, workspace: {name: cache}}]
  volumeMounts: [{name: cache, mountPath: /cache, access: ReadWrite}]
---
apiVersion: v1
kind: Secret
metadata: {name: token}
stringData: {token: canary}
---
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: long}
spec: {command: {argv: [sleep, '86400']}}
"""


def test_what_was_backed_up_goes_on_elsewhere(up: RemitUp, tmp_path: Path) -> None:
    up.kubectl("apply", "-f", "-", stdin=POLICY)
    up.kubectl("apply", "-f", "-", stdin=TASKS)
    up.kubectl("wait", "executiontask/hello", "executiontask/keeps", "--for=condition=Finished", "--timeout=60s")
    up.kubectl("wait", "executiontask/long", "--for=jsonpath={.status.phase}=Running", "--timeout=60s")
    archive, place = tmp_path / "backup.tar.gz", tmp_path / "elsewhere"

    made = up.remit("backup", str(archive), "--state-dir", str(up.state_dir))
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith(f"{up.state_dir} is in {archive}: ")
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    again = up.remit_here("backup", str(archive), "--state-dir", str(up.state_dir))
    assert (again.returncode, again.stderr) == (
        1,
        f"error: {archive} is there already; move it away, or choose another name\n",
    )
    inside = up.remit_here("backup", str(up.state_dir / "b"), "--state-dir", str(up.state_dir))
    assert "is in the directory to back up" in inside.stderr
    over = up.remit_here("restore", str(archive), "--state-dir", str(up.state_dir))
    assert "is not empty; move it away" in over.stderr
    assert up.stop() == 0

    restored = up.remit_here("restore", str(archive), "--state-dir", str(place))
    assert restored.returncode == 0, restored.stderr
    assert "releases to processes of this machine go on only there" in restored.stderr
    with RemitUp(place, up.kubectl_path) as other:
        other.kubectl("wait", "executiontask/long", "--for=condition=Finished", "--timeout=60s")
        assert other.task("long")["status"]["attempts"][-1]["reason"] == "Interrupted"
        for name in ("hello", "keeps"):
            status = other.task(name)["status"]
            assert (status["phase"], len(status["attempts"])) == ("Succeeded", 1), "it did not run again"
        assert other.remit_here("logs", "hello").stdout == "hello\n"
        assert "canary" not in other.kubectl("get", "secret", "token", "-o", "jsonpath={.data}")
        assert other.kubectl("get", "secret", "token", "-o", "jsonpath={.data.token}") == "Y2FuYXJ5"
        verified = other.remit_here("audit", "verify", "--state-dir", str(place))
        assert verified.returncode == 0, verified.stderr
    (found,) = place.rglob("kept")
    original = up.state_dir / found.relative_to(place)
    assert found.read_bytes() == Path("/usr/bin/env").read_bytes()
    assert (found.stat().st_uid, found.stat().st_mode) == (original.stat().st_uid, original.stat().st_mode)
