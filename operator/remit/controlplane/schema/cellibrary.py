"""The expression library `cel`, without its command line.

The package imports its interactive shell, which takes more time and memory than the library: with prompt_toolkit and
pygments 24 MB in each control plane and each worker.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Final

_SHELL: Final = "cel.cli"

if "cel" in sys.modules:
    import cel
else:
    sys.modules[_SHELL] = ModuleType(_SHELL)
    try:
        import cel
    finally:
        del sys.modules[_SHELL]

__all__ = ["cel"]
