"""Writes pictures to a v4l2loopback device, by the kernel's own interface and nothing else.

Structures and numbers are those of ``linux/videodev2.h`` (kernel 6.x; the layout has not changed
since 64-bit kernels exist):

    struct v4l2_capability   driver[16] card[32] bus_info[32] u32 version, capabilities,
                             device_caps, reserved[3]                                = 104 bytes
    struct v4l2_format       u32 type, (4 bytes of padding), union of 200 bytes      = 208 bytes
    struct v4l2_pix_format   u32 width, height, pixelformat, field, bytesperline, sizeimage,
                             colorspace, priv, flags, ycbcr_enc, quantization, xfer_func
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from rt_swap.errors import SinkError
from rt_swap.frames import Frame
from rt_swap.io.camera import list_cameras
from rt_swap.io.pixels import i420_from_bgr
from rt_swap.io.slate import fitted

_CAPABILITY: Final = struct.Struct("=16s32s32sIII12x")
_FORMAT: Final = struct.Struct("=I4x12I152x")
VIDIOC_QUERYCAP: Final = 0x80685600  # _IOR('V', 0, struct v4l2_capability)
VIDIOC_S_FMT: Final = 0xC0D05605  # _IOWR('V', 5, struct v4l2_format)
_BUF_TYPE_VIDEO_OUTPUT: Final = 2
_FIELD_NONE: Final = 1
_COLORSPACE_SRGB: Final = 8
_CAP_VIDEO_OUTPUT: Final = 0x00000002
_CAP_DEVICE_CAPS: Final = 0x80000000
YU12: Final = int.from_bytes(b"YU12", "little")
LOOPBACK_DRIVER: Final = "v4l2 loopback"
LOAD_HINT: Final = (
    'load it: sudo modprobe v4l2loopback devices=1 exclusive_caps=1 card_label="rt-swap camera"'
    " (docs/live.md says how to install it)"
)


@dataclass(frozen=True)
class LoopbackDevice:
    """A v4l2loopback device.

    Attributes:
        path: Its device file.
        name: Its card label, which is what calls show.
        takes_output: Whether pictures can be written to it now.
    """

    path: str
    name: str
    takes_output: bool


def loopback_devices() -> list[LoopbackDevice]:
    """The v4l2loopback devices that this user may open."""
    found = []
    for camera in list_cameras():
        if not camera.is_virtual:
            continue
        try:
            descriptor = os.open(camera.path, os.O_RDWR | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            driver, card, capabilities = _query(descriptor)
        except OSError:
            continue
        finally:
            os.close(descriptor)
        if driver == LOOPBACK_DRIVER:
            takes = bool(capabilities & _CAP_VIDEO_OUTPUT)
            found.append(LoopbackDevice(camera.path, card, takes))
    return found


def find_loopback(wanted: str | None) -> str:
    """The device file to write to.

    Args:
        wanted: A device file, part of a card label, or None for the first that takes pictures.

    Raises:
        SinkError: If there is none; says what to do.
    """
    if sys.platform != "linux":
        raise SinkError("v4l2loopback exists on Linux only; install pyvirtualcam (rt-swap[live])")
    if wanted is not None and wanted.startswith("/"):
        if not Path(wanted).exists():
            raise SinkError(f"virtual camera {wanted}: there is no such device; {LOAD_HINT}")
        return wanted
    devices = loopback_devices()
    if not devices:
        raise SinkError(
            f"virtual camera: no v4l2loopback device that this user may write to; {LOAD_HINT}"
        )
    fits = [d for d in devices if wanted is None or wanted.casefold() in d.name.casefold()]
    listed = ", ".join(f"{d.path} ({d.name})" for d in devices)
    if not fits:
        raise SinkError(
            f"virtual camera {wanted!r}: there is none of that name; there are {listed}"
        )
    free = [d for d in fits if d.takes_output]
    if not free:
        raise SinkError(
            f"virtual camera: {fits[0].path} ({fits[0].name}) is written to by another program;"
            f" close it, or name another device; there are {listed}"
        )
    return free[0].path


class LoopbackSink:
    """Pictures to a v4l2loopback device, as planar YUV 4:2:0.

    Its size is fixed while it is open: pictures of another one are scaled to lie inside it.

    Args:
        device: As for :func:`find_loopback`.
        size_wh: Of the virtual camera, rounded down to even numbers.

    Attributes:
        name: The device file.
        frames: Pictures written.

    Raises:
        SinkError: If there is no such device, it is not allowed, in use, or refuses the size.
    """

    def __init__(self, device: str | None, size_wh: tuple[int, int]) -> None:
        self.name = find_loopback(device)
        self.frames = 0
        self.size_wh = size_wh[0] // 2 * 2, size_wh[1] // 2 * 2
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(self.name, os.O_RDWR)
            driver, card, capabilities = _query(self._descriptor)
            if not capabilities & _CAP_VIDEO_OUTPUT:
                raise SinkError(
                    f"virtual camera {self.name} ({card}): takes no pictures"
                    + (
                        "; another program writes to it, close that"
                        if driver == LOOPBACK_DRIVER
                        else f"; it is a real device ({driver}), name a v4l2loopback one"
                    )
                )
            _set_format(self._descriptor, *self.size_wh)
        except OSError as exc:
            self.abort()
            if isinstance(exc, SinkError):
                raise
            raise SinkError(f"virtual camera {self.name}: {_reason(exc)}") from exc

    def write(self, frame: Frame) -> None:
        """Show one picture.

        Raises:
            SinkError: If the device is gone.
        """
        if self._descriptor is None:
            raise SinkError(f"virtual camera {self.name}: a picture came after it was closed")
        blob = i420_from_bgr(fitted(frame.frame_bgr, self.size_wh))
        try:
            written = os.write(self._descriptor, blob.data)
        except OSError as exc:
            raise SinkError(f"virtual camera {self.name}: {_reason(exc)}") from exc
        if written != blob.nbytes:
            raise SinkError(
                f"virtual camera {self.name}: took {written} of {blob.nbytes} bytes; another"
                " program changed its format, start again"
            )
        self.frames += 1

    def finish(self, *, last_duration: int | None = None, cut_audio: bool = False) -> None:
        """Close the device."""
        self.abort()

    def abort(self) -> None:
        """Close the device; harmless when done twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def __enter__(self) -> LoopbackSink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()


def _query(descriptor: int) -> tuple[str, str, int]:
    """Driver, card label, and what the device can do now."""
    import fcntl

    buffer = bytearray(_CAPABILITY.size)
    fcntl.ioctl(descriptor, VIDIOC_QUERYCAP, buffer)
    driver, card, _, _, capabilities, device_caps = _CAPABILITY.unpack(buffer)
    # device_caps are this node's own; the others are those of all nodes together
    now = device_caps if capabilities & _CAP_DEVICE_CAPS else capabilities
    return _text(driver), _text(card), now


def _set_format(descriptor: int, width: int, height: int) -> None:
    """Ask for YU12 of a size.

    Raises:
        SinkError: If the device chooses anything else.
        OSError: If it refuses.
    """
    import fcntl

    pixels = (width, height, YU12, _FIELD_NONE, width, width * height * 3 // 2, _COLORSPACE_SRGB)
    buffer = bytearray(_FORMAT.pack(_BUF_TYPE_VIDEO_OUTPUT, *pixels, 0, 0, 0, 0, 0))
    fcntl.ioctl(descriptor, VIDIOC_S_FMT, buffer)
    _, got_w, got_h, got_format, *_ = _FORMAT.unpack(buffer)
    if (got_w, got_h, got_format) != (width, height, YU12):
        raise SinkError(
            f"virtual camera: wants {got_w}x{got_h} {_text(got_format.to_bytes(4, 'little'))}"
            f" instead of {width}x{height} YU12; it is locked to that by whoever reads it: close"
            f" the call, or start with --size {got_w}x{got_h}"
        )


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def _reason(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            "may not be written to by this user; add yourself to the group video"
            " (sudo usermod -aG video $USER) and log in again"
        )
    if error.errno == errno.EBUSY:
        return "is in use by another program; close it"
    if error.errno in (errno.ENODEV, errno.ENXIO, errno.ENOENT):
        return f"is not there any more; {LOAD_HINT}"
    if error.errno in (errno.ENOTTY, errno.EINVAL):
        return f"is no v4l2loopback device, or refuses pictures ({error.strerror}); {LOAD_HINT}"
    return str(error.strerror or error)
