"""``rt-swap reenact``: what it does; and bad input gets one sentence, a code, and no half file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from rt_swap.cli import main
from tests.support.faces import face_at
from tests.support.videos import (
    RATE,
    moving_portrait,
    numbered,
    probe,
    quadrants_bgr,
    write_video,
)

ROOT = Path(__file__).resolve().parents[2]
OK, CONFIG, BACKEND, MODEL, NO_FACE, EXPRESSION, SOURCE, SINK = 0, 2, 11, 14, 21, 22, 31, 32
WITHOUT_FACE, CUT_SHORT, CTRL_C, TERMINATED = 40, 41, 130, 143

Faces = Callable[..., None]
pytestmark = pytest.mark.usefixtures("faces")


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said, after checking that it is no traceback; the last line is the sentence."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


def refused(
    code: int, arguments: list[object], capsys: pytest.CaptureFixture[str], *words: str
) -> None:
    """The command ends with a code and one sentence that has the words in it."""
    assert main([str(a) for a in arguments]) == code
    lines = [line for line in said(capsys).splitlines() if "backend auto" not in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("rt-swap: ")
    for word in words:
        assert word in lines[0]


def only(folder: Path, *names: str) -> None:
    assert sorted(p.name for p in folder.iterdir()) == sorted(names)


# --- what it does ---
def test_summary_is_json_on_stdout_and_talk_is_on_stderr(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    arguments = ["reenact", str(target), "--preset", "smile", "-o", str(out), "--json"]
    assert main(arguments) == OK
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert summary["frames_in"] == summary["frames_out"] == 8
    assert summary["statuses"] == {"swapped": 8, "held": 0, "no_face": 0}
    assert {"p50", "p95"} <= set(summary["stage_ms"]["generate"])
    assert summary["fps"] > 0
    assert summary["model"] == "tiny"
    assert "AU12" in summary["aus_before"]
    assert "AU12" in summary["aus_after"]
    assert "8 frames (8 swapped)" in captured.err
    assert "%|" not in captured.err  # no terminal, no progress bar
    assert "ms per frame, p50/p95: decode" in captured.err
    before, after = probe(target), probe(out)
    assert after.times == before.times
    assert after.sounds == before.sounds
    only(tmp_path, "out.mp4")


def test_quiet_says_nothing(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["reenact", target, "--preset", "smile", "-o", tmp_path / "o.mp4", "--quiet"]
    assert main([str(a) for a in arguments]) == OK
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_all_options_together(target: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "s.png"), moving_portrait(1)[0])
    out = tmp_path / "o.mkv"
    arguments = [
        *("reenact", target, "--source", tmp_path / "s.png", "-o", out, "--compare", "--quiet"),
        *("--gains", "brows=0.5,mouth=1", "--mode", "relative", "--neutral", "auto"),
        *("--source-timing", "loop", "--on-lost", "blur", "--codec", "ffv1", "--no-audio"),
        *("--backend", "onnxruntime", "--threads", "1", "--face", "0", "--target-face", "0"),
    ]
    assert main([str(a) for a in arguments]) == OK
    result = probe(out)
    assert result.stream["codec"] == "ffv1"
    assert result.sounds == []
    assert result.stream["size_wh"] == (160 + 2 * 160, 120)


def test_settings_file_and_environment_count(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('codec = "mpeg4"\naudio = true\n')
    monkeypatch.setenv("RT_SWAP_AUDIO", "no")
    arguments = ["reenact", target, "--preset", "smile", "-q", "--config", settings]
    assert main([str(a) for a in [*arguments, "-o", tmp_path / "a.mp4"]]) == OK
    assert probe(tmp_path / "a.mp4").stream["codec"] == "mpeg4"
    assert probe(tmp_path / "a.mp4").sounds == []
    assert (
        main([str(a) for a in [*arguments, "-o", tmp_path / "b.mp4", "--codec", "libx264"]]) == OK
    )
    assert probe(tmp_path / "b.mp4").stream["codec"] == "h264"


@pytest.mark.parametrize("how", ["by default", "options", "environment"])
def test_marks_of_a_video_are_told_and_there(
    how: str,
    target: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("c2pa", reason="needs c2pa-python: pip install 'rt-swap[provenance]'")
    from rt_swap.provenance import badge, manifest

    out = tmp_path / "o.mp4"
    arguments = ["reenact", str(target), "--preset", "smile", "-o", str(out), "--json"]
    if how == "options":
        arguments += ["--no-badge", "--no-watermark", "--no-manifest"]
    elif how == "environment":
        for name, value in (("BADGE", "top-left"), ("WATERMARK", "no"), ("MANIFEST", "yes")):
            monkeypatch.setenv(f"RT_SWAP_{name}", value)
    assert main(arguments) == OK
    captured = capsys.readouterr()
    marks = json.loads(captured.out)["marks"]
    corner = {"by default": "bottom-right", "options": None, "environment": "top-left"}[how]
    assert marks["badge"] == (corner or "off")
    assert marks["watermark"]["frames"] == (8 if how == "by default" else 0)
    assert f"marks: badge {corner or 'off'}" in captured.err
    assert badge.find(probe(out).pictures[4])[0] == corner
    told = manifest.read(out)
    if how == "options":
        assert told == {"state": "none"}
    else:
        assert told["state"] == "valid"
        assert told["rt_swap"]["model"] == "tiny"
        assert told["rt_swap"]["marks"]["badge"] == corner
    assert probe(out).times == probe(target).times
    assert probe(out).sounds == probe(target).sounds


def test_mkv_has_no_manifest_and_that_is_said(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["reenact", str(target), "--preset", "smile", "-o", str(tmp_path / "o.mkv")]
    assert main([*arguments, "--json"]) == OK
    captured = capsys.readouterr()
    assert "no C2PA manifest" in captured.err
    assert json.loads(captured.out)["marks"]["manifest"]["state"] == "missing"


def test_half_a_certificate_is_refused(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["reenact", target, "--preset", "smile", "-o", tmp_path / "o.mp4"]
    refused(CONFIG, [*arguments, "--certificate", "chain.pem"], capsys, "give both")
    both = [*arguments, "--certificate", tmp_path / "no.pem", "--certificate-key", "k.pem"]
    refused(CONFIG, both, capsys, "no.pem", "cannot be read")
    only(tmp_path)


# --- what bad input gets: the source ---
def test_no_face_in_the_source(
    target: Path, tmp_path: Path, faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "wall.png"), quadrants_bgr())
    faces(still=lambda _: [])
    arguments = ["reenact", target, "--source", tmp_path / "wall.png", "-o", tmp_path / "o.mp4"]
    refused(NO_FACE, arguments, capsys, "wall.png", "no face was found", "use one that shows")
    only(tmp_path, "wall.png")


def test_several_faces_in_the_source_the_largest_is_said(
    target: Path, tmp_path: Path, faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "group.png"), moving_portrait(1)[0])
    faces(still=lambda _: [face_at(200, 120, 160), face_at(60, 60, 60)])
    arguments = ["reenact", target, "--source", tmp_path / "group.png", "-o", tmp_path / "o.mp4"]
    assert main([str(a) for a in arguments]) == OK
    text = said(capsys)
    assert "2 faces were found; using the largest" in text
    assert "--face" in text
    arguments += ["--overwrite", "--face", "1"]
    assert main([str(a) for a in arguments]) == OK
    assert "faces were found" not in said(capsys)
    refused(NO_FACE, [*arguments[:-1], "5"], capsys, "face 5 was asked for, but only 2")


def test_clip_without_a_face(
    target: Path, tmp_path: Path, faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "wall.mp4", numbered(3, 120, 160))
    faces(target=lambda _: [])
    arguments = ["reenact", target, "--source", tmp_path / "wall.mp4", "-o", tmp_path / "o.mp4"]
    refused(NO_FACE, arguments, capsys, "no face was found in any of its 3 frames")
    only(tmp_path, "wall.mp4")


@pytest.mark.parametrize("kind", ["grey", "alpha", "16-bit", "EXIF-rotated", "palette"])
def test_pictures_of_every_kind_are_sources(target: Path, tmp_path: Path, kind: str) -> None:
    from PIL import Image

    picture = moving_portrait(1)[0]
    path = tmp_path / "s.png"
    if kind == "grey":
        cv2.imwrite(str(path), picture[:, :, 0])
    elif kind == "alpha":
        cv2.imwrite(str(path), np.dstack([picture, np.full(picture.shape[:2], 128, np.uint8)]))
    elif kind == "16-bit":
        cv2.imwrite(str(path), picture.astype(np.uint16) * 257)
    elif kind == "palette":
        Image.fromarray(picture[:, :, ::-1]).quantize(64).save(path)
    else:
        path = tmp_path / "s.jpg"
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(picture[:, :, ::-1]).save(path, exif=exif)
    arguments = ["reenact", target, "--source", path, "-o", tmp_path / "o.mp4", "-q"]
    assert main([str(a) for a in arguments]) == OK
    assert len(probe(tmp_path / "o.mp4").pictures) == 8


@pytest.mark.parametrize("kind", ["grey", "alpha", "16-bit", "EXIF-rotated"])
def test_pictures_of_every_kind_are_targets(model: Path, tmp_path: Path, kind: str) -> None:
    from PIL import Image

    picture = moving_portrait(1)[0]
    path, shape = tmp_path / "t.png", picture.shape
    if kind == "grey":
        cv2.imwrite(str(path), picture[:, :, 0])
    elif kind == "alpha":
        cv2.imwrite(str(path), np.dstack([picture, np.full(shape[:2], 128, np.uint8)]))
    elif kind == "16-bit":
        cv2.imwrite(str(path), picture.astype(np.uint16) * 257)
    else:
        path, shape = tmp_path / "t.jpg", (shape[1], shape[0], 3)
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(picture[:, :, ::-1]).save(path, exif=exif)
    arguments = ["reenact", path, "--preset", "smile", "-o", tmp_path / "o.png", "-q"]
    assert main([str(a) for a in arguments]) == OK
    assert cv2.imread(str(tmp_path / "o.png")).shape == shape


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files nobody can show, by kind, with what is said of them."""
    import av

    from tests.support.videos import _add_audio, _write_tone

    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("just words\n" * 100)
    (folder / "dir.mp4").mkdir()
    (folder / "zip.jpg").write_bytes(b"PK\x03\x04" + b"\0" * 500)
    with av.open(str(folder / "sound.m4a"), "w") as container:
        _write_tone(container, _add_audio(container, "aac"), 0.3, 440.0)
    whole = write_video(folder / "whole.mp4", numbered(10)).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with av.open(str(folder / "zero.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25, width=64, height=48)
        stream.pix_fmt = "yuv420p"  # type: ignore[union-attr]
        container.start_encoding()
    return {
        "missing": (folder / "missing.mp4", "no such file"),
        "empty": (folder / "empty.mp4", "empty"),
        "wrongly named": (folder / "text.mp4", "is not a video that can be read"),
        "folder": (folder / "dir.mp4", "folder"),
        "archive": (folder / "zip.jpg", "damaged"),
        "audio only": (folder / "sound.m4a", "has sound but no pictures"),
        "truncated before its index": (folder / "cut.mp4", "cut short"),
        "zero frames": (folder / "zero.mkv", ""),
    }


KINDS = [
    "missing",
    "empty",
    "wrongly named",
    "folder",
    "archive",
    "audio only",
    "truncated before its index",
    "zero frames",
]


@pytest.mark.parametrize("kind", KINDS)
def test_target_that_cannot_be_read(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, words = bad_files(tmp_path)[kind]
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["reenact", path, "--preset", "smile", "-o", out / "o.mp4"]
    refused(SOURCE, arguments, capsys, str(path), words)
    only(out)


@pytest.mark.parametrize("kind", KINDS)
def test_source_that_cannot_be_read(
    target: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, words = bad_files(tmp_path)[kind]
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["reenact", target, "--source", path, "-o", out / "o.mp4"]
    refused(SOURCE, arguments, capsys, str(path), words)
    only(out)


def test_wrongly_named_but_good_files_work(target: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "s.png"), moving_portrait(1)[0])
    (tmp_path / "s.png").rename(tmp_path / "source.mp4")
    (tmp_path / "target.png").write_bytes(target.read_bytes())
    arguments = ["reenact", tmp_path / "target.png", "--source", tmp_path / "source.mp4"]
    assert main([str(a) for a in [*arguments, "-o", tmp_path / "o.mp4", "-q"]]) == OK
    assert len(probe(tmp_path / "o.mp4").pictures) == 8


def test_unknown_preset(target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["reenact", target, "--preset", "grin", "-o", tmp_path / "o.mp4"]
    refused(CONFIG, arguments, capsys, "there is no preset 'grin'; there are neutral, smile")


def test_unknown_gains_and_backend(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["reenact", target, "--preset", "smile", "-o", tmp_path / "o.mp4"]
    refused(CONFIG, [*arguments, "--gains", "nostril=1"], capsys, "gains: there is no 'nostril'")
    refused(CONFIG, [*arguments, "--backend", "tensorrt9"], capsys, "there is no backend")
    refused(CONFIG, [*arguments, "--threads", "-2"], capsys, "--threads: must be a whole number")
    refused(CONFIG, [*arguments, "--codec", "h999"], capsys, "--codec h999")
    refused(CONFIG, [*arguments, "--config", tmp_path / "no.toml"], capsys, "no such file")
    only(tmp_path)


# --- the target ---
@pytest.mark.parametrize("hw", [(16, 16), (4320, 7680)])
def test_tiny_and_8k_frames(tmp_path: Path, hw: tuple[int, int]) -> None:
    write_video(tmp_path / "a.mp4", [quadrants_bgr(*hw)], options={"preset": "ultrafast"})
    arguments = ["reenact", tmp_path / "a.mp4", "--preset", "smile", "-o", tmp_path / "o.mp4", "-q"]
    assert main([str(a) for a in arguments]) == OK
    assert probe(tmp_path / "o.mp4").stream["size_wh"] == (hw[1], hw[0])


def test_face_that_comes_and_goes(
    target: Path, tmp_path: Path, faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "long.mp4", numbered(60, 120, 160))
    faces(target=lambda n: [face_at(80, 60, 90)] if 10 <= n < 20 else [])
    arguments = ["reenact", tmp_path / "long.mp4", "--preset", "smile", "-o", tmp_path / "o.mp4"]
    assert main([str(a) for a in arguments]) == OK
    assert "60 frames (10 swapped" in said(capsys)
    assert len(probe(tmp_path / "o.mp4").pictures) == 60


def test_face_that_never_comes_gives_a_complete_file_and_a_code(
    target: Path, tmp_path: Path, faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    faces(target=lambda _: [])
    arguments = ["reenact", target, "--preset", "smile", "-o", tmp_path / "o.mp4"]
    assert main([str(a) for a in arguments]) == WITHOUT_FACE
    assert "warning: " in (text := said(capsys))
    assert "not one of its 8 frames showed a face" in text
    assert probe(tmp_path / "o.mp4").times == probe(target).times
    assert probe(tmp_path / "o.mp4").sounds == probe(target).sounds


def test_target_cut_short_is_written_as_far_as_it_goes_with_a_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    noise = [rng.integers(0, 255, (120, 160, 3), dtype=np.uint8) for _ in range(20)]
    path = write_video(
        tmp_path / "a.mp4",
        noise,
        options={"g": "4", "bf": "0"},
        container_options={"movflags": "faststart"},
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    arguments = ["reenact", path, "--preset", "smile", "-o", tmp_path / "o.mp4"]
    assert main([str(a) for a in arguments]) == CUT_SHORT
    assert "the file is cut short" in said(capsys)
    assert 3 < len(probe(tmp_path / "o.mp4").pictures) < 20


# --- the output ---
def test_output_exists(target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o.mp4"
    out.write_text("mine")
    arguments = ["reenact", target, "--preset", "smile", "-o", out]
    refused(SINK, arguments, capsys, str(out), "exists already; pass --overwrite")
    assert out.read_text() == "mine"
    assert main([str(a) for a in [*arguments, "--overwrite", "-q"]]) == OK
    assert len(probe(out).pictures) == 8
    only(tmp_path, "o.mp4")


def test_output_equals_target_or_source(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.mp4"
    mine.write_bytes(target.read_bytes())
    face = tmp_path / "face.mp4"
    face.write_bytes(target.read_bytes())
    for out in (mine, face):
        arguments = ["reenact", mine, "--source", face, "-o", out, "--overwrite"]
        refused(SINK, arguments, capsys, str(out), "is also an input")
    assert mine.read_bytes() == face.read_bytes() == target.read_bytes()


def test_output_cannot_be_written(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: list[object] = ["reenact", target, "--preset", "smile", "-o"]
    refused(SINK, [*arguments, tmp_path / "no" / "o.mp4"], capsys, "there is no folder")
    refused(SINK, [*arguments, tmp_path], capsys, "give a name and an extension")
    refused(SINK, [*arguments, tmp_path / "o.xyz"], capsys, "is not a video format written here")
    refused(SINK, [*arguments, tmp_path / "o.png"], capsys, "more than one frame")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    if os.geteuid() != 0:
        refused(SINK, [*arguments, locked / "o.mp4"], capsys, "a folder that you may write to")
    elif Path("/proc/self").is_dir():  # root may write everywhere else
        refused(SINK, [*arguments, "/proc/self/o.mp4"], capsys, "a folder that you may write to")


def run_cli(
    arguments: list[object], model: Path, before: str = "", **options: object
) -> subprocess.Popen[str]:
    """The command line in a process of its own, mediapipe replaced."""
    program = (
        f"import sys; {before}\n"
        "import rt_swap.swapper\n"
        "from tests.support.swapping import SittingTracker\n"
        "def make(max_faces=1, static=False): return SittingTracker(delay_s=0.01)\n"
        "rt_swap.swapper.MediapipeTracker = make\n"
        "from rt_swap.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    environ = {
        **os.environ,
        "RT_SWAP_MODEL": str(model),
        "XDG_CONFIG_HOME": str(model.parent / "config"),
    }
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environ,
        **options,  # type: ignore[call-overload]
    )


def test_full_disk(tmp_path: Path, model: Path, rng: np.random.Generator) -> None:
    noise = [rng.integers(0, 255, (120, 160, 3), dtype=np.uint8) for _ in range(10)]
    write_video(tmp_path / "a.mkv", noise, codec="ffv1", pix_fmt="bgr0")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    arguments = ["reenact", tmp_path / "a.mkv", "--preset", "smile", "-o", tmp_path / "o.mp4"]
    process = run_cli([*arguments, "--crf", "1"], model, limit)
    _, text = process.communicate(timeout=120)
    assert process.returncode == SINK, text
    assert "the disk is full" in text.splitlines()[-1]
    assert "Traceback" not in text
    only(tmp_path, "a.mkv")


@pytest.mark.parametrize(
    ("number", "code"),
    # the last is a terminal window that was closed
    [(signal.SIGINT, CTRL_C), (signal.SIGTERM, TERMINATED), (signal.SIGHUP, TERMINATED)],
)
def test_ctrl_c_leaves_a_playable_file(
    tmp_path: Path, model: Path, number: signal.Signals, code: int, rng: np.random.Generator
) -> None:
    noise = [rng.integers(0, 255, (120, 160, 3), dtype=np.uint8) for _ in range(10)]
    write_video(tmp_path / "a.mp4", noise * 50, audio=["aac"], options={"preset": "ultrafast"})
    out = tmp_path / "o.mp4"
    arguments = ["reenact", tmp_path / "a.mp4", "--preset", "smile", "-o", out, "--json"]
    process = run_cli(arguments, model)
    deadline = time.monotonic() + 60
    part: list[Path] = []
    # something must be in the file: encoder and muxer hold the beginning back for a while
    while not (part and part[0].stat().st_size > 1000):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
        part = list(tmp_path.glob(".o.*.part.mp4"))
    process.send_signal(number)
    try:
        stdout, text = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, text
    assert "Traceback" not in text
    assert f"{out} is complete" in text.splitlines()[-1]
    summary = json.loads(stdout)
    assert summary["interrupted"]
    result = probe(out)
    assert 1 < len(result.pictures) == summary["frames_out"] < 500
    assert result.times == [Fraction(i, RATE) for i in range(len(result.times))]
    assert abs(float(result.sounds[0][-1][0]) - len(result.times) / RATE) < 0.1
    only(tmp_path, "a.mp4", "o.mp4")


# --- cache and model ---
def test_corrupt_cache_is_made_anew(
    target: Path, tmp_path: Path, environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "s.png"), moving_portrait(1)[0])
    arguments = ["reenact", target, "--source", tmp_path / "s.png", "-o", tmp_path / "o.mp4"]
    assert main([str(a) for a in arguments]) == OK
    (cached,) = (environment / "expressions").glob("*.safetensors")
    whole = cached.read_bytes()
    cached.write_bytes(whole[:100])
    said(capsys)
    assert main([str(a) for a in [*arguments, "--overwrite"]]) == OK
    assert "it is made anew" in said(capsys)
    assert cached.read_bytes() == whole


def test_corrupt_or_missing_model(
    target: Path, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    arguments = ["reenact", target, "--preset", "smile", "-o", tmp_path / "o.mp4"]
    refused(
        MODEL, [*arguments, "--model", tmp_path / "no"], capsys, "there is no such model folder"
    )
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    with (broken / "target_generator.onnx").open("r+b") as file:
        file.seek(2000)
        file.write(b"\0\1\2\3")
    refused(MODEL, [*arguments, "--model", broken], capsys, "damaged or changed", "install")
    only(tmp_path, "broken")


def test_expression_of_another_model_or_damaged(
    target: Path, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.support.tiny_model import tiny_bundle

    other = tiny_bundle(tmp_path / "other", seed=5)
    saved = other / "presets" / "smile.safetensors"
    arguments = ["reenact", target, "--source", saved, "-o", tmp_path / "o.mp4"]
    refused(EXPRESSION, arguments, capsys, "made by model", "encode the source again")
    (tmp_path / "broken.safetensors").write_bytes(saved.read_bytes()[:50])
    arguments[3] = tmp_path / "broken.safetensors"
    refused(EXPRESSION, arguments, capsys, "not an expression file, or a damaged one")


def test_progress_bar_only_on_a_terminal(target: Path, tmp_path: Path, model: Path) -> None:
    import fcntl
    import pty
    import struct
    import termios

    main_end, process_end = pty.openpty()
    fcntl.ioctl(process_end, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 120, 0, 0))
    arguments = ["reenact", target, "--preset", "smile", "-o", tmp_path / "o.mp4"]
    program = (
        "import sys, rt_swap.swapper\n"
        "from tests.support.swapping import SittingTracker\n"
        "rt_swap.swapper.MediapipeTracker = lambda max_faces=1, static=False: SittingTracker()\n"
        "from rt_swap.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        stderr=process_end,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={
            **os.environ,
            "RT_SWAP_MODEL": str(model),
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
        },
        check=False,
    )
    os.close(process_end)
    shown = b""
    while True:
        try:
            part = os.read(main_end, 65536)
        except OSError:  # the other end is closed and all has been read
            break
        if not part:
            break
        shown += part
    os.close(main_end)
    assert done.returncode == 0, shown
    assert done.stdout == b""
    assert b"8/8 [" in shown
    assert b"100%|" in shown
