"""The client for programs that give work to an operator: `RemitClient`, and what it takes and gives."""

from remit.agent.client import RemitClient, TaskChange
from remit.agent.logs import LogChunk
from remit.agent.pool import TaskPool
from remit.kube.access import Access

__all__ = ["Access", "LogChunk", "RemitClient", "TaskChange", "TaskPool"]
