"""A graph of ours on a GPU with all its buffers: what one thread owns and runs.

    exchange    pinned and device, one block, laid out alike on both sides:
                frame's numbers | small inputs | status | small outputs
                [------------ goes up, one copy ---------------]
                                              [--- comes down, one copy ---]
    staged      pinned: the part of the frame that is needed; the GPU reads it itself
    part        device: the same, spread out for random reads
    image       device: the crop, the engine's first input
    maps        device: the engine's large outputs
    out         pinned, several: the composed box; the GPU writes it itself

All copies have fixed sizes and addresses and all kernels fixed arguments, while what changes from
frame to frame (matrix, boxes, where ``staged`` and ``out`` are) lies in the frame's numbers. So one
captured graph serves every frame, and only the region of interest crosses the bus.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from rt_swap import geometry
from rt_swap.backends.base import Composed, check_inputs
from rt_swap.backends.cuda.colour import Colour
from rt_swap.backends.cuda.driver import DeviceMemory, Driver, PinnedMemory
from rt_swap.contract import GraphSpec
from rt_swap.errors import BackendUnavailable, ContractError, InferenceError, ModelFileError
from rt_swap.frames import F32, F64, U8
from rt_swap.ops import feather
from rt_swap.ops._native import warp

_log = logging.getLogger(__name__)

MAPS: Final = ("flow_xy", "keep", "fill_rgb", "shade")
"""Outputs that compose reads where they are."""
_ALIGN: Final = 256
_TILE_COLS, _TILE_ROWS = 128, 4
"""kTileCols, kTileRows of warp_gpu.h"""
_THREADS: Final = 128
"""kThreads of every kernel"""
_ROW_ALIGN, _PLANE_ALIGN = 48, 16
"""kRowAlign, kPlaneAlign"""
_FIRST_MARGIN_PX: Final = 12.0
"""How far beyond the crop the frame is sent at first, crop pixels: further than flow reaches in
all but the strongest expressions. Where one reaches further, that frame is sent whole, and from
then on twice as much."""
_BLOCKS_PER_MULTIPROCESSOR: Final = 8

PixelFormat = Literal["bgr", "nv12"]


class LoadedEngine(Protocol):
    """What the chain needs of an engine; made and used on the chain's thread."""

    @property
    def tensors(self) -> Mapping[str, tuple[tuple[int, ...], Any, bool]]:
        """(shape, dtype, whether it is an input) of every tensor by name."""
        ...

    def bind(self, name: str, device_pointer: int) -> None:
        """Say where a tensor is; it stays there."""
        ...

    def enqueue(self, stream_handle: int) -> None:
        """Put one run on a stream."""
        ...

    def close(self) -> None:
        """Free it."""
        ...


def _up(value: int, to: int) -> int:
    return -(-value // to) * to


def kernel_names(pixels: PixelFormat, image: str, maps: str | None) -> dict[str, str]:
    """Names in the fatbin of the kernels that a chain uses, by what they do.

    Args:
        pixels: Of the frames.
        image: Element type of the crop, "float32" or "float16".
        maps: Of the maps; None where nothing is composed.
    """
    names = {
        "unpack": "rt_swap_unpack_bgr" if pixels == "bgr" else "rt_swap_copy_nv12",
        "crop": f"rt_swap_crop_{pixels}_{image}",
    }
    if maps is not None:
        names["pack_maps"] = f"rt_swap_pack_maps_{pixels}_{maps}"
        names["compose"] = f"rt_swap_compose_{pixels}"
    return names


@dataclass(frozen=True)
class _Place:
    """Where a small tensor lies in the exchange block."""

    begin: int
    view: npt.NDArray[Any]


class Chain:
    """One graph on a GPU. Everything but ``Composed.release`` must be called on the thread that
    made it.

    Args:
        driver: The GPU, made on this thread.
        engine: The engine; closed with the chain, but not where making the chain fails.
        spec: What the engine must be. Its first input is the crop.
        image: The fatbin; see rt_swap.backends.cuda.fatbin.
        pixels: What frames are: "bgr" or "nv12".
        colour: NV12's conversion.

    Raises:
        ModelFileError: If the engine is not what the spec says (all mismatches listed).
        BackendUnavailable: If the kernels are of another build than the native module.
        InferenceError: If CUDA fails.
    """

    def __init__(
        self,
        driver: Driver,
        engine: LoadedEngine,
        spec: GraphSpec,
        image: bytes,
        *,
        pixels: PixelFormat = "bgr",
        colour: Colour | None = None,
    ) -> None:
        self._owner = threading.get_ident()
        self._driver, self._engine, self.spec = driver, engine, spec
        self._who = f"cuda: {spec.name}"
        self._pixels = pixels
        self._colours = None
        if pixels == "nv12":
            self._colours = (colour or Colour()).numbers()
        self._memory: list[DeviceMemory] = []
        self._graphs: dict[str, Any] = {}
        self._slots: queue.SimpleQueue[PinnedMemory] = queue.SimpleQueue()
        self._closed = False
        self._margin_px = _FIRST_MARGIN_PX
        self.whole_frames = 0
        """Frames that had to be sent whole because flow reached beyond what was sent."""
        dtypes = _checked_dtypes(spec, engine)
        self._image_name = spec.inputs[0].name
        self._size_px = spec.inputs[0].shape[-1]
        self._composes = all(name in dtypes for name in MAPS)
        map_dtypes = {dtypes[name].name for name in MAPS} if self._composes else set()
        if len(map_dtypes) > 1:
            raise ModelFileError(
                f"{self._who}: the engine's maps must be of one element type, got "
                f"{', '.join(f'{n} {dtypes[n]}' for n in MAPS)}; build the engine again"
            )
        self._names = kernel_names(
            pixels, dtypes[self._image_name].name, next(iter(map_dtypes), None)
        )
        self._frame_wh = (0, 0)
        self._staged: PinnedMemory | None = None
        self._part: DeviceMemory | None = None
        self._answers = {t.name: np.empty(t.shape, np.float32) for t in spec.outputs}
        self._stream = driver.make_stream()
        try:
            self._kernels = self._load_kernels(image)
            self._make_exchange(dtypes)
            self._make_large(dtypes)
            # an engine may allocate and choose in its first run, which a capture would not bear
            engine.enqueue(self._stream)
            driver.synchronise(self._stream)
        except BaseException:
            self._free_fixed()
            raise

    # --- set-up ---
    def _load_kernels(self, image: bytes) -> dict[str, Any]:
        found = self._driver.load_kernels(image, sorted(self._names.values()))
        native = warp()
        ours = (native.GPU_ABI, native.GPU_FRAME_PARAMS_BYTES)
        theirs = (found["rt_swap_abi"], found["rt_swap_params_bytes"])
        if ours != theirs:
            raise BackendUnavailable(
                f"{self._who}: the GPU kernels (version {theirs[0]}, {theirs[1]} bytes a frame) "
                f"and the native module (version {ours[0]}, {ours[1]} bytes) are of different "
                "builds; build both again: make ext"
            )
        return {what: found[name] for what, name in self._names.items()}

    def _make_exchange(self, dtypes: Mapping[str, np.dtype[Any]]) -> None:
        small_in = [t for t in self.spec.inputs if t.name != self._image_name]
        small_out = [t for t in self.spec.outputs if t.name not in MAPS]
        begins: dict[str, int] = {}
        at = _up(int(warp().GPU_FRAME_PARAMS_BYTES), _ALIGN)
        params_bytes = int(warp().GPU_FRAME_PARAMS_BYTES)
        for tensor in small_in:
            begins[tensor.name] = at
            at = _up(at + int(np.prod(tensor.shape)) * dtypes[tensor.name].itemsize, _ALIGN)
        self._status_at = at
        at += _ALIGN
        for tensor in small_out:
            begins[tensor.name] = at
            at = _up(at + int(np.prod(tensor.shape)) * dtypes[tensor.name].itemsize, _ALIGN)
        self._exchange_host = self._driver.allocate_pinned(at)
        self._memory.append(self._exchange_host)
        self._exchange = self._keep(self._driver.allocate(at))
        host = self._exchange_host.array
        self._params: U8 = host[:params_bytes]
        self._up_end = self._status_at + 4
        self._status = host[self._status_at : self._status_at + 4].view(np.int32)
        self._small: dict[str, _Place] = {}
        for tensor in (*small_in, *small_out):
            begin, dtype = begins[tensor.name], dtypes[tensor.name]
            nbytes = int(np.prod(tensor.shape)) * dtype.itemsize
            view = host[begin : begin + nbytes].view(dtype).reshape(tensor.shape)
            self._small[tensor.name] = _Place(begin, view)
            self._engine.bind(tensor.name, self._exchange.address + begin)

    def _make_large(self, dtypes: Mapping[str, np.dtype[Any]]) -> None:
        self._large: dict[str, DeviceMemory] = {}
        shapes = {t.name: t.shape for t in (*self.spec.inputs, *self.spec.outputs)}
        names = [self._image_name] + [n for n in shapes if n in MAPS]
        self._large_dtypes = {name: dtypes[name] for name in names}
        for name in names:
            nbytes = int(np.prod(shapes[name])) * dtypes[name].itemsize
            self._large[name] = self._keep(self._driver.allocate(nbytes))
            self._engine.bind(name, self._large[name].address)
        self._large_shapes = {name: shapes[name] for name in names}
        # pinned ends of the large tensors: only for run(), which few ask for
        self._large_host: dict[str, PinnedMemory] = {}
        if self._composes:
            side = self._size_px + 2
            self._packed = self._keep(self._driver.allocate(side * side * 32))
            self._weight = self._keep(self._driver.allocate(self._size_px**2 * 4))
            host = self._driver.allocate_pinned(self._weight.nbytes)
            host.array.view(np.float32)[:] = feather(self._size_px).ravel()
            try:
                self._driver.copy_in(self._weight, host, 0, host.nbytes, self._stream)
                self._driver.synchronise(self._stream)
            finally:
                host.free()

    def _keep(self, memory: DeviceMemory) -> DeviceMemory:
        self._memory.append(memory)
        return memory

    # --- frames ---
    def prepare(self, width: int, height: int) -> None:
        """Make room for frames of a size and capture the graph; done by the first :meth:`swap`
        otherwise.

        Raises:
            ContractError: If NV12 frames have an odd size.
            InferenceError: If CUDA fails.
        """
        self._check_thread()
        if (width, height) == self._frame_wh and "swap" in self._graphs:
            return
        if self._pixels == "nv12" and (width % 2 or height % 2):
            raise ContractError(
                f"{self._who}: NV12 frames must have an even width and height, got {width} x "
                f"{height}; crop or pad them",
                expected="even width and height",
                actual=f"{width} x {height}",
            )
        stride = self._in_stride(width)
        if self._pixels == "bgr":
            staged_bytes, part_bytes = stride * height, stride // 3 * 4 * height
        else:
            staged_bytes = part_bytes = stride * (height + height // 2)
        self._out_bytes = self._out_layout(width, height)[2]
        if self._part is None or self._part.nbytes < part_bytes:
            self._drop_frame_memory()
            self._part = self._driver.allocate(part_bytes)
            self._staged = self._driver.allocate_pinned(staged_bytes)
        elif self._staged is not None and self._staged.nbytes < staged_bytes:
            self._staged.free()
            self._staged = self._driver.allocate_pinned(staged_bytes)
        self._frame_wh = (width, height)
        if "swap" not in self._graphs:
            self._capture("swap", self._put_swap)

    def swap(
        self,
        frame: U8,
        M_crop_from_frame: F64,
        inputs: Mapping[str, F32],
        *,
        compose: bool = True,
    ) -> Composed:
        """Crop, run and compose one frame in one launch.

        Args:
            frame: (H, W, 3) uint8 BGR; for NV12 (H * 3 / 2, W) uint8, luma rows, then rows of Cb
                and Cr in turn. Rows may lie apart. Not changed.
            M_crop_from_frame: (2, 3), invertible.
            inputs: Every input but the crop by name.
            compose: False: only the small outputs are wanted, and no pixels come back.

        Returns:
            The composed box and the small outputs; see Composed.

        Raises:
            ContractError: If an argument is not as said above.
            InferenceError: If CUDA fails, the chain is closed, or this is another thread than the
                one that made it.
        """
        self._check_thread()
        self._check_small(inputs)
        M_crop_from_frame = np.ascontiguousarray(M_crop_from_frame, np.float64)
        M_frame_from_crop = np.ascontiguousarray(geometry.invert(M_crop_from_frame))
        width, height = self._size_of(frame)
        self.prepare(width, height)
        box = geometry.roi_of_crop(M_frame_from_crop, self._size_px, (height, width))
        part = self._part_around(box, geometry.scale_of(M_frame_from_crop), width, height)
        if not compose or not self._composes or box[0] >= box[2] or box[1] >= box[3]:
            box = (part[0], part[1], part[0], part[1])
        elif self._pixels == "nv12":
            box = _even(box, width, height)
        for name, array in inputs.items():
            np.copyto(self._small[name].view, array, casting="same_kind")
        slot = self._take_slot()
        try:
            self._run_swap(frame, (width, height), M_frame_from_crop, M_crop_from_frame, part, box,
                           slot)  # fmt: skip
            if self._status[0]:
                # some pixel is fetched from further away than was sent
                self.whole_frames += 1
                self._margin_px = min(2 * self._margin_px, float(self._size_px))
                _log.debug("%s: flow beyond the part sent; frame sent whole", self._who)
                whole = (0, 0, width, height)
                self._run_swap(frame, (width, height), M_frame_from_crop, M_crop_from_frame,
                               whole, box, slot)  # fmt: skip
        except BaseException:
            self._slots.put(slot)
            raise
        outputs = {
            name: np.array(self._small[name].view, np.float32)
            for name in (t.name for t in self.spec.outputs)
            if name in self._small
        }
        return Composed(box, self._picture_of(slot, box), outputs, lambda: self._slots.put(slot))

    def _run_swap(
        self,
        frame: U8,
        size_wh: tuple[int, int],
        M_frame_from_crop: F64,
        M_crop_from_frame: F64,
        part: tuple[int, int, int, int],
        box: tuple[int, int, int, int],
        slot: PinnedMemory,
    ) -> None:
        assert self._staged is not None
        self._stage(frame, part, self._in_stride(part[2] - part[0]))
        self._fill(
            size_wh, M_frame_from_crop, M_crop_from_frame, part, box, self._staged.address,
            slot.address,
        )  # fmt: skip
        self._driver.launch_graph(self._graphs["swap"], self._stream)
        self._driver.synchronise(self._stream)

    def _fill(
        self,
        size_wh: tuple[int, int],
        M_frame_from_crop: F64,
        M_crop_from_frame: F64,
        part: tuple[int, int, int, int],
        box: tuple[int, int, int, int],
        in_address: int,
        out_address: int,
    ) -> None:
        """Write the frame's numbers into the exchange block."""
        in_stride = self._in_stride(part[2] - part[0])
        out_stride, out_chroma, _ = self._out_layout(box[2] - box[0], box[3] - box[1])
        warp().gpu_frame_params(
            self._params,
            size_wh,
            self._size_px,
            M_frame_from_crop,
            M_crop_from_frame,
            part,
            box,
            in_address,
            out_address,
            (in_stride, out_stride, in_stride * (part[3] - part[1]), out_chroma),
            self._colours,
        )
        self._status[0] = 0

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Run the network alone, on a crop from the host; see rt_swap.backends.base.Session.run."""
        self._check_thread()
        check_inputs(self._who, self.spec, inputs)
        if "run" not in self._graphs:
            for name, memory in self._large.items():
                if name not in self._large_host:
                    self._large_host[name] = self._driver.allocate_pinned(memory.nbytes)
                    self._memory.append(self._large_host[name])
            self._capture("run", self._put_run)
        for name, array in inputs.items():
            to = self._small[name].view if name in self._small else self._large_view(name)
            np.copyto(to, array, casting="same_kind")
        self._driver.launch_graph(self._graphs["run"], self._stream)
        self._driver.synchronise(self._stream)
        for name, answer in self._answers.items():
            np.copyto(
                answer, self._small[name].view if name in self._small else self._large_view(name)
            )
        return dict(self._answers)

    # --- what the graphs hold ---
    def _capture(self, name: str, put: Callable[[], None]) -> None:
        self._driver.begin_capture(self._stream)
        try:
            put()
        except BaseException:
            self._driver.abandon_capture(self._stream)
            raise
        self._graphs[name] = self._driver.end_capture(self._stream)

    def _put_swap(self) -> None:
        driver, stream = self._driver, self._stream
        driver.copy_in(self._exchange, self._exchange_host, 0, self._up_end, stream)
        for what in ("unpack", "crop"):
            self.launch(what)
        self._engine.enqueue(stream)
        if self._composes:
            for what in ("pack_maps", "compose"):
                self.launch(what)
        driver.copy_out(
            self._exchange_host, self._exchange, self._status_at, self._exchange.nbytes, stream
        )

    def _put_run(self) -> None:
        driver, stream = self._driver, self._stream
        driver.copy_in(self._exchange, self._exchange_host, 0, self._up_end, stream)
        image = self._image_name
        to = self._large[image]
        driver.copy_in(to, self._large_host[image], 0, to.nbytes, stream)
        self._engine.enqueue(stream)
        for name, memory in self._large.items():
            if name != image:
                driver.copy_out(self._large_host[name], memory, 0, memory.nbytes, stream)
        driver.copy_out(
            self._exchange_host, self._exchange, self._status_at, self._exchange.nbytes, stream
        )

    def launch(self, what: str) -> None:
        """Put one kernel on the stream: "unpack", "crop", "pack_maps" or "compose". For
        measurements; it works on the last frame's numbers.
        """
        self._check_thread()
        size = self._size_px
        most = _BLOCKS_PER_MULTIPROCESSOR * self._driver.info.multiprocessors
        blocks = {
            "crop": -(-size * size // _THREADS),
            "pack_maps": -(-((size + 2) ** 2) // _THREADS),
        }.get(what, most)
        self._driver.launch(self._kernels[what], blocks, _THREADS, self._buffers(), self._stream)

    # --- for measurements and tests ---
    @property
    def driver(self) -> Driver:
        """The GPU."""
        return self._driver

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return self._stream

    @property
    def kernels(self) -> tuple[str, ...]:
        """What :meth:`launch` takes, in order."""
        return tuple(self._names)

    def launch_frame(self) -> None:
        """Put the last frame's graph on the stream again."""
        self._check_thread()
        self._driver.launch_graph(self._graphs["swap"], self._stream)

    def peek(self, name: str) -> F32:
        """A copy of what a large tensor, the crop or a map, holds now."""
        self._check_thread()
        memory = self._large[name]
        host = self._driver.allocate_pinned(memory.nbytes)
        self._driver.copy_out(host, memory, 0, memory.nbytes, self._stream)
        self._driver.synchronise(self._stream)
        raw = host.array.view(self._large_dtypes[name]).reshape(self._large_shapes[name])
        copied = raw.astype(np.float32)
        del raw
        host.free()
        return copied

    def place(
        self, frame: U8, M_crop_from_frame: F64, in_address: int, out_address: int
    ) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
        """Give :meth:`launch` the numbers of a frame whose staged and composed pieces lie where
        the caller says, such as in device memory.

        Returns:
            The part and the box.
        """
        self._check_thread()
        M_crop_from_frame = np.ascontiguousarray(M_crop_from_frame, np.float64)
        M_frame_from_crop = np.ascontiguousarray(geometry.invert(M_crop_from_frame))
        width, height = self._size_of(frame)
        self.prepare(width, height)
        box = geometry.roi_of_crop(M_frame_from_crop, self._size_px, (height, width))
        part = self._part_around(box, geometry.scale_of(M_frame_from_crop), width, height)
        if self._pixels == "nv12":
            box = _even(box, width, height)
        self._fill(
            (width, height), M_frame_from_crop, M_crop_from_frame, part, box, in_address,
            out_address,
        )  # fmt: skip
        self._driver.copy_in(self._exchange, self._exchange_host, 0, self._up_end, self._stream)
        self._driver.synchronise(self._stream)
        return part, box

    def _buffers(self) -> tuple[int, ...]:
        """Buffers of warp_gpu.h."""
        maps = [self._large[name].address if self._composes else 0 for name in MAPS]
        return (
            self._exchange.address,
            self._part.address if self._part is not None else 0,
            self._large[self._image_name].address,
            *maps,
            self._weight.address if self._composes else 0,
            self._packed.address if self._composes else 0,
            self._exchange.address + self._status_at,
        )

    # --- frame memory ---
    def _in_stride(self, width: int) -> int:
        if self._pixels == "bgr":
            return _up(3 * width, _ROW_ALIGN)
        return _up(width, _PLANE_ALIGN)

    def _out_layout(self, width: int, height: int) -> tuple[int, int, int]:
        """Bytes from row to row, from the first luma to the first chroma row, and in all."""
        across = _up(max(width, 1), _TILE_COLS)
        rows = _up(max(height, 1), _TILE_ROWS)
        if self._pixels == "bgr":
            return 3 * across, 0, 3 * across * rows
        return across, across * rows, across * (rows + rows // 2)

    def _size_of(self, frame: U8) -> tuple[int, int]:
        good = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and 0 not in frame.shape
        if self._pixels == "bgr":
            good = good and frame.ndim == 3 and frame.shape[2] == 3
            expected = "uint8 (H, W, 3), BGR"
        else:
            good = good and frame.ndim == 2 and frame.shape[0] % 3 == 0
            expected = "uint8 (H * 3 / 2, W), NV12"
        if not good:
            actual = (
                f"{frame.dtype} {frame.shape}"
                if isinstance(frame, np.ndarray)
                else type(frame).__name__
            )
            raise ContractError(
                f"{self._who}: frame must be {expected}, got {actual}; pass it as the camera gave "
                "it",
                expected=expected,
                actual=actual,
            )
        height = frame.shape[0] if self._pixels == "bgr" else frame.shape[0] // 3 * 2
        return int(frame.shape[1]), int(height)

    def _part_around(
        self, box: tuple[int, int, int, int], scale: float, width: int, height: int
    ) -> tuple[int, int, int, int]:
        """The box with a margin, inside the frame; the nearest pixels of it where the box is not.

        Two pixels more than flow needs, for bilinear neighbours and rounding.
        """
        margin = int(np.ceil(self._margin_px * scale)) + 2
        x0 = min(max(box[0] - margin, 0), width - 1)
        y0 = min(max(box[1] - margin, 0), height - 1)
        x1 = max(min(box[2] + margin, width), x0 + 1)
        y1 = max(min(box[3] + margin, height), y0 + 1)
        return (
            _even((x0, y0, x1, y1), width, height) if self._pixels == "nv12" else (x0, y0, x1, y1)
        )

    def _stage(self, frame: U8, part: tuple[int, int, int, int], stride: int) -> None:
        assert self._staged is not None
        x0, y0, x1, y1 = part
        rows, cols = y1 - y0, x1 - x0
        staged = self._staged.array
        if self._pixels == "bgr":
            view = staged[: rows * stride].reshape(rows, stride)[:, : 3 * cols]
            to = np.lib.stride_tricks.as_strided(view, (rows, cols, 3), (stride, 3, 1))
            np.copyto(to, frame[y0:y1, x0:x1])
            return
        height = frame.shape[0] // 3 * 2
        view = staged[: rows * stride * 3 // 2].reshape(rows * 3 // 2, stride)[:, :cols]
        np.copyto(view[:rows], frame[y0:y1, x0:x1])
        np.copyto(view[rows:], frame[height + y0 // 2 : height + y1 // 2, x0:x1])

    def _take_slot(self) -> PinnedMemory:
        """A pinned piece for the composed box; made only until as many exist as frames are on
        their way.
        """
        try:
            slot = self._slots.get_nowait()
        except queue.Empty:
            return self._driver.allocate_pinned(self._out_bytes)
        if slot.nbytes < self._out_bytes:
            slot.free()
            return self._driver.allocate_pinned(self._out_bytes)
        return slot

    def _picture_of(self, slot: PinnedMemory, box: tuple[int, int, int, int]) -> U8:
        rows, cols = box[3] - box[1], box[2] - box[0]
        if rows <= 0 or cols <= 0:
            return np.empty((0, 0, 3) if self._pixels == "bgr" else (0, 0), np.uint8)
        stride, chroma, _ = self._out_layout(cols, rows)
        if self._pixels == "bgr":
            lines = slot.array[: rows * stride].reshape(rows, stride)[:, : 3 * cols]
            return np.lib.stride_tricks.as_strided(lines, (rows, cols, 3), (stride, 3, 1))
        luma = slot.array[: rows * stride].reshape(rows, stride)[:, :cols]
        below = slot.array[chroma : chroma + rows // 2 * stride]
        return np.concatenate([luma, below.reshape(rows // 2, stride)[:, :cols]])

    def _large_view(self, name: str) -> npt.NDArray[Any]:
        raw = self._large_host[name].array
        return raw.view(self._large_dtypes[name]).reshape(self._large_shapes[name])

    # --- checks and the end ---
    def _check_thread(self) -> None:
        if threading.get_ident() != self._owner:
            raise InferenceError(
                f"{self._who}: called on thread {threading.current_thread().name!r}, but the GPU's "
                "buffers and stream belong to the thread that made them; go through the session"
            )
        if self._closed:
            raise InferenceError(f"{self._who}: the session is closed")

    def _check_small(self, inputs: Mapping[str, F32]) -> None:
        small = tuple(t for t in self.spec.inputs if t.name != self._image_name)
        check_inputs(self._who, GraphSpec(self.spec.name, small, ()), inputs)

    def _drop_frame_memory(self) -> None:
        graph = self._graphs.pop("swap", None)
        if graph is not None:
            self._driver.free_graph(graph)
        for memory in (self._part, self._staged):
            if memory is not None:
                memory.free()
        self._part = self._staged = None

    def close(self) -> None:
        """Free everything but boxes that are still out; harmless when done twice."""
        if self._closed:
            return
        self._check_thread()
        self._driver.synchronise(self._stream)
        self._closed = True
        self._drop_frame_memory()
        for graph in self._graphs.values():
            self._driver.free_graph(graph)
        self._graphs.clear()
        self._engine.close()
        while True:
            try:
                self._slots.get_nowait().free()
            except queue.Empty:
                break
        self._free_fixed()

    def _free_fixed(self) -> None:
        # no view of ours may outlive the memory
        self._params = np.empty(0, np.uint8)
        self._status = np.zeros(1, np.int32)
        self._small = {}
        for memory in self._memory:
            memory.free()
        self._memory.clear()


def _even(box: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """The smallest box of whole chroma samples around a box."""
    x0, y0, x1, y1 = box
    return x0 & ~1, y0 & ~1, min(x1 + (x1 & 1), width), min(y1 + (y1 & 1), height)


def _checked_dtypes(spec: GraphSpec, engine: LoadedEngine) -> dict[str, np.dtype[Any]]:
    wrong: list[str] = []
    there = dict(engine.tensors)
    dtypes: dict[str, np.dtype[Any]] = {}
    for kind, tensors in (("input", spec.inputs), ("output", spec.outputs)):
        for tensor in tensors:
            if tensor.name not in there:
                wrong.append(f"{kind} {tensor.name} is missing")
                continue
            shape, dtype, is_input = there.pop(tensor.name)
            dtypes[tensor.name] = np.dtype(dtype)
            if tuple(shape) != tensor.shape or is_input != (kind == "input"):
                found = f"{'input' if is_input else 'output'} {tuple(shape)}"
                wrong.append(f"{tensor.name} is {found}, expected {kind} {tensor.shape}")
            elif np.dtype(dtype).name not in ("float32", "float16"):
                wrong.append(f"{tensor.name} is {np.dtype(dtype)}, expected float32 or float16")
    wrong += [f"{name} is not in the contract" for name in there]
    if wrong:
        raise ModelFileError(
            f"cuda: the engine is not the {spec.name} of this version: {'; '.join(wrong)}; "
            "build it again: rt-swap engine build"
        )
    return dtypes
