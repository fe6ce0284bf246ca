"""Pictures of each preset -> identity-free tokens, shipped with a model.

    python -m engines.make_presets --bundle BUNDLE --pictures DIR

DIR holds a folder per preset (``smile/*.png``, ...) with aligned 256-px crops of any number of
different people, rendered by the data engine after rt_swap.expression.recipes. The encoder's tokens
are averaged over them, so what is particular to a person cancels out and what the expression adds
stays. Tokens go to ``presets/<name>.safetensors``, their hashes into the manifest.

    python -m engines.make_presets --bundle BUNDLE --checkpoint DIR

takes the tokens that the model's own teacher gives the recipes' intensities, the ones its generator
was trained with. They show an expression in full where the encoder reads it only faintly.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines import bundle as bundles
from engines.parity import picture_files
from rt_swap.aus import AU_NAMES
from rt_swap.backends import Session, get_backend
from rt_swap.contract import CROP_SIZE_PX, ENCODER_SPEC
from rt_swap.errors import ConfigError, RtSwapError
from rt_swap.expression import PRESETS, save_expression
from rt_swap.expression.recipes import recipe_aus_lr
from rt_swap.frames import F32, U8, Expression
from rt_swap.io.picture import read_picture
from rt_swap.model import PRESETS_FOLDER, load_bundle

_log = logging.getLogger(__name__)

FEW_PEOPLE = 8
"""Below this the average still carries traces of the people."""


@dataclass(frozen=True)
class PresetReport:
    """How one preset came out.

    Attributes:
        name: The preset.
        pictures: How many were averaged.
        spread: Mean over tokens of the standard deviation between people, relative to the tokens'
            overall standard deviation: 0 where everybody's tokens agree.
        read_error: Mean absolute difference of the intensities read from the recipe's.
        strongest: The recipe's strongest AU and side, asked for and read, as text; "" for neutral.
        weak: Whether the strongest AU is read at less than half of what was asked for.
    """

    name: str
    pictures: int
    spread: float
    read_error: float
    strongest: str
    weak: bool


def make_presets(
    bundle: Path, pictures: Path, *, backend: str = "onnxruntime", allow_missing: bool = False
) -> list[PresetReport]:
    """Make a model's presets.

    Args:
        bundle: The model's folder; changed as a whole or not at all.
        pictures: Folder with a folder per preset.
        backend: What runs the encoder.
        allow_missing: Leave presets without a folder as they are, instead of refusing.

    Returns:
        A report per preset made.

    Raises:
        ConfigError: If folders are missing, empty or unknown, or a picture is no 256-px crop.
        SourceError: If a picture cannot be read.
        ModelFileError: If the bundle is not valid.
    """
    model = load_bundle(bundle)
    files = _files_by_preset(pictures, allow_missing)
    made: dict[str, Expression] = {}
    reports: list[PresetReport] = []
    with get_backend(backend).load(model.encoder_path, ENCODER_SPEC, threads=0) as session:
        for name, paths in files.items():
            tokens, aus_lr = encode_crops([_read_crop(path) for path in paths], session)
            made[name] = Expression(
                tokens=tokens.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32),
                aus_lr=aus_lr.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32),
                times_s=np.zeros(1),
                duration_s=0.0,
                name=name,
                model_sha256=model.sha256,
            )
            reports.append(_report(name, tokens, made[name].aus_lr[0]))
    with bundles.staged(bundle) as stage:
        for name, expression in made.items():
            save_expression(expression, stage / PRESETS_FOLDER / f"{name}.safetensors")
        bundles.write_manifest(stage)
    return reports


def teach_presets(bundle: Path, checkpoint: Path) -> list[str]:
    """Make a model's presets from the recipes' intensities by the teacher of its tokens.

    Args:
        bundle: The model's folder; changed as a whole or not at all.
        checkpoint: The ``step_*`` directory that the bundle was exported from.

    Returns:
        The presets made.

    Raises:
        ConfigError: If the bundle was exported from another step.
        ModelFileError: If the bundle or checkpoint is not valid.
    """
    import torch

    from training.checkpoint import load_net, read_state

    model = load_bundle(bundle)
    step = read_state(checkpoint).step
    if model.manifest.get("steps") != step:
        raise ConfigError(
            f"{checkpoint}: is step {step}, {bundle} was exported from step "
            f"{model.manifest.get('steps')}; give the same checkpoint or export again"
        )
    net, _ = load_net(checkpoint)
    with bundles.staged(bundle) as stage:
        for name in PRESETS:
            aus_lr = recipe_aus_lr(name)[None]
            with torch.no_grad():
                tokens = net.label_tokens(torch.from_numpy(aus_lr)).numpy()
            expression = Expression(
                tokens=tokens,
                aus_lr=aus_lr,
                times_s=np.zeros(1),
                duration_s=0.0,
                name=name,
                model_sha256=model.sha256,
            )
            save_expression(expression, stage / PRESETS_FOLDER / f"{name}.safetensors")
        bundles.write_manifest(stage)
    return list(PRESETS)


def encode_crops(crops_bgr: Sequence[U8], session: Session) -> tuple[F32, F32]:
    """Encode aligned crops.

    Args:
        crops_bgr: (S, S, 3) uint8, BGR each, at least one.
        session: The expression encoder.

    Returns:
        tokens (N, K, D) and aus_lr (N, K, 2).
    """
    tokens, aus_lr = [], []
    for crop_bgr in crops_bgr:
        rgb = crop_bgr[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
        outputs = session.run({ENCODER_SPEC.inputs[0].name: np.ascontiguousarray(rgb)})
        tokens.append(outputs["tokens"][0].copy())
        aus_lr.append(outputs["aus_lr"][0].copy())
    return np.stack(tokens), np.stack(aus_lr)


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m engines.make_presets", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    option = parser.add_argument
    option("--bundle", type=Path, required=True, metavar="DIR", help="the model to put them into")
    made_from = parser.add_mutually_exclusive_group(required=True)
    made_from.add_argument("--pictures", type=Path, metavar="DIR", help="a folder per preset")
    made_from.add_argument("--checkpoint", type=Path, metavar="DIR", help="the model's checkpoint")
    option("--backend", default="onnxruntime", metavar="NAME", help="default %(default)s")
    option("--allow-missing", action="store_true", help="make only those that have a folder")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0 done, 2 wrong options or pictures."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        if args.checkpoint is not None:
            print(f"made {', '.join(teach_presets(args.bundle, args.checkpoint))}")
            return 0
        reports = make_presets(
            args.bundle, args.pictures, backend=args.backend, allow_missing=args.allow_missing
        )
    except RtSwapError as exc:
        print(f"make_presets: {exc}", file=sys.stderr)
        return 2
    print(f"{'preset':10}{'pictures':>9}{'spread':>8}{'AU error':>10}  strongest AU")
    for one in reports:
        print(
            f"{one.name:10}{one.pictures:>9}{one.spread:>8.2f}{one.read_error:>10.3f}  "
            f"{one.strongest}"
        )
    return 0


def _files_by_preset(pictures: Path, allow_missing: bool) -> dict[str, list[Path]]:
    if not pictures.is_dir():
        raise ConfigError(f"{pictures}: there is no such folder")
    folders = {p.name: p for p in sorted(pictures.iterdir()) if p.is_dir()}
    files = {name: picture_files(folders[name]) for name in PRESETS if name in folders}
    wrong = [f"{name}: no such preset" for name in folders if name not in PRESETS]
    wrong += [f"{name}: no pictures" for name, found in files.items() if not found]
    if not allow_missing:
        wrong += [f"{name}: no folder" for name in PRESETS if name not in folders]
    if not files:
        wrong.append(f"no folder named after a preset ({', '.join(PRESETS)})")
    if wrong:
        raise ConfigError(f"{pictures}: {'; '.join(wrong)}")
    return files


def _read_crop(path: Path) -> U8:
    crop_bgr = read_picture(path)
    if crop_bgr.shape != (CROP_SIZE_PX, CROP_SIZE_PX, 3):
        height, width = crop_bgr.shape[:2]
        raise ConfigError(
            f"{path}: must be an aligned crop of {CROP_SIZE_PX}x{CROP_SIZE_PX} pixels, "
            f"got {width}x{height}"
        )
    return crop_bgr


def _report(name: str, tokens: F32, aus_lr: F32) -> PresetReport:
    count = len(tokens)
    if count < FEW_PEOPLE:
        _log.warning("%s: only %d pictures; use %d people or more", name, count, FEW_PEOPLE)
    wanted = recipe_aus_lr(name)
    k, side = np.unravel_index(int(wanted.argmax()), wanted.shape)
    asked, read = float(wanted[k, side]), float(aus_lr[k, side])
    weak = asked > 0 and read < asked / 2
    strongest = ""
    if asked > 0:
        strongest = f"{AU_NAMES[k]} {('left', 'right')[side]}: {asked:.2f} asked, {read:.2f} read"
    if weak:
        _log.warning("%s: the encoder hardly sees it (%s)", name, strongest)
    overall = float(tokens.std())
    return PresetReport(
        name=name,
        pictures=count,
        spread=float(tokens.std(axis=0).mean()) / overall if overall > 0 else 0.0,
        read_error=float(np.abs(aus_lr - wanted).mean()),
        strongest=strongest,
        weak=weak,
    )


if __name__ == "__main__":
    sys.exit(main())
