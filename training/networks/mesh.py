"""Where the target's face is and where each of its points goes: motion drawn from landmarks."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from rt_swap.aus import NUM_AUS
from rt_swap.contract import CROP_SIZE_PX, NUM_LANDMARKS
from training.config import LOOK_XYXY, NetworkConfig

RING_STEPS: Final = 4
"""Points outwards of each point of the face's outline."""
OUTLINE: Final = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""mediapipe's face oval, in order around the face."""
ANCHORS: Final = (*range(NUM_LANDMARKS), *(o for o in OUTLINE for _ in range(RING_STEPS)))
"""Landmark that each point of the mesh hangs on: itself, or one of the outline."""
NUM_POINTS: Final = len(ANCHORS)

GIVEN: Final = ("mean_xy", "offset", "by_unit", "pose.weight", "pose.bias", "log_width")
"""What is known of faces before any training."""
NOSE_BASE: Final = (2, 97, 326, 98, 327)
"""Landmarks that the skull carries and hardly any expression moves, right above the teeth."""
_TEETH_BEHIND: Final = -1.0
"""How far the teeth lie behind the nose's base, the model's units (about centimetres)."""

_CELL_PX: Final = 4
NORMAL_PX: Final = 10.0
"""What a landmark's deviation of 1 means to the pose."""
_FLOOR: Final = 0.01
"""Weight of "nothing moves" beside the points': it decides where no point is near."""
_FARTHEST: Final = 30.0
"""Exponent beyond which a Gaussian is as good as 0."""
_MOTION_PX: Final = 4.0
"""Motion of 1 in the sums, pixels; small numbers stay exact in half precision."""


class FaceMesh(nn.Module):
    """Draws what a change of expression does, from the target's landmarks.

    A face is linear in its units (training.data.render): what one unit does to each point of a face
    is known from the face model, in the model's own space, and the same for everybody. What is
    left to know is where the points are, which the tracker says, and how the head is turned and
    how large it is, which is linear in the landmarks as good as exactly (correlation 0.98 and
    more with fits of the face model). So each point's motion follows from the wanted change alone,
    and nothing about it has to be learned, though small corrections may be.

    In between, motion is a weighted mean of the points': a sum of Gaussians around where they
    have *gone*, over the sum of their weights (Nadaraya 1964; Watson 1964). So it says for each
    place of the picture to be shown where that came from. A Gaussian is a product of one of x and
    one of y, so all sums are one product of matrices. The same sums carry learned features of the
    points to where they went: lips, lids and brows of the picture to be shown.

    Attributes:
        offset: (V, 3) from each anchor, in the model's units: 0 but for points around the face.
        by_unit: (2K, V, 3) what a unit of each intensity does, the model's units.
        shade_by_unit: (2K, V) the same for log2 shade.
        pose: Landmarks -> what the model's unit is in pixels along x and y.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.register_buffer("mean_xy", torch.zeros(NUM_LANDMARKS, 2))
        self.register_buffer("offset", torch.zeros(NUM_POINTS, 3))
        self.by_unit = nn.Parameter(torch.zeros(2 * NUM_AUS, NUM_POINTS, 3))
        self.shade_by_unit = nn.Parameter(torch.zeros(2 * NUM_AUS, NUM_POINTS))
        self.pose = nn.Linear(2 * NUM_LANDMARKS, 6)
        nn.init.zeros_(self.pose.weight)
        nn.init.zeros_(self.pose.bias)
        self.register_buffer("px_per_unit", torch.ones(1))
        self.log_width = nn.Parameter(torch.full((NUM_POINTS,), 1.4))  # 4 pixels
        self.log_weight = nn.Parameter(torch.zeros(NUM_POINTS))
        self.features = nn.Parameter(torch.randn(config.mesh_features, NUM_POINTS))
        x0, y0, x1, y1 = LOOK_XYXY
        for name, value in (
            ("anchors", torch.tensor(ANCHORS)),
            ("nose", torch.tensor(NOSE_BASE)),
            ("columns", torch.arange(x0, x1, _CELL_PX, dtype=torch.float32) + _CELL_PX / 2),
            ("rows", torch.arange(y0, y1, _CELL_PX, dtype=torch.float32) + _CELL_PX / 2),
        ):
            self.register_buffer(name, value, persistent=False)

    @torch.no_grad()
    def wear(self, **given: Tensor) -> None:
        """Put in what is known of faces (training.data.face_mesh.FaceModelMesh.tensors).

        Raises:
            ValueError: If a name is missing or unknown, or a shape is another; nothing is put in.
        """
        if set(given) != set(GIVEN):
            raise ValueError(f"wear: has {sorted(given)}, expected {sorted(GIVEN)}")
        mine = {**dict(self.named_buffers()), **dict(self.named_parameters())}
        for name, value in given.items():
            if value.shape != mine[name].shape:
                raise ValueError(
                    f"wear: {name} has shape {tuple(value.shape)}, "
                    f"expected {tuple(mine[name].shape)}"
                )
        for name, value in given.items():
            mine[name].copy_(value)
        # along x and y of a face that looks ahead, by the mean of both
        mine["px_per_unit"].copy_((self.pose.bias.square().sum() / 2).sqrt().clamp_min(1e-3))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of faces yet."""
        return not bool(self.by_unit.any())

    def forward(self, landmarks_xy: Tensor, change_lr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a change of expression.

        Args:
            landmarks_xy: (N, 478, 2) of the target, pixels of a 256-px crop.
            change_lr: (N, 2K) of its intensities.

        Returns:
            (N, 3, 48, 44) flow in pixels (from the picture to be shown to the target) and log2
            shade, 0 for no change; (N, 1 + C, 48, 44) how near the mesh is, in [0, 1], and its
            features, both at a quarter of the look's size; and (N, 478, 2) where the landmarks
            went, pixels of a 256-px crop.
        """
        count = len(landmarks_xy)
        x, y, motion, shade = self._points(landmarks_xy, change_lr)
        # each point: its weight, how it moves, and what it is like; laid out around where it went
        width = torch.exp(self.log_width) * 2**0.5
        across = (self.get_buffer("columns")[None, :, None] - x) / width
        down = (self.get_buffer("rows")[None, :, None] - y) / width
        # bounded: what is smaller still is no ordinary number, and those take ten times as long
        across = torch.exp(-(across * across).clamp(max=_FARTHEST))
        down = torch.exp(-(down * down).clamp(max=_FARTHEST))
        one = torch.ones_like(x)
        features = self.features[None]
        if count > 1:
            features = features.expand(count, -1, -1)
        values = torch.cat([one, motion / _MOTION_PX, shade, features], dim=1)
        values = values * torch.exp(self.log_weight)  # (N, C, V)
        rows = (down[:, :, None] * values[:, None]).flatten(1, 2)  # (N, 48 C, V)
        sums = torch.matmul(rows, across.transpose(1, 2)).reshape(
            count, down.shape[1], values.shape[1], -1
        )
        sums = sums.permute(0, 2, 1, 3)  # (N, C, 48, 44)
        weight = sums[:, :1]
        means = sums[:, 1:] / (weight + _FLOOR)
        moved = torch.cat([means[:, :2] * -_MOTION_PX, means[:, 2:3]], dim=1)
        gone_xy = torch.cat([x, y], dim=1)[:, :, :NUM_LANDMARKS].transpose(1, 2)
        return moved, torch.cat([weight / (weight + 1.0), means[:, 3:]], dim=1), gone_xy

    def head_place(self, landmarks_xy: Tensor) -> Tensor:
        """Where the skull is, against that of a mean face that looks ahead, at the teeth.

        Args:
            landmarks_xy: As for :meth:`forward`.

        Returns:
            (N, 6) map of a point (x, y, 1), pixels from the crop's middle, two rows of three.
        """
        pose = self._pose(landmarks_xy)  # (N, 2, 3, 1)
        # the model's y goes up
        a, b, behind = pose[..., 0].split(1, 2)
        # a mean face's own turn is in the layers already, which are the mean of portraits
        behind = behind - self.pose.bias.reshape(2, 3)[:, 2:]
        a = a / self.get_buffer("px_per_unit")
        b = b / -self.get_buffer("px_per_unit")
        nose = torch.index_select(landmarks_xy, 1, self.get_buffer("nose")).sum(1) * (
            1 / len(NOSE_BASE)
        )
        rest = self.get_buffer("mean_xy")[list(NOSE_BASE)].mean(0) - CROP_SIZE_PX / 2
        shift = nose[:, :, None] - CROP_SIZE_PX / 2 - a * rest[0] - b * rest[1]
        shift = shift + behind * _TEETH_BEHIND
        return torch.cat([a, b, shift], dim=2).flatten(1)

    def _pose(self, landmarks_xy: Tensor) -> Tensor:
        """(N, 2, 3, 1) pixels along x and y of the model's three axes."""
        apart = (landmarks_xy - self.get_buffer("mean_xy")) * (1 / NORMAL_PX)
        # a sum, and no product of matrices: those are half precision in a mixed graph
        said = (apart.flatten(1)[:, None] * self.pose.weight).sum(2) + self.pose.bias
        return said.reshape(len(landmarks_xy), 2, 3, 1)

    def _points(
        self, landmarks_xy: Tensor, change_lr: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N, 1, V) x and y of where points went, pixels; (N, 2, V) how far; (N, 1, V) shade."""
        count = len(landmarks_xy)
        pose = self._pose(landmarks_xy)
        motion = torch.matmul(change_lr, self.by_unit.transpose(1, 2).flatten(1))
        motion = (pose * motion.reshape(count, 1, 3, NUM_POINTS)).sum(2)
        offset = (pose * self.get_buffer("offset").T[None, None]).sum(2)
        start = torch.index_select(landmarks_xy, 1, self.get_buffer("anchors")).transpose(1, 2)
        x, y = (start + offset + motion).split(1, dim=1)
        shade = torch.matmul(change_lr, self.shade_by_unit)[:, None]
        return x, y, motion, shade
