"""What is known of faces beforehand, found from the face model and rendered pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rt_swap.aus import AuId
from rt_swap.errors import ConfigError
from training.config import LOOK_XYXY, get_config
from training.data import face_mesh
from training.data.dataset import BatchMaker, ShardSet
from training.networks.mesh import ANCHORS, FaceMesh

CHIN, UPPER_LIP, LEFT_IRIS, LEFT_CORNER, RIGHT_CORNER = 152, 0, 473, 291, 61
LEFT, UP = 0, 1


@pytest.fixture(scope="module")
def shard(engine, astronaut_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cv2 = pytest.importorskip("cv2")
    from training.data.portraits import Portrait
    from training.data.shards import write_shard

    folder = tmp_path_factory.mktemp("mesh")
    mirrored = folder / "mirrored.png"
    cv2.imwrite(str(mirrored), cv2.imread(str(astronaut_file))[:, ::-1])
    people = [Portrait(p, "test", p.name) for p in (astronaut_file, mirrored)]
    write_shard(engine, people, folder, 0, split="train", quadruples=4, seed=5)
    return folder


def test_units_move_the_landmarks_that_they_move(fitter, shard: Path) -> None:
    made = face_mesh.build(ShardSet([shard]), fitter, pictures=16)
    by_unit = made.by_unit
    jaw = 2 * AuId.AU26.index
    # both sides say the same of what is in the middle, half each
    assert 2 * by_unit[jaw, CHIN, UP] < -1.0 and abs(by_unit[jaw, UPPER_LIP, UP]) < 0.2
    smile = 2 * AuId.AU12.index
    assert by_unit[smile, LEFT_CORNER, LEFT] > 0.3 and by_unit[smile, LEFT_CORNER, UP] > 0.1
    assert abs(by_unit[smile, RIGHT_CORNER, LEFT]) < 0.05
    assert by_unit[smile + 1, RIGHT_CORNER, LEFT] < -0.3
    assert by_unit[2 * AuId.AU61.index, LEFT_IRIS, LEFT] > 0.1
    assert by_unit[2 * AuId.AU63.index, LEFT_IRIS, UP] > 0.1
    # around the face it dies away
    ring = [i for i, anchor in enumerate(ANCHORS) if anchor == CHIN][1:]
    falls = -by_unit[jaw, ring, UP]
    assert falls[0] > falls[-1] >= 0 and falls[0] < -by_unit[jaw, CHIN, UP]
    # a face that looks ahead: the model's x to the right in the picture, its y up
    x, y = made.pose_bias[0], made.pose_bias[4]
    assert 8 < x < 13 and -13 < y < -8


def test_the_mesh_alone_says_most_of_the_motion_of_rendered_faces(fitter, shard: Path) -> None:
    shards = ShardSet([shard])
    made = face_mesh.build(shards, fitter, pictures=16)
    mesh = FaceMesh(get_config("rt-small").network)
    mesh.wear(**{name: torch.from_numpy(value) for name, value in made.tensors().items()})
    batch = BatchMaker(shards, None, 0, landmarks=True).batch(0, 4, 256)
    partner = torch.arange(16) ^ 1
    change = (batch.aus_lr[partner] - batch.aus_lr).flatten(1)
    with torch.no_grad():
        flow = mesh(batch.landmarks_xy, change)[0][:, :2]
    flow = F.interpolate(flow, scale_factor=4, mode="bilinear", align_corners=False)
    x0, y0, x1, y1 = LOOK_XYXY
    truth, keep, region = (
        a[partner][:, :, y0:y1, x0:x1] for a in (batch.flow_xy, batch.keep, batch.region)
    )
    moves = (truth.norm(dim=1, keepdim=True) > 0.5) & (keep > 0.5) & (region > 0)
    left = ((flow - truth).norm(dim=1, keepdim=True) * moves).sum()
    # measured: 0.23
    assert left < 0.35 * (truth.norm(dim=1, keepdim=True) * moves).sum()


def test_too_few_faces_are_refused(fitter, shard: Path, tmp_path: Path) -> None:
    for name in ("shard.json", *(p.name for p in (shard / "shard_00000").glob("*.npy"))):
        (tmp_path / name).write_bytes((shard / "shard_00000" / name).read_bytes())
    marks = np.load(tmp_path / "landmarks.npy")
    marks[1:] = np.nan
    np.save(tmp_path / "landmarks.npy", marks)
    with pytest.raises(ConfigError, match="4 faces in 16 pictures"):
        face_mesh.build(ShardSet([tmp_path]), fitter, pictures=16)
    (tmp_path / "landmarks.npy").unlink()
    with pytest.raises(ConfigError, match=r"training\.data\.landmarks"):
        face_mesh.build(ShardSet([tmp_path]), fitter)
