"""The client for programs that give work to an operator: `RemitClient`, and what it takes and gives."""

from remit.reconcilers.client import RemitClient, TaskChange
from remit.reconcilers.kube import Access

__all__ = ["Access", "RemitClient", "TaskChange"]
