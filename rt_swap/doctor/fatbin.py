"""Which GPUs a CUDA fatbin holds code for.

The container is NVIDIA's (the layout that ``cuobjdump`` reads, as LLVM's offloading code and the
`gpuocelot` project document it): a header of 16 bytes with the magic number 0xBA55ED50, then
entries, each a header with its kind (1: PTX, 2: machine code), sizes, and the compute capability
times ten.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

MAGIC: Final = 0xBA55ED50
_PTX, _ELF = 1, 2


@dataclass(frozen=True)
class Fatbin:
    """What a fatbin holds.

    Attributes:
        machine_code: Compute capabilities times ten with machine code, ascending.
        ptx: The same with PTX, which a driver compiles for newer GPUs.
    """

    machine_code: tuple[int, ...]
    ptx: tuple[int, ...]

    def runs_on(self, capability: tuple[int, int]) -> str | None:
        """How code runs on a GPU.

        Args:
            capability: (major, minor).

        Returns:
            "machine code" (same major number, minor not above the GPU's), "PTX" (compiled by the
            driver at the first start), or None.
        """
        sm = 10 * capability[0] + capability[1]
        if any(code // 10 == capability[0] and code <= sm for code in self.machine_code):
            return "machine code"
        return "PTX" if any(ptx <= sm for ptx in self.ptx) else None


def read_fatbin(blob: bytes) -> Fatbin:
    """List a fatbin's entries.

    Args:
        blob: The file, one container or several after another.

    Raises:
        ValueError: If it is none, or damaged.
    """
    found: dict[int, set[int]] = {_PTX: set(), _ELF: set()}
    place = 0
    while place < len(blob):
        if len(blob) - place < 16:
            raise ValueError("it ends within a header")
        magic, _, header, size = struct.unpack_from("<IHHQ", blob, place)
        if magic != MAGIC:
            raise ValueError("it does not begin as a fatbin does")
        at, end = place + header, place + header + size
        if end > len(blob):
            raise ValueError("it is cut short")
        while at < end:
            if end - at < 32:
                raise ValueError("an entry's header is cut short")
            kind, _, entry_header, entry_size = struct.unpack_from("<HHIQ", blob, at)
            (sm,) = struct.unpack_from("<I", blob, at + 28)
            if entry_header < 32 or at + entry_header + entry_size > end:
                raise ValueError("an entry is cut short")
            if kind in found:
                found[kind].add(sm)
            at += entry_header + entry_size
        place = (end + 7) // 8 * 8
    if not found[_PTX] and not found[_ELF]:
        raise ValueError("it holds no code")
    return Fatbin(tuple(sorted(found[_ELF])), tuple(sorted(found[_PTX])))
