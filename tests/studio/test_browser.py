"""The page in a real browser: a real face goes in by a fake camera, and comes back changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.browser import (
    PATIENCE_S,
    PHASE,
    SIZE_WH,
    chromium,
    film_a_face,
    find_browser,
    studio,
    wait,
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page, loaded."""
    if find_browser() is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium chromium-driver)")
    pytest.importorskip("selenium", reason="needs selenium (pip)")
    pytest.importorskip("skimage", reason="needs scikit-image's portrait")
    # half a second, again and again: the hand hardly moves, so that pixels can be compared
    film = film_a_face(tmp_path_factory.mktemp("camera") / "face.mjpeg", 0.5)
    home = tmp_path_factory.mktemp("home")
    profile = tmp_path_factory.mktemp("profile")
    with studio(home) as address, chromium(film, profile) as browser:
        browser.get(address)
        yield browser


_SHOWN = "return parseFloat(document.querySelector('#gain-{au} + .level i').style.width)"

# Mean grey levels over the part of the returned picture that holds the mouth, as a JSON array: the
# portrait's lower face lies there in every frame of the film.
_MOUTH = """
const video = document.getElementById('result');
if (!video.videoWidth) return null;
const canvas = document.createElement('canvas');
canvas.width = 20; canvas.height = 15;
const context = canvas.getContext('2d');
const [w, h] = [video.videoWidth, video.videoHeight];
context.drawImage(video, w * 0.34, h * 0.28, w * 0.22, h * 0.22, 0, 0, 20, 15);
const data = context.getImageData(0, 0, 20, 15).data;
return [...Array(300).keys()].map(i => (data[4*i] + data[4*i+1] + data[4*i+2]) / 3);
"""


def _level(driver: Any, au: str) -> float:
    """How strongly the picture that comes back shows a unit, percent."""
    return float(wait(driver, f"level of {au}", _SHOWN.format(au=au), lambda v: v is not None))


def _difference(a: list[float], b: list[float]) -> float:
    """Mean difference of two such pictures, grey levels."""
    return sum(abs(x - y) for x, y in zip(a, b, strict=True)) / len(a)


def _mean_mouth(driver: Any, pictures: int = 8) -> list[float]:
    """The mouth averaged over pictures at several moments, so that the hand's motion cancels."""
    total = [0.0] * 300
    for _ in range(pictures):
        values = wait(driver, "picture", _MOUTH)
        total = [t + v / pictures for t, v in zip(total, values, strict=True)]
        time.sleep(0.12)
    return total


def test_the_face_that_comes_back_changes_with_a_click(driver: Any) -> None:
    presets = "return document.querySelectorAll('[data-id^=\"preset:\"]').length"
    assert wait(driver, "gallery", presets) == 9
    driver.find_element("id", "cover-button").click()
    wait(driver, "live picture", PHASE, lambda value: value == "live")
    size = "const v = document.getElementById('result'); return [v.videoWidth, v.videoHeight]"
    assert wait(driver, "picture", size, lambda value: value[0] > 0) == list(SIZE_WH)

    # the portrait smiles: with nothing chosen that is what comes back
    level = _SHOWN.format(au="AU12")
    smiling = wait(driver, "own smile", level, lambda value: value is not None and value > 20)
    before = _mean_mouth(driver)

    # found and clicked at once: the gallery is drawn anew when pictures of it arrive
    driver.execute_script("document.querySelector('[data-id=\"preset:surprise\"]').click()")
    wait(
        driver,
        "open mouth",
        _SHOWN.format(au="AU26"),
        lambda value: value is not None and value > 25,
    )
    wait(driver, "fading smile", level, lambda value: value is not None and value < 0.6 * smiling)
    change = _difference(_mean_mouth(driver), before)
    assert change > 3.0, "the returned picture's mouth did not change"
    caption = driver.find_element("id", "result-caption").text
    assert caption == "Surprise"

    # the strength taken away by keys, the face is the person's own again
    driver.find_element("tag name", "body").send_keys("0")
    wait(
        driver, "own smile again", level, lambda value: value is not None and value > 0.7 * smiling
    )
    end = time.monotonic() + PATIENCE_S  # figures may be ahead of the picture
    while _difference(_mean_mouth(driver), before) > 0.5 * change:
        assert time.monotonic() < end, "the returned picture did not turn back"

    # the delay is shown, and the stages add up to it
    delay = wait(
        driver, "delay", "return document.getElementById('delay').innerText", lambda t: "–" not in t
    )
    assert float(delay.split()[0]) > 0
    both = driver.execute_script(
        "return [parseFloat(document.getElementById('delay').innerText),"
        " [...document.querySelectorAll('#stages td')].map(e => parseFloat(e.innerText))]"
    )
    assert len(both[1]) == 8
    assert sum(both[1]) == pytest.approx(both[0], abs=5)
    drawn = """
    const c = document.getElementById('plot');
    const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    const colours = new Set();
    for (let i = 0; i < d.length; i += 4) colours.add(`${d[i] >> 5},${d[i+1] >> 5},${d[i+2] >> 5}`);
    return colours.size"""
    assert wait(driver, "plot", drawn) > 4


def test_calibration_and_snapshot_work_from_the_keyboard(driver: Any) -> None:
    body = driver.find_element("tag name", "body")
    driver.execute_script(
        "window.saved = []; HTMLAnchorElement.prototype.click = function () {"
        " window.saved.push(this.download); };"
        # what is told goes away again, perhaps between two looks of ours
        "window.told = []; new MutationObserver(all => all.forEach(one =>"
        " one.addedNodes.forEach(node => window.told.push(node.textContent))))"
        ".observe(document.getElementById('toasts'), { childList: true });"
    )
    body.send_keys("s")
    name = wait(driver, "snapshot", "return window.saved[0] || null")
    assert name.startswith("rt_swap ")
    assert name.endswith(".png")
    body.send_keys("n")
    # on a machine too busy for ten pictures in two seconds it is refused, and that is told
    told = "return window.told"
    wait(driver, "calibration", told, lambda texts: any("alibrat" in text for text in texts))


def test_camera_turns_off_and_nothing_was_refused(driver: Any) -> None:
    driver.find_element("id", "camera").click()
    wait(driver, "end", PHASE, lambda value: value == "idle")
    assert driver.execute_script("return document.getElementById('own').srcObject") is None
    # our own policy blocks nothing of ours, and no script failed
    severe = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []


_TOO_WIDE = """
return [...document.querySelectorAll('main *')]
    .filter(e => e.getBoundingClientRect().right > 376 && !e.closest('.cards'))
    .map(e => `${e.tagName}#${e.id}.${e.className} ${e.getBoundingClientRect().right}`)"""


def test_phone_width_has_no_sideways_scrolling(driver: Any) -> None:
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 375, "height": 740, "deviceScaleFactor": 1, "mobile": True},
    )
    try:
        for tab in ("tab-live", "tab-file"):
            driver.find_element("id", tab).click()
            widths = driver.execute_script(
                "return [document.documentElement.scrollWidth, window.innerWidth]"
            )
            assert widths == [375, 375], f"{tab}: {driver.execute_script(_TOO_WIDE)}"
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
