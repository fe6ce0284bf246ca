"""Both layouts of the morphable model, and the way from AUs to its shapes and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rt_swap.aus import AUS, NUM_AUS, UNMAPPED_SHAPES, AuId
from rt_swap.errors import ConfigError
from training.data import ict


def test_load_packed_has_every_shape_an_au_names(model) -> None:
    named = {s for au in AUS for s in au.shapes_left + au.shapes_right}
    assert named | set(UNMAPPED_SHAPES) == set(model.expression_names)
    assert model.vertices.shape == (26719, 3)


def test_load_obj_folder_agrees_with_packed(
    model, ict_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = ict.load(ict_dir / "FaceXModel")
    np.testing.assert_allclose(folder.vertices, model.vertices, atol=1e-4)
    np.testing.assert_allclose(folder.identity[0], model.identity[0], atol=5e-3)  # packed as fp16
    jaw = folder.expression[folder.shape_index["jawOpen"]]
    np.testing.assert_allclose(jaw, model.expression[model.shape_index["jawOpen"]], atol=5e-3)
    np.testing.assert_array_equal(folder.landmarks68, model.landmarks68)
    assert "shapes are missing" in caplog.text


def test_load_nothing_there_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ICT-FaceKit repository"):
        ict.load(tmp_path)


def test_read_obj_fans_polygons_and_reads_texture_indices(tmp_path: Path) -> None:
    path = tmp_path / "quad.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 1\nf 1/1 2/2 3/1 4/2\n")
    vertices, uv, triangles, uv_triangles = ict.read_obj(path)
    assert vertices.shape == (4, 3) and uv.shape == (2, 2)
    np.testing.assert_array_equal(triangles, [[0, 1, 2], [0, 2, 3]])
    np.testing.assert_array_equal(uv_triangles, [[0, 1, 0], [0, 0, 1]])


def test_read_obj_without_mesh_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.obj").write_text("# nothing\n")
    with pytest.raises(ConfigError, match="no mesh"):
        ict.read_obj(tmp_path / "x.obj")


def test_coefficients_left_and_right_are_the_persons_own(model) -> None:
    aus = np.zeros((NUM_AUS, 2), np.float32)
    aus[AuId.AU45.index] = 1.0, 0.0
    c = model.coefficients_from_aus(aus)
    assert c[model.shape_index["eyeBlink_L"]] == 1 and c[model.shape_index["eyeBlink_R"]] == 0
    moved = np.abs(model.expression[model.shape_index["eyeBlink_L"]]).sum(1) > 0.1
    assert model.vertices[moved, 0].mean() > 1  # +x is the person's left


def test_aus_coefficients_round_trip(model) -> None:
    aus = np.random.default_rng(0).random((NUM_AUS, 2)).astype(np.float32)
    for au in AUS:
        if au.is_midline:
            aus[au.id.index, 1] = aus[au.id.index, 0]
    np.testing.assert_allclose(model.aus_from_coefficients(model.coefficients_from_aus(aus)), aus)


def test_normals_point_out_of_the_face(model) -> None:
    nose = model.landmarks68[30]
    assert model.normals(model.vertices)[nose, 2] > 0.8
