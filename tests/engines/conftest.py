"""A checkpoint of the smallest networks, untrained, and a bundle exported from it once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def write_checkpoint(folder: Path, seed: int = 0) -> Path:
    """A complete ``step_*`` folder for inference, as training.checkpoint reads it."""
    torch = pytest.importorskip("torch", reason="needs torch (pip install rt-swap[train])")
    from safetensors.torch import save_file

    from training.config import get_config, to_dict
    from training.networks import build

    config = get_config("smoke")
    torch.manual_seed(seed)
    net = build(config.network)
    with torch.no_grad():  # an untrained head answers 0; this one answers all over its range
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.03)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(to_dict(config)))
    for name in ("ema.safetensors", "model.safetensors"):
        save_file({k: v.contiguous() for k, v in net.state_dict().items()}, folder / name)
    state = {"step": 12, "cursor": 24, "elapsed_s": 3.0, "figures": {"image": 0.5}, "groups": {}}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder: its config.json, a shard's description and one checkpoint."""
    run = tmp_path_factory.mktemp("run")
    shard = run / "shards" / "shard_00000"
    shard.mkdir(parents=True)
    people = [{"dataset": "a", "file": "1.png"}, {"dataset": "a", "file": "2.png"}]
    people.append({"dataset": "b", "file": "1.png"})
    (shard / "shard.json").write_text(json.dumps({"quadruples": 7, "people": people}))
    (run / "config.json").write_text(json.dumps({"shards": [str(run / "shards")]}))
    write_checkpoint(run / "checkpoints" / "step_00000012")
    return run


@pytest.fixture(scope="session")
def checkpoint(run_dir: Path) -> Path:
    return run_dir / "checkpoints" / "step_00000012"


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle made by the command itself."""
    pytest.importorskip("onnxscript", reason="needs onnxscript (pip install rt-swap[train])")
    from engines import export

    out = tmp_path_factory.mktemp("exported") / "bundle"
    assert export.main(["--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    return out
