"""``rt-swap bench``: everything that is measured, in order, put into one document."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from rt_swap.backends import available_backends, get_backend
from rt_swap.bench import measure, schema
from rt_swap.bench.about import PACKAGES, accelerator_of, model_of, system_of
from rt_swap.bench.clip import open_clip
from rt_swap.bench.measure import Tell
from rt_swap.bench.power import PowerMeter
from rt_swap.errors import ConfigError, SinkError
from rt_swap.machine import Machine
from rt_swap.model import ModelBundle, installed_bundles, load_bundle
from rt_swap.swapper import Swapper

FORMAT: Final = "rt-swap bench 1"
PARTS: Final = ("overlapped", "live", "starts", "ladder", "models", "backends")
"""What may be left out; the straight run is always made."""
_NOT_TIMED: Final = "camera, decoding, encoding, display"
_START_PROCESSES: Final = 3
_FEWER: Final = 10
"""A rung of a ladder has this many times fewer frames than the straight run."""
_LEAST: Final = 20
_BUSY_LOAD: Final = 0.5
_FEW_FOR_P99: Final = 1000
_STEAL_PERCENT: Final = 1.0
_OTHERS_PERCENT: Final = 5.0


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        frames: Of the straight run, 1 or more.
        warm_up: Frames before each run that do not count, 1 or more.
        size_wh: Of the straight run's frames.
        rate: Of the live run's camera, frames per second.
        seconds: Of the live run.
        threads: CPU threads per network run; 0 chooses.
        cores_used: How many cores the process may use.
        parts: Which of PARTS.
        target: What is shown; None is the portrait.
        model: Folder of the model; None the installed one.
        backend: "auto" or a name.
        more_models: Folders of other models to compare with.

    Raises:
        ConfigError: Naming what is wrong.
    """

    frames: int = 2000
    warm_up: int = 60
    size_wh: tuple[int, int] = (1280, 720)
    rate: Fraction = Fraction(30)
    seconds: float = 10.0
    threads: int = 0
    cores_used: int = 1
    parts: tuple[str, ...] = PARTS
    target: Path | None = None
    model: Path | None = None
    backend: str = "auto"
    more_models: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        wrong = []
        if self.frames < 1 or self.warm_up < 1:
            wrong.append("--frames and --warm-up must be 1 or more")
        if min(self.size_wh) < 64 or max(self.size_wh) > 8192:
            wrong.append(f"--size must be from 64 to 8192 pixels a side, got {self.size_wh}")
        if not 0 < self.rate <= 1000 or not 0 < self.seconds <= 3600:
            wrong.append("--rate must be up to 1000 a second and --seconds up to 3600, above 0")
        wrong += [
            f"--parts: there is no {part!r}; there are {', '.join(PARTS)}"
            for part in self.parts
            if part not in PARTS
        ]
        if wrong:
            raise ConfigError("; ".join(wrong))


def run_bench(plan: Plan, machine: Machine, tell: Tell = lambda _: None) -> dict[str, Any]:
    """Measure.

    Args:
        plan: What.
        machine: Where files and commands are read.
        tell: Called with what is being done now.

    Returns:
        A document that the schema has passed.

    Raises:
        RtSwapError: If something that was asked for cannot be measured.
    """
    system = system_of(machine)  # before anything runs: it holds the load
    bundle, backend = load_bundle(plan.model), get_backend(plan.backend)
    clip = open_clip(plan.target)
    few = max(plan.frames // _FEWER, _LEAST)
    parts, size_wh = set(plan.parts), plan.size_wh
    document: dict[str, Any] = {
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    with Swapper(bundle, backend, threads=plan.threads) as swapper:
        tell(f"{plan.frames} frames of {size_wh[0]}x{size_wh[1]}, one after the other")
        with PowerMeter(machine) as meter:
            main = measure.straight(swapper, clip, size_wh, plan.frames, plan.warm_up)
        document |= {
            "main": main.summary(),
            "samples_ms": main.samples(),
            "power": meter.result(plan.frames + plan.warm_up),
            "memory": {
                "host_peak_mib": main.peak_host_mib,
                "device_peak_mib": meter.device_peak_mib,
                "why_device_absent": _why_no_device_memory(meter, machine),
            },
            "overlapped": None,
            "live": None,
            "starts": None,
            "ladder": [],
            "models": [],
            "backends": [],
        }
        if "overlapped" in parts:
            tell("stages overlapped")
            document["overlapped"] = measure.overlapped(swapper, clip, size_wh, max(few, 60))
        if "live" in parts:
            tell(f"live at {float(plan.rate):g} frames a second for {plan.seconds:g} s")
            document["live"] = measure.live(swapper, clip, size_wh, plan.rate, plan.seconds)
        if "ladder" in parts:
            for name, rung_wh in measure.LADDER.items():
                tell(f"ladder: {name}")
                document["ladder"].append(
                    measure.rung(swapper, clip, name, rung_wh, few, min(plan.warm_up, few))
                )
    warm_up = min(plan.warm_up, few)

    def measured(of: ModelBundle, by: Any) -> dict[str, Any]:
        return measure.of_model(of, by, clip, size_wh, few, warm_up, plan.threads)

    if "models" in parts:
        for each in _bundles(bundle, plan.more_models):
            tell(f"model {each.name}")
            document["models"].append(measured(each, backend))
    if "backends" in parts:
        for name, reason in available_backends().items():
            tell(f"backend {name}")
            document["backends"].append(
                measure.try_backend(bundle, name, reason, lambda by: measured(bundle, by))
            )
    if "starts" in parts:
        tell("starting from nothing")
        arguments = {
            "model": str(bundle.path),
            "backend": backend.name,
            "threads": plan.threads,
            "size_wh": list(size_wh),
            "target": str(plan.target) if plan.target else None,
        }
        document["starts"] = measure.starts(arguments, _START_PROCESSES)
    document["about"] = {
        **system,
        "cores_used": plan.cores_used,
        "packages": {name: machine.version(name) for name in PACKAGES},
        "model": model_of(bundle),
        "backend": backend.name,
        **accelerator_of(machine),
    }
    document["parameters"] = {
        "frames": plan.frames,
        "warm_up": plan.warm_up,
        "size_wh": list(size_wh),
        "rate": float(plan.rate),
        "seconds": float(plan.seconds),
        "threads": plan.threads,
        "shown": clip.shown,
        "parts": list(plan.parts),
        "not_timed": _NOT_TIMED,
    }
    document["warnings"] = warnings_of(document)
    wrong = schema.problems(document)
    if wrong:  # our own mistake, not the caller's
        raise RuntimeError(f"rt-swap bench made a result that its schema refuses: {wrong}")
    return document


def warnings_of(document: Mapping[str, Any]) -> list[str]:
    """What makes the figures say less than they seem to.

    Args:
        document: A result, but for its warnings.
    """
    about, main, power = document["about"], document["main"], document["power"]
    found = []
    if about["load_before"] is not None and about["load_before"] > _BUSY_LOAD:
        found.append(
            f"the load before the start was {about['load_before']}: other programs ran, and the"
            " figures are theirs as well"
        )
    if main["frames"] < _FEW_FOR_P99:
        found.append(
            f"{main['frames']} frames: the p99 rests on {max(main['frames'] // 100, 1)} of them;"
            f" it takes {_FEW_FOR_P99} or more (--frames) to be worth quoting"
        )
    lost = main["statuses"]["no_face"] + main["statuses"]["held"]
    if lost:
        found.append(
            f"{lost} of {main['frames']} frames showed no face that could be followed; they are"
            " cheaper than the rest and in the figures"
        )
    steal = power["cpu_steal_percent"]
    if steal is not None and steal > _STEAL_PERCENT:
        found.append(
            f"the hypervisor gave {steal} % of the processor's time to others: this is a shared"
            " virtual machine"
        )
    others = power["cpu_others_percent"]
    if others is not None and others > _OTHERS_PERCENT:
        found.append(
            f"other programs took {others} % of the processor's time while this one measured"
        )
    if power["cpu_throttle_events"]:
        found.append(f"the processor throttled {power['cpu_throttle_events']} times (heat)")
    if power["gpu_throttled"]:
        found.append(f"the GPU was slowed down: {', '.join(power['gpu_throttled'])}")
    if about["cpu_governor"] == "powersave":
        found.append(
            "the processor's governor is powersave; for steady figures:"
            " sudo cpupower frequency-set -g performance"
        )
    if about["on_battery"]:
        found.append("the machine runs on its battery, which slows many machines down")
    if about["gpus"] and main["gpu_ms"] is None:
        found.append(
            f"there is a GPU ({about['gpus'][0]['name']}), but backend {about['backend']} told no"
            " time on it: the figures are of whole stages, waits included"
        )
    return found


def write_text(path: Path, text: str, option: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        SinkError: If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise SinkError(f"{option} {path}: cannot be written: {exc.strerror or exc}") from exc


def as_json(document: Mapping[str, Any]) -> str:
    """Strict JSON, one line a top-level key, so that a diff is readable and samples stay short."""
    lines = (
        f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}"
        for key, value in document.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _bundles(first: ModelBundle, more: Sequence[Path]) -> list[ModelBundle]:
    """The model in use, others that are installed beside the default one, and those named."""
    found = [first]
    known = {first.generator_sha256}
    for folder in [*installed_bundles().values(), *more]:
        bundle = load_bundle(folder)
        if bundle.generator_sha256 not in known:
            known.add(bundle.generator_sha256)
            found.append(bundle)
    return found


def _why_no_device_memory(meter: PowerMeter, machine: Machine) -> str | None:
    if meter.device_peak_mib is not None:
        return None
    if not accelerator_of(machine)["gpus"]:
        return "there is no NVIDIA GPU that nvidia-smi lists"
    return "NVML did not list this process on the GPU (pip install nvidia-ml-py, or it used none)"
