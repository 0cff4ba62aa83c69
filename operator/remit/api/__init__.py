"""What users write. The pydantic models of Remit's kinds; the CRDs are generated from them."""

from remit.api.base import API_VERSION, GROUP, VERSION, Condition
from remit.api.commandpolicy import CommandPolicySpec, CommandPolicyStatus
from remit.api.deployment import DeploymentSpec
from remit.api.deploymentstatus import DeploymentPhase, DeploymentStatus
from remit.api.executiontask import ExecutionTaskSpec, TaskTemplate
from remit.api.executiontaskstatus import ExecutionTaskStatus, Phase
from remit.api.quantity import format_bytes, parse_bytes, parse_quantity
from remit.api.resource import CommandPolicy, Deployment, ExecutionTask, ObjectMeta

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
