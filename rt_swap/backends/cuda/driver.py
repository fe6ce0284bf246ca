"""What the chain asks of CUDA, as a Protocol: PyCUDA answers it, and in tests a fake that writes
every call down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rt_swap.frames import U8


@dataclass(frozen=True)
class DeviceInfo:
    """A GPU.

    Attributes:
        ordinal: Its number.
        name: As the driver says.
        sm: Compute capability, (major, minor).
        multiprocessors: How many there are.
        memory_mib: Memory on it.
        driver_version: The newest CUDA that the driver serves, 13000 for 13.0.
        integrated: Whether it shares the host's memory (Jetson).
    """

    ordinal: int
    name: str
    sm: tuple[int, int]
    multiprocessors: int
    memory_mib: float
    driver_version: int
    integrated: bool


class DeviceMemory(Protocol):
    """A piece of device memory; at least 256-byte aligned."""

    @property
    def address(self) -> int:
        """Where it is, for the device."""
        ...

    @property
    def nbytes(self) -> int:
        """Its size."""
        ...

    def free(self) -> None:
        """Give it back; nothing on the stream may still use it."""
        ...


class PinnedMemory(DeviceMemory, Protocol):
    """Host memory that stays where it is and that the device reads and writes itself."""

    @property
    def array(self) -> U8:
        """(nbytes,) the same memory, for the host."""
        ...


class Driver(Protocol):
    """One GPU's primary context, on the thread that made this, which alone may use it.

    Handles (kernels, graphs, events) are opaque. A stream's handle is CUDA's own, for TensorRT.
    """

    @property
    def info(self) -> DeviceInfo:
        """The GPU."""
        ...

    def make_stream(self) -> int:
        """A stream that does not wait for the default one. Freed by close()."""
        ...

    def allocate(self, nbytes: int) -> DeviceMemory:
        """Device memory, all zero."""
        ...

    def allocate_pinned(self, nbytes: int) -> PinnedMemory:
        """Pinned memory, all zero."""
        ...

    def load_kernels(self, image: bytes, names: Sequence[str]) -> dict[str, Any]:
        """Load a fatbin's kernels, and its two numbers (``rt_swap_abi``, ``rt_swap_params_bytes``)
        under their names.
        """
        ...

    def launch(
        self, kernel: Any, blocks: int, threads: int, addresses: Sequence[int], stream: int
    ) -> None:
        """Put a kernel on the stream; its arguments are addresses."""
        ...

    def copy_in(
        self, to: DeviceMemory, source: PinnedMemory, begin: int, end: int, stream: int
    ) -> None:
        """Put a copy of bytes [begin, end) to the device on the stream; the same place in both."""
        ...

    def copy_out(
        self, to: PinnedMemory, source: DeviceMemory, begin: int, end: int, stream: int
    ) -> None:
        """Put a copy of bytes [begin, end) to the host on the stream."""
        ...

    def copy_device(self, to: DeviceMemory, source: DeviceMemory, nbytes: int, stream: int) -> None:
        """Put a copy on the device itself on the stream."""
        ...

    def begin_capture(self, stream: int) -> None:
        """What is put on the stream from now on is written down, not done."""
        ...

    def end_capture(self, stream: int) -> Any:
        """The graph written down."""
        ...

    def abandon_capture(self, stream: int) -> None:
        """Leave capture after a failure."""
        ...

    def launch_graph(self, graph: Any, stream: int) -> None:
        """Put a graph on the stream."""
        ...

    def free_graph(self, graph: Any) -> None:
        """Give a graph back."""
        ...

    def synchronise(self, stream: int) -> None:
        """Wait until all on the stream is done."""
        ...

    def record_event(self, stream: int) -> Any:
        """A mark on the stream, for :meth:`elapsed_ms`. For measurements: it allocates."""
        ...

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """Milliseconds between two marks that have passed."""
        ...

    def close(self) -> None:
        """Free streams and kernels and let go of the context."""
        ...
