"""PyCUDA's side of the driver, over a stand-in that has exactly the names and signatures of
PyCUDA 2026.1 which are used, and one test on a GPU.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest

from rt_swap.backends.cuda.pycuda_driver import PyCudaDriver
from rt_swap.errors import BackendUnavailable, InferenceError
from tests.support.fake_libcuda import Library


def stand_in(log: list[Any]) -> types.ModuleType:
    """A module ``pycuda.driver``."""
    cuda = types.ModuleType("pycuda.driver")

    class Error(Exception): ...

    class MemoryError(Error): ...

    class Context:
        def push(self) -> None:
            log.append("push")

        @staticmethod
        def pop() -> None:
            log.append("pop")

        def detach(self) -> None:
            log.append("detach")

    class Device:
        def __init__(self, number: int) -> None:
            if number:
                raise Error("invalid device ordinal")

        def name(self) -> str:
            return "NVIDIA Something"

        def compute_capability(self) -> tuple[int, int]:
            return (8, 9)

        def get_attribute(self, attribute: str) -> int:
            return {"mp": 24, "integrated": 0}[attribute]

        def total_memory(self) -> int:
            return 8 << 30

        def retain_primary_context(self) -> Context:
            log.append("retain_primary_context")
            return Context()

    class Stream:
        def __init__(self, flags: int = 0) -> None:
            assert flags == 1, "a blocking stream would wait for the default one"
            self.handle = 0x5700

        def synchronize(self) -> None:
            log.append("synchronize")

    class Allocation:
        def __init__(self, nbytes: int) -> None:
            self.nbytes = nbytes

        def __int__(self) -> int:
            return 0xD000

        def free(self) -> None:
            log.append("free device")

    class HostAllocation:
        """Owns pinned memory; an array's ``base``, as in PyCUDA."""

        def __init__(self, nbytes: int) -> None:
            self._bytes = np.full(nbytes, 7, np.uint8)
            self.__array_interface__ = self._bytes.__array_interface__

        def get_device_pointer(self) -> int:
            return 0xA000

        def free(self) -> None:
            log.append("free pinned")

    class Function:
        def prepare(self, types_: str) -> Function:
            log.append(("prepare", types_))
            return self

        def prepared_async_call(self, grid, block, stream, *args) -> None:
            assert len(grid) == 2 and len(block) == 3
            log.append(("launch", grid, block, stream.handle, args))

    class Module:
        def get_function(self, name: str) -> Function:
            return Function()

        def get_global(self, name: str) -> tuple[int, int]:
            return ({"rt_swap_abi": 1, "rt_swap_params_bytes": 2}[name], 4)

    def mem_alloc(nbytes: int) -> Allocation:
        if nbytes > 1 << 40:
            raise MemoryError("cuMemAlloc failed: out of memory")
        return Allocation(nbytes)

    def pagelocked_empty(shape, dtype, order="C", mem_flags=0):
        assert mem_flags == 2
        return np.asarray(HostAllocation(int(np.prod(shape))))

    def memcpy_dtoh(dest, src) -> None:
        dest[...] = 40 + src

    cuda.init = lambda: log.append("init")
    cuda.get_driver_version = lambda: 13000
    cuda.Error, cuda.MemoryError, cuda.Device, cuda.Stream = Error, MemoryError, Device, Stream
    cuda.device_attribute = types.SimpleNamespace(
        MULTIPROCESSOR_COUNT="mp", INTEGRATED="integrated"
    )
    cuda.host_alloc_flags = types.SimpleNamespace(DEVICEMAP=2)
    cuda.mem_alloc, cuda.pagelocked_empty = mem_alloc, pagelocked_empty
    cuda.memset_d8 = lambda dest, data, size: log.append(("memset", int(dest), data, size))
    cuda.Context = types.SimpleNamespace(synchronize=lambda: log.append(("wait",)))
    cuda.module_from_buffer = lambda image: Module()
    cuda.memcpy_dtoh = memcpy_dtoh
    cuda.memcpy_htod_async = lambda dest, src, stream: log.append(("in", dest, src.nbytes))
    cuda.memcpy_dtoh_async = lambda dest, src, stream: log.append(("out", dest.nbytes, src))
    return cuda


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    written: list[Any] = []
    module = stand_in(written)
    package = types.ModuleType("pycuda")
    package.driver = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", module)
    return written


def test_primary_context_is_pushed_and_let_go(log):
    driver = PyCudaDriver(0, Library())
    assert log == ["init", "retain_primary_context", "push"]
    assert driver.info.sm == (8, 9)
    assert driver.info.multiprocessors == 24
    assert driver.info.memory_mib == 8192.0
    driver.close()
    driver.close()
    assert log[3:] == ["pop", "detach"]


def test_calls_reach_pycuda_as_it_wants_them(log):
    driver = PyCudaDriver(0, Library())
    stream = driver.make_stream()
    memory, pinned = driver.allocate(1000), driver.allocate_pinned(1000)
    assert (memory.address, pinned.address) == (0xD000, 0xA000)
    assert (pinned.array == 0).all()
    kernels = driver.load_kernels(b"image", ["k"])
    assert kernels["rt_swap_abi"] == 41
    assert kernels["rt_swap_params_bytes"] == 42
    del log[:]
    driver.launch(kernels["k"], 5, 128, range(10), stream)
    driver.copy_in(memory, pinned, 100, 400, stream)
    driver.copy_out(pinned, memory, 16, 32, stream)
    driver.synchronise(stream)
    assert log == [
        ("launch", (5, 1), (128, 1, 1), stream, tuple(range(10))),
        ("in", 0xD000 + 100, 300),
        ("out", 16, 0xD000 + 16),
        "synchronize",
    ]
    del log[:]
    memory.free()
    memory.free()
    pinned.free()
    assert log == ["free device", "free pinned"]


def test_graphs_go_to_the_driver_s_own_library(log):
    library = Library()
    driver = PyCudaDriver(0, library)
    stream = driver.make_stream()
    driver.begin_capture(stream)
    graph = driver.end_capture(stream)
    driver.launch_graph(graph, stream)
    driver.free_graph(graph)
    assert library.calls[-2:] == ["cuGraphLaunch", "cuGraphExecDestroy"]


def test_pycuda_s_errors_become_ours(log):
    driver = PyCudaDriver(0, Library())
    with pytest.raises(InferenceError, match="the GPU's memory is full"):
        driver.allocate(1 << 50)
    with pytest.raises(BackendUnavailable, match=r"GPU 1 cannot be used .*invalid device ordinal"):
        PyCudaDriver(1, Library())


def test_missing_pycuda_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(BackendUnavailable, match=r"PyCUDA cannot be loaded .*pip install pycuda"):
        PyCudaDriver(0, Library())
