"""The target generator three ways: as shipped, in PyTorch, and in PyTorch compiled.

    python -m benchmarks.bench_networks [--runs N] [--json FILE] [--model BUNDLE] [--no-compile]

The shipped ONNX file is run by a backend of rt_swap, and as PyTorch code with the same operators
and weights (benchmarks/graphs.py), eagerly and through ``torch.compile``; on the CPU, and on an
NVIDIA GPU where PyTorch sees one (fp32 and fp16; times by events there, the device synchronised).
Runs take turns, so that a slow spell of the machine hits all alike, and the outputs are compared
first: what computes something else is not compared. What is timed is a run with its inputs where
they are needed; copies to and from a GPU are not, for either side.

Exit code: 0; 1 where outputs differ by more than the contract allows; 2 for wrong options or where
something cannot be loaded.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.graphs import cost_of, torch_module
from rt_swap.backends import get_backend
from rt_swap.contract import GENERATOR_SPEC, PARITY_ATOL_FP32, some_landmarks
from rt_swap.errors import ConfigError, RtSwapError
from rt_swap.frames import F32
from rt_swap.model import ModelBundle, load_bundle

Run = Callable[[], float]
"""One run; returns its milliseconds."""


def inputs_of(seed: int = 0) -> dict[str, F32]:
    """Inputs of the generator drawn from a seed, in the contract's ranges."""
    rng = np.random.default_rng(seed)
    made = {t.name: rng.normal(size=t.shape).astype(np.float32) for t in GENERATOR_SPEC.inputs}
    made["target_rgb"] = rng.uniform(size=made["target_rgb"].shape).astype(np.float32)
    made["landmarks_xy"] = some_landmarks()
    made["gains"] = np.ones_like(made["gains"])
    made["relative"] = np.zeros_like(made["relative"])
    return made


def timed(function: Callable[[], object]) -> Run:
    """Time by the clock."""

    def run() -> float:
        begin = time.perf_counter()
        function()
        return (time.perf_counter() - begin) * 1e3

    return run


def on_gpu(function: Callable[[], object]) -> Run:
    """Time by CUDA events, synchronised."""
    import torch

    def run() -> float:
        begin, end = torch.cuda.Event(True), torch.cuda.Event(True)
        begin.record()
        function()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))

    return run


def largest_differences(
    ours: Mapping[str, F32], theirs: Mapping[str, F32]
) -> dict[str, dict[str, float]]:
    """How far two sets of outputs are apart, with what the contract allows in fp32."""
    return {
        name: {
            "largest": round(float(np.abs(ours[name] - theirs[name]).max()), 6),
            "allowed": PARITY_ATOL_FP32[name],
        }
        for name in ours
    }


def measure(runs: Mapping[str, Run], repeats: int, warm_up: int) -> dict[str, dict[str, float]]:
    """Run all of them, taking turns and changing who goes first.

    Returns:
        Percentiles by name.
    """
    spent: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(warm_up + repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            ms = runs[name]()
            if turn >= warm_up:
                spent[name].append(ms)
    return {name: common.timing_summary(values) for name, values in spent.items()}


def ways(
    bundle: ModelBundle, backend_name: str, threads: int, compiled: bool
) -> tuple[dict[str, Run], dict[str, dict[str, float]], Any]:
    """Everything to be timed, and how far PyTorch's outputs are from the backend's.

    Returns:
        Runs by name, differences by output, and the session, to be closed.
    """
    import torch

    backend = get_backend(backend_name)
    session = backend.load(bundle.generator_path, GENERATOR_SPEC, threads)
    given = inputs_of()
    module, names, outputs = torch_module(bundle.generator_path)
    tensors = [torch.from_numpy(given[name]) for name in names]
    torch.set_num_threads(threads)
    with torch.inference_mode():
        answer = {n: v.numpy() for n, v in zip(outputs, module(*tensors), strict=True)}
    ours = {name: array.copy() for name, array in session.run(given).items()}
    differences = largest_differences(ours, answer)

    def inference(function: Any, arguments: Sequence[Any]) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                return function(*arguments)

        return run

    runs: dict[str, Run] = {f"rt_swap, {backend.name}": timed(lambda: session.run(given))}
    runs["PyTorch, eager, CPU"] = timed(inference(module, tensors))
    if compiled:
        runs["PyTorch, compiled, CPU"] = timed(inference(torch.compile(module), tensors))
    if torch.cuda.is_available():
        for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
            there = torch_module(bundle.generator_path)[0].to("cuda", dtype)
            arguments = [t.to("cuda", dtype) for t in tensors]
            runs[f"PyTorch, eager, GPU {name}"] = on_gpu(inference(there, arguments))
            if compiled:
                fast = torch.compile(there, mode="max-autotune")
                runs[f"PyTorch, compiled, GPU {name}"] = on_gpu(inference(fast, arguments))
    return runs, differences, session


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_networks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--warm-up", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--model", type=Path, metavar="BUNDLE", help="default: the one installed")
    parser.add_argument("--backend", default="onnxruntime", help="default: %(default)s")
    parser.add_argument("--cores", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here too")
    args = parser.parse_args(argv)
    try:
        if args.runs < 1 or args.warm_up < 1:
            raise ConfigError("--runs and --warm-up must be 1 or more")
        cores = common.use_cores(args.cores)
        bundle = load_bundle(args.model)
        about = common.metadata(bundle, args.backend, cores)
        runs, differences, session = ways(bundle, args.backend, cores, not args.no_compile)
        with session:
            timings = measure(runs, args.runs, args.warm_up)
        cost = cost_of(bundle.generator_path)
        bounds = [
            common.bound(f"{name}, PyTorch against rt_swap", d["largest"], d["allowed"])
            for name, d in differences.items()
        ]
        results = {"gmac": round(cost.macs / 1e9, 4), "ms": timings}
        parameters = {"runs": args.runs, "warm_up": args.warm_up, "threads": cores}
        made = common.document("networks", about, parameters, results, bounds)
        if args.json:
            common.write_result(args.json, made)
    except RtSwapError as exc:
        print(f"bench_networks: {exc}", file=sys.stderr)
        return 2
    print(f"{about['cpu']}, {cores} cores; {bundle.name}, {results['gmac']:g} GMAC a frame")
    print_timings(timings)
    common.print_bounds(bounds)
    return 0 if made["passed"] else 1


def print_timings(timings: Mapping[str, Mapping[str, float]]) -> None:
    """A table of milliseconds."""
    print(f"{'ms':44}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}{'n':>7}")
    for name, t in timings.items():
        figures = "".join(f"{t[p]:>9.2f}" for p in ("p50", "p95", "p99", "max"))
        print(f"{name:44}{figures}{t['count']:>7}")


if __name__ == "__main__":
    sys.exit(main())
