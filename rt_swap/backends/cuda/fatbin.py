"""The GPU kernels that were built into the package: where they are and what they run on."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rt_swap.errors import BackendUnavailable

FATBIN: Final = Path(__file__).resolve().parents[2] / "_warp.fatbin"
"""Made by setup.py where it finds nvcc; also used by ``rt-swap doctor``."""

_MAGIC: Final = 0xBA55ED50
_HEADER: Final = struct.Struct("<IHHQ")
"""magic, version, bytes of this header, bytes of all entries"""
_ENTRY: Final = struct.Struct("<HHIQIIHHI")
"""kind, version, bytes of this header, bytes of the payload, compressed bytes, options, minor and
major of the format, architecture (75 for SM 7.5)"""
_PTX, _ELF = 1, 2


@dataclass(frozen=True)
class FatbinTargets:
    """What a fatbin holds code for.

    Attributes:
        sms: Architectures with machine code, ascending, as (major, minor).
        ptx: Architectures with PTX, which the driver compiles for any GPU at least as new.
    """

    sms: tuple[tuple[int, int], ...]
    ptx: tuple[tuple[int, int], ...]

    def serves(self, sm: tuple[int, int]) -> bool:
        """Whether a GPU of this compute capability can run it: machine code of the same major and
        no later minor version, or PTX no newer than the GPU.
        """
        native = any(code[0] == sm[0] and code[1] <= sm[1] for code in self.sms)
        return native or any(code <= sm for code in self.ptx)

    def __str__(self) -> str:
        named = [f"{major}.{minor}" for major, minor in self.sms]
        return ", ".join(named + [f"PTX {major}.{minor}" for major, minor in self.ptx])


def targets_of(image: bytes) -> FatbinTargets:
    """Read a fatbin's table of contents.

    Args:
        image: The file.

    Raises:
        ValueError: If it is none, or is cut short.
    """
    if len(image) < _HEADER.size:
        raise ValueError("too short for a fatbin")
    magic, _, header_bytes, entries_bytes = _HEADER.unpack_from(image)
    if magic != _MAGIC:
        raise ValueError("not a fatbin")
    end = header_bytes + entries_bytes
    if end > len(image):
        raise ValueError(f"cut short: {len(image)} of {end} bytes")
    sms: set[tuple[int, int]] = set()
    ptx: set[tuple[int, int]] = set()
    at = header_bytes
    while at + _ENTRY.size <= end:
        kind, _, entry_bytes, payload_bytes, _, _, _, _, arch = _ENTRY.unpack_from(image, at)
        if entry_bytes < _ENTRY.size:
            raise ValueError("damaged: an entry without a header")
        if kind in (_PTX, _ELF):
            (ptx if kind == _PTX else sms).add((arch // 10, arch % 10))
        at += entry_bytes + payload_bytes
    if at != end or not (sms or ptx):
        raise ValueError("damaged: its entries do not add up")
    return FatbinTargets(tuple(sorted(sms)), tuple(sorted(ptx)))


def why_missing(path: Path = FATBIN) -> str | None:
    """None where the kernels are there and readable, else the reason and the cure."""
    try:
        targets_of(path.read_bytes())
    except OSError as exc:
        return (
            f"the GPU kernels were not built ({path.name}: {exc.strerror or exc}); install the "
            "CUDA toolkit (nvcc) and build again: pip install -e . or make ext"
        )
    except ValueError as exc:
        return f"the GPU kernels are unusable ({path.name}: {exc}); build again: make ext"
    return None


def load_fatbin(sm: tuple[int, int], path: Path = FATBIN) -> bytes:
    """The kernels, for a GPU of this compute capability.

    Raises:
        BackendUnavailable: If there are none for it.
    """
    reason = why_missing(path) or why_not_for(sm, path)
    if reason is not None:
        raise BackendUnavailable(reason)
    return path.read_bytes()


def why_not_for(sm: tuple[int, int], path: Path = FATBIN) -> str | None:
    """None where the (present) kernels run on this compute capability, else why not."""
    targets = targets_of(path.read_bytes())
    if targets.serves(sm):
        return None
    return (
        f"the GPU kernels were built for {targets}, not for this GPU's compute capability "
        f"{sm[0]}.{sm[1]}; build again with a CUDA toolkit that knows it (make ext), or use "
        "--backend onnxruntime"
    )
