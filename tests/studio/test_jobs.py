"""Whole videos by the page's API, with a real face, the shipped model and a real file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from rt_swap.errors import SourceError
from rt_swap.studio.jobs import MAX_JOBS
from rt_swap.swapper import Swapper
from tests.studio.conftest import Page, Serve
from tests.support.videos import moving_portrait, numbered, probe, write_video


def _ended(page: Page, id_: str) -> dict[str, Any]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        job = next(j for j in page.ask("GET", "api/jobs").json if j["id"] == id_)
        if job["state"] not in ("waiting", "running"):
            return dict(job)
        time.sleep(0.05)
    raise AssertionError("the job did not end")


def test_a_real_video_is_re_expressed_and_fetched(serve: Serve, tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="needs scikit-image's portrait")
    video = write_video(tmp_path / "face.mp4", moving_portrait(10), audio=["aac"])
    page = serve(lambda: Swapper.load(cache=None, threads=1))
    page.patch(chosen="preset:surprise", regions={"brows": 0.0})
    answer = page.ask(
        "POST", "api/jobs?timing=hold", video.read_bytes(), x_file_name=quote("my “face”.mp4")
    )
    assert answer.status == 200, answer.body
    job = _ended(page, answer.json["id"])
    assert job["state"] == "done", job
    assert (job["done"], job["total"], job["message"]) == (10, 10, "")
    assert job["download"] == "my “face” - surprise.mp4"
    result = page.ask("GET", f"api/jobs/{job['id']}/result?download=true")
    assert result.headers["content-type"] == "video/mp4"
    assert "attachment" in result.headers["content-disposition"]
    assert "surprise.mp4" in result.headers["content-disposition"]
    (tmp_path / "out.mp4").write_bytes(result.body)
    before, after = probe(video), probe(tmp_path / "out.mp4")
    assert len(after.pictures) == 10
    assert after.times == before.times
    assert len(after.sounds) == 1
    # the mouth changed, the corners of the picture did not
    change = np.abs(after.pictures[9].astype(int) - before.pictures[9].astype(int)).mean(axis=2)
    assert change.max() > 60
    assert change[:20, :20].mean() < 4

    part = page.ask("GET", f"api/jobs/{job['id']}/result", range="bytes=0-99")
    assert (part.status, len(part.body)) == (206, 100)  # or browsers could not seek

    assert len(page.files) == 1  # the result; the upload is gone
    assert page.ask("DELETE", f"api/jobs/{job['id']}").status == 200
    assert page.files == []
    assert page.ask("GET", f"api/jobs/{job['id']}/result").status == 404


def test_a_job_wants_an_expression_before_it_takes_bytes(page: Page, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", numbered(2)).read_bytes()
    answer = page.ask("POST", "api/jobs", video)
    assert answer.status == 422
    assert "choose an expression first" in answer.error
    page.patch(chosen="preset:smile")
    answer = page.ask("POST", "api/jobs?timing=never", video)
    assert answer.status == 422
    assert "timing" in answer.error
    assert page.files == []


def test_a_picture_is_no_video(page: Page, tmp_path: Path) -> None:
    import cv2

    page.patch(chosen="preset:smile")
    _, png = cv2.imencode(".png", numbered(1)[0])
    answer = page.ask("POST", "api/jobs", bytes(png), x_file_name="me.png")
    assert answer.status == 422
    assert "me.png: is a picture" in answer.error


def test_a_running_job_is_cancelled_and_leaves_nothing(page: Page, tmp_path: Path) -> None:
    page.patch(chosen="preset:smile")
    video = write_video(tmp_path / "long.mp4", numbered(600)).read_bytes()
    first = page.ask("POST", "api/jobs", video, x_file_name="first.mp4").json
    second = page.ask("POST", "api/jobs", video, x_file_name="second.mp4").json
    assert second["state"] == "waiting"
    assert page.ask("GET", f"api/jobs/{second['id']}/result").status == 409
    for job in (first, second):
        assert page.ask("DELETE", f"api/jobs/{job['id']}").status == 200
    assert page.ask("GET", "api/jobs").json == []
    end = time.monotonic() + 30
    while page.files and time.monotonic() < end:
        time.sleep(0.05)
    assert page.files == []


def test_a_failing_job_is_told_without_our_paths(
    serve: Serve, make_tiny: Callable[[], Swapper], tmp_path: Path
) -> None:
    class Broken(Swapper):
        def reenact(self, target: Any, *_: Any, **__: Any) -> Any:
            raise SourceError(f"{target}: cannot be read")

    def make() -> Swapper:
        swapper = make_tiny()
        swapper.__class__ = Broken
        return swapper

    page = serve(make)
    page.patch(chosen="preset:smile")
    video = write_video(tmp_path / "a.mp4", numbered(2)).read_bytes()
    id_ = page.ask("POST", "api/jobs", video, x_file_name="a.mp4").json["id"]
    job = _ended(page, id_)
    assert (job["state"], job["message"]) == ("failed", "a.mp4: cannot be read")
    assert page.files == []


def test_jobs_are_counted(page: Page, tmp_path: Path) -> None:
    page.patch(chosen="preset:smile")
    video = write_video(tmp_path / "a.mp4", numbered(2)).read_bytes()
    ids = [page.ask("POST", "api/jobs", video).json["id"] for _ in range(MAX_JOBS)]
    answer = page.ask("POST", "api/jobs", video)
    assert answer.status == 422
    assert "remove one first" in answer.error
    page.ask("DELETE", f"api/jobs/{ids[0]}")
    assert page.ask("POST", "api/jobs", video).status == 200


def test_a_clip_becomes_an_expression_of_its_length(page: Page, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", numbered(25)).read_bytes()
    entry = page.ask("POST", "api/expressions", clip, x_file_name="clip.mp4").json
    assert (entry["kind"], entry["duration_s"]) == ("clip", 1.0)
    assert page.files == []
    assert page.patch(chosen=entry["id"]).status == 200


def test_a_long_clip_is_refused_by_what_it_says(page: Page, tmp_path: Path) -> None:
    pts = [*range(3), 61 * 25]
    clip = write_video(tmp_path / "clip.mp4", numbered(4), pts=pts).read_bytes()
    answer = page.ask("POST", "api/expressions", clip, x_file_name="clip.mp4")
    assert answer.status == 422
    assert "clip.mp4: is longer than 60 s" in answer.error
