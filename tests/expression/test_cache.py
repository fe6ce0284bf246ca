"""The cache: one making per key, disk shared by processes, no harm from a bad file or disk."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from rt_swap.expression import ExpressionCache, cache_dir, cache_key, hash_of_picture
from rt_swap.frames import Expression
from tests.support.expressions import clip, still

KEY = cache_key("c" * 64, "a" * 64)


class Maker:
    """Counts how often it is asked."""

    def __init__(self, value: float = 1.0) -> None:
        self.calls = 0
        self.value = value

    def __call__(self) -> Expression:
        self.calls += 1
        return still(self.value)


def test_memory_makes_once() -> None:
    cache, make = ExpressionCache(None), Maker()
    first = cache.get_or_make(KEY, make)
    assert cache.get_or_make(KEY, make) is first
    assert make.calls == 1
    assert cache.entries() == []
    assert cache.folder is None


def test_disk_serves_the_next_process(tmp_path: Path) -> None:
    ExpressionCache(tmp_path).get_or_make(KEY, Maker(3.0))
    make = Maker()
    found = ExpressionCache(tmp_path).get_or_make(KEY, make)
    assert make.calls == 0
    assert found.tokens.max() == 3.0


def test_the_name_is_the_caller_s() -> None:
    cache = ExpressionCache(None)
    cache.put(KEY, still())
    found = cache.get(KEY, name="other.jpg")
    assert found is not None
    assert found.name == "other.jpg"
    stored = cache.get(KEY)
    assert stored is not None
    assert stored.name == "by hand"


def test_memory_forgets_what_was_used_longest_ago() -> None:
    cache = ExpressionCache(None, memory_entries=2)
    for key in ("one", "two"):
        cache.put(key, still())
    cache.get("one")
    cache.put("three", still())
    assert cache.get("two") is None
    assert cache.get("one") is not None


@pytest.mark.parametrize("blob", [b"", b"garbage", None])
def test_corrupt_file_is_reported_and_made_anew(
    tmp_path: Path, blob: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    ExpressionCache(tmp_path).put(KEY, still(1.0))
    path = tmp_path / f"{KEY}.safetensors"
    path.write_bytes(path.read_bytes()[:-5] if blob is None else blob)
    make = Maker(2.0)
    with caplog.at_level(logging.WARNING):
        assert ExpressionCache(tmp_path).get_or_make(KEY, make).tokens.max() == 2.0
    assert make.calls == 1
    assert "made anew" in caplog.text
    assert KEY in caplog.text
    caplog.clear()
    assert ExpressionCache(tmp_path).get_or_make(KEY, make).tokens.max() == 2.0
    assert make.calls == 1
    assert caplog.text == ""


def test_disk_that_cannot_be_written_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    cache, make = ExpressionCache(tmp_path / "file" / "cache"), Maker()
    with caplog.at_level(logging.WARNING):
        cache.get_or_make(KEY, make)
        cache.get_or_make("other", make)
    assert cache.get(KEY) is not None
    assert len([r for r in caplog.records if "cannot be written" in r.message]) == 1


def test_a_failing_maker_stores_nothing(tmp_path: Path) -> None:
    def fail() -> Expression:
        raise RuntimeError("no face")

    with pytest.raises(RuntimeError, match="no face"):
        ExpressionCache(tmp_path).get_or_make(KEY, fail)
    assert not list(tmp_path.iterdir())


def test_key_tells_everything_apart() -> None:
    keys = {
        cache_key("c" * 64, "a" * 64),
        cache_key("d" * 64, "a" * 64),
        cache_key("c" * 64, "b" * 64),
        cache_key("c" * 64, "a" * 64, 0),
        cache_key("c" * 64, "a" * 64, 1),
    }
    assert len(keys) == 5
    assert cache_key("c" * 64, "a" * 64, 1) == cache_key("c" * 64, "a" * 64, "1")


def test_picture_hash_sees_pixels_and_shape() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    changed = picture.copy()
    changed[1, 2, 0] ^= 1
    assert hash_of_picture(picture) == hash_of_picture(picture.copy())
    assert hash_of_picture(picture) == hash_of_picture(np.asfortranarray(picture))
    assert hash_of_picture(picture) != hash_of_picture(changed)
    assert hash_of_picture(picture) != hash_of_picture(picture.reshape(4, 2, 3))


def test_entries_and_prune(tmp_path: Path) -> None:
    cache = ExpressionCache(tmp_path)
    cache.put("ours", still())
    cache.put("theirs", clip([1, 2], [0, 1], 2, model_sha256="b" * 64))
    (tmp_path / "broken.safetensors").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("not ours to remove")
    for age_s, stem in enumerate(("broken", "theirs", "ours")):
        os.utime(tmp_path / f"{stem}.safetensors", (1000 + age_s, 1000 + age_s))
    found = cache.entries()
    assert [e.path.stem for e in found] == ["ours", "theirs", "broken"]
    assert found[0].size_bytes == (tmp_path / "ours.safetensors").stat().st_size
    assert found[2].expression is None

    assert cache.prune(older_than_s=1e12) == []
    removed = cache.prune(keep_model_sha256="a" * 64)
    assert {p.stem for p in removed} == {"theirs", "broken"}
    assert cache.get("ours") is not None
    assert cache.get("theirs") is None
    assert [p.stem for p in cache.prune()] == ["ours"]
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_prune_reports_what_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ExpressionCache(tmp_path)
    cache.put("kept", still())
    cache.put("gone", still())
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.stem == "kept":
            raise PermissionError(13, "Permission denied")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert [path.stem for path in cache.prune()] == ["gone"]
    assert "kept.safetensors cannot be removed: Permission denied" in caplog.text


def test_default_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RT_SWAP_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path / "expressions"
    assert cache_dir(tmp_path / "named") == tmp_path / "named" / "expressions"
    monkeypatch.delenv("RT_SWAP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "rt_swap" / "expressions"
