"""A GPU without a GPU: a Driver that writes every call down, runs the real kernels on the host and
refuses what CUDA would refuse, and an engine that ONNX Runtime runs on its "device memory".

Device and pinned memory are real memory at real addresses, each piece with a guard behind it, so
that sizes, life times and overruns are checked on what truly happens.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rt_swap.backends.cuda.backend import CudaBackend
from rt_swap.backends.cuda.driver import DeviceInfo
from rt_swap.contract import GraphSpec
from rt_swap.frames import U8

CHECKOUT = Path(__file__).resolve().parents[2]
GUARD = 512
_GUARD_BYTE = 0xC7
DEVICE = DeviceInfo(0, "Emulated GPU", (8, 9), 3, 1024.0, 13000, False)


@functools.cache
def emulator() -> Any:
    """The kernels, built for the host; skips the test where there is no C++ compiler."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    folder = tempfile.mkdtemp(prefix="emulated-gpu-")
    library = Path(folder) / "emulated.so"
    flags = ["-O1", "-std=c++17", "-ffp-contract=off", "-shared", "-fPIC"]
    warnings = ["-Wall", "-Wextra", "-Wno-psabi", "-Werror"]
    source = CHECKOUT / "tests" / "support" / "emulated_kernels.cpp"
    command = [compiler, *flags, *warnings, f"-I{CHECKOUT / 'cpp_ext'}", str(source)]
    try:
        subprocess.run([*command, "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))
    finally:
        shutil.rmtree(folder)  # the loaded library stays


class FakeMemory:
    """Host memory that plays device or pinned memory."""

    def __init__(self, gpu: FakeGpu, nbytes: int, pinned: bool) -> None:
        self._whole = np.full(nbytes + 256 + GUARD, _GUARD_BYTE, np.uint8)
        start = -self._whole.ctypes.data % 256
        self._bytes = self._whole[start : start + nbytes]
        self._guard = self._whole[start + nbytes : start + nbytes + GUARD]
        self._bytes[:] = 0
        self._gpu, self.nbytes, self.pinned = gpu, nbytes, pinned
        self.address = self._bytes.ctypes.data
        self.freed = False

    @property
    def array(self) -> U8:
        assert self.pinned, "device memory is not the host's to touch"
        assert not self.freed, "used after it was freed"
        return self._bytes

    def check_guard(self) -> None:
        assert (self._guard == _GUARD_BYTE).all(), "written beyond its end"

    def free(self) -> None:
        self._gpu.note("free", self)
        assert not self.freed, "freed twice"
        assert not self._gpu.busy, "freed while the stream may still use it"
        self.check_guard()
        self.freed = True
        self._gpu.living.remove(self)


class _Window:
    """A piece of a FakeMemory."""

    def __init__(self, whole: FakeMemory, begin: int, nbytes: int) -> None:
        assert begin + nbytes <= whole.nbytes
        self._whole, self.nbytes, self.pinned = whole, nbytes, whole.pinned
        self._bytes = whole._bytes[begin : begin + nbytes]

    @property
    def freed(self) -> bool:
        return self._whole.freed


class FakeGpu:
    """See the module. ``calls`` holds (name, details...) in order."""

    fails_at_first: str | None = None
    """What ``fail_at`` is at first."""

    def __init__(self, info: DeviceInfo = DEVICE) -> None:
        self._info = info
        self._owner = threading.get_ident()
        self.calls: list[tuple[Any, ...]] = []
        self.living: list[FakeMemory] = []
        self.graphs: dict[int, list[tuple[str, Callable[[], None]]]] = {}
        self.capturing: list[tuple[str, Callable[[], None]]] | None = None
        self.pending: list[Callable[[], None]] = []
        self.streams: list[int] = []
        self.closed = False
        self.fail_at: str | None = self.fails_at_first

    # --- what tests ask ---
    @property
    def busy(self) -> bool:
        return bool(self.pending)

    def names(self) -> list[str]:
        return [call[0] for call in self.calls]

    def note(self, name: str, *details: Any) -> None:
        assert threading.get_ident() == self._owner, f"{name} on another thread than the owner's"
        assert not self.closed, f"{name} after close"
        self.calls.append((name, *details))
        if self.fail_at == name:
            raise RuntimeError(f"{name} fails on purpose")

    def memory_at(self, address: int) -> FakeMemory:
        for memory in self.living:
            if memory.address <= address < memory.address + memory.nbytes:
                return memory
        raise AssertionError(f"no memory at {address:#x}")

    def enqueue(self, name: str, work: Callable[[], None], stream: int) -> None:
        """Put work on the stream, or into the graph being captured."""
        assert stream in self.streams, "a stream of another's"
        if self.capturing is not None:
            self.capturing.append((name, work))
        else:
            self.pending.append(work)

    # --- Driver ---
    @property
    def info(self) -> DeviceInfo:
        return self._info

    def make_stream(self) -> int:
        self.note("make_stream")
        self.streams.append(0x5700 + len(self.streams))
        return self.streams[-1]

    def allocate(self, nbytes: int) -> FakeMemory:
        return self._allocate(nbytes, pinned=False)

    def allocate_pinned(self, nbytes: int) -> FakeMemory:
        return self._allocate(nbytes, pinned=True)

    def _allocate(self, nbytes: int, pinned: bool) -> FakeMemory:
        self.note("allocate_pinned" if pinned else "allocate", nbytes)
        assert nbytes > 0
        assert self.capturing is None, "CUDA allocates nothing while it captures"
        memory = FakeMemory(self, nbytes, pinned)
        self.living.append(memory)
        return memory

    def load_kernels(self, image: bytes, names: Sequence[str]) -> dict[str, Any]:
        self.note("load_kernels", tuple(names))
        library = emulator()
        return {
            **{name: name for name in names},
            "rt_swap_abi": library.emulated_abi(),
            "rt_swap_params_bytes": library.emulated_params_bytes(),
        }

    def launch(
        self, kernel: str, blocks: int, threads: int, addresses: Sequence[int], stream: int
    ) -> None:
        self.note("launch", kernel, blocks, threads, tuple(addresses))
        assert len(addresses) == 10
        for address in addresses:
            if address:
                self.memory_at(address)
        pointers = (ctypes.c_void_p * 10)(*addresses)

        def work() -> None:
            for address in addresses:
                if address:
                    self.memory_at(address)  # still there
            code = emulator().emulated_launch(kernel.encode(), blocks, threads, pointers)
            assert code == 0, f"{kernel}: {code}"

        self.enqueue(kernel, work, stream)

    def copy_in(self, to: Any, source: FakeMemory, begin: int, end: int, stream: int) -> None:
        if not isinstance(to, FakeMemory):  # an address in the middle of some
            whole = self.memory_at(to.address)
            to = _Window(whole, to.address - whole.address, to.nbytes)
        self._copy("copy_in", to, source, begin, end, stream)
        assert source.pinned and not to.pinned

    def copy_out(
        self, to: FakeMemory, source: FakeMemory, begin: int, end: int, stream: int
    ) -> None:
        self._copy("copy_out", to, source, begin, end, stream)
        assert to.pinned and not source.pinned

    def _copy(
        self, name: str, to: Any, source: FakeMemory, begin: int, end: int, stream: int
    ) -> None:
        self.note(name, end - begin)
        assert 0 <= begin < end <= min(to.nbytes, source.nbytes)

        def work() -> None:
            assert not to.freed and not source.freed
            to._bytes[begin:end] = source._bytes[begin:end]

        self.enqueue(name, work, stream)

    def copy_device(self, to: FakeMemory, source: FakeMemory, nbytes: int, stream: int) -> None:
        self.note("copy_device", nbytes)
        assert not to.pinned and not source.pinned
        assert 0 < nbytes <= min(to.nbytes, source.nbytes)

        def work() -> None:
            to._bytes[:nbytes] = source._bytes[:nbytes]

        self.enqueue("copy_device", work, stream)

    def begin_capture(self, stream: int) -> None:
        self.note("begin_capture")
        assert self.capturing is None and not self.pending
        self.capturing = []

    def end_capture(self, stream: int) -> int:
        self.note("end_capture")
        assert self.capturing is not None
        handle = 0x6700 + len(self.calls)
        self.graphs[handle] = self.capturing
        self.capturing = None
        return handle

    def abandon_capture(self, stream: int) -> None:
        self.note("abandon_capture")
        self.capturing = None

    def launch_graph(self, graph: int, stream: int) -> None:
        self.note("launch_graph", graph)
        assert self.capturing is None
        self.pending += [work for _, work in self.graphs[graph]]

    def free_graph(self, graph: int) -> None:
        self.note("free_graph", graph)
        assert not self.pending
        del self.graphs[graph]

    def synchronise(self, stream: int) -> None:
        self.note("synchronise")
        assert self.capturing is None, "CUDA does not wait while it captures"
        todo, self.pending = self.pending, []
        for work in todo:
            work()
        for memory in self.living:
            memory.check_guard()

    def record_event(self, stream: int) -> Any:
        self.note("record_event")
        return len(self.calls)

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        return float(end - begin)

    def close(self) -> None:
        self.note("close")
        assert not self.pending and not self.graphs
        self.closed = True


class FakeEngine:
    """A function of named arrays that reads and writes the fake GPU's memory where it was bound.

    Args:
        gpu: Whose memory.
        spec: Inputs and outputs.
        function: (inputs by name, float32) -> outputs by name.
        dtypes: Element types that are not float32, by name.
    """

    def __init__(
        self,
        gpu: FakeGpu,
        spec: GraphSpec,
        function: Callable[[dict[str, Any]], Mapping[str, Any]],
        dtypes: Mapping[str, str] | None = None,
    ) -> None:
        self._gpu, self._spec, self._function = gpu, spec, function
        kinds = [(t, True) for t in spec.inputs] + [(t, False) for t in spec.outputs]
        self.tensors = {
            t.name: (t.shape, np.dtype((dtypes or {}).get(t.name, "float32")), is_input)
            for t, is_input in kinds
        }
        self.bound: dict[str, int] = {}
        self.runs = 0
        self.closed = False

    def bind(self, name: str, device_pointer: int) -> None:
        shape, dtype, _ = self.tensors[name]
        memory = self._gpu.memory_at(device_pointer)
        nbytes = int(np.prod(shape)) * dtype.itemsize
        assert not memory.pinned
        assert device_pointer + nbytes <= memory.address + memory.nbytes
        assert device_pointer % 256 == 0  # TensorRT's demand
        self.bound[name] = device_pointer

    def _view(self, name: str) -> Any:
        shape, dtype, _ = self.tensors[name]
        nbytes = int(np.prod(shape)) * dtype.itemsize
        raw = (ctypes.c_uint8 * nbytes).from_address(self.bound[name])
        return np.frombuffer(raw, dtype).reshape(shape)

    def enqueue(self, stream_handle: int) -> None:
        assert not self.closed
        assert set(self.bound) == set(self.tensors), "not all tensors are bound"
        self._gpu.note("enqueue_engine")
        self._gpu.enqueue("engine", self._run, stream_handle)

    def _run(self) -> None:
        assert not self.closed
        self.runs += 1
        given = {t.name: self._view(t.name).astype(np.float32) for t in self._spec.inputs}
        for name, array in self._function(given).items():
            self._view(name)[...] = array

    def close(self) -> None:
        self._gpu.note("close_engine")
        assert not self.closed
        self.closed = True


class EmulatedBackend:
    """CudaBackend over fake GPUs, one a session, with ONNX Runtime as the engine.

    Attributes:
        gpus: Made so far.
        engines: Made so far.
    """

    def __init__(self, kernels: Path, **options: Any) -> None:
        self.gpus: list[FakeGpu] = []
        self.engines: list[FakeEngine] = []
        self.dtypes: dict[str, str] = {}
        self.function: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None
        emulator()  # built here, not on an owner thread
        self.backend = CudaBackend(
            "rtx", make_driver=self._make_driver, open_engine=self._open, kernels=kernels, **options
        )

    def _make_driver(self, ordinal: int) -> FakeGpu:
        self.gpus.append(FakeGpu())
        return self.gpus[-1]

    def _open(
        self, path: Path, spec: GraphSpec, flavour: str, precision: str, device: DeviceInfo
    ) -> FakeEngine:
        function = self.function
        if function is None:
            from rt_swap.backends.onnxruntime import OnnxRuntimeBackend

            function = OnnxRuntimeBackend().load(path, spec, 1).run
        gpu = self.gpus[-1]
        self.engines.append(FakeEngine(gpu, spec, function, self.dtypes))
        return self.engines[-1]


def fatbin_for(path: Path, archs: Sequence[int] = (75, 89), ptx: Sequence[int] = (75,)) -> Path:
    """Write a fatbin's table of contents, without code."""
    import struct

    entries = b""
    for kind, arch in [*((1, a) for a in ptx), *((2, a) for a in archs)]:
        entries += struct.pack("<HHIQIIHHI", kind, 0x0101, 64, 16, 0, 0, 0, 9, arch)
        entries += bytes(32) + bytes(16)
    path.write_bytes(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries)
    return path
