"""The data engine's parts, made once; they need the shared data and OpenGL by EGL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rt_swap.errors import BackendUnavailable
from tests.support.data import shared_data_dir


@pytest.fixture(scope="session")
def ict_dir() -> Path:
    return shared_data_dir() / "ict_facekit"


@pytest.fixture(scope="session")
def model(ict_dir: Path):
    from training.data import ict

    return ict.load(ict_dir)


@pytest.fixture(scope="session")
def fitter(model):
    from training.data import correspond
    from training.data.fit import Fitter

    return Fitter(model, correspond.build(model))


@pytest.fixture(scope="session")
def engine(ict_dir: Path):
    pytest.importorskip("moderngl", reason="needs the 'train' extra")
    from training.data.portraits import PortraitEngine

    try:
        return PortraitEngine(ict_dir)
    except BackendUnavailable as exc:
        pytest.skip(f"needs OpenGL by EGL: {exc}")


@pytest.fixture(scope="session")
def astronaut_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cv2 = pytest.importorskip("cv2")
    data = pytest.importorskip("skimage.data", reason="needs scikit-image, for the astronaut")
    path = tmp_path_factory.mktemp("portraits") / "astronaut.png"
    cv2.imwrite(str(path), np.ascontiguousarray(data.astronaut()[..., ::-1]))
    return path


@pytest.fixture(scope="session")
def astronaut(engine, astronaut_file: Path):
    from training.data.portraits import Portrait

    made = engine.person(Portrait(astronaut_file, "test", "astronaut"), 256)
    assert not isinstance(made, str), made
    return made
