"""``rt-swap demo`` (``make demo``): re-express a real face with every preset; say what happened."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rt_swap.cli.common import (
    OK,
    TARGET_CUT_SHORT,
    TARGET_WITHOUT_FACE,
    common_options,
    marks_of,
    marks_options,
    progress_bar,
    settings_of,
    swapper_of,
)
from rt_swap.errors import ConfigError, SinkError, SourceError

if TYPE_CHECKING:
    from rt_swap.config import Settings
    from rt_swap.frames import F32, U8, Expression, FaceCrop, Frame
    from rt_swap.provenance.marks import Marks
    from rt_swap.swapper import Summary, Swapper

ORDER: Final = (
    "smile",
    "surprise",
    "laugh",
    "anger",
    "wink",
    "sadness",
    "disgust",
    "fear",
    "neutral",
)
"""Presets in the order of the show: neighbours differ, so that the change is seen."""

_SECONDS: Final = 22.0
_MAX_SECONDS: Final = 600.0
_STOP_S: Final = 2.0
"""How long each preset takes on the user's own target, the change to the next one included."""
_MOVE: Final = 0.35
"""The part of a stop's time in which it turns into the next."""
_RATE: Final = 30
_SIZE_WH: Final = (1280, 720)
_CRF: Final = 14
"""The made target is read again, so little may be lost in it."""
_ROWS: Final = 4
_CELL_PX: Final = 224
_CELL_ZOOM: Final = 1.0
"""Side of the part of the frame shown in a cell, in sides of the aligned crop."""
_SHEET_ROW_PX: Final = 1600
_TOP: Final = 5

_DESCRIPTION = """\
Shows what rt_swap does. Without --target, the public-domain portrait that comes with scikit-image
(NASA's picture of Eileen Collins) is filmed by a simulated hand-held camera; without --source, all
presets are given one after another. Writes into the folder OUT, replacing an earlier demo's files:

  target.mp4           the clip that was made (not with --target)
  demo.mp4             target | output side by side (with --source: source | target | output)
  contact_sheet.jpg    the target, and what became of it

and prints frames per second, milliseconds by stage, and AU intensities before and after.
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "demo",
        parents=[common_options()],
        help="re-express a real face with every preset: a video, a contact sheet, figures",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--out", default="out", metavar="DIR", help="folder to write to (default: out)"
    )
    parser.add_argument("--target", metavar="FILE", help="your own video (or picture) of a person")
    parser.add_argument("--source", metavar="FILE", help="your own picture or clip of a face")
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="N",
        help=f"length of the demo (default: {_SECONDS:g}; with --target: all of it)",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    marks_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the demo; returns the exit code."""
    settings = settings_of(arguments)
    marks = marks_of(settings)
    from rt_swap.provenance import consent

    consent.remind(quiet=arguments.quiet)
    seconds = _seconds_of(arguments)
    out = _folder(Path(arguments.out))
    inputs = [Path(name) for name in (arguments.target, arguments.source) if name]
    _spare(inputs, out, films=not arguments.target)
    with swapper_of(settings) as swapper:
        target = Path(arguments.target) if arguments.target else out / "target.mp4"
        portrait = None
        if not arguments.target:
            portrait = _portrait()
            _film(portrait, target, seconds or _SECONDS, quiet=arguments.quiet)
        source: Expression | Path
        if arguments.source:
            source, timing = Path(arguments.source), settings.source_timing
        elif portrait is not None:
            source, timing = _show(swapper, seconds or _SECONDS, portrait), "hold"
        else:
            length_s = seconds or _STOP_S * len(_shipped(swapper))
            source, timing = _show(swapper, length_s, None), "trim" if seconds else "loop"

        with progress_bar("demo", quiet=arguments.quiet) as progress:
            summary = swapper.reenact(
                target,
                source,
                out / "demo.mp4",
                gains=settings.gains,
                mode=settings.mode,
                neutral=settings.neutral,
                source_timing=timing,
                compare=True,
                codec=settings.codec,
                crf=settings.crf,
                audio=settings.audio,
                overwrite=True,
                marks=marks,
                progress=progress,
            )
        figures: dict[str, Any] = summary.as_json()
        lines = _speed_lines(summary)
        sheet = out / "contact_sheet.jpg"
        with contextlib.suppress(OSError):
            sheet.unlink()  # an earlier demo's
        if arguments.source:
            lines += _source_lines(summary)
            rows = _rows_of_video(out / "demo.mp4", summary.frames_out)
            _write_sheet(sheet, rows, [_panels(Path(arguments.source))], inputs, marks)
        elif summary.face_found:
            trial = _Trial(swapper, settings)
            rows, headers = trial.run(_pick(target, summary.frames_out))
            figures["presets"], figures["checks"] = trial.presets(), trial.checks()
            lines += trial.lines()
            if rows:
                _write_sheet(sheet, rows, headers, inputs, marks)
    if arguments.json:
        print(json.dumps(figures, indent=2))
    elif not arguments.quiet:
        print(
            "\n".join(
                [
                    *lines,
                    f"see {' and '.join(str(p) for p in (out / 'demo.mp4', sheet) if p.exists())}",
                ]
            )
        )
    if not summary.face_found:
        return TARGET_WITHOUT_FACE
    return TARGET_CUT_SHORT if summary.damage else OK


# --- what is shown to whom -----------------------------------------------------------------------
def _seconds_of(arguments: argparse.Namespace) -> float | None:
    seconds: float | None = arguments.seconds
    if seconds is None:
        return None
    if not 1 / _RATE <= seconds <= _MAX_SECONDS:
        raise ConfigError(
            f"--seconds: must be from {1 / _RATE:.3f} (one frame) to {_MAX_SECONDS:g},"
            f" got {seconds:g}"
        )
    if arguments.target and arguments.source:
        raise ConfigError(
            "--seconds: with --target and --source the whole target is re-expressed; leave it out"
        )
    return seconds


def _folder(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise SinkError(
            f"--out {out}: the folder cannot be made ({exc.strerror}); choose another"
        ) from exc
    return out


def _spare(inputs: Sequence[Path], out: Path, *, films: bool) -> None:
    """Refuse inputs that this demo would replace.

    Raises:
        SinkError: Naming the first.
    """
    names = ["demo.mp4", "contact_sheet.jpg", *(["target.mp4"] if films else [])]
    for written in (out / name for name in names):
        for given in inputs:
            if written.exists() and given.exists() and written.samefile(given):
                raise SinkError(
                    f"{given}: is also an input and would be replaced;"
                    " give another folder with --out, or move it"
                )


def _portrait() -> U8:
    """The public-domain portrait in scikit-image's wheel, (512, 512, 3) BGR."""
    import numpy as np

    try:
        import skimage.data
    except ImportError as exc:
        raise SourceError(
            f"the demo's portrait comes with scikit-image, which cannot be imported ({exc});"
            " install it (pip install 'rt-swap[demo]') or give a video of your own with --target"
        ) from exc
    read: Any = skimage.data.astronaut
    return np.ascontiguousarray(read()[:, :, ::-1])


def _film(portrait_bgr: U8, path: Path, seconds: float, *, quiet: bool) -> None:
    """Write the portrait, filmed by a hand-held camera."""
    from rt_swap.io.handheld import HandheldCamera
    from rt_swap.io.video import VideoInfo, VideoWriter

    rate = Fraction(_RATE)
    count = max(round(seconds * rate), 1)
    camera = HandheldCamera(portrait_bgr, _SIZE_WH, rate, count)
    nowhere = Path("portrait")  # these frames come from no file
    like = VideoInfo(nowhere, *_SIZE_WH, rate, camera.time_base, float(count / rate), count, False)
    with (
        progress_bar("camera", quiet=quiet) as progress,
        VideoWriter(path, like, crf=_CRF, overwrite=True) as writer,
    ):
        for number, frame in enumerate(camera, 1):
            writer.write(frame)
            if progress is not None:
                progress(number, count)


def _shipped(swapper: Swapper) -> list[str]:
    """The presets this model ships, in the show's order."""
    from rt_swap.errors import ModelFileError

    names: list[str] = [name for name in ORDER if name in swapper.bundle.preset_names]
    if not names:
        raise ModelFileError(
            f"{swapper.bundle.path}: this model ships no presets; give a picture with --source"
        )
    return names


def _show(swapper: Swapper, seconds: float, portrait_bgr: U8 | None) -> Expression:
    """All presets one after another, as one source clip with smooth changes.

    Args:
        swapper: Has the presets.
        seconds: Length of the clip.
        portrait_bgr: Whose own expression begins and ends it; None: the presets only, and the last
            one turns into the first.
    """
    import numpy as np

    from rt_swap.frames import Expression

    stops = [swapper.preset(name) for name in _shipped(swapper)]
    if portrait_bgr is not None:
        own = swapper.encode(portrait_bgr, name="the portrait")
        stops = [own, *stops, own]
    entries = max(round(seconds * _RATE), 1)
    times_s = np.arange(entries) / _RATE
    # place 2.7: 70 % of the third stop's time is gone. A stop holds, then moves on as a smoothstep.
    place = times_s / (entries / _RATE) * len(stops)
    here = np.minimum(place.astype(int), len(stops) - 1)
    following = (here + 1) % len(stops)
    moved = np.clip((place - here - (1 - _MOVE)) / _MOVE, 0.0, 1.0)
    weight = (moved * moved * (3 - 2 * moved)).astype(np.float32)[:, None, None]

    def blend(values: Sequence[F32]) -> F32:
        stacked = np.stack([v[0] for v in values])
        return np.asarray(stacked[here] * (1 - weight) + stacked[following] * weight, np.float32)

    return Expression(
        tokens=blend([stop.tokens for stop in stops]),
        aus_lr=blend([stop.aus_lr for stop in stops]),
        times_s=times_s,
        duration_s=entries / _RATE,
        name="presets",
        model_sha256=swapper.bundle.sha256,
        valid=np.ones(entries, np.bool_),
    )


# --- every preset on the same few frames ---------------------------------------------------------
def _pick(video: Path, frames: int) -> Iterator[Frame]:
    """A few frames of a video, spread evenly."""
    from rt_swap.io.video import VideoReader

    count = min(_ROWS, frames)
    wanted = {int((row + 0.5) * frames / count) for row in range(count)}
    with VideoReader(video) as reader:
        for number, frame in enumerate(itertools.islice(reader, max(wanted, default=-1) + 1)):
            if number in wanted:
                yield frame


@dataclass
class _Reading:
    """One preset on one frame.

    Attributes:
        before: (K,) intensities read off the target.
        after: (K,) off the output.
        turned_deg: How far the head turned, or None where a face was not found again.
        outside: Largest difference outside the face's crop, grey levels.
    """

    before: F32
    after: F32
    turned_deg: float | None
    outside: int


class _Trial:
    """Gives every preset to the same frames and measures what came of it.

    Args:
        swapper: The model.
        settings: Gains and mode as for the video.
    """

    def __init__(self, swapper: Swapper, settings: Settings) -> None:
        self._swapper, self._settings = swapper, settings
        self._stops = {name: swapper.preset(name) for name in _shipped(swapper)}
        self._readings: dict[str, list[_Reading]] = {name: [] for name in self._stops}

    def run(self, frames: Iterator[Frame]) -> tuple[list[list[U8]], list[str]]:
        """Measure.

        Args:
            frames: Of the target, in any number.

        Returns:
            Cells of the contact sheet row by row, and the columns' names.
        """
        from rt_swap.contract import ENCODER_SPEC
        from rt_swap.pipeline import AuMeter
        from rt_swap.tracking import MediapipeTracker

        swapper = self._swapper
        encoder = swapper.backend.load(
            swapper.bundle.encoder_path, ENCODER_SPEC, self._settings.threads
        )
        rows: list[list[U8]] = []
        try:
            with MediapipeTracker(static=True) as tracker:
                for frame in frames:
                    if row := self._row(frame, AuMeter(encoder, self._settings.threads), tracker):
                        rows.append(row)
        finally:
            encoder.close()
        return rows, ["target", *self._stops]

    def _row(self, frame: Frame, meter: Any, tracker: Any) -> list[U8]:
        """One frame with every preset; empty where it shows no face."""
        from dataclasses import replace

        settings, cells = self._settings, []
        self._swapper.reset()
        # the same picture again and again: the follower sees a still
        step = max(round(Fraction(1, _RATE) / frame.time_base), 1)
        before: F32 | None = None
        target_points = _points(tracker, frame.frame_bgr)
        for turn, (name, expression) in enumerate(self._stops.items()):
            again = replace(frame, pts=frame.pts + turn * step)
            result = self._swapper.process(again, expression, settings.gains, mode=settings.mode)
            if result.crop is None:
                return []
            output_bgr = result.frame.frame_bgr
            if before is None:
                before = meter.read(frame.frame_bgr, result.crop).max(1)
                cells.append(_cell(frame.frame_bgr, result.crop))
            self._readings[name].append(
                _Reading(
                    before,
                    meter.read(output_bgr, result.crop).max(1),
                    _turned_deg(target_points, _points(tracker, output_bgr)),
                    _outside(frame.frame_bgr, output_bgr, result.crop),
                )
            )
            cells.append(_cell(output_bgr, result.crop))
        return cells

    def presets(self) -> dict[str, Any]:
        """Mean intensities by preset and AU: asked for, before, after."""
        import numpy as np

        from rt_swap.aus import AU_NAMES

        table: dict[str, Any] = {}
        for name, readings in self._readings.items():
            if not readings:
                continue
            asked = self._stops[name].aus_lr[0].max(1)
            before = np.mean([reading.before for reading in readings], axis=0)
            after = np.mean([reading.after for reading in readings], axis=0)
            table[name] = {
                au: {
                    "asked": round(float(asked[k]), 3),
                    "before": round(float(before[k]), 3),
                    "after": round(float(after[k]), 3),
                }
                for k, au in enumerate(AU_NAMES)
            }
        return table

    def checks(self) -> dict[str, Any]:
        """What should not have changed: the head's pose, and everything outside the face."""
        readings = [r for some in self._readings.values() for r in some]
        turned = [r.turned_deg for r in readings if r.turned_deg is not None]
        return {
            "pictures": len(readings),
            "face_found_again": len(turned),
            "head_pose_drift_deg_mean": round(sum(turned) / len(turned), 2) if turned else None,
            "head_pose_drift_deg_max": round(max(turned), 2) if turned else None,
            "outside_face_max_difference": max((r.outside for r in readings), default=None),
        }

    def lines(self) -> list[str]:
        """The same for people to read."""
        table = self.presets()
        if not table:
            return ["no face in the frames looked at, so there are no AUs to show"]
        lines = ["AUs read by the encoder, target -> output (asked for):"]
        for name, aus in table.items():
            top = sorted(aus, key=lambda au: -max(aus[au]["asked"], aus[au]["before"]))[:_TOP]
            told = "   ".join(
                f"{au} {aus[au]['before']:.2f} -> {aus[au]['after']:.2f} ({aus[au]['asked']:.2f})"
                for au in top
            )
            was, is_ = (
                sum(abs(a["asked"] - a[when]) for a in aus.values()) / len(aus)
                for when in ("before", "after")
            )
            lines.append(f"  {name:<9} {told}")
            lines.append(f"  {'':<9} mean distance to what was asked for {was:.3f} -> {is_:.3f}")
        checks = self.checks()
        if checks["face_found_again"]:
            lines.append(
                f"head pose, target against output, {checks['pictures']} pictures:"
                f" {checks['head_pose_drift_deg_mean']} degrees apart in the mean,"
                f" {checks['head_pose_drift_deg_max']} at most"
            )
        lines.append(
            "largest difference outside the face's crop:"
            f" {checks['outside_face_max_difference']} grey levels"
        )
        return lines


def _cell(frame_bgr: U8, crop: FaceCrop) -> U8:
    """The face, upright as in the frame, (_CELL_PX, _CELL_PX, 3)."""
    import numpy as np

    from rt_swap import geometry, ops
    from rt_swap.contract import CROP_SIZE_PX

    M_frame_from_crop = geometry.invert(crop.M_crop_from_frame)
    middle_xy = geometry.apply(M_frame_from_crop, np.full(2, CROP_SIZE_PX / 2))
    side_px = CROP_SIZE_PX * geometry.scale_of(M_frame_from_crop) * _CELL_ZOOM
    scale = side_px / _CELL_PX
    corner_xy = middle_xy - side_px / 2
    M_frame_from_cell = np.array([[scale, 0, corner_xy[0]], [0, scale, corner_xy[1]]])
    rgb = ops.crop_rgb(frame_bgr, M_frame_from_cell, _CELL_PX)[0]
    bgr = np.rint(np.clip(rgb[::-1], 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(bgr.transpose(1, 2, 0))


def _outside(target_bgr: U8, output_bgr: U8, crop: FaceCrop) -> int:
    """Largest difference outside the box of the face's crop, grey levels."""
    import numpy as np

    from rt_swap import geometry
    from rt_swap.contract import CROP_SIZE_PX

    frame_hw = (target_bgr.shape[0], target_bgr.shape[1])
    x0, y0, x1, y1 = geometry.roi_of_crop(
        geometry.invert(crop.M_crop_from_frame), CROP_SIZE_PX, frame_hw
    )
    difference = np.maximum(target_bgr, output_bgr) - np.minimum(target_bgr, output_bgr)
    difference[y0:y1, x0:x1] = 0
    return int(difference.max())


def _points(tracker: Any, frame_bgr: U8) -> Any:
    """(N, 3) landmarks that an expression hardly moves, of the largest face, or None."""
    import numpy as np

    from rt_swap.contract import STABLE_LANDMARKS

    faces = tracker.detect(frame_bgr)
    if not faces:
        return None
    stable = list(STABLE_LANDMARKS)
    return np.concatenate([faces[0].landmarks_xy[stable], faces[0].depth[stable, None]], axis=1)


def _turned_deg(points_a: Any, points_b: Any) -> float | None:
    """Angle of the rotation that takes one set of points to the other (Kabsch 1976)."""
    import numpy as np

    if points_a is None or points_b is None:
        return None
    a, b = points_a - points_a.mean(0), points_b - points_b.mean(0)
    u, _, vt = np.linalg.svd(a.T @ b)
    mirror = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    cosine = (np.trace(u @ mirror @ vt) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


# --- telling -------------------------------------------------------------------------------------
def _speed_lines(summary: Summary) -> list[str]:
    figures = summary.as_json()
    told = ", ".join(f"{count} {what}" for what, count in summary.statuses.items() if count)
    stages = "   ".join(
        f"{name} {ms['p50']:.1f}/{ms['p95']:.1f}" for name, ms in figures["stage_ms"].items()
    )
    return [
        f"{summary.frames_out} frames of {summary.target} ({told or 'none'}),"
        f" {figures['fps']:.1f} frames per second with {summary.backend}",
        f"milliseconds by stage, p50/p95: {stages}",
    ]


def _source_lines(summary: Summary) -> list[str]:
    asked, before, after = summary.aus_source, summary.aus_before, summary.aus_after
    if not before or not after:
        return ["no face in the target, so there are no AUs to show"]
    lines = [f"AUs, mean over the video, target -> output ({summary.source}):"]
    for au in sorted(asked, key=lambda name: -max(asked[name], before[name]))[: 2 * _TOP]:
        lines.append(f"  {au:<5} {before[au]:.2f} -> {after[au]:.2f} ({asked[au]:.2f})")
    return lines


def _rows_of_video(video: Path, frames: int) -> list[list[U8]]:
    """Whole frames of the comparison, one a row."""
    from rt_swap.io.pixels import scaled

    rows = []
    for frame in _pick(video, frames):
        height, width = frame.frame_bgr.shape[:2]
        shrink = min(_SHEET_ROW_PX / width, 1.0)
        size_wh = (max(round(width * shrink), 1), max(round(height * shrink), 1))
        rows.append([scaled(frame.frame_bgr, size_wh)])
    return rows


def _panels(source: Path) -> str:
    """What the comparison shows side by side: a saved expression has no picture."""
    from rt_swap.expression.files import SUFFIX

    saved = source.suffix.lower() == SUFFIX
    return "target | output" if saved else "source | target | output"


def _with_margin(sheet_bgr: U8, corner: str) -> U8:
    """Room for the badge beside the pictures: on a face it would hide what the sheet is for."""
    import numpy as np

    from rt_swap.provenance import badge

    label = badge.badge_for(*sheet_bgr.shape[:2])
    tall = label.grey.shape[0] + 2 * label.margin_px
    margin = np.full((tall, *sheet_bgr.shape[1:]), sheet_bgr[0, 0], np.uint8)
    parts = [margin, sheet_bgr] if corner.startswith("top") else [sheet_bgr, margin]
    return np.concatenate(parts)


def _write_sheet(
    path: Path,
    rows: Sequence[Sequence[U8]],
    headers: Sequence[str],
    inputs: Sequence[Path],
    marks: Marks,
) -> None:
    from rt_swap.frames import Frame
    from rt_swap.io.sheet import contact_sheet
    from rt_swap.io.still import StillWriter
    from rt_swap.provenance import badge

    sheet_bgr = contact_sheet(rows, headers)
    if marks.badge != "off":
        sheet_bgr = _with_margin(sheet_bgr, marks.badge)
        badge.draw(sheet_bgr, marks.badge)
    with StillWriter(path, overwrite=True, inputs=inputs) as writer:
        writer.write(Frame(sheet_bgr, 0, Fraction(1, _RATE)))
