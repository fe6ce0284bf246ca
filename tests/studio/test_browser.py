"""The page in a real browser: a real face goes in by a fake camera, and comes back changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIZE_WH = (640, 480)
PATIENCE_S = 60.0
"""How long something may take on a busy machine before it counts as failed; nothing is timed."""


def _browser() -> tuple[str, str]:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium chromium-driver)")
    return browser, driver


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of a real face, as Chromium's fake camera plays it."""
    import av

    from rt_swap.io.handheld import HandheldCamera
    from rt_swap.studio.pictures import portrait

    picture_bgr = portrait()
    if picture_bgr is None:
        pytest.skip("needs scikit-image's portrait")
    path = tmp_path_factory.mktemp("camera") / "face.mjpeg"
    with av.open(str(path), "w", format="mjpeg") as container:
        stream: Any = container.add_stream(
            "mjpeg", rate=30, width=SIZE_WH[0], height=SIZE_WH[1], options={"qscale": "3"}
        )
        stream.pix_fmt = "yuvj420p"
        for frame in HandheldCamera(picture_bgr, SIZE_WH, Fraction(30), 90):
            taken = av.VideoFrame.from_ndarray(frame.frame_bgr, "bgr24")
            taken = taken.reformat(format="yuvj420p")
            taken.pts, taken.time_base = frame.pts, frame.time_base
            container.mux(stream.encode(taken))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``rt-swap studio`` as a user starts it."""
    _browser()
    home = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RT_SWAP_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "rt_swap", "studio", "--no-browser", "--port", "0", "--quiet"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**kept, "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(home), "TMPDIR": str(home)},
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline().strip()
        assert line.startswith("http://127.0.0.1:"), "rt-swap studio did not start"
        yield line
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
        assert not list(home.glob("rt_swap_studio_*")), "uploads were left behind"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def driver(camera: Path, address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (pip)")
    from selenium.webdriver.chrome.service import Service

    browser, chromedriver = _browser()
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
        "--window-size=1280,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        driver.get(address)
        yield driver
    finally:
        driver.quit()


def wait(driver: Any, what: str, script: str, good: Callable[[Any], bool] = bool) -> Any:
    """Ask the page again and again.

    Args:
        driver: The browser.
        what: What is waited for, for the message.
        script: JavaScript that returns something.
        good: Whether that is it.
    """
    end = time.monotonic() + PATIENCE_S
    while True:
        value = driver.execute_script(script)
        if good(value):
            return value
        if time.monotonic() > end:
            shown = driver.execute_script("return document.body.innerText")
            raise AssertionError(f"no {what} within {PATIENCE_S:g} s, last {value!r}:\n{shown}")
        time.sleep(0.2)


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
    phase = "return document.getElementById('live').dataset.phase"
    wait(driver, "live picture", phase, lambda value: value == "live")
    size = "const v = document.getElementById('result'); return [v.videoWidth, v.videoHeight]"
    assert wait(driver, "picture", size, lambda value: value[0] > 0) == list(SIZE_WH)

    # the portrait smiles: with nothing chosen that is what comes back
    level = _SHOWN.format(au="AU12")
    smiling = wait(driver, "own smile", level, lambda value: value is not None and value > 20)
    before = _mean_mouth(driver)

    driver.find_element("css selector", '[data-id="preset:surprise"]').click()
    wait(
        driver,
        "open mouth",
        _SHOWN.format(au="AU26"),
        lambda value: value is not None and value > 25,
    )
    wait(driver, "fading smile", level, lambda value: value is not None and value < 0.6 * smiling)
    after = _mean_mouth(driver)
    change = sum(abs(a - b) for a, b in zip(after, before, strict=True)) / 300
    assert change > 3.0, "the returned picture's mouth did not change"
    caption = driver.find_element("id", "result-caption").text
    assert caption == "Surprise"

    # the strength taken away by keys, the face is the person's own again
    driver.find_element("tag name", "body").send_keys("0")
    wait(
        driver, "own smile again", level, lambda value: value is not None and value > 0.7 * smiling
    )
    again = _mean_mouth(driver)
    back = sum(abs(a - b) for a, b in zip(again, before, strict=True)) / 300
    assert back < change

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
        " window.saved.push(this.download); }"
    )
    body.send_keys("s")
    name = wait(driver, "snapshot", "return window.saved[0] || null")
    assert name.startswith("rt_swap ")
    assert name.endswith(".png")
    body.send_keys("n")
    note = "return document.getElementById('neutral-note').innerText"
    wait(driver, "calibration", note, lambda text: "is calibrated" in text)


def test_camera_turns_off_and_nothing_was_refused(driver: Any) -> None:
    driver.find_element("id", "camera").click()
    phase = "return document.getElementById('live').dataset.phase"
    wait(driver, "end", phase, lambda value: value == "idle")
    assert driver.execute_script("return document.getElementById('own').srcObject") is None
    # our own policy blocks nothing of ours, and no script failed
    severe = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []


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
            assert widths[0] <= 375 and widths[1] == 375, tab
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
