"""``rt-swap studio`` in a real Chromium whose camera films a real face.

Run as a program it takes the pictures of docs/studio.md again:

    python -m tests.support.browser docs/pictures
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SIZE_WH = (640, 480)
PATIENCE_S = 90.0
"""How long something may take on a busy machine before it counts as failed; nothing is timed."""


def find_browser() -> tuple[str, str] | None:
    """Chromium and its driver, or None."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


def film_a_face(path: Path, seconds: float) -> Path:
    """The public-domain portrait under a hand-held camera, as Chromium's fake camera plays it.

    Raises:
        ModuleNotFoundError: If scikit-image is not there.
    """
    import av
    import numpy as np
    import skimage.data

    from rt_swap.io.handheld import HandheldCamera

    portrait_bgr = np.ascontiguousarray(skimage.data.astronaut()[:, :, ::-1])
    with av.open(str(path), "w", format="mjpeg") as container:
        stream: Any = container.add_stream(
            "mjpeg", rate=30, width=SIZE_WH[0], height=SIZE_WH[1], options={"qscale": "3"}
        )
        stream.pix_fmt = "yuvj420p"
        for frame in HandheldCamera(portrait_bgr, SIZE_WH, Fraction(30), round(30 * seconds)):
            taken = av.VideoFrame.from_ndarray(frame.frame_bgr, "bgr24")
            taken = taken.reformat(format="yuvj420p")
            taken.pts, taken.time_base = frame.pts, frame.time_base
            container.mux(stream.encode(taken))
        container.mux(stream.encode(None))
    return path


@contextmanager
def studio(home: Path) -> Iterator[str]:
    """``rt-swap studio`` as a user starts it; yields its address.

    Args:
        home: Holds its settings and temporary files.
    """
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


@contextmanager
def chromium(film: Path, profile: Path) -> Iterator[Any]:
    """A headless Chromium whose camera plays a film; yields selenium's driver."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    found = find_browser()
    assert found is not None
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
        f"--user-data-dir={profile}",
        "--window-size=1280,900",
        "--hide-scrollbars",
        "--lang=en",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(found[1]))
    try:
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
        time.sleep(0.15)


PHASE = "return document.getElementById('live').dataset.phase"


def _take_pictures(folder: Path) -> None:
    """The pictures of docs/studio.md, below 300 kB each."""
    from io import BytesIO

    from PIL import Image

    home = Path(tempfile.mkdtemp())
    film = film_a_face(home / "face.mjpeg", 6.0)

    def size(width: int, height: int, mobile: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        time.sleep(1.5)

    def shoot(name: str) -> None:
        picture = Image.open(BytesIO(driver.get_screenshot_as_png())).convert("RGB")
        path = folder / f"studio-{name}.png"
        picture.quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)
        print(path, path.stat().st_size)
        assert path.stat().st_size < 300_000

    with studio(home) as address, chromium(film, home / "profile") as driver:
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": dark})
        size(1280, 860)
        driver.get(address)
        wait(driver, "pictures", "return document.querySelectorAll('.face img').length === 9")
        driver.find_element("id", "cover-button").click()
        wait(driver, "live picture", PHASE, lambda phase: phase == "live")
        driver.find_element("css selector", '[data-id="preset:surprise"]').click()
        time.sleep(15)
        shoot("live")
        driver.execute_script("document.querySelector('[aria-controls=units-brows]').click()")
        size(390, 844, mobile=True)
        shoot("narrow")
        size(1280, 860)
        driver.find_element("id", "tab-file").click()
        from tests.support.videos import moving_portrait, write_video

        video = write_video(home / "birthday.mp4", moving_portrait(30, 480, 640))
        driver.find_element("id", "file-input").send_keys(str(video))
        wait(driver, "result", "return !!document.querySelector('.job[data-state=done] video')")
        time.sleep(2)
        shoot("file")
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    _take_pictures(Path(sys.argv[1]))
