"""Everything a training run is told: frozen dataclasses with checks, and the named configurations.

One default per option stands here and nowhere else. :func:`to_dict` and :func:`from_dict` are exact
inverses, so a
run's ``config.json`` rebuilds its networks; an unknown key is a ConfigError that names it.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from rt_swap.contract import CROP_SIZE_PX, TOKEN_DIM
from rt_swap.errors import ConfigError


def _check(ok: bool, option: str, expected: str, actual: object) -> None:
    if not ok:
        raise ConfigError(f"config: {option} must be {expected}, got {actual!r}")


LOOK_XYXY: Final = (40, 44, 216, 236)
"""What the networks see of the crop, pixels of a 256-px one: brows to below the chin, ear to ear,
with room for raised brows and a dropped jaw. Both sides are multiples of 16.
"""


SCHEMES: Final = ("rt", "eft", "ganimation")
"""What can be trained; see NetworkConfig.scheme."""


@dataclass(frozen=True)
class NetworkConfig:
    """Widths and depths of E, E_r, E_f and G. Sizes in comments count a side of 256, of which the
    networks see LOOK_XYXY.
    """

    scheme: str = "rt"
    """How a picture is made: "rt", ours; "eft", the published method's synthesis; "ganimation",
    attention and colour masks guided by an estimated AU vector. The latter two are for comparison
    (training.networks.synthesis).
    """
    read_mirrored: bool = True
    """The exported expression encoder reads each picture and its mirror image, and averages the
    tokens of both: twice the work, once for each source, for readings steadier than either. The
    target is read once a frame as it is.
    """
    stem_channels: tuple[int, int, int, int] = (32, 48, 96, 160)
    """Channels of the stem at 128, 64, 32 and 16 px (multiples of 16 run best in ONNX Runtime)."""
    stem_blocks: tuple[int, int, int] = (1, 2, 1)
    """Residual blocks of the stem at 64, 32 and 16 px."""
    token_dim: int = TOKEN_DIM
    """D, numbers per AU token; the contract fixes it for exported models."""
    token_features: int = 96
    """Channels of the 32-px map that the AU attention pools."""
    token_hidden: int = 48
    """Hidden units of each AU's own small MLP."""
    token_global: int = 64
    """Numbers of the whole-face context each AU's MLP sees (what the resting face looks like)."""
    token_wide_channels: int = 64
    """Channels of the 12x11 map that the wide path of E_r reads as one long vector; 0 leaves the
    path out.
    """
    token_wide_rank: int = 128
    """Numbers that the wide path boils its map down to, linearly."""
    token_wide_hidden: int = 256
    """Hidden units of the wide path."""
    au_free_channels: int = 96
    """Channels of the AU-free feature, at 16 px (at 64 px in "eft")."""
    condition_dim: int = 128
    """Length of the vector that modulates (FiLM) the generator."""
    map_channels: int = 32
    """Channels of the 8x8 map that the tokens paint into the generator's 16-px stage."""
    decoder_channels: tuple[int, int, int, int] = (128, 96, 48, 32)
    """Channels of the generator at 16, 32, 64 and 128 px."""
    decoder_blocks: tuple[int, int, int, int] = (1, 2, 1, 0)
    """Modulated residual blocks of the generator at 16, 32, 64 and 128 px."""
    unit_channels: int = 0
    """Width of the layer before the fields of the units: what one unit of each intensity does to
    this very face, drawn by the generator and weighed by the change of intensities; 0 leaves the
    fields out.
    """
    mesh_features: int = 0
    """Learned features of each point of the face's mesh, which is moved by landmarks and the change
    of intensities (training.networks.mesh); 0 leaves the mesh out, and motion has to be drawn from
    the picture alone. For the scheme "rt" alone.
    """
    mouth_hidden: int = 0
    """Hidden units of what puts teeth, gums and tongue, drawn once (training.data.denture), where
    they belong; 0 has mouths painted anew like all else. For the scheme "rt" alone.
    """
    fold_depth: float = 0.0
    """How deep the folds of the skin are that are drawn from landmarks when the network is used
    (training.networks.folds), 1 as the data engine has them; 0 for none. For networks with
    mesh_features. Training does not see them: its answers to swaps have none.
    """
    flow_dead_px: float = 0.1
    """Flow below this (pixels of a 256-px crop) is exactly 0, so that still skin stays bit for
    bit.
    """
    flow_scale_px: float = 4.0
    """Flow of one unit of the head's output, pixels of a 256-px crop."""
    shade_limit_log2: float = 1.5
    """Largest |log2 shade|, without folds."""
    shade_dead_log2: float = 0.02
    """|log2 shade| below this is exactly 0, a factor of exactly 1."""
    generation_trains_stem: bool = True
    """False is the published rule (a swap's losses do not reach the stem, neither through features
    nor through tokens; those of a swap swapped back do, as they pass through the picture); True
    lets the skips learn from them.
    The AU-free encoder sees the stem detached either way."""

    def __post_init__(self) -> None:
        _check(self.scheme in SCHEMES, "network.scheme", f"one of {SCHEMES}", self.scheme)
        for name in ("stem_channels", "decoder_channels"):
            value = getattr(self, name)
            _check(
                len(value) == 4 and min(value) > 0, f"network.{name}", "four positive widths", value
            )
        _check(
            len(self.stem_blocks) == 3 and min(self.stem_blocks) >= 0,
            "network.stem_blocks",
            "three counts",
            self.stem_blocks,
        )
        _check(
            len(self.decoder_blocks) == 4 and min(self.decoder_blocks) >= 0,
            "network.decoder_blocks",
            "four counts",
            self.decoder_blocks,
        )
        for name in (
            "token_dim",
            "token_features",
            "token_hidden",
            "token_global",
            "token_wide_rank",
            "token_wide_hidden",
            "au_free_channels",
            "condition_dim",
            "map_channels",
        ):
            _check(getattr(self, name) > 0, f"network.{name}", "positive", getattr(self, name))
        for name in (
            "flow_dead_px",
            "shade_dead_log2",
            "token_wide_channels",
            "unit_channels",
            "mesh_features",
            "mouth_hidden",
            "fold_depth",
        ):
            _check(getattr(self, name) >= 0, f"network.{name}", "0 or more", getattr(self, name))
        if self.fold_depth:
            _check(self.mesh_features > 0, "network.mesh_features", "positive with fold_depth", 0)
        if self.scheme != "rt":
            for name in ("mesh_features", "mouth_hidden"):
                _check(getattr(self, name) == 0, f"network.{name}", "0 but for rt", self.scheme)
        for name in ("flow_scale_px", "shade_limit_log2"):
            _check(getattr(self, name) > 0, f"network.{name}", "positive", getattr(self, name))


@dataclass(frozen=True)
class LossConfig:
    """Weight of each term (0 switches it off) and how often the costly ones are computed.

    A term with ``*_every`` n is computed on every n-th step and then weighs n times as much
    (lazy regularisation,
    Karras et al., CVPR 2020, section 3.1).
    """

    # --- ground truth, which the data engine makes possible
    image: float = 4.0
    """L1 between composed picture and truth, weighted up where something changes."""
    image_detail: float = 4.0
    """L1 between Laplacian pyramids of the two, so that teeth and lashes are not a blur."""
    flow: float = 4.0
    """Charbonnier end-point error of the flow, pixels of a 256-px crop."""
    flow_multiscale: float = 2.0
    """The same after 4x and 8x averaging."""
    unit_fields: float = 4.0
    """Error of the fields of the units, each over the root of how far the unit moves things; no
    such term without shards that hold them, or without such a part of the network.
    """
    keep: float = 0.5
    """Binary cross-entropy of keep."""
    mouth: float = 0.5
    """Binary cross-entropy of where the inside of the mouth is; no such term without mouth_hidden.
    """
    shade: float = 1.0
    """L1 of log2 shade."""
    fill: float = 4.0
    """L1 of fill where keep's truth is 0."""
    fill_detail: float = 4.0
    """Laplacian-pyramid L1 of fill where keep's truth is 0."""
    # --- AU tokens
    au_bce: float = 1.0
    """Weighted binary cross-entropy of the intensities as soft labels (sister)."""
    au_dice: float = 0.05
    """Weighted Dice (sister, optional)."""
    au_l1: float = 2.0
    """L1 of the intensities."""
    token_effect: float = 300.0
    """Error of what the tokens say, weighed by what it would do to the picture: the motion that a
    wrong intensity would cause, for the difference of two pictures of one person and for each.
    """
    token_effect_single: float = 1.0
    """What single pictures weigh in token_effect, against the difference of two: an absolute swap
    lives by the former, a relative one by the latter.
    """
    token_teacher: float = 10.0
    """Tokens against those that a linear teacher makes of the known intensities."""
    token_pair: float = 30.0
    """The difference of two pictures' tokens of one person against the labels' difference."""
    token_invariance: float = 0.05
    """Tokens of different people with one expression agree."""
    distilled: float = 300.0
    """What a larger network reads off the same pictures (--distil-from), in the measure of
    token_effect (Hinton, Vinyals and Dean, arXiv 1503.02531, for numbers in place of classes); no
    such term without one.
    """
    labelled_au: float = 0.5
    """What is read off labelled real pictures (--labelled) against their labels, binary
    cross-entropy through the tokens; no such term without such pictures.
    """
    # --- the published scheme
    au_adversary: float = 1.0
    """|D_au(f_f) - 1/2|^2 for the AU-free encoder."""
    self_reconstruction: float = 3.0
    """L1 of G(f_f_a, f_r_a) against the picture itself."""
    cross_cycle: float = 2.0
    """L1 of the second swap against the original."""
    feature_related: float = 0.2
    """Re-encoded swap: its tokens against the mixed ones."""
    feature_free: float = 0.2
    """Re-encoded swap: its AU-free feature against the target's."""
    donor_labels: float = 0.5
    """AU loss on the re-encoded swap with the donor's labels."""
    swap_consistency: float = 0.02
    """LSGAN, real = self-reconstruction, fake = swap."""
    image_adversary: float = 0.05
    """LSGAN of the composed picture and its mouth and eye patches against real pictures."""
    equivariance: float = 0.5
    """A slightly moved crop gives the moved answer and the same tokens (steadiness in time)."""
    # --- how often
    au_adversary_every: int = 2
    cycle_every: int = 8
    """cross_cycle, feature_* and donor_labels."""
    adversarial_every: int = 3
    """swap_consistency and image_adversary."""
    equivariance_every: int = 8
    lazy_quadruples: int = 3
    """How many quadruples of a batch the cycle and equivariance terms use."""
    adversarial_from: float = 0.75
    """Progress (0..1) at which swap_consistency and image_adversary start."""
    cycle_from: float = 0.7
    """Progress at which the cycle and equivariance terms start."""
    labelled_from: float = 0.1
    """Progress at which labelled pictures start to come: a head that cannot read yet pulls the
    tokens the wrong way.
    """
    # --- where
    changed_weight: float = 8.0
    """Extra weight of a pixel per unit of |truth - target|."""
    region_weights: tuple[float, float, float, float, float, float] = (
        0.5,
        1.0,
        10.0,
        14.0,
        4.0,
        7.0,
    )
    """Weights of background, face, mouth interior, eyeball, lips, lids in the image and keep
    terms.
    """
    flow_region_weights: tuple[float, float, float, float, float, float] = (
        0.25,
        1.0,
        0.5,
        10.0,
        3.0,
        6.0,
    )
    """The same for flow and shade; what is not visible in the partner weighs nothing."""
    presence_threshold: float = 0.2
    """Intensity from which an AU counts as present (D_au's labels, positive rates)."""
    real_truth_fraction: float = 0.5
    """Part of the image adversary's real side that is rendered truth; the rest is untouched
    real crops.
    """

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name.endswith("_every") or f.name == "lazy_quadruples":
                _check(value >= 1, f"losses.{f.name}", "1 or more", value)
            elif f.name in (
                "adversarial_from",
                "cycle_from",
                "labelled_from",
                "presence_threshold",
                "real_truth_fraction",
            ):
                _check(0 <= value <= 1, f"losses.{f.name}", "in [0, 1]", value)
            elif f.name.endswith("region_weights"):
                _check(
                    len(value) == 6 and min(value) >= 0,
                    f"losses.{f.name}",
                    "six numbers >= 0",
                    value,
                )
            else:
                _check(value >= 0, f"losses.{f.name}", "0 or more", value)


@dataclass(frozen=True)
class SampleConfig:
    """What a quadruple is used for; fractions of quadruples, their sum is 1."""

    swap: float = 0.62
    """Other person's picture drives, gains of the quadruple, absolute."""
    relative: float = 0.16
    """The same, relative to the driving person's picture that shows the target's expression."""
    self_driven: float = 0.10
    """The same person's other picture drives."""
    identity: float = 0.12
    """Nothing is asked for, so nothing may change."""
    taught_first: float = 0.8
    """Fraction of quadruples steered by the teacher's tokens at the start, while E_r cannot see
    yet.
    """
    taught_last: float = 0.2
    """The same later on."""
    taught_until: float = 0.25
    """Progress (0..1) over which the fraction goes from first to last."""

    def taught(self, progress: float) -> float:
        """Fraction of quadruples steered by the teacher's tokens at a progress."""
        done = min(progress / self.taught_until, 1.0) if self.taught_until > 0 else 1.0
        return self.taught_first + (self.taught_last - self.taught_first) * done

    def __post_init__(self) -> None:
        parts = (self.swap, self.relative, self.self_driven, self.identity)
        for name in ("taught_first", "taught_last", "taught_until"):
            value = getattr(self, name)
            _check(0 <= value <= 1, f"samples.{name}", "in [0, 1]", value)
        _check(
            min(parts) >= 0 and abs(sum(parts) - 1) < 1e-6,
            "samples",
            "fractions that add up to 1",
            parts,
        )


@dataclass(frozen=True)
class AugmentConfig:
    """Geometry and colour are drawn per person of a quadruple (target and truth share them, the
    source has its own);
    blur, noise and JPEG per picture, and only what the encoder sees has them.
    """

    flip: float = 0.5
    """Probability of a mirror image."""
    rotate_deg: float = 4.0
    scale: float = 0.05
    shift_px: float = 5.0
    """In pixels of a 256-px crop."""
    brightness: float = 0.12
    contrast: float = 0.2
    gamma: float = 0.25
    colour: float = 0.06
    mix_colours: float = 0.05
    """Standard deviation of the entries that a random 3x3 matrix adds to the identity one; grey
    stays grey.
    """
    bend_px: float = 3.0
    """Standard deviation of a smooth random bend of the face (at 4x4 points, cubic between), in
    pixels of a 256-px crop; the face is also made wider or narrower, longer or shorter, by up to
    2 % for each of its pixels. A bent face is another person's, and both of a person's pictures
    are bent alike: it teaches what is a person's and what is an expression's.
    """
    occlude: float = 0.0
    """Probability that something is held up in front of a person (training.data.occlude)."""
    degrade: float = 0.3
    """Probability of blur or noise or JPEG on what the encoder sees."""
    nudge: float = 0.0
    """Probability that a picture that is only read has a few units changed a little
    (training.data.nudge).
    """
    reshape: float = 0.0
    """How far from their own shape people of pictures that are only read are moved, in standard
    deviations of people (training.data.reshape).
    """

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            _check(
                getattr(self, f.name) >= 0, f"augment.{f.name}", "0 or more", getattr(self, f.name)
            )
        for name in ("flip", "degrade", "occlude", "nudge"):
            _check(
                getattr(self, name) <= 1, f"augment.{name}", "a probability", getattr(self, name)
            )
        for name in ("scale", "contrast"):
            _check(getattr(self, name) < 1, f"augment.{name}", "below 1", getattr(self, name))


@dataclass(frozen=True)
class Phase:
    """A stretch of training at one size."""

    size_px: int
    """Side of the training pictures; a divisor of the shards' side."""
    quadruples: int
    """Quadruples per step; a step trains four pictures of each."""
    until: float
    """Progress (0..1) at which the phase ends; the last phase ends at 1."""
    encoder_only: bool = False
    """Train E and E_r on their labels alone: such a step costs two fifths of a whole one (measured
    on two CPU cores), and a generator learns little from an encoder that cannot see yet.
    """

    def __post_init__(self) -> None:
        _check(
            self.size_px >= 32 and CROP_SIZE_PX % self.size_px == 0,
            "phases.size_px",
            f"a divisor of {CROP_SIZE_PX}, at least 32",
            self.size_px,
        )
        _check(self.quadruples >= 1, "phases.quadruples", "1 or more", self.quadruples)
        _check(0 < self.until <= 1, "phases.until", "in (0, 1]", self.until)


@dataclass(frozen=True)
class OptimConfig:
    """Optimisers, schedule, averaging."""

    lr: float = 1e-3
    """AdamW's peak rate for E, E_r, E_f and G."""
    critic_lr: float = 2e-4
    """Adam's rate for D and D_au."""
    betas: tuple[float, float] = (0.9, 0.99)
    critic_betas: tuple[float, float] = (0.5, 0.9)
    weight_decay: float = 1e-4
    warmup_steps: int = 100
    final_lr_fraction: float = 0.02
    """Where the cosine ends."""
    clip_norm: float = 300.0
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        for name in ("lr", "critic_lr", "clip_norm"):
            _check(getattr(self, name) > 0, f"optim.{name}", "positive", getattr(self, name))
        _check(self.weight_decay >= 0, "optim.weight_decay", "0 or more", self.weight_decay)
        _check(self.warmup_steps >= 0, "optim.warmup_steps", "0 or more", self.warmup_steps)
        _check(0 <= self.ema_decay < 1, "optim.ema_decay", "in [0, 1)", self.ema_decay)
        _check(
            0 <= self.final_lr_fraction <= 1,
            "optim.final_lr_fraction",
            "in [0, 1]",
            self.final_lr_fraction,
        )


@dataclass(frozen=True)
class LogConfig:
    """How often a run says something, in steps; checkpoints in minutes."""

    log_every: int = 20
    grid_every: int = 500
    validate_every: int = 1000
    validation_quadruples: int = 24
    checkpoint_minutes: float = 5.0

    def __post_init__(self) -> None:
        for name in ("log_every", "grid_every", "validate_every", "validation_quadruples"):
            _check(getattr(self, name) >= 1, f"log.{name}", "1 or more", getattr(self, name))
        _check(
            self.checkpoint_minutes > 0,
            "log.checkpoint_minutes",
            "positive",
            self.checkpoint_minutes,
        )


@dataclass(frozen=True)
class TrainConfig:
    """A whole run."""

    name: str
    network: NetworkConfig = field(default_factory=NetworkConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    samples: SampleConfig = field(default_factory=SampleConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    log: LogConfig = field(default_factory=LogConfig)
    phases: tuple[Phase, ...] = (
        Phase(128, 6, 0.2, encoder_only=True),
        Phase(128, 6, 0.6),
        Phase(256, 3, 1.0),
    )
    steps: int = 10_000
    """Steps of the schedule; a time budget, where given, takes its place."""
    seed: int = 0
    precision: str = "bf16"
    """"bf16" (autocast) or "fp32"."""
    labelled_pictures: int = 8
    """Labelled real pictures per step, where there are any (--labelled): the encoder sees them
    beside the rendered ones.
    """
    reading_quadruples: int = 0
    """Further quadruples per step for the encoder alone, which costs a fifth of a quadruple that is
    swapped; ``augment.nudge`` gives their pictures other expressions. However many they are, their
    mean of the encoder's terms, by the weights of LossConfig, is added once ("reading" in the log).
    Phases that train the encoder alone have none: there every quadruple is such.
    """

    def __post_init__(self) -> None:
        _check(bool(self.phases), "phases", "at least one", self.phases)
        ends = [p.until for p in self.phases]
        _check(
            ends == sorted(set(ends)) and ends[-1] == 1.0,
            "phases.until",
            "ascending and 1.0 at the end",
            ends,
        )
        for name in ("steps", "labelled_pictures"):
            _check(getattr(self, name) >= 1, name, "1 or more", getattr(self, name))
        count = self.reading_quadruples
        _check(count >= 0, "reading_quadruples", "0 or more", count)
        reads = count or any(p.encoder_only for p in self.phases)
        for option in ("nudge", "reshape"):
            if getattr(self.augment, option) and not reads:
                raise ConfigError(
                    f"augment.{option}: only pictures that are read and not swapped get it; set "
                    "reading_quadruples, or a phase with encoder_only"
                )
        _check(self.precision in ("bf16", "fp32"), "precision", "'bf16' or 'fp32'", self.precision)

    def phase_at(self, progress: float) -> Phase:
        """The phase that training is in.

        Args:
            progress: 0 at the start, 1 at the end.
        """
        return next((p for p in self.phases if progress < p.until), self.phases[-1])


_PAINTED = LossConfig(
    flow=0.0,
    flow_multiscale=0.0,
    unit_fields=0.0,
    keep=0.0,
    shade=0.0,
    fill=0.0,
    fill_detail=0.0,
    equivariance=0.0,
)
"""Losses of a scheme that paints: whatever speaks of flow, keep, shade and fill is left out."""
_COMPARED = (Phase(128, 6, 0.5), Phase(256, 3, 1.0))

_SMOKE_PHASES = (Phase(32, 2, 0.2, encoder_only=True), Phase(32, 2, 0.5), Phase(64, 1, 1.0))

CONFIGS: Final[dict[str, TrainConfig]] = {
    "rt-nano": TrainConfig(
        "rt-nano",
        network=NetworkConfig(
            stem_channels=(16, 32, 64, 112),
            stem_blocks=(1, 3, 2),
            token_features=64,
            au_free_channels=64,
            decoder_channels=(80, 64, 32, 16),
            decoder_blocks=(1, 1, 1, 0),
            mesh_features=12,
            mouth_hidden=64,
            fold_depth=1.0,
        ),
        augment=AugmentConfig(occlude=0.05),
        optim=OptimConfig(lr=8e-4),
        phases=(Phase(128, 6, 0.4, encoder_only=True), Phase(128, 6, 1.0)),
    ),
    "rt-small": TrainConfig(
        "rt-small",
        network=NetworkConfig(
            stem_blocks=(1, 3, 2), mesh_features=12, mouth_hidden=64, fold_depth=1.0
        ),
        augment=AugmentConfig(occlude=0.05),
        optim=OptimConfig(lr=8e-4),
        phases=(Phase(128, 6, 0.4, encoder_only=True), Phase(128, 6, 1.0)),
    ),
    "rt-base": TrainConfig(
        "rt-base",
        network=NetworkConfig(
            stem_channels=(32, 64, 128, 192),
            stem_blocks=(2, 2, 2),
            token_features=128,
            token_hidden=64,
            token_global=96,
            au_free_channels=128,
            condition_dim=192,
            map_channels=48,
            mesh_features=12,
            mouth_hidden=64,
            fold_depth=1.0,
            decoder_channels=(160, 128, 64, 32),
            decoder_blocks=(2, 2, 2, 0),
        ),
        steps=60_000,
    ),
    "eft": TrainConfig(
        "eft",
        network=NetworkConfig(
            scheme="eft",
            au_free_channels=64,
            generation_trains_stem=False,
            decoder_channels=(128, 96, 72, 48),
        ),
        augment=AugmentConfig(occlude=0.05),
        optim=OptimConfig(lr=8e-4),
        losses=_PAINTED,
        phases=_COMPARED,
    ),
    "ganimation": TrainConfig(
        "ganimation",
        network=NetworkConfig(scheme="ganimation"),
        augment=AugmentConfig(occlude=0.05),
        optim=OptimConfig(lr=8e-4),
        losses=dataclasses.replace(_PAINTED, au_adversary=0.0, feature_free=0.0),
        phases=_COMPARED,
    ),
    "smoke": TrainConfig(
        "smoke",
        network=NetworkConfig(
            stem_channels=(8, 8, 16, 16),
            stem_blocks=(0, 1, 0),
            token_features=16,
            token_hidden=8,
            token_global=8,
            token_wide_channels=4,
            token_wide_rank=8,
            token_wide_hidden=8,
            au_free_channels=8,
            condition_dim=16,
            map_channels=4,
            decoder_channels=(16, 16, 8, 8),
            decoder_blocks=(0, 1, 0, 0),
        ),
        losses=LossConfig(
            cycle_every=2,
            adversarial_every=2,
            equivariance_every=2,
            adversarial_from=0.0,
            cycle_from=0.0,
            labelled_from=0.0,
            lazy_quadruples=1,
        ),
        optim=OptimConfig(warmup_steps=2),
        log=LogConfig(log_every=1, grid_every=4, validate_every=4, validation_quadruples=1),
        phases=_SMOKE_PHASES,
        steps=8,
        precision="fp32",
    ),
}
"""Named configurations: rt-nano, rt-small, rt-base; eft and ganimation, to compare with; and smoke
for tests.
"""


def get_config(name: str) -> TrainConfig:
    """A named configuration.

    Raises:
        ConfigError: If there is none of that name.
    """
    if name not in CONFIGS:
        raise ConfigError(f"config: no configuration {name!r}; there are {', '.join(CONFIGS)}")
    return CONFIGS[name]


def to_dict(config: Any) -> dict[str, Any]:
    """Plain dicts, lists, numbers and strings, ready for JSON."""
    return typing.cast(dict[str, Any], _plain(dataclasses.asdict(config)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


T = TypeVar("T")


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Inverse of :func:`to_dict`.

    Raises:
        ConfigError: For an unknown or missing key or a value that a check refuses; the
            message names it.
    """
    hints = typing.get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - names)
    if unknown:
        raise ConfigError(
            f"{where}: unknown option {', '.join(unknown)}; known are {', '.join(sorted(names))}"
        )
    built: dict[str, Any] = {}
    for name, value in values.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            built[name] = from_dict(typing.cast(Any, hint), value, f"{where}.{name}")
        elif hint == tuple[Phase, ...]:
            built[name] = tuple(from_dict(Phase, item, f"{where}.{name}") for item in value)
        else:
            built[name] = tuple(value) if isinstance(value, list) else value
    try:
        return cls(**built)
    except TypeError as exc:
        raise ConfigError(f"{where}: {exc}") from exc


def with_overrides(config: TrainConfig, overrides: Mapping[str, str]) -> TrainConfig:
    """A config with single options replaced.

    Args:
        config: Where to start.
        overrides: Dotted option -> text, such as ``{"losses.image": "2", "optim.lr":
            "5e-4"}``; the text is read as
            the option's present type (JSON for tuples).

    Raises:
        ConfigError: If an option does not exist or its text cannot be read.
    """
    import json

    values = to_dict(config)
    for dotted, text in overrides.items():
        node, parts = values, dotted.split(".")
        for part in parts[:-1]:
            node = node.get(part) if isinstance(node, dict) else None  # type: ignore[assignment]
        if not isinstance(node, dict) or parts[-1] not in node:
            raise ConfigError(f"config: no option {dotted!r} to override")
        old = node[parts[-1]]
        try:
            new: Any = text if isinstance(old, str) else json.loads(text)
        except json.JSONDecodeError as exc:
            raise ConfigError(f"config: cannot read {text!r} for {dotted}: {exc}") from exc
        if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
            new = float(new)
        if type(new) is not type(old):
            raise ConfigError(f"config: {dotted} takes a {type(old).__name__}, got {text!r}")
        node[parts[-1]] = new
    return from_dict(TrainConfig, values)
