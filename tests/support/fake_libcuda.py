"""The CUDA driver's library, as ctypes sees it."""

from __future__ import annotations

from typing import Any


class Library:
    """libcuda's functions: a GPU of one compute capability; ``codes`` fail."""

    def __init__(self, sm: tuple[int, int] = (8, 9), count: int = 1, **codes: int) -> None:
        self._sm, self._count, self._codes = sm, count, codes
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            self.calls.append(name)
            code = self._codes.get(name, 0)
            if code:
                return code
            if name == "cuDeviceGetCount":
                arguments[0]._obj.value = self._count
            if name == "cuDriverGetVersion":
                arguments[0]._obj.value = 13000
            if name == "cuDeviceGetName":
                arguments[0].value = b"NVIDIA Something"
            if name == "cuDeviceGetAttribute":
                arguments[0]._obj.value = {75: self._sm[0], 76: self._sm[1]}[arguments[1]]
            if name == "cuGetErrorString":
                arguments[1]._obj.value = b"said by CUDA"
            if name in ("cuStreamEndCapture", "cuGraphInstantiateWithFlags"):
                target = arguments[1] if name == "cuStreamEndCapture" else arguments[0]
                target._obj.value = 0x6060 if name == "cuStreamEndCapture" else 0xE0E0
            return 0

        return call
