"""The few calls of the CUDA driver that PyCUDA lacks: looking before anything is started, and
graphs. ctypes over the library that comes with the driver.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any, Final

from rt_swap.errors import InferenceError

_THREAD_LOCAL: Final = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: another thread's allocations do not spoil a capture."""
_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR"""
_STILL_THE_OLD_DRIVER: Final = {
    35: "the driver is older than the CUDA it is asked for; update the NVIDIA driver",
    100: "there is no NVIDIA GPU here",
    803: "the driver's parts are of different versions; reboot after the driver's update",
    999: "the driver does not answer; see `nvidia-smi`, and reboot if it fails too",
}


def open_library() -> Any | None:
    """The driver's library, or None where there is none."""
    names = ["nvcuda.dll"] if sys.platform == "win32" else ["libcuda.so.1", "libcuda.so"]
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


class LibCuda:
    """Calls by name, each one's result checked.

    Args:
        library: What :func:`open_library` gave.
    """

    def __init__(self, library: Any) -> None:
        self._library = library

    def _call(self, name: str, *arguments: Any) -> None:
        function: Callable[..., int] = getattr(self._library, name)
        code = int(function(*arguments))
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            said = text.value.decode() if text.value else "unknown error"
            advice = _STILL_THE_OLD_DRIVER.get(code)
            raise InferenceError(
                f"cuda: {name} failed with error {code} ({said})"
                + (f"; {advice}" if advice else "")
            )

    # --- looking ---
    def initialise(self) -> None:
        """Start the driver in this process."""
        self._call("cuInit", 0)

    def driver_version(self) -> int:
        """The newest CUDA that the driver serves, 13000 for 13.0."""
        version = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(version))
        return version.value

    def device_count(self) -> int:
        """How many GPUs there are."""
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        return count.value

    def device(self, ordinal: int) -> tuple[str, tuple[int, int]]:
        """A GPU's name and compute capability."""
        handle = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(handle), ordinal)
        name = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", name, len(name), handle)
        capability = []
        for attribute in (_MAJOR, _MINOR):
            value = ctypes.c_int()
            self._call("cuDeviceGetAttribute", ctypes.byref(value), attribute, handle)
            capability.append(value.value)
        return name.value.decode(errors="replace"), (capability[0], capability[1])

    # --- graphs ---
    def begin_capture(self, stream: int) -> None:
        """From here on, what is put on the stream is written down instead of done."""
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), _THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """The graph of what was put on the stream, ready to launch: a handle for
        :meth:`launch_graph`.
        """
        graph = ctypes.c_void_p()
        self._call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        executable = ctypes.c_void_p()
        try:
            self._call(
                "cuGraphInstantiateWithFlags",
                ctypes.byref(executable),
                graph,
                ctypes.c_ulonglong(0),
            )
        finally:
            self._call("cuGraphDestroy", graph)
        return int(executable.value or 0)

    def abandon_capture(self, stream: int) -> None:
        """Leave capture after a failure, whatever state it is in."""
        graph = ctypes.c_void_p()
        self._library.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(graph))
        if graph.value:
            self._library.cuGraphDestroy(graph)

    def launch_graph(self, executable: int, stream: int) -> None:
        """Put a graph on a stream."""
        self._call("cuGraphLaunch", ctypes.c_void_p(executable), ctypes.c_void_p(stream))

    def destroy_graph(self, executable: int) -> None:
        """Free a graph."""
        self._call("cuGraphExecDestroy", ctypes.c_void_p(executable))
