"""Checkpoints: a directory of safetensors and JSON, never pickled code, that appears under its name
only when complete.

step_00001000/
    config.json             training.config.to_dict
    model.safetensors       RtNet
    ema.safetensors         RtNet, averaged over steps: what is shipped
    critics.safetensors     D and D_au
    optimiser.safetensors   both optimisers' tensors, "net.<parameter>.<name>" and
    "critics.<parameter>.<name>"
    state.json              step, cursor, elapsed seconds, optimiser groups, validation figures
    random.safetensors      torch's random state
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rt_swap.errors import ConfigError, ModelFileError
from training.config import NetworkConfig, TrainConfig, from_dict, to_dict
from training.networks import RtNet, build


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        step: Steps done.
        cursor: Quadruples used.
        elapsed_s: Seconds trained, over all resumptions.
        figures: The last validation.
    """

    step: int = 0
    cursor: int = 0
    elapsed_s: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)


def _tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}


def _optimiser_tensors(prefix: str, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{prefix}.{index}.{name}": value.detach().cpu().contiguous().clone()
        for index, entry in optimiser.state_dict()["state"].items()
        for name, value in entry.items()
    }


def _restore_optimiser(
    prefix: str,
    optimiser: torch.optim.Optimizer,
    tensors: dict[str, Tensor],
    groups: list[dict[str, Any]],
) -> None:
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        head, index, name = key.split(".", 2)
        if head == prefix:
            like = parameters[int(index)]
            if (
                value.shape == like.shape
            ):  # fused optimisers walk memory, so strides must be the parameter's
                value = torch.empty_like(like, dtype=value.dtype).copy_(value)
            state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def save_checkpoint(
    folder: Path,
    config: TrainConfig,
    net: RtNet,
    ema: RtNet,
    critics: nn.Module,
    optimisers: dict[str, torch.optim.Optimizer],
    progress: Progress,
    keep: int = 2,
) -> Path:
    """Write ``folder/step_XXXXXXXX``: first under a temporary name, then renamed; older ones
    beyond ``keep`` go.

    Args:
        folder: The run's checkpoint folder, made if missing.
        config: The run's.
        net: Trained weights.
        ema: Averaged weights.
        critics: D and D_au.
        optimisers: "net" and "critics".
        progress: Where the run is.
        keep: How many to keep, at least 1.

    Returns:
        The new directory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step_{progress.step:08d}"
    partial = folder / f".partial_{progress.step:08d}_{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        (partial / "config.json").write_text(json.dumps(to_dict(config), indent=2) + "\n")
        save_file(_tensors(net.state_dict()), partial / "model.safetensors")
        save_file(_tensors(ema.state_dict()), partial / "ema.safetensors")
        save_file(_tensors(critics.state_dict()), partial / "critics.safetensors")
        tensors: dict[str, Tensor] = {}
        groups: dict[str, Any] = {}
        for name, optimiser in optimisers.items():
            tensors |= _optimiser_tensors(name, optimiser)
            groups[name] = optimiser.state_dict()["param_groups"]
        save_file(tensors, partial / "optimiser.safetensors")
        save_file({"torch": torch.get_rng_state()}, partial / "random.safetensors")
        state = {
            "step": progress.step,
            "cursor": progress.cursor,
            "elapsed_s": progress.elapsed_s,
            "figures": progress.figures,
            "groups": groups,
        }
        (partial / "state.json").write_text(json.dumps(state, indent=2) + "\n")
        if final.exists():  # the same step again, after a resume without progress
            shutil.rmtree(final)
        os.replace(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for old in sorted(folder.glob("step_*"))[: -max(keep, 1)]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    found = sorted(folder.glob("step_*"))
    return found[-1] if found else None


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as exc:
        raise ModelFileError(
            f"checkpoint: {path} is missing or corrupt ({exc}); use another checkpoint"
        ) from exc


def _load_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        raise ModelFileError(
            f"checkpoint: {path} is missing or corrupt ({exc}); use another checkpoint"
        ) from exc
    if not isinstance(values, dict):
        raise ModelFileError(f"checkpoint: {path} holds no JSON object; use another checkpoint")
    return values


def _load_module(module: nn.Module, path: Path) -> None:
    try:
        module.load_state_dict(_load_tensors(path))
    except RuntimeError as exc:
        raise ModelFileError(
            f"checkpoint: {path} does not fit the configured networks: {exc}"
        ) from exc


def read_config(checkpoint: Path) -> TrainConfig:
    """The config a checkpoint was made with.

    Raises:
        ModelFileError: If it is missing or corrupt.
        ConfigError: If it names unknown options.
    """
    return from_dict(TrainConfig, _load_json(checkpoint / "config.json"))


def read_state(checkpoint: Path) -> Progress:
    """Where the run was, and its last validation figures."""
    state = _load_json(checkpoint / "state.json")
    return Progress(state["step"], state["cursor"], state["elapsed_s"], state.get("figures", {}))


def load_net(checkpoint: Path, averaged: bool = True) -> tuple[RtNet, TrainConfig]:
    """Networks for evaluation or export, in eval mode on the CPU.

    Args:
        checkpoint: A ``step_*`` directory.
        averaged: EMA weights rather than the last step's.

    Raises:
        ModelFileError: If files are missing, corrupt or of other networks.
    """
    config = read_config(checkpoint)
    net = build(config.network)
    _load_module(net, checkpoint / ("ema.safetensors" if averaged else "model.safetensors"))
    return net.eval(), config


def resume_checkpoint(
    checkpoint: Path,
    network: NetworkConfig,
    net: RtNet,
    ema: RtNet,
    critics: nn.Module,
    optimisers: dict[str, torch.optim.Optimizer],
) -> Progress:
    """Put everything back as it was, torch's random state included.

    Raises:
        ConfigError: If the checkpoint's networks are configured otherwise.
        ModelFileError: If files are missing or corrupt.
    """
    if read_config(checkpoint).network != network:
        raise ConfigError(
            f"resume: {checkpoint} was made with another network configuration; "
            "use its own, or --init-from"
        )
    _load_module(net, checkpoint / "model.safetensors")
    _load_module(ema, checkpoint / "ema.safetensors")
    _load_module(critics, checkpoint / "critics.safetensors")
    state = _load_json(checkpoint / "state.json")
    tensors = _load_tensors(checkpoint / "optimiser.safetensors")
    for name, optimiser in optimisers.items():
        _restore_optimiser(name, optimiser, tensors, state["groups"][name])
    torch.set_rng_state(_load_tensors(checkpoint / "random.safetensors")["torch"])
    return read_state(checkpoint)


def layers_of(checkpoint: Path) -> dict[str, Tensor]:
    """The mouth's layers in a checkpoint, as MouthLayers.wear takes them; {} where it has none.

    Raises:
        ModelFileError: If the checkpoint cannot be read.
    """
    given = _load_tensors(checkpoint / "ema.safetensors")
    start = "generator.mouth."
    found = {name: given.get(start + name) for name in ("layers", "by_unit")}
    return {name: value for name, value in found.items() if value is not None}


def warm_start(
    checkpoint: Path, net: RtNet, critics: nn.Module, parts: Sequence[str] = ()
) -> tuple[int, int]:
    """Copy every averaged weight whose name and shape agree; the schedule starts afresh.

    Args:
        checkpoint: Where from.
        net: Where to.
        critics: Where to, unless ``parts`` are given.
        parts: Only these of the networks, such as "encoder"; empty for all.

    Returns:
        Tensors copied into the networks, and tensors left as they were.

    Raises:
        ModelFileError: If the checkpoint cannot be read, or nothing (or nothing of a part) agrees.
    """
    copied = left = 0
    for module, name in ((net, "ema.safetensors"), (critics, "critics.safetensors")):
        if parts and module is critics:
            continue
        given = _load_tensors(checkpoint / name)
        own = module.state_dict()
        fitting = {
            k: v
            for k, v in given.items()
            if k in own and own[k].shape == v.shape and (not parts or k.split(".")[0] in parts)
        }
        module.load_state_dict({**own, **fitting})
        if module is net:
            copied, left = len(fitting), len(own) - len(fitting)
            for part in parts:
                if not any(k.split(".")[0] == part for k in fitting):
                    raise ModelFileError(
                        f"init-from: no weight of {checkpoint} fits these networks' {part}; "
                        "use a matching config"
                    )
    net.tie_guide()
    if not copied:
        raise ModelFileError(
            f"init-from: no weight of {checkpoint} fits these networks; use a matching config"
        )
    return copied, left
