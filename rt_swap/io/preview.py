"""A window that shows the pictures and takes keys."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Final

import numpy as np

from rt_swap.errors import SinkError
from rt_swap.frames import U8, Frame

_SHADE: Final = 0.35
_MARGIN_PX: Final = 8


class PreviewWindow:
    """A window by OpenCV. All calls must come from the program's main thread.

    Args:
        title: Of the window.
        mirror: Show it mirrored, as people expect to see themselves.

    Raises:
        SinkError: If there is no display, or OpenCV was built without windows.
    """

    def __init__(self, title: str = "rt_swap", *, mirror: bool = False) -> None:
        import cv2

        self.title, self.mirror = title, mirror
        self.frames = 0
        self.lines: tuple[str, ...] = ()
        self._open = False
        if not has_display():
            raise SinkError(
                "preview: there is no display here; leave --preview out, or use --virtual-cam,"
                " --output or rt-swap studio"
            )
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error as exc:
            raise SinkError(
                "preview: this OpenCV has no windows (opencv-python-headless?);"
                " pip install opencv-python, or leave --preview out"
            ) from exc
        self._open = True

    def write(self, frame: Frame) -> None:
        """Show one picture with the lines on it; the picture itself is not changed."""
        import cv2

        if not self._open:
            return
        picture = frame.frame_bgr
        if self.mirror:
            picture = np.asarray(cv2.flip(picture, 1), np.uint8)
        if self.frames == 0:
            cv2.resizeWindow(self.title, picture.shape[1], picture.shape[0])
        cv2.imshow(self.title, with_lines(picture, self.lines) if self.lines else picture)
        self.frames += 1

    def key(self) -> str | None:
        """The key pressed since the last call, or None; "closed" once the window was closed."""
        import cv2

        if not self._open:
            return "closed"
        code = cv2.waitKeyEx(1)
        if self.frames and cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1:
            self._open = False
            return "closed"
        if code < 0:
            return None
        code &= 0xFFFF  # above are Shift, Num Lock and the like
        if not 0 < code < 0x80:  # arrows and others, whose low byte is some letter's
            return None
        return {27: "escape", 13: "enter", 9: "tab"}.get(code, chr(code))

    def finish(self, *, last_duration: int | None = None, cut_audio: bool = False) -> None:
        """Close the window."""
        self.abort()

    def abort(self) -> None:
        """Close the window; harmless when done twice."""
        import cv2

        if self._open:
            self._open = False
            cv2.destroyWindow(self.title)

    def __enter__(self) -> PreviewWindow:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()


def has_display() -> bool:
    """Whether windows can be shown."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def with_lines(picture_bgr: U8, lines: tuple[str, ...]) -> U8:
    """A copy of a picture with lines of text at its upper left, on a shade.

    Args:
        picture_bgr: (H, W, 3) uint8; not changed.
        lines: ASCII.

    Returns:
        (H, W, 3) uint8.
    """
    import cv2

    shown = picture_bgr.copy()
    scale = max(picture_bgr.shape[0] / 1400, 0.35)
    font, step = cv2.FONT_HERSHEY_SIMPLEX, round(32 * scale) + 2
    widest = max((cv2.getTextSize(line, font, scale, 1)[0][0] for line in lines), default=0)
    box = shown[: step * len(lines) + 2 * _MARGIN_PX, : widest + 2 * _MARGIN_PX]
    box[:] = np.rint(box * _SHADE).astype(np.uint8)
    for number, line in enumerate(lines):
        place = (_MARGIN_PX, _MARGIN_PX + step * (number + 1) - step // 4)
        cv2.putText(shown, line, place, font, scale, (235, 235, 235), 1, cv2.LINE_AA)
    return shown
