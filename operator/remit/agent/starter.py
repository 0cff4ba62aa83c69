"""The policy of an agent that was given none: the read-only list, and interpreters that the sandbox holds."""

from __future__ import annotations

from typing import Any

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_PATH = rf"{_NAME}(/{_NAME})*"
_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.=:@%+,-]*"

STARTER: dict[str, Any] = {
    "commands": {
        "allow": [
            {"pattern": rf"ls( -[AFRSadhlrt1]{{1,8}})?( {_PATH}/?)*"},
            {"pattern": rf"cat( -n)?( {_PATH})+"},
            {"executable": "echo"},
            {"pattern": rf"python3 {_PATH}\.py( {_WORD}(/{_WORD})*)*"},
            {"pattern": r"npm (install|test|run build|build)( --(silent|no-audit|no-fund|ignore-scripts))*"},
            {"pattern": r"docker ps( -[alnq]| --(all|latest|no-trunc|quiet|size))*"},
            {
                "pattern": r"docker logs( --(details|timestamps)| --tail=[0-9]{1,6}| --since=[0-9]{1,6}[smh])*"
                r" [a-zA-Z0-9][a-zA-Z0-9_.-]*"
            },
            {"pattern": r"docker stats --no-stream( --(all|no-trunc))*( [a-zA-Z0-9][a-zA-Z0-9_.-]*)*"},
            {"pattern": r"sleep [0-9]{1,9}(\.[0-9]{1,9})?"},
            {"executable": "python3", "args": ["-c", r"(?s).*", "…"], "reason": "the sandbox holds whatever it does"},
            {"executable": "python", "args": ["-c", r"(?s).*", "…"], "reason": "the sandbox holds whatever it does"},
        ]
    },
    "environment": {"allow": ["APP_*"]},
    "backends": ["process"],
    "networks": ["none"],
    "limits": {
        "timeoutSeconds": {"default": 300, "max": 3600},
        "memory": {"default": "256Mi", "max": "2Gi"},
        "cpu": {"default": "500m", "max": "2"},
        "pids": {"default": 64, "max": 512},
        "disk": {"default": "256Mi", "max": "2Gi"},
        "retries": {"max": 10},
    },
    "sandbox": {"require": ["namespaces"]},
}
