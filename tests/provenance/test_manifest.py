"""C2PA manifests: signed, read back, noticed when broken; and what happens without the library."""

from __future__ import annotations

import ctypes
import datetime
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from rt_swap.errors import ConfigError
from rt_swap.provenance import certificate, manifest
from rt_swap.provenance.manifest import SOURCE_TYPE, Sealer
from rt_swap.provenance.marks import Marks, Record
from tests.support.videos import numbered, write_video

pytest.importorskip("c2pa", reason="needs c2pa-python: pip install 'rt-swap[provenance]'")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    import platformdirs

    monkeypatch.setattr(platformdirs, "user_config_dir", lambda *_, **__: str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "video.mp4", numbered(3))


def sealed(path: Path, target: Path, marks: Marks | None = None) -> Record:
    record = Record(badge="top-left", watermark=True, watermark_payload="9f3", watermarked_frames=3)
    seal = Sealer(
        marks or Marks(badge="top-left"),
        record,
        path,
        target,
        model="tiny",
        model_sha256={"target_generator": "9f3a"},
        about={"mode": "absolute"},
    )
    seal.ready()
    seal(path)
    return record


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".png", ".jpg", ".webp", ".tif"])
def test_sealed_file_says_what_was_done_by_which_model(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    if suffix in (".mp4", ".mov"):
        write_video(path, numbered(3))
    else:
        cv2.imwrite(str(path), numbered(1)[0])
    record = sealed(path, path)
    assert record.manifest == "written"
    assert "proves nothing about identity" in (record.manifest_note or "")
    told = manifest.read(path)
    assert told["state"] == "valid"
    assert told["synthetic"]
    assert not told["trusted"]
    assert told["actions"][-1]["digitalSourceType"] == SOURCE_TYPE
    assert told["rt_swap"]["model"] == "tiny"
    assert told["rt_swap"]["model_sha256"] == {"target_generator": "9f3a"}
    assert told["rt_swap"]["marks"]["badge"] == "top-left"
    assert told["rt_swap"]["marks"]["watermark"]["payload"] == "9f3"


def test_no_badge_is_recorded(video: Path) -> None:
    seal = Sealer(
        Marks(badge="off"), Record(badge="off"), video, video, model="m", model_sha256={}, about={}
    )
    seal(video)
    assert manifest.read(video)["rt_swap"]["marks"]["badge"] == "off"


def test_changed_file_is_invalid(video: Path) -> None:
    sealed(video, video)
    data = bytearray(video.read_bytes())
    at = data.rfind(b"mdat") + 40
    data[at] ^= 0xFF
    video.write_bytes(data)
    told = manifest.read(video)
    assert told["state"] == "invalid"
    assert any("mismatch" in problem for problem in told["problems"])


def test_names_of_files_stay_private(tmp_path: Path, video: Path) -> None:
    secret = tmp_path / "anna_at_home.mp4"
    secret.write_bytes(video.read_bytes())
    sealed(video, secret)
    assert b"anna" not in video.read_bytes()


def test_target_of_another_kind_is_an_ingredient_all_the_same(tmp_path: Path, video: Path) -> None:
    target = write_video(tmp_path / "target.mkv", numbered(3))
    assert sealed(video, target).manifest == "written"
    assert manifest.read(video)["state"] == "valid"


def test_earlier_manifest_comes_along(tmp_path: Path, video: Path) -> None:
    sealed(video, video)
    again = tmp_path / "again.mp4"
    again.write_bytes(write_video(tmp_path / "b.mp4", numbered(4)).read_bytes())
    sealed(again, video)
    import json

    import c2pa

    with c2pa.Reader(str(again)) as reader:
        assert len(json.loads(reader.json())["manifests"]) == 2


def test_container_without_room_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_video(tmp_path / "out.mkv", numbered(2))
    before = path.read_bytes()
    record = sealed(path, path)
    assert record.manifest == "missing"
    assert "cannot hold one" in caplog.text
    assert path.read_bytes() == before
    assert manifest.read(path)["state"] == "none"


def test_without_the_library_the_file_is_written_and_it_is_said(
    video: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    before = video.read_bytes()
    record = sealed(video, video)
    assert record.manifest == "missing"
    assert "pip install 'rt-swap[provenance]'" in caplog.text
    assert video.read_bytes() == before
    assert manifest.read(video)["state"] == "unreadable"


def test_not_asked_for_is_not_there(video: Path) -> None:
    assert sealed(video, video, Marks(manifest=False)).manifest == "off"
    assert manifest.read(video) == {"state": "none"}


def test_signing_needs_no_memory_for_the_file(tmp_path: Path, rng: np.random.Generator) -> None:
    """In a process of its own, whose peak is the kernel's own mark."""
    import subprocess

    noise = [rng.integers(0, 255, (720, 1280, 3), dtype=np.uint8) for _ in range(2)]
    path = write_video(tmp_path / "big.mov", noise * 12, codec="rawvideo", pix_fmt="rgb24")
    megabytes = path.stat().st_size / 1e6
    assert megabytes > 20
    program = """
import resource, sys
from pathlib import Path
import platformdirs
platformdirs.user_config_dir = lambda *_, **__: sys.argv[2]
from rt_swap.provenance.manifest import Sealer
from rt_swap.provenance.marks import Marks, Record
from rt_swap.provenance import certificate
import c2pa
certificate.self_made()
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, path, record = peak(), Path(sys.argv[1]), Record()
Sealer(Marks(), record, path, path, model="m", model_sha256={}, about={})(path)
print(record.manifest, peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), str(tmp_path / "config")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    state, more_mib = done.stdout.split()
    assert state == "written"
    assert float(more_mib) < megabytes
    assert manifest.read(path)["state"] == "valid"


# --- the certificate ---
def resident_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return float(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc_trim")
def test_freed_memory_goes_back_before_signing(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("another C library than glibc")
    blocks = [b"x" * 60_000 for _ in range(1500)]
    del blocks[:-1]  # the last one keeps the heap from shrinking by itself
    held = resident_mib()
    during: list[float] = []
    sign = Sealer._sign
    monkeypatch.setattr(
        Sealer, "_sign", lambda *args: (during.append(resident_mib()), sign(*args))[1]
    )
    assert sealed(video, video).manifest == "written"
    assert during[0] < held - 60


def test_certificate_is_made_once_and_the_key_is_private(home: Path) -> None:
    first, fresh = certificate.self_made()
    assert fresh
    again, fresh = certificate.self_made()
    assert not fresh
    assert again == first
    key = home / "signing" / "key.pem"
    assert key.stat().st_mode & 0o077 == 0


def test_damaged_certificate_is_told_and_the_file_is_written(
    home: Path, video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate.self_made()
    (home / "signing" / "key.pem").write_text("junk")
    with pytest.raises(ConfigError, match="remove the folder and it is made anew"):
        certificate.self_made()
    assert sealed(video, video).manifest == "missing"
    assert "remove the folder" in caplog.text


def test_own_certificate_signs(tmp_path: Path, home: Path, video: Path) -> None:
    certificate.self_made()
    chain, key = home / "signing" / "certificate.pem", home / "signing" / "key.pem"
    record = sealed(video, video, Marks(certificate=str(chain), certificate_key=str(key)))
    assert record.manifest_note == "signed by the certificate given"
    assert manifest.read(video)["state"] == "valid"


def test_own_certificate_that_cannot_sign_is_refused(tmp_path: Path, home: Path) -> None:
    certificate.self_made()
    chain, key = home / "signing" / "certificate.pem", home / "signing" / "key.pem"
    with pytest.raises(ConfigError, match=r"--certificate .*cannot be read"):
        certificate.own(tmp_path / "no.pem", key)
    with pytest.raises(ConfigError, match="no PEM file of certificates"):
        certificate.own(key, key)
    with pytest.raises(ConfigError, match="no PEM file of a private key"):
        certificate.own(chain, chain)
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "other.pem").write_bytes(other)
    with pytest.raises(ConfigError, match="is not the key of"):
        certificate.own(chain, tmp_path / "other.pem")
    with pytest.raises(ConfigError, match="give both"):
        Marks(certificate=str(chain))


def test_expired_certificate_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate.self_made()

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return datetime.datetime(2050, 1, 1, tzinfo=tz)

    monkeypatch.setattr("rt_swap.provenance.certificate.datetime.datetime", Later)
    with pytest.raises(ConfigError, match="is valid from"):
        certificate.own(home / "signing" / "certificate.pem", home / "signing" / "key.pem")


def test_pictures_are_not_changed_by_sealing(video: Path) -> None:
    from tests.support.videos import probe

    before = probe(video)
    sealed(video, video)
    after = probe(video)
    assert after.times == before.times
    assert all(np.array_equal(a, b) for a, b in zip(after.pictures, before.pictures, strict=True))
