"""TensorRT and TensorRT for RTX: the only place that calls ``tensorrt`` or ``tensorrt_rtx``.

Both have the same Python API, and how they differ is data in :data:`FLAVOURS`. Every network is
strongly typed: the precision lives in the ONNX file (``*.fp16.onnx``), there is no precision flag
and no plugin. TF32 is switched off, so that what a file says is float32 is computed in float32.

Building needs no GPU with TensorRT for RTX; running needs one with both. Nothing here allocates
device memory: whoever runs an engine binds pointers of their own (see :class:`LoadedEngine`).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from rt_swap.backends.base import check_graph_io
from rt_swap.contract import GraphSpec
from rt_swap.enginecache import Built, Device, read_checked
from rt_swap.enginecache.build import Progress
from rt_swap.enginecache.files import write_atomically
from rt_swap.errors import (
    BackendUnavailable,
    ConfigError,
    EngineBuildError,
    EngineMismatch,
    InferenceError,
    ModelFileError,
)

_log = logging.getLogger("rt_swap.backends.tensorrt")

WORKSPACE_MIB: Final = 1024
"""Scratch memory a layer may ask for while kernels are chosen; ours need a few MiB."""

_KERNELS_SUFFIX: Final = ".kernels"

TensorInfo = tuple[tuple[int, ...], np.dtype[Any], bool]
"""Shape, element type, and whether it is an input."""


def _import_tensorrt() -> Any:
    import tensorrt

    return tensorrt


def _import_rtx() -> Any:
    import tensorrt_rtx

    return tensorrt_rtx


@dataclass(frozen=True)
class Flavour:
    """One of the two libraries; a :class:`rt_swap.enginecache.Builder`.

    Attributes:
        name: "tensorrt" or "rtx".
        module: What is imported.
        load: Imports it.
        install: How a user gets it.
        min_version: Oldest version that works.
        below_version: First version that is not known to.
        typed_flag_below: Versions below this one make weakly typed networks unless told otherwise;
            None: all networks are strongly typed.
        sms: Compute capabilities it can build for without that GPU; empty: it builds for the
            machine's own GPU only.
        portable: Whether an engine runs on every GPU of its compute capability.
        timing_cache: Whether builds get faster by what earlier ones measured.
        runtime_cache: Whether kernels are compiled when an engine first runs, and can be kept.
    """

    name: str
    module: str
    load: Callable[[], Any]
    install: str
    min_version: tuple[int, ...]
    below_version: tuple[int, ...]
    typed_flag_below: tuple[int, ...] | None
    sms: tuple[int, ...]
    portable: bool
    timing_cache: bool
    runtime_cache: bool

    def why_not(self) -> str | None:
        """None where engines can be built here, else the reason and what to do."""
        if importlib.util.find_spec(self.module) is None:
            return f"the package {self.module} is not installed; {self.install}"
        version = _numbers(self.version)
        if not self.min_version <= version < self.below_version:
            low, below = (".".join(map(str, v)) for v in (self.min_version, self.below_version))
            return (
                f"{self.module} {self.version} is installed, rt_swap works with {low} up to, not "
                f"including, {below}; {self.install}"
            )
        return None

    def require(self) -> None:
        """Raise where it cannot build here.

        Raises:
            BackendUnavailable: With the reason and what to do.
        """
        reason = self.why_not()
        if reason is not None:
            raise BackendUnavailable(f"TensorRT ({self.name}): {reason}")

    @property
    def version(self) -> str:
        """The library's version, "" where it is not installed; imports it only where its package
        does not say.
        """
        if importlib.util.find_spec(self.module) is None:
            return ""
        try:
            return importlib.metadata.version(self.module)
        except importlib.metadata.PackageNotFoundError:  # JetPack installs it without
            return str(self.load().__version__)

    @property
    def flags(self) -> str:
        """How it builds, for the engine's key."""
        return f"typed=1,tf32=0,workspace_mib={WORKSPACE_MIB}"

    def build(
        self,
        onnx_path: Path,
        spec: GraphSpec,
        device: Device,
        *,
        timing: bytes | None = None,
        progress: Progress | None = None,
    ) -> Built:
        """Build an engine; see :class:`rt_swap.enginecache.Builder`.

        Args:
            onnx_path: The ONNX file; its precision is the engine's.
            spec: What it must be.
            device: What the engine is for.
            timing: From an earlier build.
            progress: Told how far it is.

        Returns:
            The engine and what the builder's network says about its tensors.

        Raises:
            BackendUnavailable: If the library is missing, or cannot build for that GPU.
            ModelFileError: If the file cannot be read or is not the graph.
            EngineBuildError: With the parser's or builder's own words.
        """
        self.require()
        trt = self.load()
        who = f"{spec.name} ({self.name} {self.version}, sm{device.sm})"
        logger = _make_logger(trt)
        try:
            blob = onnx_path.read_bytes()
        except OSError as exc:
            raise ModelFileError(
                f"{onnx_path}: cannot be read ({exc.strerror or exc}); install the model again"
            ) from exc
        self._check_target(trt, device)
        try:
            builder = trt.Builder(logger)
        except TypeError as exc:  # pybind11: the library gave none
            raise EngineBuildError(f"{who}: no builder could be made: {logger.words()}") from exc
        network = builder.create_network(self._network_flags(trt))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(blob):
            errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
            raise EngineBuildError(f"{onnx_path}: TensorRT cannot read it: {errors}")
        io = _io_of_network(trt, network)
        _check_io(onnx_path, spec, io)
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_MIB << 20)
        config.clear_flag(trt.BuilderFlag.TF32)
        if self.sms:
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{device.sm}"), 0)
        if progress is not None:
            config.progress_monitor = _make_monitor(trt, progress)
        cache = None
        if self.timing_cache:
            cache = config.create_timing_cache(timing or b"")
            if not config.set_timing_cache(cache, ignore_mismatch=False):
                _log.info("%s: timings of another version or GPU are not used", who)
        _log.debug(
            "%s: %d layers, workspace %d MiB, flags %s, %s",
            who, network.num_layers, WORKSPACE_MIB, self.flags, onnx_path.name,
        )  # fmt: skip
        memory = builder.build_serialized_network(network, config)
        if memory is None:
            raise EngineBuildError(f"{who}: the builder gave up: {logger.words()}")
        return Built(
            engine=bytes(memory),
            io={
                name: {"shape": list(shape), "dtype": str(dtype), "is_input": is_input}
                for name, (shape, dtype, is_input) in io.items()
            },
            timing=bytes(cache.serialize()) if cache is not None else None,
            about={
                "layers": network.num_layers,
                "half_layers": _half_layers(trt, network),
                "strongly_typed": _is_typed(trt, network),
            },
        )

    def check(
        self, engine: bytes, onnx_path: Path, spec: GraphSpec, precision: str, device: Device
    ) -> Mapping[str, Any] | None:
        """Run an engine once and compare it; see :class:`rt_swap.enginecache.Builder`."""
        from rt_swap.backends import trt_runner

        return trt_runner.self_check(engine, self, onnx_path, spec, precision, device)

    def targets(self) -> tuple[int, ...]:
        """Compute capabilities that the installed version builds for without such a GPU."""
        if not self.sms or self.why_not() is not None:
            return ()
        known = self.load().ComputeCapability.__members__
        return tuple(sm for sm in self.sms if f"SM{sm}" in known)

    def _check_target(self, trt: Any, device: Device) -> None:
        if not self.sms:
            if not device.is_here:
                raise BackendUnavailable(
                    f"TensorRT ({self.name}) builds for this machine's own GPU only; build on the "
                    "machine that will run it, or use --runtime rtx"
                )
            return
        known = self.targets()
        if device.sm not in known:
            raise BackendUnavailable(
                f"TensorRT for RTX {self.version} does not build for compute capability "
                f"{device.sm / 10:g}, only for {', '.join(f'{sm / 10:g}' for sm in known)}; use "
                "--runtime tensorrt on such a GPU"
            )

    def _network_flags(self, trt: Any) -> int:
        below = self.typed_flag_below
        if below is None or _numbers(self.version) >= below:
            return 0
        return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


TENSORRT: Final = Flavour(
    name="tensorrt",
    module="tensorrt",
    load=_import_tensorrt,
    install="pip install rt-swap[tensorrt], on a Jetson use JetPack's own",
    min_version=(10, 0),
    below_version=(12,),
    typed_flag_below=(11,),  # from 11 on every network is strongly typed
    sms=(),
    portable=False,  # kernels are chosen by timing them on the very GPU
    timing_cache=True,
    runtime_cache=False,
)
RTX: Final = Flavour(
    name="rtx",
    module="tensorrt_rtx",
    load=_import_rtx,
    install="pip install rt-swap[rtx]",
    min_version=(1, 2),
    below_version=(2,),
    typed_flag_below=None,
    sms=(75, 80, 86, 89, 120, 121),
    portable=True,
    timing_cache=False,  # accepted and ignored since 1.2
    runtime_cache=True,
)
FLAVOURS: Final[dict[str, Flavour]] = {f.name: f for f in (TENSORRT, RTX)}
"""All that the two libraries differ in."""


def flavour(name: str) -> Flavour:
    """A flavour by name.

    Raises:
        ConfigError: If there is none of that name.
    """
    if name not in FLAVOURS:
        raise ConfigError(f"there is no runtime {name!r}; there are {', '.join(FLAVOURS)}")
    return FLAVOURS[name]


class LoadedEngine:
    """An engine on the current CUDA device, with one execution context.

    Made by :func:`load_engine` while the caller's CUDA context is current, used and closed on that
    thread. Tensors are bound by name to device memory that the caller owns and that stays where it
    is as long as the engine may run; so ``enqueue`` can be captured into a CUDA graph.

    Attributes:
        tensors: Every input and output by name.
    """

    def __init__(self, trt: Any, flavour: Flavour, blob: bytes, path: Path | None) -> None:
        self._who = path.name if path is not None else "engine"
        self._logger = _make_logger(trt)
        try:
            self._runtime: Any = trt.Runtime(self._logger)
        except TypeError as exc:  # pybind11: the library gave none, as with a driver too old
            raise BackendUnavailable(
                f"{self._who}: the GPU cannot be used: {self._logger.words()}; is there one, and a "
                f"driver new enough for {flavour.module} {flavour.version}?"
            ) from exc
        self._engine: Any = self._runtime.deserialize_cuda_engine(blob)
        if self._engine is None:
            words = self._logger.words()
            if "cudaerror" in words.lower():
                raise BackendUnavailable(
                    f"{self._who}: the GPU cannot be used: {words}; is there one, and a driver new "
                    f"enough for {flavour.module} {flavour.version}?"
                )
            raise EngineMismatch(
                f"{self._who}: {flavour.module} {flavour.version} does not load it: "
                f"{words}; build it on this machine: rt-swap engine build --force"
            )
        self._kernels: Any = None
        self._kernels_path = (
            path.with_name(path.name + _KERNELS_SUFFIX)
            if path is not None and flavour.runtime_cache
            else None
        )
        self._context: Any = self._make_context()
        if self._context is None:
            raise InferenceError(f"{self._who}: no execution context: {self._logger.words()}")
        self.tensors: dict[str, TensorInfo] = {}
        for i in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(i)
            self.tensors[name] = (
                tuple(self._engine.get_tensor_shape(name)),
                np.dtype(trt.nptype(self._engine.get_tensor_dtype(name))),
                self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
            )
        self._bound: set[str] = set()

    def bind(self, name: str, device_pointer: int) -> None:
        """Say where a tensor lies.

        Args:
            name: Of an input or output.
            device_pointer: Device address of the whole tensor, C-contiguous, 256-byte aligned.

        Raises:
            InferenceError: If there is no such tensor, or TensorRT refuses the address.
        """
        if name not in self.tensors:
            raise InferenceError(f"{self._who}: no tensor {name!r}; it has {sorted(self.tensors)}")
        if not self._open().set_tensor_address(name, int(device_pointer)):
            raise InferenceError(f"{self._who}: {name} cannot be bound: {self._logger.words()}")
        self._bound.add(name)

    def enqueue(self, stream_handle: int) -> None:
        """Launch one run on a stream; returns at once.

        Args:
            stream_handle: A ``cudaStream_t``/``CUstream`` as a number.

        Raises:
            InferenceError: If a tensor is not bound, or the launch fails.
        """
        context = self._open()
        if len(self._bound) != len(self.tensors):
            missing = sorted(set(self.tensors) - self._bound)
            raise InferenceError(f"{self._who}: not bound yet: {', '.join(missing)}")
        if not context.execute_async_v3(int(stream_handle)):
            raise InferenceError(f"{self._who}: the launch failed: {self._logger.words()}")

    def close(self) -> None:
        """Give the device memory back, and keep compiled kernels for the next start; may be called
        twice.
        """
        if self._context is None:
            return
        self._keep_kernels()
        # the library wants the context gone before its engine, and that before its runtime
        self._context = None
        self._kernels = None
        self._engine = None
        self._runtime = None

    def __enter__(self) -> LoadedEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> Any:
        if self._context is None:
            raise InferenceError(f"{self._who}: the engine is closed")
        return self._context

    def _make_context(self) -> Any:
        if self._kernels_path is None:
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        self._kernels = config.create_runtime_cache()
        try:
            kept = self._kernels_path.read_bytes()
        except OSError:
            kept = b""
        # refused where it is of another version or GPU; kernels are compiled again then
        if kept and not self._kernels.deserialize(kept):
            _log.info("%s: kernels kept from an earlier start do not fit", self._who)
        config.set_runtime_cache(self._kernels)
        return self._engine.create_execution_context(config)

    def _keep_kernels(self) -> None:
        if self._kernels is None or self._kernels_path is None:
            return
        memory = self._kernels.serialize()
        blob = b"" if memory is None else bytes(memory)
        try:
            if blob and not (
                self._kernels_path.is_file() and self._kernels_path.read_bytes() == blob
            ):
                write_atomically(self._kernels_path, blob)
        except OSError as exc:
            _log.warning("%s: kernels cannot be kept: %s", self._who, exc.strerror or exc)


def load_engine(path: Path, flavour: Flavour, spec: GraphSpec) -> LoadedEngine:
    """Load an engine from the cache; the caller's CUDA context must be current.

    Args:
        path: From :func:`rt_swap.enginecache.get_or_build`.
        flavour: What built it.
        spec: What it must be.

    Raises:
        BackendUnavailable: If the library is not here.
        EngineMismatch: If the file is not what its sidecar says, is of another flavour or version,
            is not the graph, or the library refuses it.
    """
    flavour.require()
    blob, sidecar = read_checked(path)
    key = sidecar["key"]
    if (key["runtime"], key["runtime_version"]) != (flavour.name, flavour.version):
        raise EngineMismatch(
            f"{path}: built by {key['runtime']} {key['runtime_version']}, here is {flavour.name} "
            f"{flavour.version}; build it anew: rt-swap engine build"
        )
    return load_bytes(blob, flavour, spec, path)


def load_bytes(
    blob: bytes, flavour: Flavour, spec: GraphSpec, path: Path | None = None
) -> LoadedEngine:
    """Load an engine that was just built or checked; as :func:`load_engine`.

    Args:
        blob: The engine.
        flavour: What built it.
        spec: What it must be.
        path: Its file, beside which compiled kernels are kept; None keeps none.
    """
    engine = LoadedEngine(flavour.load(), flavour, blob, path)
    try:
        _check_io(path or Path(f"{spec.name}.engine"), spec, engine.tensors)
    except ModelFileError as exc:
        engine.close()
        raise EngineMismatch(str(exc)) from exc
    return engine


def _check_io(path: Path, spec: GraphSpec, io: Mapping[str, TensorInfo]) -> None:
    def side(wanted: bool) -> list[tuple[str, tuple[object, ...], str]]:
        return [
            (name, shape, str(dtype))
            for name, (shape, dtype, is_input) in io.items()
            if is_input is wanted
        ]

    check_graph_io(path, spec, side(True), side(False))


def _io_of_network(trt: Any, network: Any) -> dict[str, TensorInfo]:
    tensors = [(network.get_input(i), True) for i in range(network.num_inputs)]
    tensors += [(network.get_output(i), False) for i in range(network.num_outputs)]
    return {
        t.name: (tuple(t.shape), np.dtype(trt.nptype(t.dtype)), is_input) for t, is_input in tensors
    }


def _half_layers(trt: Any, network: Any) -> int:
    """How many layers answer in half precision."""
    layers = (network.get_layer(i) for i in range(network.num_layers))
    return sum(
        any(layer.get_output_type(k) == trt.float16 for k in range(layer.num_outputs))
        for layer in layers
    )


def _is_typed(trt: Any, network: Any) -> bool:
    flags = trt.NetworkDefinitionCreationFlag
    # where the flag is gone, there is nothing else any more
    return not hasattr(flags, "STRONGLY_TYPED") or bool(network.get_flag(flags.STRONGLY_TYPED))


def _numbers(version: str) -> tuple[int, ...]:
    """Compare versions as numbers: "10.13.3.9.post1" is (10, 13, 3, 9)."""
    numbers = []
    for piece in version.split("."):
        if not piece.isdecimal():
            break
        numbers.append(int(piece))
    return tuple(numbers)


def _make_logger(trt: Any) -> Any:
    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.WARNING,
        trt.ILogger.INFO: logging.DEBUG,
        trt.ILogger.VERBOSE: logging.NOTSET,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]
        """TensorRT's words in our log; errors are kept for the exception that follows."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            if level >= logging.ERROR:
                self.errors = [*self.errors[-3:], message]
                level = logging.DEBUG  # an exception says it
            if level:
                _log.log(level, "%s", message)

        def words(self) -> str:
            """The last errors, once."""
            errors, self.errors = self.errors, []
            return "; ".join(errors) or "it gave no reason"

    return Logger()


def _make_monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Adds the steps of nested phases up."""

        def __init__(self) -> None:
            super().__init__()
            self.total = 0
            self.done = 0

        def phase_start(self, phase: str, parent: str, steps: int) -> None:
            self.total += steps
            progress(self.done, self.total)

        def step_complete(self, phase: str, step: int) -> bool:
            self.done += 1
            progress(min(self.done, self.total), self.total)
            return True  # False would stop the build

        def phase_finish(self, phase: str) -> None:
            progress(min(self.done, self.total), self.total)

    return Monitor()
