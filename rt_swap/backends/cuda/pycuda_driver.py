"""PyCUDA as a :class:`rt_swap.backends.cuda.driver.Driver`. The only place that imports
``pycuda``; graphs, which it does not have, come from the driver's own library.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from rt_swap.backends.cuda.driver import DeviceInfo, DeviceMemory, PinnedMemory
from rt_swap.backends.cuda.libcuda import LibCuda, open_library
from rt_swap.errors import BackendUnavailable, InferenceError
from rt_swap.frames import U8

_NON_BLOCKING: Final = 1
"""CU_STREAM_NON_BLOCKING"""
_NUMBERS: Final = ("rt_swap_abi", "rt_swap_params_bytes")


@contextmanager
def _translated(what: str) -> Iterator[None]:
    import pycuda.driver as cuda

    try:
        yield
    except cuda.MemoryError as exc:
        raise InferenceError(
            f"cuda: {what}: the GPU's memory is full ({exc}); close other programs that use it, or "
            "use a smaller frame"
        ) from exc
    except cuda.Error as exc:
        raise InferenceError(f"cuda: {what}: {exc}") from exc


class _Device:
    """Device memory of PyCUDA's."""

    def __init__(self, allocation: Any, nbytes: int) -> None:
        self._allocation, self.nbytes = allocation, nbytes
        self.address = int(allocation)

    def free(self) -> None:
        if self._allocation is not None:
            with _translated("freeing device memory"):
                self._allocation.free()
            self._allocation = None


class _Pinned:
    """Pinned memory of PyCUDA's; the array's base owns it."""

    def __init__(self, array: U8) -> None:
        self.array, self.nbytes = array, array.nbytes
        base: Any = array.base
        self.address = int(base.get_device_pointer())

    def free(self) -> None:
        base: Any = self.array.base
        if base is not None:
            self.array = np.empty(0, np.uint8)  # no view of ours is left on it
            with _translated("freeing pinned memory"):
                base.free()


class PyCudaDriver:
    """One GPU's primary context, pushed on the thread that makes this.

    Args:
        ordinal: Which GPU.
        library: Opened CUDA driver; None opens it.

    Raises:
        BackendUnavailable: If PyCUDA or the driver cannot be loaded, or there is no such GPU.
    """

    def __init__(self, ordinal: int = 0, library: Any | None = None) -> None:
        opened = library if library is not None else open_library()
        if opened is None:
            raise BackendUnavailable("cuda: there is no NVIDIA driver (libcuda was not found)")
        try:
            import pycuda.driver as cuda
        except ImportError as exc:
            raise BackendUnavailable(
                f"cuda: PyCUDA cannot be loaded ({exc}); pip install pycuda, which needs the CUDA "
                "toolkit (nvcc) and its headers"
            ) from exc
        self._cuda: Any = cuda
        self._lib = LibCuda(opened)
        self._streams: dict[int, Any] = {}
        self._modules: list[Any] = []
        self._owner = threading.get_ident()
        try:
            cuda.init()
            device = cuda.Device(ordinal)
            attribute = cuda.device_attribute
            major, minor = device.compute_capability()
            self._info = DeviceInfo(
                ordinal,
                device.name(),
                (int(major), int(minor)),
                int(device.get_attribute(attribute.MULTIPROCESSOR_COUNT)),
                round(device.total_memory() / 2**20, 1),
                int(cuda.get_driver_version()),
                bool(device.get_attribute(attribute.INTEGRATED)),
            )
            # the context that TensorRT, as a user of the CUDA runtime, uses too
            self._context = device.retain_primary_context()
        except cuda.Error as exc:
            raise BackendUnavailable(
                f"cuda: GPU {ordinal} cannot be used ({exc}); see `nvidia-smi`"
            ) from exc
        self._context.push()

    @property
    def info(self) -> DeviceInfo:
        """See Driver."""
        return self._info

    def make_stream(self) -> int:
        """See Driver."""
        with _translated("making a stream"):
            stream = self._cuda.Stream(_NON_BLOCKING)
        handle = int(stream.handle)
        self._streams[handle] = stream
        return handle

    def allocate(self, nbytes: int) -> DeviceMemory:
        """See Driver."""
        with _translated(f"allocating {nbytes} bytes"):
            memory = self._cuda.mem_alloc(nbytes)
            self._cuda.memset_d8(memory, 0, nbytes)
            # on the default stream, which the session's own does not wait for
            self._cuda.Context.synchronize()
        return _Device(memory, nbytes)

    def allocate_pinned(self, nbytes: int) -> PinnedMemory:
        """See Driver."""
        flags = self._cuda.host_alloc_flags.DEVICEMAP
        with _translated(f"allocating {nbytes} bytes of pinned memory"):
            array = self._cuda.pagelocked_empty((nbytes,), np.uint8, mem_flags=flags)
        array.fill(0)
        return _Pinned(array)

    def load_kernels(self, image: bytes, names: Sequence[str]) -> dict[str, Any]:
        """See Driver."""
        found: dict[str, Any] = {}
        with _translated("loading the GPU kernels"):
            module = self._cuda.module_from_buffer(image)
            for name in names:
                found[name] = module.get_function(name)
                # one struct of ten pointers and ten pointers lie alike in a kernel's arguments
                found[name].prepare("P" * 10)
            for name in _NUMBERS:
                value = np.zeros(1, np.int32)
                self._cuda.memcpy_dtoh(value, module.get_global(name)[0])
                found[name] = int(value[0])
        self._modules.append(module)
        return found

    def launch(
        self, kernel: Any, blocks: int, threads: int, addresses: Sequence[int], stream: int
    ) -> None:
        """See Driver."""
        with _translated("launching a kernel"):
            kernel.prepared_async_call(
                (blocks, 1), (threads, 1, 1), self._streams[stream], *addresses
            )

    def copy_in(
        self, to: DeviceMemory, source: PinnedMemory, begin: int, end: int, stream: int
    ) -> None:
        """See Driver."""
        with _translated("copying to the GPU"):
            self._cuda.memcpy_htod_async(
                to.address + begin, source.array[begin:end], self._streams[stream]
            )

    def copy_out(
        self, to: PinnedMemory, source: DeviceMemory, begin: int, end: int, stream: int
    ) -> None:
        """See Driver."""
        with _translated("copying from the GPU"):
            self._cuda.memcpy_dtoh_async(
                to.array[begin:end], source.address + begin, self._streams[stream]
            )

    def copy_device(self, to: DeviceMemory, source: DeviceMemory, nbytes: int, stream: int) -> None:
        """See Driver."""
        with _translated("copying on the GPU"):
            self._cuda.memcpy_dtod_async(to.address, source.address, nbytes, self._streams[stream])

    def begin_capture(self, stream: int) -> None:
        """See Driver."""
        self._lib.begin_capture(stream)

    def end_capture(self, stream: int) -> int:
        """See Driver."""
        return self._lib.end_capture(stream)

    def abandon_capture(self, stream: int) -> None:
        """See Driver."""
        self._lib.abandon_capture(stream)

    def launch_graph(self, graph: Any, stream: int) -> None:
        """See Driver."""
        self._lib.launch_graph(graph, stream)

    def free_graph(self, graph: Any) -> None:
        """See Driver."""
        self._lib.destroy_graph(graph)

    def synchronise(self, stream: int) -> None:
        """See Driver."""
        with _translated("running"):
            self._streams[stream].synchronize()

    def record_event(self, stream: int) -> Any:
        """See Driver."""
        return self._cuda.Event().record(self._streams[stream])

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """See Driver."""
        return float(end.time_since(begin))

    def close(self) -> None:
        """See Driver. Harmless when done twice."""
        if self._context is None:
            return
        self._streams.clear()
        self._modules.clear()
        with contextlib.suppress(self._cuda.Error):  # after a fault the GPU refuses this, too
            self._context.pop()
        # also empties PyCUDA's own stack of contexts, without which the process would be aborted
        self._context.detach()
        self._context = None
