"""The verdicts of a policy, with their reasons."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from remit.policy.compile import CompiledPolicy
from remit.policy.needs import Part


class Reason(StrEnum):
    """Why, as one stable word: it is API."""

    ALLOWED = "Allowed"
    AUDITED = "Audited"
    INVALID_COMMAND = "InvalidCommand"
    INVALID_REQUEST = "InvalidRequest"
    NO_POLICY = "NoPolicy"
    POLICY_NOT_READY = "PolicyNotReady"
    TOO_COSTLY = "TooCostly"
    DENIED_BY_RULE = "DeniedByRule"
    OPERATION_NOT_ALLOWED = "OperationNotAllowed"
    NOT_ALLOWED = "NotAllowed"
    BACKEND_NOT_ALLOWED = "BackendNotAllowed"
    NETWORK_NOT_ALLOWED = "NetworkNotAllowed"
    ENVIRONMENT_NOT_ALLOWED = "EnvironmentNotAllowed"
    PRIVATE_FILE_NOT_ALLOWED = "PrivateFileNotAllowed"
    WORKING_DIR_NOT_ALLOWED = "WorkingDirNotAllowed"
    VOLUME_NOT_ALLOWED = "VolumeNotAllowed"
    ARTIFACT_NOT_ALLOWED = "ArtifactNotAllowed"
    RAW_OUTPUT_NOT_ALLOWED = "RawOutputNotAllowed"
    IMAGE_NOT_ALLOWED = "ImageNotAllowed"
    POD_NOT_ALLOWED = "PodNotAllowed"
    LIMIT_EXCEEDED = "LimitExceeded"
    CEILING_EXCEEDED = "CeilingExceeded"
    EXECUTABLE_NOT_FOUND = "ExecutableNotFound"


HELPED_BY_A_RULE: Final = frozenset(
    {
        Reason.NO_POLICY,
        Reason.OPERATION_NOT_ALLOWED,
        Reason.NOT_ALLOWED,
        Reason.BACKEND_NOT_ALLOWED,
        Reason.NETWORK_NOT_ALLOWED,
        Reason.ENVIRONMENT_NOT_ALLOWED,
        Reason.PRIVATE_FILE_NOT_ALLOWED,
        Reason.VOLUME_NOT_ALLOWED,
        Reason.ARTIFACT_NOT_ALLOWED,
        Reason.RAW_OUTPUT_NOT_ALLOWED,
        Reason.IMAGE_NOT_ALLOWED,
        Reason.POD_NOT_ALLOWED,
        Reason.LIMIT_EXCEEDED,
    }
)
"""Denials for want of a rule: what a further policy may allow."""


@dataclass(frozen=True)
class Denial:
    """Why not, and what would have been needed. `policy` is `namespace/name`, or empty when there is none."""

    reason: Reason
    message: str
    policy: str = ""
    rule: str = ""
    needs: Part | None = None
    """What of the policy's spec would help, as far as rules can say exactly that."""

    @property
    def final(self) -> bool:
        """Whether it stands whatever other policies say."""
        return self.reason in {Reason.DENIED_BY_RULE, Reason.POLICY_NOT_READY, Reason.TOO_COSTLY}


@dataclass(frozen=True)
class Allowance:
    """Why. `rule` is such as `commands.allow[2]`."""

    policy: CompiledPolicy
    rule: str
