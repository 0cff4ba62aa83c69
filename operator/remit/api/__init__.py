"""The pydantic models of Remit's kinds. The CRDs are generated from them.

Building the models of a kind is slow, so each module is imported on first use.
"""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.api.base import Condition
    from remit.api.commandpolicy import CommandPolicy, CommandPolicySpec, CommandPolicyStatus
    from remit.api.deployment import Deployment, DeploymentSpec
    from remit.api.deploymentstatus import DeploymentStatus
    from remit.api.executiontask import ExecutionTask, ExecutionTaskSpec, TaskTemplate
    from remit.api.executiontaskstatus import ExecutionTaskStatus
    from remit.api.group import API_VERSION, GROUP, VERSION
    from remit.api.phases import DeploymentPhase, Phase
    from remit.api.quantity import format_bytes, parse_bytes, parse_quantity
    from remit.api.resource import ObjectMeta
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = [
    "API_VERSION",
    "GROUP",
    "VERSION",
    "CommandPolicy",
    "CommandPolicySpec",
    "CommandPolicyStatus",
    "Condition",
    "Deployment",
    "DeploymentPhase",
    "DeploymentSpec",
    "DeploymentStatus",
    "ExecutionTask",
    "ExecutionTaskSpec",
    "ExecutionTaskStatus",
    "ObjectMeta",
    "Phase",
    "TaskTemplate",
    "format_bytes",
    "parse_bytes",
    "parse_quantity",
]
