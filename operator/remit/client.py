"""The client for programs that give work to an operator: `RemitClient`, and what it takes and gives."""

from remit.reconcilers.access import Access
from remit.reconcilers.client import RemitClient, TaskChange

__all__ = ["Access", "RemitClient", "TaskChange"]
