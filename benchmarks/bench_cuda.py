"""The GPU chain on the card that is here: parity with the CPU, bandwidth, and the whole chain.

    python -m benchmarks.bench_cuda --json benchmarks/results/cuda_CARD.json

1. Parity: crop and compose on the GPU against the CPU's kernels, on noise at 720p, 1080p and 4K,
   crops turned, shrunk and over the edge. Every bit must be the same.
2. Bandwidth: each kernel with its pixels in device memory, at 1080p and 4K with a face that fills
   the height, by events around many launches; its bytes (each pixel read and written once, maps
   once) a second against a device-to-device copy of the same card.
3. The chain: one graph a frame from pinned memory and back, by events and as the caller waits for
   it, at 1080p and 4K. With a network by TensorRT where that runs (--backend rtx or tensorrt), else
   (--backend none) without: crop and compose alone.

Needs an NVIDIA GPU, PyCUDA and a build with nvcc; 3 with a network needs TensorRT.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import common
from rt_swap import geometry, ops
from rt_swap.backends.cuda import fatbin, probe
from rt_swap.backends.cuda.backend import CudaBackend
from rt_swap.backends.cuda.chain import MAPS, Chain
from rt_swap.backends.cuda.driver import DeviceInfo, Driver
from rt_swap.backends.cuda.session import GpuSession
from rt_swap.contract import CROP_SIZE_PX, GENERATOR_SPEC, GraphSpec, some_landmarks
from rt_swap.errors import BackendUnavailable, ConfigError, RtSwapError
from rt_swap.frames import F32, F64, U8
from rt_swap.model import ModelBundle, load_bundle

SIZES: Final = {"720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}
COPY_MIB: Final = 256
BATCH: Final = 50
"""Launches between two events: many, since events tell half microseconds only."""
CHAIN_P50_MS: Final = 1.0
"""On a data-centre card ..."""
CHAIN_P50_MS_RTX: Final = 3.0
"""... and on any other."""
DATA_CENTRE: Final = ("8.0", "9.0", "10.0", "10.3")
"""Compute capabilities of data-centre cards."""
"""DESIGN 9: crop + engine + compose at 1080p on a data-centre card; 3 ms on a mid RTX."""
WARM_UP: Final = 20
SHARE_OF_COPY: Final = 0.7
"""DESIGN 9: crop and compose at 4K."""


class StaticEngine:
    """An engine that costs nothing: its outputs are given once and lie where they were bound.

    Args:
        driver: The GPU.
        spec: What it plays.
        outputs: By name, float32; small outputs may be missing and are zero.
    """

    def __init__(self, driver: Driver, spec: GraphSpec, outputs: Mapping[str, F32]) -> None:
        self._driver, self._outputs = driver, outputs
        self._stream = driver.make_stream()
        kinds = [(t, True) for t in spec.inputs] + [(t, False) for t in spec.outputs]
        self.tensors = {t.name: (t.shape, np.dtype(np.float32), given) for t, given in kinds}

    def bind(self, name: str, device_pointer: int) -> None:
        """Copy the output there."""
        if name not in self._outputs:
            return
        array = np.ascontiguousarray(self._outputs[name], np.float32)
        host = self._driver.allocate_pinned(array.nbytes)
        host.array.view(np.float32)[:] = array.ravel()
        self._driver.copy_in(_Place(device_pointer, array.nbytes), host, 0, array.nbytes,
                             self._stream)  # fmt: skip
        self._driver.synchronise(self._stream)
        host.free()

    def enqueue(self, stream_handle: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class _Place:
    """Somebody else's device memory."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.address, self.nbytes = address, nbytes

    def free(self) -> None:
        """Not ours."""


def random_maps(rng: np.random.Generator, size_px: int, flow_px: float) -> dict[str, F32]:
    """Maps in which every term of the formula counts."""
    plane = (1, 1, size_px, size_px)
    return {
        "flow_xy": rng.normal(0, flow_px, (1, 2, size_px, size_px)).astype(np.float32),
        "keep": rng.random(plane, dtype=np.float32),
        "fill_rgb": rng.random((1, 3, size_px, size_px), dtype=np.float32),
        "shade": rng.uniform(0.4, 1.8, plane).astype(np.float32),
    }


def face_at(size_wh: tuple[int, int], share: float, degrees: float, middle: float = 0.5) -> F64:
    """M_crop_from_frame of a crop whose side is a share of the frame's height.

    Args:
        size_wh: Of the frame.
        share: Of its height.
        degrees: Turn.
        middle: Where its middle is, as a share of width and height.
    """
    scale = share * size_wh[1] / CROP_SIZE_PX
    cos, sin = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    linear = np.array([[cos, -sin], [sin, cos]])
    offset = np.array(size_wh) * middle - linear @ np.full(2, CROP_SIZE_PX / 2)
    return geometry.invert(np.concatenate([linear, offset[:, None]], axis=1))


def small_inputs() -> dict[str, F32]:
    """Every input of the generator but the crop."""
    made = {t.name: np.ones(t.shape, np.float32) for t in GENERATOR_SPEC.inputs[1:]}
    return {**made, "landmarks_xy": some_landmarks()}


@contextmanager
def static_session(
    backend_options: Mapping[str, Any],
    maps: Mapping[str, F32],
    make_driver: Callable[[int], Driver],
) -> Iterator[GpuSession]:
    """A session whose engine answers ``maps``."""
    made: list[Driver] = []

    def driver_of(ordinal: int) -> Driver:
        made.append(make_driver(ordinal))
        return made[-1]

    backend = CudaBackend(
        "rtx",
        make_driver=driver_of,
        open_engine=lambda path, spec, *_: StaticEngine(made[-1], spec, maps),
        **backend_options,
    )
    # any file does for the path: nothing reads it
    with backend.load(Path(__file__), GENERATOR_SPEC, 0) as session:
        yield session


# --- 1 --------------------------------------------------------------------------------------------
def parity(session: GpuSession, maps: Mapping[str, F32], sizes: Sequence[str]) -> list[Any]:
    """Compare crop and compose with the CPU's, frame by frame."""
    found = []
    rng = np.random.default_rng(3)
    for size in sizes:
        size_wh = SIZES[size]
        frame: U8 = rng.integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
        crop_off = pixels_off = 0
        worst = 0
        for share, degrees, middle in ((0.3, 0.0, 0.5), (0.8, 21.0, 0.4), (0.6, -70.0, 0.95)):
            M = face_at(size_wh, share, degrees, middle)
            composed = session.swap(frame, M, small_inputs())
            x0, y0, x1, y1 = composed.box_xyxy
            made = frame.copy()
            made[y0:y1, x0:x1] = composed.roi_bgr
            composed.release()
            crop = session.on_owner(lambda chain: chain.peek("target_rgb"))
            crop_off += int((crop != ops.crop_rgb(frame, geometry.invert(M), CROP_SIZE_PX)).sum())
            expected = ops.compose_bgr(
                frame, M, *(maps[name] for name in MAPS), ops.feather(CROP_SIZE_PX)
            )
            difference = np.abs(made.astype(np.int16) - expected)
            pixels_off += int((difference > 0).any(axis=2).sum())
            worst = max(worst, int(difference.max()))
        found.append({
            "size": size,
            "crop_values_differing": crop_off,
            "pixels_differing": pixels_off,
            "largest_difference": worst,
        })  # fmt: skip
    return found


# --- 2 --------------------------------------------------------------------------------------------
def event_ms(driver: Driver, stream: int, put: Callable[[], None], repeats: int, batch: int
             ) -> list[float]:  # fmt: skip
    """Milliseconds of one ``put``, ``repeats`` times, each over a batch."""
    for _ in range(3):
        put()
    driver.synchronise(stream)
    samples = []
    for _ in range(repeats):
        begin = driver.record_event(stream)
        for _ in range(batch):
            put()
        end = driver.record_event(stream)
        driver.synchronise(stream)
        samples.append(driver.elapsed_ms(begin, end) / batch)
    return samples


def copy_bandwidth(chain: Chain, repeats: int, mib: int = COPY_MIB) -> float:
    """Gigabytes a second of a device-to-device copy, bytes read and written."""
    driver, stream, nbytes = chain.driver, chain.stream, mib << 20
    source, to = driver.allocate(nbytes), driver.allocate(nbytes)
    samples = event_ms(
        driver, stream, lambda: driver.copy_device(to, source, nbytes, stream), repeats, 4
    )
    source.free()
    to.free()
    return 2 * nbytes / (float(np.median(samples)) * 1e6)


def kernel_bytes(kernel: str, part: Sequence[int], box: Sequence[int]) -> int:
    """Bytes that a kernel must move at least."""
    part_px = (part[2] - part[0]) * (part[3] - part[1])
    box_px = (box[2] - box[0]) * (box[3] - box[1])
    maps = CROP_SIZE_PX**2 * 4
    packed = (CROP_SIZE_PX + 2) ** 2 * 32
    return {
        "unpack": part_px * (3 + 4),
        "crop": box_px * 4 + 3 * maps,
        "pack_maps": 8 * maps + packed,
        "compose": box_px * (4 + 3) + packed,
    }[kernel]


def kernels(
    chain: Chain, sizes: Sequence[str], copy: float, repeats: int, batch: int = BATCH
) -> list[Any]:
    """Each kernel's time and bandwidth, with everything in device memory."""
    driver, found = chain.driver, []
    rng = np.random.default_rng(5)
    for size in sizes:
        width, height = SIZES[size]
        frame: U8 = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        room = 3 * (width + 512) * (height + 16)
        source, to = driver.allocate(room), driver.allocate(room)
        part, box = chain.place(frame, face_at((width, height), 1.0, 5.0), source.address,
                                to.address)  # fmt: skip
        for kernel in chain.kernels:
            samples = event_ms(
                driver, chain.stream, lambda k=kernel: chain.launch(k), repeats, batch
            )
            nbytes = kernel_bytes(kernel, part, box)
            speed = nbytes / (float(np.median(samples)) * 1e6)
            found.append({
                "size": size,
                "kernel": kernel,
                "ms": common.timing_summary(samples),
                "bytes": nbytes,
                "gb_per_s": float(f"{speed:.4g}"),
                "share_of_copy": float(f"{speed / copy:.4g}"),
            })  # fmt: skip
        source.free()
        to.free()
    return found


# --- 3 --------------------------------------------------------------------------------------------
def again_ms(chain: Chain) -> float:
    """The last frame's graph once more: milliseconds between events around it."""
    driver, stream = chain.driver, chain.stream
    begin = driver.record_event(stream)
    chain.launch_frame()
    end = driver.record_event(stream)
    driver.synchronise(stream)
    return driver.elapsed_ms(begin, end)


def whole_chain(session: GpuSession, sizes: Sequence[str], frames: int) -> list[Any]:
    """The graph's own time and the caller's wait, over moving faces."""
    found = []
    rng = np.random.default_rng(7)
    for size in sizes:
        width, height = SIZES[size]
        pictures = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(4)]
        gpu_ms: list[float] = []
        call_ms: list[float] = []
        inputs = small_inputs()

        before = session.on_owner(lambda chain: chain.whole_frames)
        for k in range(frames + WARM_UP):
            frame = pictures[k % len(pictures)]
            M = face_at((width, height), 0.35 + 0.05 * np.sin(k / 9), 10 * np.sin(k / 7))
            begin = time.perf_counter()
            session.swap(frame, M, inputs).release()
            waited = (time.perf_counter() - begin) * 1e3
            on_gpu = session.on_owner(again_ms)
            if k >= WARM_UP:
                call_ms.append(waited)
                gpu_ms.append(on_gpu)
        found.append({
            "size": size,
            "gpu_ms": common.timing_summary(gpu_ms),
            "call_ms": common.timing_summary(call_ms),
            "sent_whole": session.on_owner(lambda chain: chain.whole_frames) - before,
        })  # fmt: skip
    return found


# --- all ------------------------------------------------------------------------------------------
def _device(info: DeviceInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "compute_capability": f"{info.sm[0]}.{info.sm[1]}",
        "multiprocessors": info.multiprocessors,
        "memory_mib": info.memory_mib,
        "driver_version": info.driver_version,
        "integrated": info.integrated,
    }


def why_not(backend: str, ordinal: int) -> str | None:
    """None where the benchmark can run, else why not and what to do."""
    if backend in ("rtx", "tensorrt"):
        return probe.why_not("rtx" if backend == "rtx" else "tensorrt", ordinal=ordinal)
    return probe.why_not(
        "rtx",
        ordinal=ordinal,
        has_package=lambda name: name != "pycuda" or probe.is_installed(name),
        version=lambda flavour: None,
    )


def run(
    backend: str,
    bundle: ModelBundle,
    *,
    make_driver: Callable[[int], Driver],
    kernels_file: Path = fatbin.FATBIN,
    ordinal: int = 0,
    frames: int = 500,
    repeats: int = 30,
    sizes: Sequence[str] = tuple(SIZES),
    copy_mib: int = COPY_MIB,
    batch: int = BATCH,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run everything. Returns results and bounds, as the schema has them."""
    options = {"ordinal": ordinal, "kernels": kernels_file}
    maps = random_maps(np.random.default_rng(1), CROP_SIZE_PX, 3.0)
    large = [size for size in sizes if size != "720p"]
    with static_session(options, maps, make_driver) as session:
        results: dict[str, Any] = {
            "device": _device(session.on_owner(lambda chain: chain.driver.info)),
            "network": "none",
            "parity": parity(session, maps, sizes),
        }
        copy = session.on_owner(lambda chain: copy_bandwidth(chain, repeats, copy_mib))
        results["copy_gb_per_s"] = float(f"{copy:.4g}")
        results["kernels"] = session.on_owner(lambda c: kernels(c, large, copy, repeats, batch))
        if backend == "none":
            results["chain"] = whole_chain(session, large, frames)
    if backend != "none":
        flavour: probe.Flavour = "rtx" if backend == "rtx" else "tensorrt"
        real = CudaBackend(flavour, ordinal=ordinal, kernels=kernels_file)
        with real.load(bundle.generator_path, GENERATOR_SPEC, 0) as session:
            results["network"] = flavour
            results["chain"] = whole_chain(session, large, frames)
    bounds = [
        common.bound("pixels that differ from the CPU's",
                     sum(p["pixels_differing"] for p in results["parity"]), 0),
        common.bound("crop values that differ from the CPU's",
                     sum(p["crop_values_differing"] for p in results["parity"]), 0),
    ]  # fmt: skip
    for entry in results["kernels"]:
        if entry["size"] == "4K" and entry["kernel"] in ("crop", "compose"):
            bounds.append(
                common.bound(
                    f"copy bandwidth left unused by {entry['kernel']} at 4K, share",
                    round(1 - entry["share_of_copy"], 4),
                    round(1 - SHARE_OF_COPY, 4),
                )
            )
    centre = results["device"]["compute_capability"] in DATA_CENTRE
    limit_ms = CHAIN_P50_MS if centre else CHAIN_P50_MS_RTX
    for entry in results["chain"]:
        if entry["size"] == "1080p":
            bounds.append(
                common.bound("chain at 1080p, p50, ms", entry["call_ms"]["p50"], limit_ms)
            )
    return results, bounds


def _print(results: Mapping[str, Any]) -> None:
    d = results["device"]
    print(
        f"{d['name']}, compute capability {d['compute_capability']}, network {results['network']}"
    )
    for p in results["parity"]:
        print(
            f"parity {p['size']:>5}: {p['crop_values_differing']} crop values and "
            f"{p['pixels_differing']} pixels differ, by {p['largest_difference']} levels at most"
        )
    print(f"copy on the card: {results['copy_gb_per_s']} GB/s")
    for k in results["kernels"]:
        print(
            f"{k['kernel']:>10} {k['size']:>5}: p50 {k['ms']['p50']:.4f} ms, {k['gb_per_s']} GB/s, "
            f"{100 * k['share_of_copy']:.0f} % of copy"
        )
    for c in results["chain"]:
        print(
            f"chain {c['size']:>5}: GPU p50 {c['gpu_ms']['p50']} p99 {c['gpu_ms']['p99']} ms; "
            f"caller waits p50 {c['call_ms']['p50']} p99 {c['call_ms']['p99']} ms"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_cuda",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--backend", choices=("rtx", "tensorrt", "none"), default="rtx",
                        help="what runs the network (default: %(default)s)")  # fmt: skip
    parser.add_argument("--gpu", type=int, default=0, help="which GPU (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=500, help="of part 3 (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=30, help="of part 2 (default: %(default)s)")
    parser.add_argument("--model", type=Path, metavar="BUNDLE", help="default: the one installed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here too")
    options = parser.parse_args(arguments)
    try:
        if options.frames < 1 or options.repeats < 1:
            raise ConfigError("--frames and --repeats must be 1 or more")
        reason = why_not(options.backend, options.gpu)
        if reason is not None:
            raise BackendUnavailable(f"it cannot run here: {reason}")
        bundle = load_bundle(options.model)
        about = common.metadata(bundle, options.backend, 1)
        from rt_swap.backends.cuda.pycuda_driver import PyCudaDriver

        results, bounds = run(
            options.backend,
            bundle,
            make_driver=PyCudaDriver,
            ordinal=options.gpu,
            frames=options.frames,
            repeats=options.repeats,
        )
        parameters = {
            "frames": options.frames,
            "repeats": options.repeats,
            "sizes": {name: list(size) for name, size in SIZES.items()},
            "not_timed": "camera, decoding, face tracking, encoding, display",
        }
        made = common.document("cuda", about, parameters, results, bounds)
        if options.json:
            common.write_result(options.json, made)
    except RtSwapError as exc:
        print(f"bench_cuda: {exc}", file=sys.stderr)
        return 2
    _print(results)
    common.print_bounds(bounds)
    return 0 if made["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
