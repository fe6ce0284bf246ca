"""Real, unlabelled pictures: does the output follow the source and keep the target's head?

Run by ``python -m training.evaluate --real``. There is no true answer, so source, target and output
are read by the plain geometry of :mod:`training.descriptors` (mouth opening, mouth width, smile,
brow height, eye opening; what each is stands there). Everything runs through the shipped pipeline,
frame by frame, in absolute mode with all gains 1; frames outside the face never enter.

Clips
    Every clip of ``clips/`` drives every other clip, and one held-out neutral portrait that stands
    still. Source frame t gives the expression of output frame t. A target shorter than the source
    runs forwards and backwards. Per pair:

    r of each descriptor   Pearson's correlation over time between source and output. Where the
                           source moves less than MIN_SPAN the number is noise: it is shown in
                           brackets and left out of the median
    slope of each          by how much the output's descriptor grows per unit of the source's (least
                           squares). An output that shows two thirds of everything has r of 1 and a
                           slope of 0.67; noise in the readings makes slopes smaller
    drift                  degrees between the target's and the output's head pose in the same frame
                           (:func:`pose_angle_deg`); median over frames, with the 95th percentile.
                           It contains the landmark network's own error: changing a face's mouth
                           moves its guess of the pose by some tenths of a degree to begin with
    jitter, head           trembling (mean second difference) of the 18 rigid points, output over
                           target; a portrait stands still, so a dash there (its crop is steadied
                           until it lies still, which is no motion of a head)
    jitter, expression     trembling of the five descriptors, output over source

Portraits
    Held-out portraits with all sorts of expressions drive a few held-out neutral portraits;
    correlation over the sources between the source's and the output's descriptors, and the slope.
    Sources are different *people*, so part of a source's mouth width or brow height is its face and
    not its expression, and both stay below 1 for a perfect method.

Same person
    The London set shows each person neutral and smiling. The smiling picture of a held-out person
    drives their own neutral one ("smile"); the output's descriptors are compared with the smiling
    picture's. The other way round, their neutral picture drives their smile ("rest").
    "left" is the mean distance to the source divided by the target's own: 1 is doing nothing, 0 is
    the source's expression itself; "shown" is how much of the change from target to source the
    output makes (slope through 0 over people): 1 is all of it. In brackets where a smile moves a
    descriptor by less than MIN_SPAN (a smile leaves brows alone), for there it is a quotient of two
    readings' noise. This is the only real comparison free of differences between people.

Landmarks are found picture by picture (no smoothing over time) in a square about the pipeline's
crop, resampled to one size, the same for target and output. Descriptors are read once more in its
mirror image, and theirs is the mean of both readings; pose and trembling of the head are those of
the picture itself.

How far the two readings of one clip agree with each other bounds what any method can score, for a
perfect one would be read with the same noise. Reported beside the aims is what their mean can
reach, 2 r / (1 + r) for two readings that agree with r (Spearman 1910; Brown 1910), the median over
clips that move.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from rt_swap import geometry
from rt_swap.aus import NUM_AUS
from rt_swap.backends import Backend
from rt_swap.contract import CROP_SIZE_PX, ENCODER_SPEC, GENERATOR_SPEC
from rt_swap.errors import ConfigError, NoFaceError
from rt_swap.expression import at, encode_frames, encode_picture, find_faces
from rt_swap.frames import F32, F64, U8, Expression, FaceCrop, Frame, FrameResult, TrackState
from rt_swap.io.picture import read_picture
from rt_swap.io.video import VideoReader
from rt_swap.model import ModelBundle
from rt_swap.pipeline import Pipeline
from rt_swap.tracking import FaceFollower, FaceTracker, MediapipeTracker
from training.data.split import is_held_out
from training.descriptors import (
    NAMES,
    correlation,
    describe,
    jitter,
    points_from_face,
    pose_angle_deg,
    rigid_points_xy,
    slope,
)

_log = logging.getLogger(__name__)

MIN_SPAN: Final[dict[str, float]] = {
    "mouth_opening": 0.02,
    "mouth_width": 0.03,
    "smile": 0.03,
    "brow_height": 0.03,
    "eye_opening": 0.03,
}
"""Least movement, outer canthal distances, for a figure about it to mean something: of a source
over time (5th to 95th percentile) for its correlation, between resting face and smile (mean
distance) for what a swap leaves of it."""

AIMS: Final[dict[str, float]] = {
    "mouth_opening": 0.95,
    "mouth_width": 0.85,
    "smile": 0.85,
    "brow_height": 0.7,
    "eye_opening": 0.8,
}
AIMED_DRIFT_DEG: Final = 1.5

MAX_SOURCE_YAW_DEG: Final = 25.0
SOURCE_SETS: Final = ("sfhq_t2i", "congress", "london", "lisa")
PORTRAIT_TARGETS: Final = 3
_SHOWN_PORTRAITS: Final = 6
_CLIP_SUFFIXES: Final = (".gif", ".mkv", ".mp4", ".webm")
_READ_PX: Final = 384
_READ_MARGIN: Final = 0.25  # of the crop's side, on each side
_STILL: Final = 1e-4  # jitter of a head that stands still, outer canthal distances


def find_data(given: Path | None) -> Path:
    """The folder with ``clips/`` and ``portraits/``.

    As given, else RT_SWAP_DATA, else ``../shared/data`` beside the checkout.

    Raises:
        ConfigError: If it is not there.
    """
    named = os.environ.get("RT_SWAP_DATA")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder, said = beside if given is None else given, "--data"
    if given is None and named:
        folder, said = Path(named).expanduser(), "RT_SWAP_DATA"
    if folder == beside and not folder.is_dir():
        raise ConfigError(
            "--real needs --data DIR (or RT_SWAP_DATA): a folder with clips/ and portraits/"
        )
    if not (folder / "clips").is_dir() or not (folder / "portraits").is_dir():
        raise ConfigError(
            f"{said} {folder}: has no clips/ and portraits/; give the data folder itself"
        )
    return folder


# --- reading faces --------------------------------------------------------------------------------
class FaceReader:
    """Landmarks in three dimensions at a known place; the tracker must be ``static`` and is the
    caller's.
    """

    def __init__(self, tracker: FaceTracker) -> None:
        self._tracker = tracker

    def read(self, frame_bgr: U8, M_crop_from_frame: F64) -> F64 | None:
        """Landmarks of the face in a crop.

        Args:
            frame_bgr: (H, W, 3) uint8.
            M_crop_from_frame: (2, 3), where the face is.

        Returns:
            (478, 3) pixels of the frame, order (x, y, depth), turned back into the frame's axes;
            None where none are found.
        """
        return self.look(frame_bgr, M_crop_from_frame)[0]

    def describe(self, frame_bgr: U8, M_crop_from_frame: F64) -> tuple[F64, F64]:
        """Descriptors of the face in a crop, read in it and in its mirror image, where they are the
        same.

        Args:
            frame_bgr: As for :meth:`read`.
            M_crop_from_frame: As for :meth:`read`.

        Returns:
            Two readings, (5,) each, NaN where no landmarks are found.
        """
        return self.look(frame_bgr, M_crop_from_frame)[1]

    def look(self, frame_bgr: U8, M_crop_from_frame: F64) -> tuple[F64 | None, tuple[F64, F64]]:
        """What :meth:`read` and :meth:`describe` say, of one look at the picture and one at its
        mirror image.
        """
        picture, M_read_from_frame = _cut(frame_bgr, M_crop_from_frame)
        points = self._find(picture)
        mirrored = self._find(np.ascontiguousarray(picture[:, ::-1]))
        readings = _described(points), _described(mirrored)
        if points is None:
            return None, readings
        M_frame_from_read = geometry.invert(M_read_from_frame)
        points[:, :2] = geometry.apply(M_frame_from_read, points[:, :2])
        points[:, 2] *= geometry.scale_of(M_frame_from_read)
        return points, readings

    def _find(self, picture_bgr: U8) -> F64 | None:
        faces = self._tracker.detect(picture_bgr)
        return points_from_face(faces[0]) if faces else None


def _cut(frame_bgr: U8, M_crop_from_frame: F64) -> tuple[U8, F64]:
    """What a reader looks at, (384, 384, 3), and its place, (2, 3) from the frame."""
    scale = _READ_PX / (CROP_SIZE_PX * (1.0 + 2.0 * _READ_MARGIN))
    shift = _READ_MARGIN * CROP_SIZE_PX * scale
    M_read_from_crop = np.array([[scale, 0.0, shift], [0.0, scale, shift]])
    M_read_from_frame = geometry.compose(M_read_from_crop, M_crop_from_frame)
    return _crop_bgr(frame_bgr, M_read_from_frame, _READ_PX), M_read_from_frame


def mean_reading(readings: Sequence[F64]) -> F64:
    """The mean of those readings of a face that found it, (5,); NaN where none did."""
    found = [r for r in readings if np.isfinite(r).all()]
    return np.asarray(np.mean(found, axis=0)) if found else np.full(len(NAMES), np.nan)


def agreement(first: F64, second: F64) -> dict[str, float]:
    """What the mean of two readings of one clip can reach at most: its own reliability.

    Args:
        first: (T, 5) descriptors, NaN where unknown.
        second: The same, read again.

    Returns:
        By descriptor ``2 r / (1 + r)``, r the correlation of the two (0 where they disagree); NaN
        where the clip does not move.
    """
    out = {}
    for k, name in enumerate(NAMES):
        r, _, _ = correlation(first[:, k], second[:, k])
        mean = (first[:, k] + second[:, k]) / 2
        _, _, span = correlation(mean, mean)
        r = max(r, 0.0) if math.isfinite(r) else r
        out[name] = 2 * r / (1 + r) if span >= MIN_SPAN[name] else float("nan")
    return out


def _described(points: F64 | None) -> F64:
    return np.full(len(NAMES), np.nan) if points is None else describe(points)


# --- what goes in ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class Clip:
    """A clip as a source and as a target.

    Attributes:
        name: Its file's name.
        frames: All of them.
        expression: What the shipped encoder makes of it.
        descriptors: (T, 5), NaN where no face was found.
        crops: ``M_crop_from_frame`` of each frame, None where no face was found.
        agreement: What its readings can reach at most, see :func:`agreement`.
    """

    name: str
    frames: list[Frame]
    expression: Expression
    descriptors: F64
    crops: list[F64 | None]
    agreement: dict[str, float]


@dataclass(frozen=True)
class Portrait:
    """An entry of a portrait set's manifest."""

    dataset: str
    person: str
    path: Path
    yaw_deg: float

    @property
    def is_neutral(self) -> bool:
        """True for sets and pictures that are known to show a resting face."""
        return self.dataset == "canada" or self.path.stem.startswith("neutral_")


def held_out_portraits(data: Path) -> list[Portrait]:
    """Every portrait of a held-out person, ordered by set and file.

    Raises:
        ConfigError: If a manifest cannot be read.
    """
    found: list[Portrait] = []
    for manifest in sorted((data / "portraits").glob("*/manifest.json")):
        try:
            content = json.loads(manifest.read_text(encoding="utf-8"))
            dataset = str(content.get("name", manifest.parent.name))
            found += [
                Portrait(dataset, p["person"], manifest.parent / p["file"], float(p["yaw_deg"]))
                for p in content["pictures"]
                if is_held_out(dataset, p["person"])
            ]
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise ConfigError(f"{manifest}: cannot be read ({exc!r})") from exc
    return sorted(found, key=lambda p: (p.dataset, p.path.name))


def there_and_back(length: int, count: int) -> list[int]:
    """Indices of ``count`` steps through ``length`` frames, forwards and backwards without showing
    an end twice.
    """
    if length == 1:
        return [0] * count
    period = 2 * (length - 1)
    return [min(k % period, period - k % period) for k in range(count)]


# --- one pair -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Series:
    """What was read along one pair: each (T, 5) or (T,) or (T, 18, 2), NaN where unknown."""

    source: F64
    target: F64
    output: F64
    drift_deg: F64
    target_rigid: F64
    output_rigid: F64


Process = Callable[[Frame, F32], FrameResult]
"""(target frame, source tokens) -> the frame with the source's expression, by the shipped
pipeline."""


def run_pair(
    process: Process,
    reader: FaceReader,
    tokens: Iterable[F32],
    source: F64,
    targets: Iterable[Frame],
    keep: Collection[int] = (),
) -> tuple[Series, dict[int, FrameResult]]:
    """Drive target frames by tokens and read everything.

    Args:
        process: The pipeline, with nobody tracked yet.
        reader: Reads landmarks.
        tokens: (K, D) for each frame.
        source: (T, 5) the source's descriptors.
        targets: As many frames, in order of time.
        keep: Numbers of the frames whose answers are wanted.

    Returns:
        What was read, and the pipeline's answers to the frames of ``keep``.
    """
    count = len(source)
    target, output = np.full((count, 5), np.nan), np.full((count, 5), np.nan)
    drift = np.full(count, np.nan)
    rigid = np.full((2, count, 18, 2), np.nan)
    results: dict[int, FrameResult] = {}
    for t, (frame, frame_tokens) in enumerate(zip(targets, tokens, strict=True)):
        result = process(frame, frame_tokens)
        if t in keep:
            results[t] = result
        if result.crop is None:
            continue
        M = result.crop.M_crop_from_frame
        before, before_read = reader.look(frame.frame_bgr, M)
        after, after_read = reader.look(result.frame.frame_bgr, M)
        target[t], output[t] = mean_reading(before_read), mean_reading(after_read)
        if before is not None and after is not None:
            drift[t] = pose_angle_deg(before, after)
            rigid[0, t], rigid[1, t] = rigid_points_xy(before), rigid_points_xy(after)
    return Series(source, target, output, drift, rigid[0], rigid[1]), results


def score_pair(series: Series) -> dict[str, Any]:
    """The numbers of one pair; the module's docstring says what each is."""
    row: dict[str, Any] = {"frames": len(series.source)}
    row |= {"r": {}, "slope": {}, "span": {}, "moves": {}}
    for k, name in enumerate(NAMES):
        source, output = series.source[:, k], series.output[:, k]
        r, _, span = correlation(source, output)
        row["r"][name], row["span"][name] = r, span
        row["slope"][name] = slope(source, output)
        row["moves"][name] = span >= MIN_SPAN[name]
    drift = series.drift_deg[np.isfinite(series.drift_deg)]
    row["read"] = len(drift) / len(series.source)
    row["drift_deg"] = float(np.median(drift)) if len(drift) else float("nan")
    row["drift_p95_deg"] = float(np.percentile(drift, 95)) if len(drift) else float("nan")
    frames = len(series.source)
    head = [jitter(x.reshape(frames, -1)) for x in (series.output_rigid, series.target_rigid)]
    row["jitter_head"] = _ratio(head[0], head[1], _STILL)
    row["jitter_expression"] = _ratio(jitter(series.output), jitter(series.source), 0.0)
    return row


def _ratio(a: float, b: float, least: float) -> float:
    return a / b if b > least else float("nan")


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians over pairs: of r and slope where the source moves (of r over all pairs, too, for
    comparison), of drift and jitter.
    """
    return {
        "r": {n: finite_median(r["r"][n] for r in rows if r["moves"][n]) for n in NAMES},
        "pairs": {n: sum(bool(r["moves"][n]) for r in rows) for n in NAMES},
        "slope": {n: finite_median(r["slope"][n] for r in rows if r["moves"][n]) for n in NAMES},
        "r_all_pairs": {n: finite_median(r["r"][n] for r in rows) for n in NAMES},
        **{
            k: finite_median(r[k] for r in rows)
            for k in ("drift_deg", "drift_p95_deg", "jitter_head", "jitter_expression")
        },
    }


def finite_median(values: Iterable[float]) -> float:
    """The middle of those that are numbers; NaN where none is."""
    finite = [v for v in values if math.isfinite(v)]
    return float(np.median(finite)) if finite else float("nan")


# --- the whole ------------------------------------------------------------------------------------
class Bench:
    """The loaded model with a landmark reader; runs pairs. Use it in ``with``."""

    def __init__(self, bundle: ModelBundle, backend: Backend, threads: int = 0) -> None:
        """Load everything.

        Args:
            bundle: The model.
            backend: Runs it.
            threads: CPU threads a graph.
        """
        self._bundle, self._backend, self._threads = bundle, backend, threads
        self.encoder = backend.load(bundle.encoder_path, ENCODER_SPEC, threads)
        self._generator = backend.load(bundle.generator_path, GENERATOR_SPEC, threads)
        self.still_tracker = MediapipeTracker(static=True)
        self.reader = FaceReader(self.still_tracker)
        self.sheet: list[U8] = []

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exc: object) -> None:
        self.still_tracker.close()
        self._generator.close()
        self.encoder.close()

    @property
    def model_sha256(self) -> str:
        """Hash of the encoder, which names its tokens."""
        return self._bundle.sha256

    def run(
        self,
        tokens: Iterable[F32],
        source: F64,
        targets: Sequence[Frame],
        shown: Mapping[int, tuple[U8, F64]] | None = None,
    ) -> Series:
        """Run one pair through a fresh pipeline that knows nobody yet.

        Args:
            tokens: (K, D) for each frame.
            source: (T, 5) the source's descriptors.
            targets: As many frames.
            shown: Frames to put on the contact sheet: the source's picture and
                ``M_crop_from_frame`` by frame number.
        """
        shown = shown or {}
        gains = np.ones(NUM_AUS, np.float32)
        with (
            MediapipeTracker() as tracker,
            Pipeline(
                self._bundle,
                self._backend,
                FaceFollower(tracker),
                threads=self._threads,
                session=self._generator,
            ) as pipeline,
        ):
            series, results = run_pair(
                lambda frame, k: pipeline.process(frame, k, gains),
                self.reader,
                tokens,
                source,
                targets,
                keep=shown,
            )
        for t, (picture, M_crop_from_frame) in shown.items():
            crop = results[t].crop
            if crop is not None:
                M = crop.M_crop_from_frame
                row = [
                    (picture, M_crop_from_frame),
                    (targets[t].frame_bgr, M),
                    (results[t].frame.frame_bgr, M),
                ]
                self.sheet.append(np.hstack([_crop_bgr(*cell) for cell in row]))
        return series


def evaluate(
    bundle: ModelBundle, backend: Backend, data: Path, limit: int | None = None, threads: int = 0
) -> tuple[dict[str, Any], U8 | None]:
    """Run and measure everything.

    Args:
        bundle: The model.
        backend: Runs it.
        data: A folder with ``clips/`` and ``portraits/``.
        limit: At most so many pairs of clips, so many source portraits (fewer than three say
            nothing, and are left out) and so many people with a smile, evenly spread.
        threads: CPU threads a graph.

    Returns:
        The report as JSON-ready numbers, and a contact sheet, (H, 3 x 256, 3) BGR: source, target
        and output, of each pair of clips the frame in which the source's mouth is most open.

    Raises:
        ConfigError: If there are no clips or portraits to run.
    """
    portraits = held_out_portraits(data)
    targets = _spread([p for p in portraits if p.is_neutral], PORTRAIT_TARGETS)
    if not targets:
        raise ConfigError(f"{data}: no neutral portrait of a held-out person to be the target")
    with Bench(bundle, backend, threads) as bench:
        clips = load_clips(bench, data)
        pairs: list[tuple[Clip, Clip | Portrait]] = [
            (s, t) for s in clips for t in clips if s is not t
        ]
        pairs += [(s, targets[0]) for s in clips]
        clip_rows = [_score_clips(bench, s, t) for s, t in _spread(pairs, limit)]
        portrait_report = _score_portraits(bench, portraits, targets, limit)
        same = _score_same_person(bench, portraits, limit)
        sheet = np.vstack(bench.sheet) if bench.sheet else None
    median = summary(clip_rows)
    report: dict[str, Any] = {
        "kind": "real",
        "min_span": MIN_SPAN,
        "clips": {
            "pairs": clip_rows,
            "median": median,
            "agreement": {n: finite_median(c.agreement[n] for c in clips) for n in NAMES},
        },
        "portraits": portrait_report,
        "same_person": same,
        "aims": {
            **{name: median["r"][name] >= aim for name, aim in AIMS.items()},
            "drift": median["drift_deg"] <= AIMED_DRIFT_DEG,
        },
    }
    return report, sheet


def load_clips(bench: Bench, data: Path) -> list[Clip]:
    """Every clip that shows a face in at least half of its frames; others are named in the log.

    Raises:
        ConfigError: If there is none.
    """
    files = sorted(p for p in (data / "clips").iterdir() if p.suffix.lower() in _CLIP_SUFFIXES)
    clips: list[Clip] = []
    for path in files:
        with VideoReader(path) as video:
            frames = list(video)
        try:
            with MediapipeTracker() as tracker:
                follower = _Remember(FaceFollower(tracker))
                expression = encode_frames(
                    frames,
                    bench.encoder,
                    follower,
                    name=path.name,
                    model_sha256=bench.model_sha256,
                )
        except NoFaceError as exc:
            _log.warning("left out: %s", exc)
            continue
        crops = [follower.crops.get(frame.pts) for frame in frames]
        nothing = _described(None)
        twice = [
            (nothing, nothing) if M is None else bench.reader.describe(frame.frame_bgr, M)
            for frame, M in zip(frames, crops, strict=True)
        ]
        described = np.array([mean_reading(readings) for readings in twice])
        if np.isfinite(described[:, 0]).mean() < 0.5:
            _log.warning("left out: %s shows a face in less than half of its frames", path.name)
            continue
        alike = agreement(*np.array(twice).transpose(1, 0, 2))
        clips.append(Clip(path.name, frames, expression, described, crops, alike))
    if not clips:
        raise ConfigError(f"{data / 'clips'}: no clip that shows a face")
    return clips


class _Remember:
    """A follower that keeps the crop of every frame that shows the face, by the frame's pts."""

    def __init__(self, follower: FaceFollower) -> None:
        self._follower = follower
        self.crops: dict[int, F64] = {}

    def follow(self, frame: Frame) -> FaceCrop | None:
        crop = self._follower.follow(frame)
        if crop is not None and crop.state is TrackState.TRACKED:
            self.crops[frame.pts] = crop.M_crop_from_frame
        return crop


def clip_targets(source: Clip, target: Clip | Portrait) -> list[Frame]:
    """As many target frames as the source has, on the source's clock."""
    count = len(source.frames)
    if isinstance(target, Portrait):
        pictures = [read_picture(target.path)] * count
    else:
        pictures = [target.frames[k].frame_bgr for k in there_and_back(len(target.frames), count)]
    return [
        Frame(picture, frame.pts, frame.time_base)
        for picture, frame in zip(pictures, source.frames, strict=True)
    ]


def _score_clips(bench: Bench, source: Clip, target: Clip | Portrait) -> dict[str, Any]:
    start_s = source.frames[0].time_s
    tokens = [at(source.expression, frame.time_s - start_s) for frame in source.frames]
    widest = int(np.nanargmax(source.descriptors[:, 0]))
    crop = source.crops[widest]
    shown = {} if crop is None else {widest: (source.frames[widest].frame_bgr, crop)}
    series = bench.run(tokens, source.descriptors, clip_targets(source, target), shown)
    name = target.name if isinstance(target, Clip) else target.path.name
    _log.info("%s -> %s", source.name, name)
    row = {"source": source.name, "target": name, **score_pair(series)}
    return row if isinstance(target, Clip) else row | {"jitter_head": float("nan")}


@dataclass(frozen=True)
class _Source:
    """A portrait as a source: its picture, where its face is, tokens (K, D), descriptors (5,)."""

    picture_bgr: U8
    M_crop_from_frame: F64
    tokens: F32
    descriptors: F64


def _load_source(bench: Bench, portrait: Portrait) -> _Source | None:
    picture = read_picture(portrait.path)
    faces = find_faces(picture, bench.still_tracker)
    if not faces:
        _log.warning("no face found: %s", portrait.path.name)
        return None
    expression = encode_picture(
        picture,
        bench.encoder,
        bench.still_tracker,
        name=portrait.path.name,
        model_sha256=bench.model_sha256,
    )
    M_crop_from_frame = geometry.crop_from_landmarks(faces[0].landmarks_xy)
    read = mean_reading(bench.reader.describe(picture, M_crop_from_frame))
    if not np.isfinite(read).all():
        _log.warning("no landmarks found: %s", portrait.path.name)
        return None
    return _Source(picture, M_crop_from_frame, expression.tokens[0], read)


def _still(picture_bgr: U8, count: int) -> list[Frame]:
    return [Frame(picture_bgr, k, Fraction(1, 25)) for k in range(count)]


def _score_portraits(
    bench: Bench, portraits: Sequence[Portrait], targets: Sequence[Portrait], limit: int | None
) -> dict[str, Any]:
    usable = [
        p
        for p in portraits
        if p.dataset in SOURCE_SETS and not p.is_neutral and abs(p.yaw_deg) <= MAX_SOURCE_YAW_DEG
    ]
    chosen = _spread(usable, limit)
    sources = [s for p in chosen if (s := _load_source(bench, p)) is not None]
    rows = []
    for target in targets if len(sources) >= 3 else []:
        picture = read_picture(target.path)
        shown = {
            k: (sources[k].picture_bgr, sources[k].M_crop_from_frame)
            for k in _spread(range(len(sources)), _SHOWN_PORTRAITS)
        }
        series = bench.run(
            [s.tokens for s in sources],
            np.array([s.descriptors for s in sources]),
            _still(picture, len(sources)),
            shown,
        )
        scored = score_pair(series)
        kept = ("r", "slope", "span", "read", "drift_deg", "drift_p95_deg")
        name = target.path.name
        rows.append({"target": name, "sources": len(sources), **{k: scored[k] for k in kept}})
        _log.info("%d portraits -> %s", len(sources), name)
    return {
        "pairs": rows,
        "median_r": {n: finite_median(r["r"][n] for r in rows) for n in NAMES},
        "median_slope": {n: finite_median(r["slope"][n] for r in rows) for n in NAMES},
        "median_drift_deg": finite_median(r["drift_deg"] for r in rows),
        "sources_without_a_face": len(chosen) - len(sources),
    }


def _score_same_person(
    bench: Bench, portraits: Sequence[Portrait], limit: int | None
) -> dict[str, Any]:
    london = {p.path.name: p for p in portraits if p.dataset == "london"}
    pairs = [
        (smiling, london[neutral])
        for name, smiling in london.items()
        if name.startswith("smiling_")
        and (neutral := name.replace("smiling_", "neutral_")) in london
    ]
    ways: dict[str, list[F64]] = {"smile": [], "rest": []}
    for smiling, neutral in _spread(pairs, limit):
        smile, rest = (_load_source(bench, p) for p in (smiling, neutral))
        if smile is None or rest is None:
            continue
        for way, source, target in (("smile", smile, rest), ("rest", rest, smile)):
            series = bench.run(
                [source.tokens],
                source.descriptors[None],
                _still(target.picture_bgr, 1),
                {0: (source.picture_bgr, source.M_crop_from_frame)},
            )
            if np.isfinite(series.output).all() and np.isfinite(series.target).all():
                read = (source.descriptors, series.target[0], series.output[0])
                ways[way].append(np.array(read))
    return {way: same_person_scores(np.array(read)) for way, read in ways.items()}


def same_person_scores(read: F64) -> dict[str, Any]:
    """How much of an own expression arrives.

    Args:
        read: (P, 3, 5) descriptors of P people's source, target and output; (0,) for nobody.

    Returns:
        ``people``; and by descriptor ``left``, ``shown`` (the module's docstring says what they
        are) and ``moved``, the mean distance between source and target.
    """
    if not len(read):
        nothing = dict.fromkeys(NAMES, float("nan"))
        return {"people": 0, "left": nothing, "shown": nothing, "moved": nothing}
    wanted, done = read[:, 0] - read[:, 1], read[:, 2] - read[:, 1]
    moved = np.abs(wanted).mean(0)
    values = {
        "left": np.abs(done - wanted).mean(0) / np.maximum(moved, 1e-9),
        "shown": (done * wanted).sum(0) / np.maximum((wanted**2).sum(0), 1e-18),
        "moved": moved,
    }
    named = {k: dict(zip(NAMES, v.tolist(), strict=True)) for k, v in values.items()}
    return {"people": len(read), **named}


def _spread(items: Sequence[Any], limit: int | None) -> list[Any]:
    if limit is None or limit >= len(items):
        return list(items)
    return [items[k] for k in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def _crop_bgr(frame_bgr: U8, M_crop_from_frame: F64, side_px: int = CROP_SIZE_PX) -> U8:
    import cv2

    crop = cv2.warpAffine(
        frame_bgr,
        geometry.to_cv2(M_crop_from_frame),
        (side_px, side_px),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(crop, np.uint8)


def text(report: Mapping[str, Any]) -> str:
    """The report as tables for people."""

    def line(label: str, cells: Sequence[str], more: Sequence[str] = ()) -> str:
        return f"{label:50}" + "".join(f"{c:>14}" for c in cells) + "".join(f"{c:>9}" for c in more)

    def row_line(label: str, r: Mapping[str, float], more: Sequence[str] = ()) -> str:
        return line(label, [_num(r[n]) for n in NAMES], more)

    titles = [n.replace("_", " ") for n in NAMES]
    measures = ("drift_deg", "drift_p95_deg", "jitter_head", "jitter_expression")
    lines = [
        "Clips: correlation over time between source and output",
        "(in brackets: the source hardly moves; not in the median)",
        line("source -> target", titles, ("drift", "p95", "jit head", "jit expr", "read")),
    ]
    for row in report["clips"]["pairs"]:
        cells = [_bracketed(row["r"][n], row["moves"][n]) for n in NAMES]
        more = [*(_num(row[m]) for m in measures), f"{100 * row['read']:.0f}%"]
        lines.append(line(f"{_short(row['source'])} -> {_short(row['target'])}", cells, more))
    median, portraits, same = report["clips"]["median"], report["portraits"], report["same_person"]
    lines += [
        row_line("median", median["r"], [_num(median[m]) for m in measures]),
        row_line("aim", AIMS, [_num(AIMED_DRIFT_DEG)]),
        row_line("what readings of these clips can reach", report["clips"]["agreement"]),
        row_line("median slope", median["slope"]),
        line("pairs in the median", [str(median["pairs"][n]) for n in NAMES]),
        row_line("median over all pairs", median["r_all_pairs"]),
        "",
        "Held-out portraits: correlation over sources (other people) between source and output",
        line("target", titles, ("drift", "p95")),
    ]
    for row in portraits["pairs"]:
        label = f"{row['target']} <- {row['sources']} sources"
        lines.append(row_line(label, row["r"], [_num(row[m]) for m in measures[:2]]))
    lines += [
        row_line("median", portraits["median_r"], [_num(portraits["median_drift_deg"])]),
        row_line("median slope", portraits["median_slope"]),
        "",
        "A person's own smile on their resting face, and their rest on their smile: mean distance",
        "that is left (1: nothing done), and how much of the change is shown (1: all of it);",
        "in brackets: a smile hardly moves it",
    ]
    for way, does in (("smile", "smile"), ("rest", "come to rest")):
        of = same[way]
        for what in ("left", "shown"):
            cells = [_bracketed(of[what][n], of["moved"][n] >= MIN_SPAN[n]) for n in NAMES]
            lines.append(line(f"{of['people']} held-out people {does}: {what}", cells))
    lines += [
        row_line("how far a smile moves it, outer canthal distances", same["smile"]["moved"]),
        "",
        *(f"{'met   ' if met else 'missed'} {name}" for name, met in report["aims"].items()),
    ]
    return "\n".join(lines)


def _num(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def _bracketed(value: float, counts: bool) -> str:
    return _num(value) if counts or not math.isfinite(value) else f"({_num(value)})"


def _short(name: str) -> str:
    return name if len(name) <= 23 else "…" + name[-22:]
