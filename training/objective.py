"""One training step's forward side: which sample each picture makes, and every loss of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rt_swap.contract import CROP_SIZE_PX
from training import losses
from training.compose import compose
from training.config import SampleConfig, TrainConfig
from training.data.dataset import DONOR, DONOR_BASE, LOOK_CELLS, PARTNER, REGION_NAMES, Batch
from training.data.labelled import LabelledBatch
from training.data.layout import FIELDS_SIDE
from training.networks import Critics, Encoded, Instructions, RtNet, mix_tokens
from training.networks.critics import EYES_XYXY, MOUTH_XYXY, cut
from training.networks.encoder import StemFeatures, cut_look, look
from training.networks.mouth import TEETH_XYXY

KINDS = ("swap", "relative", "self_driven", "identity")


@dataclass(frozen=True)
class SamplePlan:
    """What each of the N pictures of a batch is the target of; index tensors are rows of the batch.

    Attributes:
        kinds: (Q,) index into KINDS of each quadruple.
        source: (N,) int64, who drives.
        base: (N,) int64, whose tokens are the base where relative is 1.
        relative: (N, 1) float32, 0 or 1.
        gains: (N, K) float32.
        truth: (N,) int64, the picture to arrive at.
        still: (N,) bool, True where truth is the target itself.
        taught: (N,) bool, True where the teacher's tokens steer instead of the encoder's.
    """

    kinds: Tensor
    source: Tensor
    base: Tensor
    relative: Tensor
    gains: Tensor
    truth: Tensor
    still: Tensor
    taught: Tensor

    @property
    def crossed(self) -> Tensor:
        """(Q,) bool: the other person drives."""
        return self.kinds < 2


def plan_samples(
    gains: Tensor,
    config: SampleConfig,
    rng: np.random.Generator,
    with_identity: bool = False,
    taught: float = 0.0,
) -> SamplePlan:
    """Draw what each quadruple is used for.

    Args:
        gains: (Q, K) of the quadruples.
        config: Fractions.
        rng: Source of chance.
        with_identity: Make sure that at least one quadruple is of kind identity (where
            there are two or more).
        taught: Fraction of quadruples that the teacher's tokens steer.
    """
    count = gains.shape[0]
    chances = np.array([config.swap, config.relative, config.self_driven, config.identity])
    kinds_np = rng.choice(len(KINDS), size=count, p=chances / chances.sum())
    if with_identity and count > 1 and not (kinds_np == 3).any():
        kinds_np[-1] = 3
    kinds = torch.from_numpy(kinds_np).to(gains.device)
    kind = kinds.repeat_interleave(4)
    first = torch.arange(count, device=gains.device).repeat_interleave(4) * 4

    def rows(order: tuple[int, ...]) -> Tensor:
        return first + torch.tensor(order, device=gains.device).repeat(count)

    own, partner, donor, base = rows((0, 1, 2, 3)), rows(PARTNER), rows(DONOR), rows(DONOR_BASE)
    each = gains.repeat_interleave(4, dim=0)
    still = kind == 3
    # a still sample is asked for nothing: by its own picture at full gain, or by a stranger at
    # gain 0
    stranger = torch.from_numpy(rng.random(4 * count) < 0.5).to(gains.device)
    source = torch.where(
        kind < 2, donor, torch.where(kind == 2, partner, torch.where(stranger, donor, own))
    )
    asked = torch.where((kind == 2)[:, None], torch.ones_like(each), each)
    asked = torch.where(still[:, None], (~stranger)[:, None].to(each.dtype).expand_as(each), asked)
    return SamplePlan(
        kinds=kinds,
        source=source,
        base=base,
        relative=(kind == 1)[:, None].to(gains.dtype),
        gains=asked,
        truth=torch.where(still, own, partner),
        still=still,
        taught=torch.from_numpy(rng.random(count) < taught).to(gains.device).repeat_interleave(4),
    )


@dataclass(frozen=True)
class Truth:
    """What the instructions of each sample should be; shapes as in Batch."""

    rgb: Tensor
    flow_xy: Tensor
    keep: Tensor
    shade_log2: Tensor
    region: Tensor
    aus_lr: Tensor


def truth_of(batch: Batch, plan: SamplePlan) -> Truth:
    """Gather the truth; a still sample's is flow 0, keep 1, shade 1."""
    moving = (~plan.still)[:, None, None, None].float()
    flow = batch.flow_xy[plan.truth] * moving
    keep = batch.keep[plan.truth] * moving + (1.0 - moving)
    return Truth(
        rgb=batch.rgb[plan.truth].contiguous(),
        flow_xy=flow,
        keep=keep,
        shade_log2=batch.shade_log2[plan.truth] * moving,
        region=batch.region[plan.truth],
        aus_lr=batch.aus_lr[plan.truth],
    )


@dataclass(frozen=True)
class Forward:
    """A step's results that losses and critics look at; ``labelled_logits`` are the (L, K, 2)
    read-outs of labelled pictures, where there are some.
    """

    encoded: Encoded
    label_tokens: Tensor
    mixed: Tensor
    said: Instructions
    out_rgb: Tensor
    truth: Truth
    plan: SamplePlan
    labelled_logits: Tensor | None = None


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """bf16 autocast where the config asks for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


def encode(
    net: RtNet, batch: Batch, labelled: LabelledBatch | None
) -> tuple[Encoded, Tensor | None]:
    """Encode a batch and labelled pictures in one pass, so that batch statistics are of both.

    Returns:
        The batch's, and the (L, K, 2) AU logits of the labelled pictures.
    """
    if labelled is None:
        return net.encoder(batch.look_rgb), None
    count = len(batch.look_rgb)
    both = net.encoder(torch.cat([batch.look_rgb, labelled.look_rgb]))
    stem = {f.name: getattr(both.features, f.name)[:count] for f in fields(StemFeatures)}
    rendered = Encoded(
        StemFeatures(**stem), both.tokens[:count], both.au_logits[:count], both.aus_lr[:count]
    )
    return rendered, both.au_logits[count:]


def landmarks_of(batch: Batch) -> Tensor | None:
    """(N, 478, 2), where the batch has them."""
    return batch.landmarks_xy if len(batch.landmarks_xy) else None


def moved_points(points_xy: Tensor, linear: Tensor, shift: Tensor) -> Tensor:
    """Where points are once a picture was resampled by affine_grid(cat([linear, shift])).

    Args:
        points_xy: (N, L, 2) pixels of a 256-px crop.
        linear: (N, 2, 2), the old picture's place from the new one's, from -1 to 1 across.
        shift: (N, 2) the same.

    Returns:
        (N, L, 2) pixels of a 256-px crop. Not for autocast: half precision has no pixels.
    """
    half = CROP_SIZE_PX / 2
    away = points_xy - half - shift[:, None] * half
    return torch.einsum("nij,nlj->nli", torch.linalg.inv(linear), away) + half


def run_networks(
    net: RtNet,
    batch: Batch,
    plan: SamplePlan,
    config: TrainConfig,
    labelled: LabelledBatch | None = None,
) -> Forward:
    """Encode every picture once, mix, generate, compose."""
    with autocast(config, batch.rgb.device):
        encoded, labelled_logits = encode(net, batch, labelled)
        known = net.label_tokens(batch.aus_lr).float()
        read = encoded.tokens
        if not config.network.generation_trains_stem:
            # the same tokens, read off features through which no gradient flows
            read = net.encoder.tokens(encoded.features.detached())[0]
        tokens = torch.where(plan.taught[:, None, None], known, read)
        mixed = mix_tokens(
            tokens, tokens[plan.source], tokens[plan.base], plan.gains, plan.relative
        )
        said = net.generator(
            encoded.features, tokens, mixed, batch.rgb.shape[3], landmarks_of(batch)
        )
    out = compose(batch.rgb.contiguous(), said.flow_xy, said.keep, said.fill_rgb, said.shade)
    truth = truth_of(batch, plan)
    return Forward(encoded, known, mixed, said, out, truth, plan, labelled_logits)


def _in_look(
    truth: Truth, said: Instructions, target_rgb: Tensor, region: Tensor
) -> tuple[Truth, Instructions, Tensor, Tensor]:
    """What lies in the look; features and fields are no pictures of the crop, and stay."""
    inner = {
        f.name: cut_look(getattr(said, f.name))
        for f in fields(said)
        if f.name not in ("au_free", "unit_fields_raw", "mouth_logit")
    }
    return (
        Truth(
            **{
                f.name: cut_look(getattr(truth, f.name))
                for f in fields(truth)
                if f.name != "aus_lr"
            },
            aus_lr=truth.aus_lr,
        ),
        replace(said, **inner),
        cut_look(target_rgb),
        cut_look(region),
    )


class Objective:
    """All losses of a step.

    Args:
        config: The run's.
        au_weights: (K,) from losses.au_weights.
        effect: (2K, 2K) from training.data.effect.
        labelled_weights: (K,) of labelled pictures, where there are some.
        larger: What reads for the encoder to learn from, in eval mode; None for nobody.
    """

    def __init__(
        self,
        config: TrainConfig,
        au_weights: Tensor,
        effect: Tensor,
        labelled_weights: Tensor | None = None,
        larger: RtNet | None = None,
    ) -> None:
        self.config, self.au_weights, self.effect = config, au_weights, effect
        self.labelled_weights, self.larger = labelled_weights, larger

    def is_due(self, every: int, step: int) -> bool:
        """Whether a lazy term is computed on this step."""
        return step % every == every - 1

    def adversarial_on(self, progress: float) -> bool:
        """Whether image critics take part in training by now."""
        w = self.config.losses
        return progress >= w.adversarial_from and max(w.image_adversary, w.swap_consistency) > 0

    def adversarial_due(self, step: int, progress: float) -> bool:
        """Whether image critics take part in this step."""
        return self.adversarial_on(progress) and self.is_due(
            self.config.losses.adversarial_every, step
        )

    def encoder_losses(
        self, net: RtNet, batch: Batch, labelled: LabelledBatch | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The token terms alone, for phases that train only the encoder.

        Returns:
            Weighted sum, and each term unweighted by its name in LossConfig.
        """
        with autocast(self.config, batch.rgb.device):
            encoded, logits = encode(net, batch, labelled)
        terms = self._tokens(net, batch, encoded.tokens, net.label_tokens(batch.aus_lr).float())
        if self.config.augment.nudge > 0:  # pictures that are no swaps of each other any more
            del terms["token_invariance"]
        terms |= self._labelled(logits, labelled) | self._distilled(net, batch, encoded.tokens)
        total = torch.stack([getattr(self.config.losses, k) * v for k, v in terms.items()]).sum()
        return total, terms

    def generator_losses(
        self,
        net: RtNet,
        critics: Critics,
        batch: Batch,
        forward: Forward,
        step: int,
        progress: float,
        rng: np.random.Generator,
        labelled: LabelledBatch | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum, and each term unweighted by its name in LossConfig.

        The critics must be frozen (no gradient for their weights) while this runs; ``labelled`` is
        what run_networks was given.
        """
        w = self.config.losses
        terms = self._ground_truth(batch, forward)
        terms |= self._tokens(net, batch, forward.encoded.tokens, forward.label_tokens)
        terms |= self._labelled(forward.labelled_logits, labelled)
        terms |= self._distilled(net, batch, forward.encoded.tokens)
        scale = dict.fromkeys(terms, 1.0)

        def add(new: dict[str, Tensor], every: int) -> None:
            terms.update(new)
            scale.update(dict.fromkeys(new, float(every)))

        if w.au_adversary > 0 and self.is_due(w.au_adversary_every, step):
            guess = critics.au(forward.said.au_free.float())
            add({"au_adversary": losses.adversary_encoder(guess)}, w.au_adversary_every)
        if progress >= w.cycle_from:
            cycle_on = max(w.cross_cycle, w.feature_related, w.feature_free, w.donor_labels) > 0
            if cycle_on and self.is_due(w.cycle_every, step):
                add(self._cycle(net, batch, forward), w.cycle_every)
            # half a period away from the cycle, so that no step pays for both
            if w.equivariance > 0 and self.is_due(
                w.equivariance_every, step + w.equivariance_every // 2
            ):
                add(self._equivariance(net, batch, forward, rng), w.equivariance_every)
        if self.adversarial_due(step, progress):
            add(self._adversarial(critics, forward), w.adversarial_every)

        total = torch.stack(
            [getattr(w, name) * scale[name] * value for name, value in terms.items()]
        ).sum()
        return total, terms

    def _ground_truth(self, batch: Batch, f: Forward) -> dict[str, Tensor]:
        w = self.config.losses
        # outside of the look nothing changes in training: it is left out, with half of the work
        truth, said, target, region = _in_look(f.truth, f.said, batch.rgb, batch.region)
        out_rgb = cut_look(f.out_rgb)
        visible = truth.keep
        # where a mouth or an eye is, and where it was
        place = torch.maximum(
            losses.region_weight(truth.region, w.region_weights),
            losses.region_weight(region, w.region_weights),
        )
        changed = losses.changed_weight(target, truth.rgb, w.changed_weight)
        weight = place * changed
        flow_weight = losses.region_weight(truth.region, w.flow_region_weights) * visible
        unit = CROP_SIZE_PX / batch.rgb.shape[3]
        flow, true_flow = said.flow_raw * unit, truth.flow_xy * unit
        difference = out_rgb - truth.rgb
        hidden = 1.0 - visible
        limit = self.config.network.shade_limit_log2
        terms = {
            "image": losses.image_l1(out_rgb, truth.rgb, weight),
            "image_detail": losses.laplacian_l1(difference, weight),
            "flow": losses.flow_charbonnier(flow, true_flow, flow_weight),
            "flow_multiscale": losses.flow_multiscale(flow, true_flow, flow_weight),
            "keep": losses.keep_bce(said.keep_logit, truth.keep, place),
            "shade": losses.shade_l1(
                said.shade_log2_raw, truth.shade_log2.clamp(-limit, limit), flow_weight
            ),
            "fill": losses.fill_l1(said.fill_rgb, truth.rgb, truth.keep),
            "fill_detail": losses.laplacian_l1((said.fill_rgb - truth.rgb) * hidden, hidden),
        }
        terms |= self._unit_fields(batch, f) | self._mouth(f)
        if bool(f.plan.still.any()):
            still = f.plan.still
            terms["self_reconstruction"] = losses.self_reconstruction(
                f.out_rgb[still], batch.rgb[still]
            )
        return terms

    def _mouth(self, f: Forward) -> dict[str, Tensor]:
        """Where the inside of the mouth is."""
        if f.said.mouth_logit is None:
            return {}
        region = f.truth.region
        if region.shape[3] != CROP_SIZE_PX:
            size = (CROP_SIZE_PX, CROP_SIZE_PX)
            region = F.interpolate(region.float(), size=size, mode="nearest-exact")
        x0, y0, x1, y1 = TEETH_XYXY
        shown = (region[:, :, y0:y1, x0:x1] == REGION_NAMES.index("mouth interior")).float()
        return {"mouth": F.binary_cross_entropy_with_logits(f.said.mouth_logit, shown)}

    def _unit_fields(self, batch: Batch, f: Forward) -> dict[str, Tensor]:
        """What each unit does, where the picture to arrive at knows it."""
        if f.said.unit_fields_raw is None or not len(batch.fields_row):
            return {}
        known = torch.full((len(batch.rgb),), -1, device=batch.rgb.device)
        known[batch.fields_row] = torch.arange(len(batch.fields_row), device=known.device)
        at = known[f.plan.truth]
        samples = torch.nonzero(at >= 0)[:, 0]
        rows = at[samples]
        cells = F.interpolate(
            f.truth.region[samples].float(), size=(FIELDS_SIDE, FIELDS_SIDE), mode="nearest-exact"
        )
        weight = losses.region_weight(
            cells[:, :, LOOK_CELLS[0], LOOK_CELLS[1]], self.config.losses.flow_region_weights
        )
        return {
            "unit_fields": losses.unit_fields(
                f.said.unit_fields_raw[samples][:, :, :2] * self.config.network.flow_scale_px,
                batch.fields[rows],
                weight * batch.fields_seen[rows],
            )
        }

    def _tokens(self, net: RtNet, batch: Batch, tokens: Tensor, known: Tensor) -> dict[str, Tensor]:
        # the head learns to read the tokens; where the tokens go is the teacher's business, until
        # donor_labels asks for the same of swaps. A head that pulls, too, pulls the wrong way first
        logits = net.encoder.tokens.read(tokens.detach())
        by_four = tokens.reshape(-1, 4, *tokens.shape[1:])
        gains = batch.gains[:, None, :, None]
        donors = by_four[:, list(DONOR)]
        shown = by_four + gains * (donors - by_four)  # what swapping gives ...
        there = by_four[:, list(PARTNER)]  # ... is what the same person's other picture shows
        return {
            "au_bce": losses.au_bce(logits, batch.aus_lr, self.au_weights),
            "au_dice": losses.au_dice(torch.sigmoid(logits), batch.aus_lr, self.au_weights),
            "au_l1": losses.au_l1(torch.sigmoid(logits), batch.aus_lr),
            "token_effect": losses.token_effect(
                net.label_tokens.inverse(tokens),
                batch.aus_lr,
                self.effect,
                self.config.losses.token_effect_single,
            ),
            "token_pair": losses.token_pair(tokens, known),
            "token_teacher": losses.token_teacher(tokens, known),
            "token_invariance": losses.token_invariance(
                shown.flatten(0, 1), there.flatten(0, 1), tokens
            ),
        }

    def _labelled(self, logits: Tensor | None, labelled: LabelledBatch | None) -> dict[str, Tensor]:
        if logits is None or labelled is None:
            return {}
        weights = self.au_weights if self.labelled_weights is None else self.labelled_weights
        # a real picture has no teacher's tokens, so here the head is what teaches them
        return {"labelled_au": losses.labelled_au(logits, labelled.labels, labelled.mask, weights)}

    def _distilled(self, net: RtNet, batch: Batch, tokens: Tensor) -> dict[str, Tensor]:
        """What a larger network reads."""
        if self.larger is None or self.config.losses.distilled == 0:
            return {}
        with torch.no_grad():
            with autocast(self.config, batch.look_rgb.device):
                read = self.larger.encoder(batch.look_rgb).tokens
            wanted = self.larger.label_tokens.inverse(read)
        said = net.label_tokens.inverse(tokens)
        single = self.config.losses.token_effect_single
        return {"distilled": losses.token_effect(said, wanted, self.effect, single)}

    def _rows(self, quadruples: Tensor) -> Tensor:
        """(4 n,) rows of some quadruples."""
        four = torch.arange(4, device=quadruples.device)
        return (quadruples[:, None] * 4 + four).reshape(-1)

    def _cycle(self, net: RtNet, batch: Batch, f: Forward) -> dict[str, Tensor]:
        chosen = f.plan.crossed.nonzero().flatten()[: self.config.losses.lazy_quadruples]
        if not len(chosen):
            return {}
        rows = self._rows(chosen)
        swapped = f.out_rgb[rows].contiguous(memory_format=torch.channels_last)
        count = len(chosen)
        donor = torch.tensor(DONOR, device=rows.device).repeat(count)
        donor = donor + torch.arange(count, device=rows.device).repeat_interleave(4) * 4
        with autocast(self.config, rows.device):
            again = net.encoder(look(swapped))
            gains = batch.gains[chosen].repeat_interleave(4, dim=0)
            zero = torch.zeros(len(rows), 1, device=rows.device)
            back = mix_tokens(again.tokens, again.tokens[donor], again.tokens, gains, zero)
            # the swap shows what its truth shows, so its points are where the truth's are
            points = landmarks_of(batch)
            points = None if points is None else points[f.plan.truth[rows]]
            said = net.generator(again.features, again.tokens, back, swapped.shape[3], points)
        returned = compose(swapped, said.flow_xy, said.keep, said.fill_rgb, said.shade)
        spread = losses.token_spread(f.encoded.tokens)
        labels = f.truth.aus_lr[rows]
        return {
            "cross_cycle": losses.cross_cycle(returned, batch.rgb[rows]),
            "feature_related": losses.feature_related(again.tokens, f.mixed[rows].detach(), spread),
            "feature_free": losses.feature_free(
                said.au_free.float(), f.said.au_free[rows].float().detach()
            ),
            "donor_labels": losses.au_bce(again.au_logits, labels, self.au_weights),
        }

    def _equivariance(
        self, net: RtNet, batch: Batch, f: Forward, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        rows = slice(0, 4 * self.config.losses.lazy_quadruples)
        still, side = batch.rgb[rows], batch.rgb.shape[3]
        count = len(still)
        angle = torch.from_numpy(rng.uniform(-1.0, 1.0, count).astype(np.float32)).to(still.device)
        angle = angle * math.radians(2.0)
        scale = torch.from_numpy(rng.uniform(0.98, 1.02, count).astype(np.float32)).to(still.device)
        shift = torch.from_numpy(rng.uniform(-0.016, 0.016, (count, 2)).astype(np.float32)).to(
            still.device
        )
        cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
        linear = torch.stack(
            [torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1
        )  # in from out
        grid = F.affine_grid(
            torch.cat([linear, shift[:, :, None]], 2), [count, 1, side, side], align_corners=False
        )

        def moved(x: Tensor, padding: str = "border") -> Tensor:
            return F.grid_sample(x.float(), grid, padding_mode=padding, align_corners=False)

        with torch.no_grad():
            picture = moved(still).contiguous(memory_format=torch.channels_last)
            flow = torch.einsum(
                "nij,njhw->nihw", torch.linalg.inv(linear), moved(f.said.flow_raw[rows])
            )
            keep = moved(torch.sigmoid(f.said.keep_logit[rows]))
            inside = moved(torch.ones_like(f.said.keep[rows]), "zeros")
            place = losses.region_weight(batch.region[rows], self.config.losses.flow_region_weights)
            weight = inside * moved(place)
            points = landmarks_of(batch)
            if points is not None:
                points = moved_points(points[rows], linear, shift)
        with autocast(self.config, still.device):
            encoded = net.encoder(look(picture))
            mixed = f.mixed[rows].detach()
            said = net.generator(encoded.features, encoded.tokens, mixed, side, points)
        unit = CROP_SIZE_PX / side
        value = losses.equivariance(
            said.flow_raw * unit, flow * unit, torch.sigmoid(said.keep_logit), keep, weight
        )
        spread = losses.token_spread(f.encoded.tokens)
        same = losses.feature_related(encoded.tokens, f.encoded.tokens[rows].detach(), spread)
        return {"equivariance": value + 0.2 * same}

    def _adversarial(self, critics: Critics, f: Forward) -> dict[str, Tensor]:
        fake = f.out_rgb[~f.plan.still]
        terms: dict[str, Tensor] = {}
        if not len(fake):
            return terms
        with autocast(self.config, fake.device):
            looks = [
                critics.face(shrink(fake)),
                critics.mouth(cut(fake, MOUTH_XYXY)),
                critics.eyes(cut(fake, EYES_XYXY)),
            ]
            swap = critics.swap(shrink(fake))
        terms["image_adversary"] = torch.stack(
            [losses.lsgan_generator(x.float()) for x in looks]
        ).mean()
        terms["swap_consistency"] = losses.lsgan_generator(swap.float())
        return terms

    def critic_losses(
        self, critics: Critics, batch: Batch, forward: Forward, step: int, progress: float
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Sum of the critics' losses on detached results, None where none is due; and each
        by name.
        """
        w, f = self.config.losses, forward
        terms: dict[str, Tensor] = {}
        if w.au_adversary > 0 and self.is_due(w.au_adversary_every, step):
            presence = (batch.aus_lr.amax(dim=2) >= w.presence_threshold).float()
            guess = critics.au(f.said.au_free.detach().float())
            terms["critic_au"] = losses.adversary_classifier(guess, presence)
        if self.adversarial_due(step, progress):
            terms |= self._image_critics(critics, batch, f)
        if not terms:
            return None, terms
        return torch.stack(list(terms.values())).sum(), terms

    def _image_critics(self, critics: Critics, batch: Batch, f: Forward) -> dict[str, Tensor]:
        still = f.plan.still
        fake = f.out_rgb[~still].detach()
        if not len(fake):
            return {}
        rendered = f.truth.rgb[~still]
        wanted = max(len(fake), 1)
        from_truth = round(wanted * self.config.losses.real_truth_fraction)
        if not len(batch.real_rgb):
            from_truth = wanted
        real = torch.cat([rendered[:from_truth], batch.real_rgb[: max(wanted - from_truth, 0)]])
        terms: dict[str, Tensor] = {}
        with autocast(self.config, fake.device):
            pairs = {
                "critic_face": (critics.face, shrink(real), shrink(fake)),
                "critic_mouth": (critics.mouth, cut(real, MOUTH_XYXY), cut(fake, MOUTH_XYXY)),
                "critic_eyes": (critics.eyes, cut(real, EYES_XYXY), cut(fake, EYES_XYXY)),
            }
            if bool(still.any()):
                pairs["critic_swap"] = (
                    critics.swap,
                    shrink(f.out_rgb[still].detach()),
                    shrink(fake),
                )
            for name, (critic, true_side, false_side) in pairs.items():
                terms[name] = losses.lsgan_critic(
                    critic(true_side).float(), critic(false_side).float()
                )
        return terms


def shrink(picture_rgb: Tensor) -> Tensor:
    """At most 128 px: what the whole-face critics look at."""
    return F.avg_pool2d(picture_rgb, 2) if picture_rgb.shape[3] > 128 else picture_rgb


@torch.no_grad()
def validate(net: RtNet, batches: list[Batch], config: TrainConfig) -> dict[str, float]:
    """Figures on held-out people, absolute swaps only.

    Returns:
        image_error: mean |out - truth| over pixels that should change (truth differs from
            target by more than 10/255);
        image_error_unchanged: the same for the target left alone; image_relative: their ratio;
        flow_epe, flow_epe_unchanged, flow_relative: end-point error over visible face
            pixels, in pixels of a 256-px crop;
        au_mae: mean |intensity - label|; au_mae_constant: that of always answering the mean label;
        mouth_error, eye_error: mean |out - truth| over mouth interior and lips, over
            eyeballs and lids;
        still_error: mean |out - target| where nothing is asked for;
        token_gap: mean normalised distance of two people's tokens for one expression.
    """
    sums: dict[str, float] = {}

    def add(name: str, value: Tensor, weight: Tensor | None = None) -> None:
        total = value.sum() if weight is None else (value * weight).sum()
        count = float(value.numel()) if weight is None else float(weight.sum())
        sums[name] = sums.get(name, 0.0) + float(total)
        sums[name + "#"] = sums.get(name + "#", 0.0) + count

    swaps, stills = SampleConfig(1, 0, 0, 0), SampleConfig(0, 0, 0, 1)
    labels = torch.cat([batch.aus_lr for batch in batches])
    mean_label = labels.mean(dim=0, keepdim=True)
    rng = np.random.default_rng(0)
    for batch in batches:
        f = run_networks(net, batch, plan_samples(batch.gains, swaps, rng), config)
        error = (f.out_rgb - f.truth.rgb).abs().mean(1, keepdim=True)
        before = (batch.rgb - f.truth.rgb).abs()
        should = (before.amax(1, keepdim=True) > 10 / 255).float()
        before = before.mean(1, keepdim=True)
        add("image_error", error, should)
        add("image_error_unchanged", before, should)
        region = f.truth.region
        add("mouth_error", error, ((region == 2) | (region == 4)).float())
        add("eye_error", error, ((region == 3) | (region == 5)).float())
        add("mouth_error_unchanged", before, ((region == 2) | (region == 4)).float())
        add("eye_error_unchanged", before, ((region == 3) | (region == 5)).float())
        unit = CROP_SIZE_PX / batch.rgb.shape[3]
        visible = (f.truth.keep > 0.5) & (region > 0)
        moving = (visible & (f.truth.flow_xy.norm(dim=1, keepdim=True) * unit > 0.5)).float()
        add("flow_epe", (f.said.flow_xy - f.truth.flow_xy).norm(dim=1, keepdim=True) * unit, moving)
        add("flow_epe_unchanged", f.truth.flow_xy.norm(dim=1, keepdim=True) * unit, moving)
        add("au_mae", (f.encoded.aus_lr - batch.aus_lr).abs())
        add("au_mae_constant", (mean_label - batch.aus_lr).abs())
        by_four = f.encoded.tokens.reshape(-1, 4, *f.encoded.tokens.shape[1:])
        whole = (batch.gains[:, None, :, None] > 0).float().expand_as(by_four)
        gap = (by_four[:, list(DONOR)] - by_four[:, list(PARTNER)]).abs()
        add("token_gap", gap / losses.token_spread(f.encoded.tokens), whole)
        g = run_networks(net, batch, plan_samples(batch.gains, stills, rng), config)
        add("still_error", (g.out_rgb - batch.rgb).abs())
    figures = {k: sums[k] / max(sums[k + "#"], 1.0) for k in sums if not k.endswith("#")}
    for name, over in (
        ("image_relative", "image_error"),
        ("flow_relative", "flow_epe"),
        ("mouth_relative", "mouth_error"),
        ("eye_relative", "eye_error"),
    ):
        figures[name] = figures[over] / max(figures[over + "_unchanged"], 1e-9)
    return figures
