"""Linux video devices, asked through Video4Linux's own calls (linux/videodev2.h).

Asking changes nothing and works while another program uses the camera.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from rt_swap.machine import Machine

Ioctl = Callable[[int, bytearray], None]
"""(request, buffer that is read and written); raises OSError."""
Open = Callable[[str], AbstractContextManager[Ioctl]]
"""Path of a device -> its ioctl; raises OSError."""

# _IOR and _IOWR of asm-generic/ioctl.h: direction << 30 | size << 16 | 'V' << 8 | number
QUERYCAP: Final = 2 << 30 | 104 << 16 | 0x5600
ENUM_FMT: Final = 3 << 30 | 64 << 16 | 0x5602
ENUM_FRAMESIZES: Final = 3 << 30 | 44 << 16 | 0x564A
ENUM_FRAMEINTERVALS: Final = 3 << 30 | 52 << 16 | 0x564B

_CAPTURE: Final = 0x1 | 0x1000
_OUTPUT: Final = 0x2 | 0x2000
_MEMORY_TO_MEMORY: Final = 0x8000 | 0x4000
_DEVICE_CAPS: Final = 0x80000000
_BUFFER_TYPES: Final = {0x1: 1, 0x1000: 9, 0x2: 2, 0x2000: 10}
"""Capability -> v4l2_buf_type of its formats."""
_DISCRETE: Final = 1
_MOST: Final = 128
"""Entries of one list taken from a driver before it is believed to be broken."""
_MOST_QUESTIONS: Final = 4096
"""Questions put to one device."""
LOOPBACK_DRIVER: Final = "v4l2 loopback"


@dataclass(frozen=True)
class Size:
    """A picture size and its rates.

    Attributes:
        width: Pixels.
        height: Pixels.
        rates: Frames per second, highest first; empty where the driver tells none.
    """

    width: int
    height: int
    rates: tuple[float, ...] = ()


@dataclass(frozen=True)
class Format:
    """A pixel format.

    Attributes:
        fourcc: As "MJPG" or "YUYV".
        description: The driver's words.
        sizes: Largest first; of a range, its smallest and largest.
    """

    fourcc: str
    description: str
    sizes: tuple[Size, ...] = ()


@dataclass(frozen=True)
class VideoDevice:
    """A node /dev/videoN.

    Attributes:
        path: The node.
        index: N, which is what cameras are opened by.
        name: The device's name.
        driver: The kernel driver.
        bus: Where it is plugged in.
        captures: Frames can be read from it.
        outputs: Frames can be written to it.
        converts: It encodes, decodes or scales, and is no camera.
        formats: Of capture, else of output.
        error: Why it could not be asked, or None.
    """

    path: str
    index: int
    name: str = ""
    driver: str = ""
    bus: str = ""
    captures: bool = False
    outputs: bool = False
    converts: bool = False
    formats: tuple[Format, ...] = field(default=())
    error: str | None = None

    @property
    def is_virtual(self) -> bool:
        """Whether it is a virtual camera of v4l2loopback."""
        return self.driver == LOOPBACK_DRIVER or self.bus.startswith("platform:v4l2loopback")


@contextlib.contextmanager
def opened(path: str) -> Iterator[Ioctl]:
    """Open a device of this machine."""
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:

        def ioctl(request: int, buffer: bytearray) -> None:
            # the type stub knows no bytearray
            anything: Any = buffer
            fcntl.ioctl(descriptor, request, anything, True)

        yield ioctl
    finally:
        os.close(descriptor)


def video_devices(machine: Machine, open_device: Open = opened) -> list[VideoDevice]:
    """Every /dev/videoN, by number.

    Args:
        machine: Lists the nodes.
        open_device: Opens one.
    """
    found = []
    for path in machine.find("/dev/video*"):
        digits = path.removeprefix("/dev/video")
        if not digits.isdigit():
            continue
        index = int(digits)
        try:
            with open_device(path) as ioctl:
                found.append(_described(path, index, ioctl))
        except OSError as exc:
            name = (machine.read(f"/sys/class/video4linux/video{index}/name") or "").strip()
            text = exc.strerror or str(exc)
            found.append(VideoDevice(path, index, name=name, error=text))
    return sorted(found, key=lambda device: device.index)


def _described(path: str, index: int, ioctl: Ioctl) -> VideoDevice:
    buffer = bytearray(104)
    ioctl(QUERYCAP, buffer)
    ioctl = _patient(ioctl)
    driver, card, bus, _, capabilities, of_node = struct.unpack_from("<16s32s32sIII", buffer)
    if capabilities & _DEVICE_CAPS:
        capabilities = of_node
    converts = bool(capabilities & _MEMORY_TO_MEMORY)
    kinds = [kind for bit, kind in _BUFFER_TYPES.items() if capabilities & bit]
    return VideoDevice(
        path,
        index,
        _text(card),
        _text(driver),
        _text(bus),
        captures=bool(capabilities & _CAPTURE) and not converts,
        outputs=bool(capabilities & _OUTPUT) and not converts,
        converts=converts,
        formats=tuple(_formats(ioctl, kinds[0])) if kinds and not converts else (),
    )


def _patient(ioctl: Ioctl) -> Ioctl:
    """The same, which ends every list once too many questions were put."""
    asked = 0

    def ask(request: int, buffer: bytearray) -> None:
        nonlocal asked
        asked += 1
        if asked > _MOST_QUESTIONS:
            raise OSError("the driver's lists do not end")
        ioctl(request, buffer)

    return ask


def _formats(ioctl: Ioctl, kind: int) -> Iterator[Format]:
    for number in range(_MOST):
        buffer = bytearray(struct.pack("<II56x", number, kind))
        try:
            ioctl(ENUM_FMT, buffer)
        except OSError:  # EINVAL ends the list
            return
        description, pixels = struct.unpack_from("<12x32sI", buffer)
        sizes = sorted(_sizes(ioctl, pixels), key=lambda s: (-s.width * s.height, -s.width))
        fourcc = struct.pack("<I", pixels & 0x7FFFFFFF).decode("ascii", "replace").strip()
        yield Format(fourcc, _text(description), tuple(sizes))


def _sizes(ioctl: Ioctl, pixels: int) -> Iterator[Size]:
    for number in range(_MOST):
        buffer = bytearray(struct.pack("<II36x", number, pixels))
        try:
            ioctl(ENUM_FRAMESIZES, buffer)
        except OSError:
            return
        kind, *numbers = struct.unpack_from("<8xI6I", buffer)
        if kind == _DISCRETE:
            yield _size(ioctl, pixels, numbers[0], numbers[1])
        else:  # a range: min, max, step of width and of height
            for width, height in {(numbers[0], numbers[3]), (numbers[1], numbers[4])}:
                yield _size(ioctl, pixels, width, height)
            return


def _size(ioctl: Ioctl, pixels: int, width: int, height: int) -> Size:
    rates: set[float] = set()
    for number in range(_MOST):
        buffer = bytearray(struct.pack("<IIII36x", number, pixels, width, height))
        try:
            ioctl(ENUM_FRAMEINTERVALS, buffer)
        except OSError:
            break
        kind, *numbers = struct.unpack_from("<16xI6I", buffer)
        # seconds per frame: one, or the shortest and the longest
        intervals = [numbers[:2]] if kind == _DISCRETE else [numbers[:2], numbers[2:4]]
        rates |= {
            round(float(Fraction(over, under)), 3) for under, over in intervals if under and over
        }
        if kind != _DISCRETE:
            break
    return Size(width, height, tuple(sorted(rates, reverse=True)))


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace").strip()
