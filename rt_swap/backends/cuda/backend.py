"""Backends "tensorrt" and "rtx": an engine from the cache, and a session that runs it."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, cast

from rt_swap.backends.cuda import fatbin
from rt_swap.backends.cuda.chain import Chain, LoadedEngine, PixelFormat
from rt_swap.backends.cuda.colour import Colour
from rt_swap.backends.cuda.driver import DeviceInfo, Driver
from rt_swap.backends.cuda.probe import Flavour
from rt_swap.backends.cuda.session import GpuSession
from rt_swap.contract import GraphSpec
from rt_swap.errors import ConfigError, ModelFileError

_log = logging.getLogger(__name__)

PRECISION: Final = "fp16"


class OpenEngine(Protocol):
    """How a backend gets an engine, called on the owner thread with the context current."""

    def __call__(
        self, path: Path, spec: GraphSpec, flavour: Flavour, precision: str, device: DeviceInfo
    ) -> LoadedEngine:
        """The engine of an ONNX file, built where the cache does not have it."""
        ...


def _open_engine(
    path: Path, spec: GraphSpec, flavour: Flavour, precision: str, device: DeviceInfo
) -> LoadedEngine:
    trt = importlib.import_module("rt_swap.backends.trt")
    cache = importlib.import_module("rt_swap.enginecache")
    known = trt.flavour(flavour)
    if precision == "fp16":
        half = path.with_name(f"{path.stem}.fp16.onnx")
        if half.is_file():
            path = half
        else:
            _log.warning(
                "%s: the model has no %s, so it runs in float32; export it again: "
                "python -m engines.export --fp16-of BUNDLE",
                flavour,
                half.name,
            )
            precision = "fp32"
    target = cache.Device(sm=10 * device.sm[0] + device.sm[1], name=device.name, is_here=True)
    engine_path = cache.get_or_build(path, spec, known, precision, target)
    return cast(LoadedEngine, trt.load_engine(engine_path, known, spec))


def _make_driver(ordinal: int) -> Driver:
    from rt_swap.backends.cuda.pycuda_driver import PyCudaDriver

    return PyCudaDriver(ordinal)


class CudaBackend:
    """Runs graphs with TensorRT on an NVIDIA GPU, crop and compose included.

    Args:
        flavour: "tensorrt", or "rtx" for TensorRT for RTX.
        ordinal: Which GPU.
        precision: "fp16" (mixed, see engines/) or "fp32".
        pixels: What frames ``swap`` of its sessions takes: "bgr" or "nv12".
        colour: NV12's conversion; None: BT.709, video range.
        make_driver: Makes the driver; PyCUDA's where not given.
        open_engine: Gets the engine; the cache's where not given.
        kernels: The fatbin.
    """

    def __init__(
        self,
        flavour: Flavour,
        *,
        ordinal: int = 0,
        precision: str = PRECISION,
        pixels: PixelFormat = "bgr",
        colour: Colour | None = None,
        make_driver: Callable[[int], Driver] = _make_driver,
        open_engine: OpenEngine = _open_engine,
        kernels: Path = fatbin.FATBIN,
    ) -> None:
        if precision not in ("fp16", "fp32"):
            raise ConfigError(f"{flavour}: precision must be fp16 or fp32, got {precision!r}")
        if pixels not in ("bgr", "nv12"):
            raise ConfigError(f"{flavour}: pixels must be bgr or nv12, got {pixels!r}")
        self._flavour, self._ordinal, self._precision = flavour, ordinal, precision
        self._pixels, self._colour = pixels, colour
        self._make_driver, self._open_engine, self._kernels = make_driver, open_engine, kernels

    @property
    def name(self) -> str:
        """The registered name: the flavour."""
        return self._flavour

    def load(self, path: Path, spec: GraphSpec, threads: int) -> GpuSession:
        """See :class:`rt_swap.backends.base.Backend`; the session is a FusedSession too.

        Raises:
            EngineBuildError: If there is no engine yet and none can be built.
        """
        if threads < 0:
            raise ConfigError(f"{self.name}: threads must be 0 or more, got {threads}")
        if not path.is_file():
            raise ModelFileError(f"{path}: there is no such model file")

        def make() -> tuple[Chain, Callable[[], None]]:
            driver = self._make_driver(self._ordinal)
            engine: LoadedEngine | None = None
            try:
                image = fatbin.load_fatbin(driver.info.sm, self._kernels)
                engine = self._open_engine(path, spec, self._flavour, self._precision, driver.info)
                chain = Chain(driver, engine, spec, image, pixels=self._pixels, colour=self._colour)
            except BaseException:
                if engine is not None:
                    engine.close()
                driver.close()
                raise
            _log.debug("%s: %s on %s", self.name, path.name, driver.info.name)
            return chain, driver.close

        return GpuSession(make, spec)
