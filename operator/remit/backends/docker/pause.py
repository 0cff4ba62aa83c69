"""A program that does nothing, for the container that holds a network namespace. Pure.

No registry may be there to get one from, and the task's image may have no program that would do. So Remit brings it
along: an ELF file of fewer than 200 bytes, linked with nothing, which is put into a container before it starts.
"""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Mapping
from typing import Final

_X86_64: Final = bytes.fromhex(
    "b822000000"  # again: mov eax, 34        pause()
    "0f05"  #              syscall
    "ebf7"  #              jmp again          a signal was handled
)
_AARCH64: Final = struct.pack(
    "<7I",
    0xD2800000,  # again: mov x0, #0          ppoll(NULL, 0, NULL, NULL): there is no pause
    0xD2800001,  #        mov x1, #0
    0xD2800002,  #        mov x2, #0
    0xD2800003,  #        mov x3, #0
    0xD2800928,  #        mov x8, #73
    0xD4000001,  #        svc #0
    0x17FFFFFA,  #        b again
)
_MACHINES: Final[Mapping[str, tuple[int, bytes]]] = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}
"""By the kernel's name of an architecture: its number in an ELF header, and the program."""

ARCHITECTURES: Final = {**{name: name for name in _MACHINES}, "amd64": "x86_64", "arm64": "aarch64"}
"""What engines call those that there is a program for, and what the kernel does."""

_ADDRESS: Final = 0x400000
_LARGEST_PAGE: Final = 0x10000
_HEADER_BYTES, _SEGMENT_BYTES = 64, 56
_EXECUTABLE, _CURRENT = 2, 1
_LOAD, _READ_AND_EXECUTE = 1, 5


def program(architecture: str) -> bytes:
    """The ELF file for that architecture, one of `ARCHITECTURES`. One segment, which is the whole file: see elf(5)."""
    machine, code = _MACHINES[ARCHITECTURES[architecture]]
    start = _HEADER_BYTES + _SEGMENT_BYTES
    size = start + len(code)
    header = struct.pack(
        "<16s HHI QQQ I HHHHHH",
        b"\x7fELF\x02\x01\x01",  # 64 bits, little-endian
        *(_EXECUTABLE, machine, _CURRENT),
        *(_ADDRESS + start, _HEADER_BYTES, 0),  # the entry address, and the offsets of the program and section headers
        0,
        *(_HEADER_BYTES, _SEGMENT_BYTES, 1, 0, 0, 0),
    )
    segment = struct.pack("<II QQQ QQ Q", _LOAD, _READ_AND_EXECUTE, 0, _ADDRESS, _ADDRESS, size, size, _LARGEST_PAGE)
    return header + segment + code


def archive(architecture: str, name: str) -> bytes:
    """A tar with the program in it, called `name`. All may run it, and none may write it."""
    content, packed = program(architecture), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), 0o555
        tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
