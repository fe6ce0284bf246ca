"""What a frame costs here, and what it costs LivePortrait, on this machine.

    python -m benchmarks.bench_peers [--runs N] [--json FILE] [--liveportrait CHECKOUT]

rt_swap's two networks as shipped, against LivePortrait's per-frame networks: re-stated as shapes
and operations with random values (benchmarks/peers.py; a lower bound on their time), or, with
``--liveportrait``, the code of a checkout that you have (which is then run). On the GPU, in fp16,
where PyTorch sees one; else on the CPU in fp32. LivePortrait does something else with its time (it
animates a still at 512 x 512); the comparison is of cost, not of quality.

Exit code: 0; 1 where the re-stated layers do not come to the published cost; 2 for wrong options or
where something cannot be loaded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import common, peers
from benchmarks.bench_networks import Run, inputs_of, measure, on_gpu, print_timings, timed
from benchmarks.graphs import cost_of
from rt_swap.backends import get_backend
from rt_swap.contract import GENERATOR_SPEC
from rt_swap.errors import ConfigError, RtSwapError
from rt_swap.model import load_bundle

_MOST_PERCENT = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--warm-up", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--model", type=Path, metavar="BUNDLE", help="default: the one installed")
    parser.add_argument("--backend", default="onnxruntime", help="default: %(default)s")
    parser.add_argument("--cores", type=int, default=2, help="default: %(default)s")
    parser.add_argument(
        "--liveportrait", type=Path, metavar="CHECKOUT", help="run the networks of this checkout"
    )
    parser.add_argument(
        "--count-only", action="store_true", help="count operations, and run nothing of the peer"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here too")
    args = parser.parse_args(argv)
    try:
        if args.runs < 1 or args.warm_up < 0:
            raise ConfigError("--runs must be 1 or more and --warm-up 0 or more")
        cores = common.use_cores(args.cores)
        bundle, backend = load_bundle(args.model), get_backend(args.backend)
        about = common.metadata(bundle, backend.name, cores)
        given = inputs_of()
        with backend.load(bundle.generator_path, GENERATOR_SPEC, cores) as session:
            runs: dict[str, Run] = {"rt_swap, generator": timed(lambda: session.run(given))}
            device, way = "none", "counted"
            if not args.count_only:
                device, way = _add_peer(runs, args.liveportrait, cores)
            timings = measure(runs, args.runs, args.warm_up)
        by_network = {name: round(gmac, 6) for name, gmac in peers.gmac_by_network().items()}
        theirs = sum(by_network.values())
        ours = cost_of(bundle.generator_path).macs / 1e9
        results = {
            "rt_swap_gmac": round(ours, 4),
            "liveportrait_gmac": by_network,
            "times_fewer": round(theirs / ours, 1),
            "way": way,
            "device": device,
            "ms": timings,
        }
        apart = 100 * abs(theirs / peers.LIVEPORTRAIT_GMAC - 1)
        bounds = [
            common.bound("re-stated against quoted cost, % apart", round(apart, 3), _MOST_PERCENT)
        ]
        parameters = {"runs": args.runs, "warm_up": args.warm_up, "threads": cores}
        made = common.document("peers", about, parameters, results, bounds)
        if args.json:
            common.write_result(args.json, made)
    except RtSwapError as exc:
        print(f"bench_peers: {exc}", file=sys.stderr)
        return 2
    print(f"{about['cpu']}, {cores} cores; PyTorch on {device}, {way}")
    print(f"rt_swap {ours:.3f} GMAC a frame, LivePortrait {theirs:.1f}: {theirs / ours:.0f} times")
    for name, gmac in by_network.items():
        print(f"  {name:20}{gmac:>10.3f} GMAC")
    print_timings(timings)
    common.print_bounds(bounds)
    return 0 if made["passed"] else 1


def _add_peer(runs: dict[str, Run], checkout: Path | None, cores: int) -> tuple[str, str]:
    """Add LivePortrait's networks; returns (device, way)."""
    try:
        import torch
    except ImportError as exc:
        raise ConfigError("PyTorch is not installed: pip install 'rt-swap[train]'") from exc
    torch.set_num_threads(cores)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if checkout is not None:
        functions, way = peers.from_checkout(checkout, device, device == "cuda"), "own code"
    else:
        functions, way = peers.restated(device, device == "cuda"), "re-stated"
    for name, function in functions.items():
        runs[f"LivePortrait, {name}"] = (on_gpu if device == "cuda" else timed)(function)
    return device, way


if __name__ == "__main__":
    sys.exit(main())
