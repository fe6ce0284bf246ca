"""Every training loss as a pure function. Weights live in training.config; each formula is tested
against literals.

"Sister" is ADLD (Shao et al.), the published method's first author's public code for the same idea;
"ours" is what the
data engine's ground truth makes possible. See the docstrings for each source.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


# --- weights --------------------------------------------------------------------------------------
def region_weight(region: Tensor, table: tuple[float, ...]) -> Tensor:
    """Look up a weight per pixel.

    Args:
        region: (N, 1, H, W) uint8, the shards' region classes 0..5.
        table: Weight of each class.

    Returns:
        (N, 1, H, W) float32.
    """
    weights = torch.tensor(table, dtype=torch.float32, device=region.device)
    return weights[region.long()]


def changed_weight(target_rgb: Tensor, truth_rgb: Tensor, extra: float) -> Tensor:
    """``1 + extra * mean_c |truth - target|`` (ours): what should change weighs more. (N, 1, H,
    W).
    """
    return 1.0 + extra * (truth_rgb - target_rgb).abs().mean(dim=1, keepdim=True)


def weighted_mean(value: Tensor, weight: Tensor) -> Tensor:
    """``sum w v / sum w`` with the channel mean of v; 0 where all weights are 0.

    Args:
        value: (N, C, H, W).
        weight: (N, 1, H, W), >= 0.
    """
    return (value.mean(dim=1, keepdim=True) * weight).sum() / weight.sum().clamp_min(1.0)


# --- ground truth (ours) --------------------------------------------------------------------------
def image_l1(out_rgb: Tensor, truth_rgb: Tensor, weight: Tensor) -> Tensor:
    """Weighted L1 of two pictures: ``sum w |out - truth| / sum w``."""
    return weighted_mean((out_rgb - truth_rgb).abs(), weight)


def laplacian_l1(difference: Tensor, weight: Tensor, levels: int = 3) -> Tensor:
    """Weighted L1 over the bands of a Laplacian pyramid (Burt and Adelson, IEEE Trans. Comm.
    31(4), 1983).

    The pyramid is linear, so that of a difference is the difference of pyramids. A band is ``d
    - up(avg2(d))`` with a
    2x2 average and nearest upsampling; the sum over bands is returned. It sees edges and
    texture that a plain L1
    averages away.

    Args:
        difference: (N, C, H, W), out - truth; sides divisible by 2**levels.
        weight: (N, 1, H, W), averaged down along.
        levels: Number of bands.
    """
    total = difference.new_zeros(())
    for _ in range(levels):
        low = F.avg_pool2d(difference, 2)
        band = difference - F.interpolate(low, scale_factor=2.0, mode="nearest")
        total = total + weighted_mean(band.abs(), weight)
        difference, weight = low, F.avg_pool2d(weight, 2)
    return total


def flow_charbonnier(flow: Tensor, truth: Tensor, weight: Tensor, eps: float = 0.5) -> Tensor:
    """Weighted end-point error ``sqrt(|d|^2 + eps^2) - eps`` (Charbonnier penalty; Sun et al.,
    CVPR 2010).

    Args:
        flow: (N, 2, H, W) pixels.
        truth: (N, 2, H, W).
        weight: (N, 1, H, W).
        eps: Where it turns from quadratic to linear, pixels. A linear penalty asks for the median,
            and the median of a motion that may or may not be wanted, as the tokens are uncertain,
            is none at all; a quadratic one asks for the mean.
    """
    squared = (flow - truth).square().sum(dim=1, keepdim=True)
    return weighted_mean(torch.sqrt(squared + eps * eps) - eps, weight)


def flow_multiscale(
    flow: Tensor, truth: Tensor, weight: Tensor, factors: tuple[int, ...] = (4, 8)
) -> Tensor:
    """Charbonnier error of weighted averages over 4x4 and 8x8 pixels, averaged over the factors
    (ours).

    Says which way a whole lip or brow goes while single pixels still disagree.
    """
    total = flow.new_zeros(())
    for factor in factors:
        pooled_weight = F.avg_pool2d(weight, factor)
        pooled = F.avg_pool2d((flow - truth) * weight, factor) / pooled_weight.clamp_min(1e-3)
        total = total + flow_charbonnier(pooled, torch.zeros_like(pooled), pooled_weight)
    return total / len(factors)


def keep_bce(keep_logit: Tensor, truth_keep: Tensor, weight: Tensor) -> Tensor:
    """Weighted binary cross-entropy of keep against its soft truth, all (N, 1, H, W)."""
    return weighted_mean(
        F.binary_cross_entropy_with_logits(keep_logit, truth_keep, reduction="none"), weight
    )


def shade_l1(shade_log2: Tensor, truth_log2: Tensor, weight: Tensor) -> Tensor:
    """Weighted L1 of log2 shade, so that halving and doubling cost the same; all (N, 1, H, W)."""
    return weighted_mean((shade_log2 - truth_log2).abs(), weight)


def fill_l1(fill_rgb: Tensor, truth_rgb: Tensor, truth_keep: Tensor) -> Tensor:
    """L1 of fill where it is needed: weight ``1 - keep_truth``."""
    return weighted_mean((fill_rgb - truth_rgb).abs(), 1.0 - truth_keep)


# --- AU detection on f_r (sister) -----------------------------------------------------------------
def au_weights(positive_rates: Tensor) -> Tensor:
    """``w_j = n (1/r_j) / sum_k (1/r_k)`` (METHOD.md, sister): rare AUs weigh more; the mean is 1.

    Args:
        positive_rates: (K,) in (0, 1].
    """
    inverse = 1.0 / positive_rates
    return inverse * (len(positive_rates) / inverse.sum())


def au_bce(au_logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean over pictures, AUs and sides of ``-w_j [p log q + (1-p) log(1-q)]``; intensities are
    soft labels.

    Args:
        au_logits: (N, K, 2) or (N, K).
        labels: The same shape, in [0, 1].
        weights: (K,).
    """
    if au_logits.dim() == 3:
        weights = weights[:, None]
    return (
        F.binary_cross_entropy_with_logits(au_logits, labels, reduction="none") * weights
    ).mean()


def labelled_au(au_logits: Tensor, labels: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """``sum m w_j [-p log q - (1-p) log(1-q)] / sum m``: :func:`au_bce` of real pictures, over the
    entries that are labelled (ours); 0 where none is.

    Args:
        au_logits: (L, K, 2).
        labels: The same shape, in [0, 1].
        mask: The same shape, 1 where labelled, else 0.
        weights: (K,).
    """
    each = F.binary_cross_entropy_with_logits(au_logits, labels, reduction="none")
    return (each * weights[:, None] * mask).sum() / mask.sum().clamp_min(1.0)


def au_dice(aus: Tensor, labels: Tensor, weights: Tensor, eps: float = 1.0) -> Tensor:
    """Weighted Dice ``mean_j w_j [1 - (2 sum pq + eps) / (sum p^2 + sum q^2 + eps)]`` (sister;
    Milletari et al., 3DV 2016).

    Sums run over the pictures (and sides) of the batch.

    Args:
        aus: (N, K, 2) or (N, K) in [0, 1].
        labels: The same shape.
        weights: (K,).
        eps: Smoothing.
    """
    dims = (0, 2) if aus.dim() == 3 else (0,)
    both = (aus * labels).sum(dim=dims)
    each = aus.square().sum(dim=dims) + labels.square().sum(dim=dims)
    return (weights * (1.0 - (2.0 * both + eps) / (each + eps))).mean()


def au_l1(aus: Tensor, labels: Tensor) -> Tensor:
    """Mean absolute error of the intensities (ours)."""
    return (aus - labels).abs().mean()


def token_pair(tokens: Tensor, label_tokens: Tensor) -> Tensor:
    """Smooth L1 of token *differences* between the two pictures of one person (ours).

    Whose face it is cancels in a difference, so this shows the encoder what expressions change
    long before it could tell expression from identity in single pictures.

    Args:
        tokens: (N, K, D), rows 2i and 2i + 1 are two pictures of one person.
        label_tokens: (N, K, D), without gradient.
    """
    labels = label_tokens.detach()
    return F.smooth_l1_loss(tokens[1::2] - tokens[0::2], labels[1::2] - labels[0::2])


def unit_fields(said: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Error of what each unit does to a face, against how much it does (ours).

    ``mean_k sum_p w |b - b*| / sum_p w / sqrt(m_k + 0.05 px)``, with m_k the weighted mean length
    of the unit's true field, and |.| rounded off below a hundredth of a pixel. The root lies
    between counting pixels, where the jaw is everything, and counting parts, where a dimple is as
    much as the jaw.

    Args:
        said: (N, U, 2, H, W) pixels per unit of intensity.
        truth: The same.
        weight: (N, 1, H, W), 0 where there is no truth.
    """
    total = weight.sum().clamp_min(1e-6)
    length = truth.square().sum(2).sqrt()  # (N, U, H, W)
    size = (length * weight).sum((0, 2, 3)) / total
    error = ((said - truth).square().sum(2) + 1e-4).sqrt() - 1e-2
    return ((error * weight).sum((0, 2, 3)) / total / (size + 0.05).sqrt()).mean()


def token_effect(said: Tensor, labels: Tensor, effect: Tensor, single: float) -> Tensor:
    """Squared error of intensities, in the metric of what they do to the picture (ours).

    With B the motion per unit of each intensity, a wrong reading e moves the picture by B e, whose
    squared length is ``e^T (B^T B) e = |L^T e|^2``. An AU that hardly shows costs little, one that
    moves half of the face costs much, and errors that cancel each other are no errors. Taken for
    the difference between a person's two pictures, where identity cancels, and, with a weight of
    ``single``, for each picture.

    Args:
        said: (N, K, 2) what the tokens say, pictures of one person in rows 2i and 2i + 1.
        labels: (N, K, 2).
        effect: (2K, 2K), L, a Cholesky factor; see training.data.effect.
        single: Weight of the single pictures.
    """
    error = (said - labels).flatten(1)
    apart = error[1::2] - error[0::2]
    return (apart @ effect).square().mean() + single * (error @ effect).square().mean()


def token_invariance(tokens_a: Tensor, tokens_b: Tensor, tokens: Tensor) -> Tensor:
    """Mean over AUs of ``mean |a - b| / mean |t - mean t|`` (ours): two people with one expression
    have one set of tokens.

    The denominator is how much an AU's tokens differ between pictures, gradient included, so that
    shrinking all tokens gains nothing and does nothing.

    Args:
        tokens_a: (N, K, D).
        tokens_b: (N, K, D), the same expressions.
        tokens: (M, K, D) all tokens of the batch.
    """
    deviation = (tokens - tokens.mean(dim=0)).abs().mean(dim=(0, 2))
    return ((tokens_a - tokens_b).abs().mean(dim=(0, 2)) / (deviation + 0.1)).mean()


def token_teacher(tokens: Tensor, label_tokens: Tensor) -> Tensor:
    """Smooth L1 (Girshick, ICCV 2015, eq. 3) of the encoder's tokens to those that the known
    intensities have (ours). The teacher gets no gradient.

    Args:
        tokens: (N, K, D).
        label_tokens: (N, K, D).
    """
    return F.smooth_l1_loss(tokens, label_tokens.detach())


def token_spread(tokens: Tensor) -> Tensor:
    """``mean |t - mean t|`` of each AU's tokens over a batch, without gradient.

    Args:
        tokens: (N, K, D).

    Returns:
        (K, 1), more than 0.
    """
    tokens = tokens.detach()
    return (tokens - tokens.mean(dim=0)).abs().mean(dim=(0, 2))[:, None] + 0.1


# --- multi-class adversary on f_f (form: sister; target u = 1/2: ours) ----------------------------
def adversary_classifier(guess: Tensor, presence: Tensor) -> Tensor:
    """D_au's loss ``|D_au(f_f) - p|^2``, mean over pictures and AUs; both (N, K)."""
    return (guess - presence).square().mean()


def adversary_encoder(guess: Tensor) -> Tensor:
    """E_f's loss ``|D_au(f_f) - 1/2|^2``: the classifier shall know nothing (not: be wrong).
    (N, K).
    """
    return (guess - 0.5).square().mean()


# --- swaps ----------------------------------------------------------------------------------------
def self_reconstruction(out_rgb: Tensor, picture_rgb: Tensor) -> Tensor:
    """L1 of ``G(f_f_a, f_r_a)`` and the picture itself (sister)."""
    return (out_rgb - picture_rgb).abs().mean()


def cross_cycle(out_rgb: Tensor, picture_rgb: Tensor) -> Tensor:
    """L1 of the picture swapped there and back, and itself (structure known, norm sister)."""
    return (out_rgb - picture_rgb).abs().mean()


def feature_related(tokens_again: Tensor, tokens_shown: Tensor, spread: Tensor) -> Tensor:
    """``|f_r' - f_r_donor|`` over the tokens' spread: the re-encoded swap's tokens are those
    that were asked for (ours).
    """
    return ((tokens_again - tokens_shown).abs() / spread).mean()


def feature_free(au_free_again: Tensor, au_free: Tensor) -> Tensor:
    """``|f_f' - f_f|`` over the mean magnitude: the re-encoded swap's AU-free feature is the
    target's (ours).
    """
    return (au_free_again - au_free).abs().mean() / au_free.detach().abs().mean().clamp_min(1e-3)


def lsgan_critic(real: Tensor, fake: Tensor) -> Tensor:
    """``1/2 E[(D(real) - 1)^2] + 1/2 E[D(fake)^2]`` (Mao et al., ICCV 2017, eq. 2 with a = 0, b
    = 1).

    For swap consistency *real* is the self-reconstruction and *fake* the swap; for the image
    adversary *real* is a real
    picture.
    """
    return 0.5 * (real - 1.0).square().mean() + 0.5 * fake.square().mean()


def lsgan_generator(fake: Tensor) -> Tensor:
    """``1/2 E[(D(fake) - 1)^2]`` (Mao et al., ICCV 2017, eq. 2 with c = 1)."""
    return 0.5 * (fake - 1.0).square().mean()


def equivariance(
    flow: Tensor, flow_moved: Tensor, keep: Tensor, keep_moved: Tensor, weight: Tensor
) -> Tensor:
    """Answers for a moved crop against the moved answers (ours): L1 of flow in pixels plus L1
    of keep.

    Args:
        flow: (N, 2, H, W) answer for the moved crop.
        flow_moved: (N, 2, H, W) the still crop's answer, moved; without gradient.
        keep: (N, 1, H, W).
        keep_moved: (N, 1, H, W).
        weight: (N, 1, H, W) 1 where the moved crop shows what the still one showed.
    """
    return weighted_mean((flow - flow_moved).abs(), weight) + weighted_mean(
        (keep - keep_moved).abs(), weight
    )
