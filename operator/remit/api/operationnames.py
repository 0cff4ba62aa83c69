"""The operations that a task can ask for, one of which each spec has a field of that name for."""

from typing import Final, Literal, get_args

Operation = Literal["command", "script", "file", "process", "http", "redis", "postgres", "container"]
OPERATIONS: Final[tuple[Operation, ...]] = get_args(Operation)
