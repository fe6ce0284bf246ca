"""Score a model bundle: on held-out people with a known answer, or on real pictures without one.

    python -m training.evaluate --model BUNDLE --val-shards DIR [--json FILE] [--sheet FILE]
    python -m training.evaluate --model BUNDLE --real --data DIR [--json FILE] [--sheet FILE]

With an answer (``--val-shards``): every picture of a quadruple is the target once; the source is
the other person's picture whose expression the answer has, and the quadruple's gains say which AUs
are taken. What runs is what ships: the bundle's ONNX graphs in the runtime's own sessions and the
runtime's own composition. :mod:`training.scores` defines every number.

Rows:
    unchanged              the target as it is
    model                  the bundle
    landmark warp          :mod:`training.baselines.landmark_warp`, all the way (step 1)
    landmark warp, best    the same with the one step of LANDMARK_STEPS that has the least image
                           error on these very pictures: an advantage over the model, which was not
                           tuned on them
    landmark warp, told    the same warp with the *answer's* landmarks: what it could do if it knew
                           where everything goes. No method that sees only source and target has
                           that; it is no bar to be beaten, but what a warp can reach

AU errors, all read by the bundle's own encoder (there is no second reader here that is free to
use):
    source    read off the source's picture against the label the renderer gave it
    answer    read off the true answer's picture against its label: the reader's own error
    output    read off the composed output against the answer's label
    unchanged read off the target against the answer's label
"blind" is the error of the best constant per AU, which needs no picture.

By group (:mod:`training.groups`): where the portraits are from, the skin's tone and light as the
picture has them, whether the head is turned. A group of few people says little.

With ``--identity`` a face recogniser says how far each method's picture is from the target's
person, beside the true answer's distance and that of two people (:mod:`training.identity`).

Real pictures (``--real``): :mod:`training.evaluate_real` says what is run and measured.
"""

from __future__ import annotations

import argparse
import heapq
import json
import logging
import math
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from rt_swap import ops
from rt_swap.aus import AU_NAMES, NUM_AUS
from rt_swap.backends import Backend, get_backend
from rt_swap.contract import CROP_SIZE_PX, ENCODER_SPEC, GENERATOR_SPEC, TOKEN_DIM, GraphSpec
from rt_swap.errors import ConfigError, RtSwapError
from rt_swap.frames import F32, F64, U8
from rt_swap.model import ModelBundle, load_bundle
from rt_swap.tracking import FaceTracker, MediapipeTracker
from training.baselines.landmark_warp import moved_landmarks, warp_flow
from training.data.dataset import DONOR, FLOW_UNITS_PER_PX, PARTNER, shards_for_swaps
from training.data.landmarks import crop_landmarks
from training.groups import groups_of
from training.identity import DlibIdentity, IdentityReader, IdentityScore
from training.scores import (
    CHANGED_FLOW_PX,
    CHANGED_LEVEL,
    REGIONS,
    VISIBLE_KEEP,
    Answer,
    Case,
    Score,
    au_errors,
    reduction,
    unchanged,
)

_log = logging.getLogger(__name__)

LANDMARK_STEPS: Final = (0.25, 0.5, 0.75, 1.0)
AIMED_REDUCTION: Final = 0.60
_IDENTITY: Final[F64] = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_S: Final = CROP_SIZE_PX

UNCHANGED: Final = "unchanged"
MODEL: Final = "model"
TRUTH: Final = "truth"
WARP: Final = "landmark warp"
WARP_BEST: Final = "landmark warp, best"
WARP_TOLD: Final = "landmark warp, told"


# --- what is in a shard ---------------------------------------------------------------------------
@dataclass(frozen=True)
class Quadruple:
    """Four pictures of two people, as a shard has them.

    Attributes:
        rgb: (4, S, S, 3) uint8.
        flow_xy: (4, 2, S, S) float32 pixels: to picture i from its partner.
        keep: (4, S, S) float32 [0, 1].
        region: (4, S, S) uint8.
        aus_lr: (4, K, 2) float32.
        gains: (K,) float32.
        people: Names of the two.
        fields: (4, F, F, K, 2, 2) int8, see training.data.shards, and
        step_px: (4, K, 2) float32; None where the shard has none.
    """

    rgb: U8
    flow_xy: F32
    keep: F32
    region: U8
    aus_lr: F32
    gains: F32
    people: tuple[str, str]
    fields: npt.NDArray[np.int8] | None = None
    step_px: F32 | None = None

    def case(self, i: int) -> Case:
        """Picture ``i`` as the target; the answer is its partner."""
        truth = PARTNER[i]
        return Case(
            self.rgb[i], self.rgb[truth], self.flow_xy[truth], self.keep[truth], self.region[truth]
        )


def read_quadruples(
    folder: Path, limit: int | None = None, any_split: bool = False
) -> Iterator[Quadruple]:
    """The quadruples of every shard under a folder.

    Args:
        folder: A folder of ``shard_*`` folders, or one shard.
        limit: At most so many, evenly spread over all of them; None for all.
        any_split: Take shards of training people too.

    Yields:
        Quadruples in the order of their files.

    Raises:
        ConfigError: If there is no shard, one is damaged or of another format or size, or holds
            people that trained.
        ContractError: If an array or the list of AUs is not this version's.
    """
    shards = shards_for_swaps([folder], "evaluate")
    if shards.size_px != _S:
        raise ConfigError(
            f"{folder}: pictures of {shards.size_px} px; the shipped graphs take {_S} px, "
            "so evaluate on shards of that size"
        )
    seen = sorted({str(s.meta.get("split")) for s in shards.shards} - {"val", "test"})
    if seen and not any_split:
        raise ConfigError(
            f"{folder}: holds {', '.join(seen)} people, whom the model may have seen; evaluate on "
            "shards of held-out people (--any-split scores these all the same)"
        )
    places = [(shard, q) for shard in shards.shards for q in range(shard.quadruples)]
    if limit is not None and limit < len(places):
        places = [places[k] for k in np.linspace(0, len(places) - 1, limit).round().astype(int)]
    for shard, q in places:
        a = shard.arrays
        who = [shard.meta["people"][int(p)] for p in a["people"][q]]
        yield Quadruple(
            np.array(a["rgb"][q]),
            a["flow"][q].astype(np.float32) / np.float32(FLOW_UNITS_PER_PX),
            a["keep"][q].astype(np.float32) / 255.0,
            np.array(a["region"][q]),
            np.array(a["aus_lr"][q], np.float32),
            np.array(a["gains"][q], np.float32),
            (f"{who[0]['dataset']}/{who[0]['file']}", f"{who[1]['dataset']}/{who[1]['file']}"),
            a["fields"][q] if "fields" in a else None,  # mapped, not read: few look at it
            np.array(a["step_px"][q], np.float32) if "step_px" in a else None,
        )


# --- what ships, run on one crop ------------------------------------------------------------------
class Runs(Protocol):
    """What runs one graph of rt_swap.contract: a backend's session, or PyTorch."""

    def run(self, inputs: Mapping[str, F32]) -> Mapping[str, F32]:
        """Arrays in and out by the graph's names."""

    def close(self) -> None:
        """Nothing runs afterwards."""


class TorchGraphs:
    """A checkpoint's graph, run by PyTorch: for what is trained to be compared, not shipped."""

    def __init__(self, graph: Any, spec: GraphSpec) -> None:
        """``graph`` is a module of training.networks.export_graphs, in evaluation mode."""
        self._graph, self._spec = graph, spec

    def run(self, inputs: Mapping[str, F32]) -> Mapping[str, F32]:
        """Arrays in and out by the graph's names."""
        import torch

        with torch.no_grad():
            out = self._graph(*(torch.from_numpy(inputs[t.name]) for t in self._spec.inputs))
        names = [t.name for t in self._spec.outputs]
        return {name: value.numpy() for name, value in zip(names, out, strict=True)}

    def close(self) -> None:
        """Nothing to do."""


class CropModel:
    """Both graphs of a model and the runtime's composition on pictures that are aligned crops
    already.

    Owns two sessions; use it in ``with``.
    """

    def __init__(self, encoder: Runs, generator: Runs) -> None:
        self._encoder, self._generator = encoder, generator
        self._weight = ops.feather(_S)
        self._no_base = np.zeros((1, NUM_AUS, TOKEN_DIM), np.float32)
        self._absolute = np.zeros((1, 1), np.float32)

    @classmethod
    def of_bundle(cls, bundle: ModelBundle, backend: Backend, threads: int = 0) -> CropModel:
        """What ships, run as it is run.

        Args:
            bundle: The model.
            backend: Runs it.
            threads: As Backend.load.
        """
        return cls(
            backend.load(bundle.encoder_path, ENCODER_SPEC, threads),
            backend.load(bundle.generator_path, GENERATOR_SPEC, threads),
        )

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> CropModel:
        """A checkpoint's averaged weights, run by PyTorch.

        Raises:
            ModelFileError, ConfigError: If it is no checkpoint.
        """
        from training.checkpoint import load_net
        from training.networks.export_graphs import EncoderGraph, GeneratorGraph

        net, _ = load_net(checkpoint)
        return cls(
            TorchGraphs(EncoderGraph(net).eval(), ENCODER_SPEC),
            TorchGraphs(GeneratorGraph(net).eval(), GENERATOR_SPEC),
        )

    def __enter__(self) -> CropModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self._encoder.close()
        self._generator.close()

    def encode(self, rgb: U8) -> tuple[F32, F32]:
        """Tokens and intensities of a crop.

        Args:
            rgb: (S, S, 3) uint8.

        Returns:
            tokens (K, D) and aus_lr (K, 2), copies.
        """
        out = self._encoder.run({"source_rgb": _tensor(rgb)})
        return out["tokens"][0].copy(), out["aus_lr"][0].copy()

    def answer(self, target_rgb: U8, tokens: F32, gains: F32, landmarks_xy: F64 | None) -> Answer:
        """The target with the source's expression.

        Args:
            target_rgb: (S, S, 3) uint8.
            tokens: (K, D), the source's.
            gains: (K,).
            landmarks_xy: (478, 2) the target's, pixels. Where no face was found the target is left
                as it is, as the pipeline leaves it.
        """
        if landmarks_xy is None:
            return self.warped(target_rgb, np.zeros((1, 2, _S, _S), np.float32))
        out = self._generator.run(
            {
                "target_rgb": _tensor(target_rgb),
                "landmarks_xy": np.ascontiguousarray(landmarks_xy[None], np.float32),
                "source_tokens": np.ascontiguousarray(tokens[None], np.float32),
                "base_tokens": self._no_base,
                "gains": np.ascontiguousarray(gains[None], np.float32),
                "relative": self._absolute,
            }
        )
        picture = self._compose(
            target_rgb, out["flow_xy"], out["keep"], out["fill_rgb"], out["shade"]
        )
        return Answer(picture, out["flow_xy"][0].copy(), out["keep"][0, 0].copy())

    def warped(self, target_rgb: U8, flow_xy: F32) -> Answer:
        """The target fetched along a flow and nothing else: how a warp without paint is composed.

        Args:
            target_rgb: (S, S, 3) uint8.
            flow_xy: (1, 2, S, S) float32.
        """
        keep = np.ones((1, 1, _S, _S), np.float32)
        fill = np.zeros((1, 3, _S, _S), np.float32)
        return Answer(self._compose(target_rgb, flow_xy, keep, fill, None), flow_xy[0], keep[0, 0])

    def _compose(self, rgb: U8, flow_xy: F32, keep: F32, fill: F32, shade: F32 | None) -> U8:
        out = ops.compose_bgr(
            np.ascontiguousarray(rgb[..., ::-1]),
            _IDENTITY,
            flow_xy,
            keep,
            fill,
            shade,
            self._weight,
        )
        return np.ascontiguousarray(out[..., ::-1])


def _tensor(rgb: U8) -> F32:
    return ops.crop_rgb(np.ascontiguousarray(rgb[..., ::-1]), _IDENTITY, _S)


# --- the table ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class WorstCase:
    """A picture row for the contact sheet."""

    error: float
    pictures: tuple[U8, ...]
    title: str


SHEET_COLUMNS: Final = (
    "source",
    "target",
    "truth",
    "output",
    "landmark warp",
    "|output - truth| x 4",
)


def evaluate_held_out(
    model: CropModel,
    quadruples: Iterator[Quadruple],
    tracker: FaceTracker,
    worst: int = 0,
    identity: IdentityReader | None = None,
) -> tuple[dict[str, Any], list[WorstCase]]:
    """Score a model, the unchanged target and the landmark warps on rendered pictures.

    Args:
        model: What is scored.
        quadruples: Pictures with answers.
        tracker: Finds landmarks for the baseline, picture by picture (``static``).
        worst: How many of the model's worst cases to return with their pictures.
        identity: Says whose face it is (training.identity), for the report's "identity"; None
            leaves that out.

    Returns:
        The report as JSON-ready numbers (NaN where nothing was counted), and the worst cases, worst
        first.

    Raises:
        ConfigError: If there is no quadruple.
    """
    steps = {step: Score() for step in LANDMARK_STEPS}
    scores = {UNCHANGED: Score(), MODEL: Score(), WARP_TOLD: Score()}
    whole, partial = {UNCHANGED: Score(), MODEL: Score()}, {UNCHANGED: Score(), MODEL: Score()}
    read: dict[str, list[F32]] = {
        k: [] for k in ("source", "answer", "output", "unchanged", "warp")
    }
    labels: dict[str, list[F32]] = {"source": [], "answer": []}
    without_landmarks, ratios = 0, []
    people: set[str] = set()
    heap: list[tuple[float, int, WorstCase]] = []
    same_person = IdentityScore()
    groups: defaultdict[tuple[str, str], _Group] = defaultdict(_Group)

    for quad in quadruples:
        people.update(quad.people)
        encoded = [model.encode(picture) for picture in quad.rgb]
        landmarks = [crop_landmarks(tracker, picture) for picture in quad.rgb]
        faces = [
            None if identity is None or xy is None else identity.describe(picture, xy)
            for picture, xy in zip(quad.rgb, landmarks, strict=True)
        ]
        if faces[0] is not None and faces[2] is not None:
            same_person.add_people(faces[0], faces[2])
        for i in range(4):
            case, source, truth = quad.case(i), DONOR[i], PARTNER[i]
            plain = unchanged(case)
            answer = model.answer(case.target_rgb, encoded[source][0], quad.gains, landmarks[i])
            part = whole if quad.gains.min() >= 1.0 else partial
            person = quad.people[i // 2]
            mine = groups_of(
                person.split("/")[0], case.truth_rgb, case.region == 1, landmarks[PARTNER[i]]
            )
            here = [groups[kind_and_name] for kind_and_name in mine.items()]
            for group in here:
                group.people.add(person)
            alone = {UNCHANGED: Score(), MODEL: Score()}
            before = alone[UNCHANGED].add(case, plain)
            error = alone[MODEL].add(case, answer)
            for name, one in alone.items():
                for total in (scores, part, *(group.scores for group in here)):
                    total[name].merge(one)
            if before > 0:
                ratios.append(error / before)

            target_xy, source_xy, truth_xy = landmarks[i], landmarks[source], landmarks[truth]
            # where a face has no landmarks the warp does nothing, as a user's program would
            missing = target_xy is None or source_xy is None or truth_xy is None
            without_landmarks += missing
            warps = dict.fromkeys(LANDMARK_STEPS, plain)
            told = plain
            if target_xy is not None and source_xy is not None and truth_xy is not None:
                for step in LANDMARK_STEPS:
                    moved = moved_landmarks(target_xy, source_xy, quad.gains, step)
                    warps[step] = model.warped(case.target_rgb, warp_flow(target_xy, moved, _S))
                told = model.warped(
                    case.target_rgb, warp_flow(target_xy, truth_xy, _S, move_all=True)
                )
            for step, warped in warps.items():
                steps[step].add(case, warped)
            scores[WARP_TOLD].add(case, told)

            labels["source"].append(quad.aus_lr[source])
            labels["answer"].append(quad.aus_lr[truth])
            read["source"].append(encoded[source][1])
            read["answer"].append(encoded[truth][1])
            read["unchanged"].append(encoded[i][1])
            read["output"].append(model.encode(answer.picture_rgb)[1])
            read["warp"].append(model.encode(warps[1.0].picture_rgb)[1])

            face, true_face = faces[i], faces[truth]
            if identity is not None and face is not None and true_face is not None:
                described = {TRUTH: true_face}
                for name, given in ((MODEL, answer), (WARP, warps[1.0])):
                    # aligned like the truth, whose expression both are meant to have
                    assert truth_xy is not None
                    described[name] = identity.describe(given.picture_rgb, truth_xy)
                same_person.add(face, described)

            if worst and error == error:
                shown = _sheet_row(quad, i, answer, warps[1.0], error, before)
                heapq.heappush(heap, (error, scores[MODEL].cases, shown))
                if len(heap) > worst:
                    heapq.heappop(heap)

    if not scores[MODEL].cases:
        raise ConfigError("evaluate: there is no quadruple to score; are the shards empty?")
    best = min(LANDMARK_STEPS, key=lambda step: steps[step].image.value)
    rows = {
        UNCHANGED: scores[UNCHANGED],
        MODEL: scores[MODEL],
        WARP: steps[1.0],
        WARP_BEST: steps[best],
        WARP_TOLD: scores[WARP_TOLD],
    }
    report = {
        "kind": "held_out",
        "cases": scores[MODEL].cases,
        "people": len(people),
        "cases_without_landmarks": without_landmarks,
        "landmark_best_step": best,
        "definitions": {
            "changed_level": CHANGED_LEVEL,
            "changed_flow_px": CHANGED_FLOW_PX,
            "visible_keep": VISIBLE_KEEP,
            "crop_px": _S,
        },
        "rows": _rows(rows),
        "all_aus": _rows(whole),
        "some_aus": _rows(partial),
        "median_case_error_ratio": float(np.median(ratios)) if ratios else float("nan"),
        "groups": [
            {
                "kind": kind,
                "group": name,
                "people": len(group.people),
                **_rows(group.scores)[MODEL],
            }
            for (kind, name), group in sorted(groups.items())
        ],
        "aus": _au_report(read, labels),
        **({} if identity is None else {"identity": same_person.result()}),
    }
    report["aims"] = aims(report)
    return report, [row for _, _, row in sorted(heap, key=lambda entry: entry[:2], reverse=True)]


@dataclass
class _Group:
    """Scores of the cases of one group, and the people in it."""

    scores: dict[str, Score] = field(default_factory=lambda: {UNCHANGED: Score(), MODEL: Score()})
    people: set[str] = field(default_factory=set)


def _group_lines(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """By group, the smaller the less certain."""
    lines = [
        f"{'the model by group':30}{'people':>7}{'cases':>7}{'image':>8}{'less':>7}{'flow px':>9}"
        f"{'less':>7}{'eyes':>8}{'mouth':>8}"
    ]
    for row in groups:
        lines.append(
            f"{row['kind'] + ': ' + row['group']:30}{row['people']:>7}{row['cases']:>7}"
            f"{_num(row['image']):>8}{_percent(row['image_reduction']):>7}"
            f"{_num(row['flow_px']):>9}{_percent(row['flow_reduction']):>7}"
            f"{_num(row['eyes']):>8}{_num(row['mouth_interior']):>8}"
        )
    return lines


def _rows(scores: Mapping[str, Score]) -> dict[str, dict[str, float]]:
    base = scores[UNCHANGED].result()
    rows: dict[str, dict[str, float]] = {}
    for name, score in scores.items():
        result = score.result()
        rows[name] = {
            "cases": score.cases,
            **result,
            "image_reduction": reduction(result["image"], base["image"]),
            "flow_reduction": reduction(result["flow_px"], base["flow_px"]),
        }
    return rows


def _au_report(
    read: Mapping[str, Sequence[F32]], labels: Mapping[str, Sequence[F32]]
) -> dict[str, Any]:
    truth = {
        "source": labels["source"],
        "answer": labels["answer"],
        "output": labels["answer"],
        "unchanged": labels["answer"],
        "warp": labels["answer"],
    }
    errors = {name: au_errors(np.array(read[name]), np.array(truth[name])) for name in read}
    per_au = {
        au: {
            **{f"{name}_mae": float(errors[name]["mae"][k]) for name in errors},
            "blind_mae": float(errors["answer"]["blind"][k]),
            "source_r": float(errors["source"]["r"][k]),
            "output_r": float(errors["output"]["r"][k]),
        }
        for k, au in enumerate(AU_NAMES)
    }
    overall = {
        **{f"{name}_mae": float(errors[name]["mae"].mean()) for name in errors},
        "blind_mae": float(errors["answer"]["blind"].mean()),
    }
    return {"overall": overall, "per_au": per_au}


def aims(report: Mapping[str, Any]) -> dict[str, bool]:
    """Which aims a held-out report meets: both reductions, and under the plain landmark warp with
    its best step.
    """
    rows = report["rows"]
    model, warp = rows[MODEL], rows[WARP_BEST]
    return {
        "image_reduction": model["image_reduction"] >= AIMED_REDUCTION,
        "flow_reduction": model["flow_reduction"] >= AIMED_REDUCTION,
        "image_below_landmark_warp": model["image"] < warp["image"],
        "flow_below_landmark_warp": model["flow_px"] < min(warp["flow_px"], rows[WARP]["flow_px"]),
    }


_AU_COLUMNS: Final = {
    "source_mae": "source",
    "blind_mae": "blind",
    "answer_mae": "answer",
    "output_mae": "output",
    "unchanged_mae": "unchanged",
    "warp_mae": "warp",
    "source_r": "r source",
    "output_r": "r output",
}


def held_out_text(report: Mapping[str, Any]) -> str:
    """The report as a table for people."""
    columns = ("image", "flow_px", "ssim", "hole_iou", "spill", *REGIONS)
    lines = [
        f"{report['cases']} held-out cases, {report['people']} people; "
        "image errors in [0, 1], over pixels that should change",
        "",
        f"{'':24}{'image':>8}{'less':>7}{'flow px':>9}{'less':>7}{'SSIM':>7}"
        f"{'hole IoU':>10}{'spill':>8}" + "".join(f"{name[:9]:>10}" for name in REGIONS),
    ]
    for title, block in (
        ("", report["rows"]),
        ("every AU taken:", report["all_aus"]),
        ("some AUs taken:", report["some_aus"]),
    ):
        lines += [title] if title else []
        for name, row in block.items():
            v = [_num(row[c]) for c in columns]
            lines.append(
                f"{name:24}{v[0]:>8}{_percent(row['image_reduction']):>7}{v[1]:>9}{_percent(row['flow_reduction']):>7}"
                f"{v[2]:>7}{v[3]:>10}{v[4]:>8}" + "".join(f"{x:>10}" for x in v[5:])
            )
    lines += [
        "",
        f"median over cases of error / unchanged error: {_num(report['median_case_error_ratio'])}",
        f"landmark warp: best step {report['landmark_best_step']}; "
        f"{report['cases_without_landmarks']} cases without landmarks (left unchanged)",
        "",
        f"{'AU error (0..1)':18}" + "".join(f"{title:>10}" for title in _AU_COLUMNS.values()),
    ]
    aus = report["aus"]
    for name, row in (("all", aus["overall"]), *aus["per_au"].items()):
        cells = (_num(row[key]) if key in row else "" for key in _AU_COLUMNS)
        lines.append(f"{name:18}" + "".join(f"{cell:>10}" for cell in cells))
    lines += ["", *_group_lines(report["groups"])]
    if "identity" in report:
        lines += ["", *_identity_lines(report["identity"])]
    lines += [
        "",
        *(f"{'met   ' if met else 'missed'} {name}" for name, met in report["aims"].items()),
    ]
    return "\n".join(lines)


def _identity_lines(found: Mapping[str, Any]) -> list[str]:
    below = found["same_person_below"]
    lines = [
        "identity: distance to the target's face descriptor "
        f"(the same person below {below}), share no longer the same person"
    ]
    for name, row in (*found["rows"].items(), ("two people", found["two_people"])):
        lines.append(
            f"{name:24}{_num(row['distance']):>8}{_percent(row['lost']):>7}{row['cases']:>7} cases"
        )
    return lines


def _num(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.0f}%"


def _sheet_row(
    quad: Quadruple, i: int, answer: Answer, warp: Answer, error: float, before: float
) -> WorstCase:
    case = quad.case(i)
    off = np.abs(answer.picture_rgb.astype(np.int16) - case.truth_rgb) * 4
    pictures = (
        quad.rgb[DONOR[i]],
        case.target_rgb,
        case.truth_rgb,
        answer.picture_rgb,
        warp.picture_rgb,
        np.minimum(off, 255).astype(np.uint8),
    )
    who = quad.people[i // 2], quad.people[1 - i // 2]
    taken = "every AU" if quad.gains.min() >= 1 else " ".join(np.array(AU_NAMES)[quad.gains > 0])
    return WorstCase(
        error,
        pictures,
        f"error {error:.3f} (unchanged {before:.3f})  {who[0]} <- {who[1]}  {taken}",
    )


def draw_sheet(cases: Sequence[WorstCase]) -> U8:
    """A contact sheet, one case a row.

    Args:
        cases: At least one.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    import cv2

    def band(text: str, width_px: int) -> U8:
        strip = np.full((20, width_px, 3), 255, np.uint8)
        cv2.putText(strip, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        return strip

    rows = [np.hstack([band(name, _S) for name in SHEET_COLUMNS])]
    for case in cases:
        rows += [band(case.title, _S * len(SHEET_COLUMNS)), np.hstack(case.pictures)[..., ::-1]]
    return np.ascontiguousarray(np.vstack(rows))


# --- files and the command line -------------------------------------------------------------------
def strict(value: Any) -> Any:
    """The same with NaN and infinities as None and NumPy numbers as Python's, so that strict JSON
    can hold it.
    """
    if isinstance(value, Mapping):
        return {str(k): strict(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(v) for v in value]
    if isinstance(value, np.ndarray):
        return strict(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Write strict JSON (RFC 8259: no NaN), whole or not at all."""
    text = json.dumps(strict(report), indent=1, allow_nan=False) + "\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"--json {path}: cannot be written ({exc.strerror})") from exc


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, help="model bundle (default: the one installed)")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="a step_* folder, run by PyTorch, instead"
    )
    parser.add_argument("--backend", default="onnxruntime", help="default: %(default)s")
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads a graph, 0 lets the runtime choose"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report here too")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="contact sheet")
    parser.add_argument(
        "--sheet-cases", type=int, default=12, metavar="N", help="rows of it (default: %(default)s)"
    )
    known = parser.add_argument_group("with a known answer")
    known.add_argument("--val-shards", type=Path, metavar="DIR", help="shards of held-out people")
    known.add_argument(
        "--any-split", action="store_true", help="score shards of training people too"
    )
    known.add_argument("--check", action="store_true", help="exit 1 where an aim is missed")
    known.add_argument(
        "--identity",
        action="store_true",
        help="measure with a face recogniser whether the person stays the same (the 'identity' "
        "extra; half as long again)",
    )
    real = parser.add_argument_group("real pictures")
    real.add_argument("--real", action="store_true", help="clips and held-out portraits")
    real.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder with clips/ and portraits/ (default: RT_SWAP_DATA, else ../shared/data "
        "beside the checkout)",
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="at most N quadruples, or N pairs of clips, N source portraits (at least 3) and N "
        "people with a smile",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 where ``--check`` missed an aim, 2 for
    wrong options.
    """
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return _run(args)
    except RtSwapError as exc:
        print(f"evaluate: {exc}", file=sys.stderr)
        return 2


def _about_checkpoint(checkpoint: Path) -> dict[str, Any]:
    from training.checkpoint import read_config, read_state

    state = read_state(checkpoint)
    return {
        "name": read_config(checkpoint).name,
        "steps": state.step,
        "trained_minutes": round(state.elapsed_s / 60, 2),
        "backend": "pytorch",
    }


def _gmac(bundle: ModelBundle) -> float | None:
    """What the target generator costs a frame, 1e9 multiply-adds, as engines.export counted; None
    where the bundle does not say.
    """
    try:
        said = json.loads((bundle.path / "parity.json").read_text(encoding="utf-8"))
        return float(said["gmac"][GENERATOR_SPEC.name])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _run(args: argparse.Namespace) -> int:
    if bool(args.real) == (args.val_shards is not None):
        raise ConfigError("give either --val-shards DIR or --real")
    if args.real and args.identity:
        raise ConfigError("--identity needs a known answer: give it with --val-shards")
    for option in ("limit", "sheet_cases"):
        if getattr(args, option) is not None and getattr(args, option) < 1:
            raise ConfigError(f"--{option.replace('_', '-')} must be 1 or more")
    if args.checkpoint is not None and (args.real or args.model is not None):
        raise ConfigError("--checkpoint: goes with --val-shards, and without --model")
    if args.checkpoint is not None:
        model, about = CropModel.of_checkpoint(args.checkpoint), _about_checkpoint(args.checkpoint)
    else:
        bundle, backend = load_bundle(args.model), get_backend(args.backend)
        about = {
            "name": bundle.name,
            "encoder_sha256": bundle.sha256,
            "generator_sha256": bundle.generator_sha256,
            "steps": bundle.manifest["steps"],
            "backend": backend.name,
            "gmac": _gmac(bundle),
        }
    if args.real:
        from training import evaluate_real

        data = evaluate_real.find_data(args.data)
        report, sheet = evaluate_real.evaluate(bundle, backend, data, args.limit, args.threads)
        text = evaluate_real.text(report)
    else:
        identity = DlibIdentity() if args.identity else None
        quadruples = read_quadruples(args.val_shards, args.limit, args.any_split)
        if args.checkpoint is None:
            model = CropModel.of_bundle(bundle, backend, args.threads)
        with model, MediapipeTracker(static=True) as tracker:
            report, cases = evaluate_held_out(
                model, quadruples, tracker, args.sheet_cases if args.sheet else 0, identity
            )
        sheet = draw_sheet(cases) if args.sheet and cases else None
        text = held_out_text(report)
    report = {"model": about, **report}
    print(text)
    if args.json:
        write_json(args.json, report)
    if args.sheet and sheet is not None:
        import cv2

        if not cv2.imwrite(str(args.sheet), sheet):
            raise ConfigError(f"--sheet {args.sheet}: cannot be written")
    return 1 if args.check and not all(report.get("aims", {}).values()) else 0


if __name__ == "__main__":
    sys.exit(main())
