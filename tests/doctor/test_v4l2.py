"""Video4Linux's calls, answered by a camera made of structs packed as the kernel packs them."""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from rt_swap.doctor import v4l2
from rt_swap.doctor.v4l2 import Format, Ioctl, Size, video_devices
from tests.support.machines import FakeMachine


@dataclass
class FakeNode:
    """A driver: formats by four letters, sizes by width and height, frame intervals in seconds."""

    card: str = "Some Webcam"
    driver: str = "uvcvideo"
    capabilities: int = 0x1 | 0x04000000
    device_caps: int | None = None
    formats: dict[str, dict[tuple[int, int], list[tuple[int, int]]]] = field(default_factory=dict)
    stepwise: tuple[int, int, int, int, int, int] | None = None

    def ioctl(self, request: int, buffer: bytearray) -> None:
        size = request >> 16 & 0x3FFF
        assert len(buffer) == size, "the kernel copies as much as the request says"
        if request == v4l2.QUERYCAP:
            flags = self.capabilities | (0x80000000 if self.device_caps is not None else 0)
            struct.pack_into(
                "<16s32s32sIII",
                buffer,
                0,
                self.driver.encode(),
                self.card.encode(),
                b"usb-1",
                0x060800,
                flags,
                self.device_caps or 0,
            )
            return
        index = struct.unpack_from("<I", buffer)[0]
        if request == v4l2.ENUM_FMT:
            name = self._nth(list(self.formats), index)
            struct.pack_into("<12x32s4s", buffer, 0, f"{name} words".encode(), name.encode())
            return
        name = struct.unpack_from("<4x4s", buffer)[0].decode()
        sizes = self.formats[name]
        if request == v4l2.ENUM_FRAMESIZES:
            if self.stepwise is not None:
                self._nth([0], index)
                struct.pack_into("<8xI6I", buffer, 0, 3, *self.stepwise)
                return
            width, height = self._nth(list(sizes), index)
            struct.pack_into("<8xIII", buffer, 0, 1, width, height)
        elif request == v4l2.ENUM_FRAMEINTERVALS:
            width, height = struct.unpack_from("<8xII", buffer)
            over, under = self._nth(sizes.get((width, height), []), index)
            struct.pack_into("<16xIII", buffer, 0, 1, over, under)
        else:
            raise AssertionError(hex(request))

    def _nth(self, values: list, index: int):  # type: ignore[no-untyped-def, type-arg]
        if index >= len(values):
            raise OSError(errno.EINVAL, "Invalid argument")
        return values[index]


def devices_of(nodes: dict[str, FakeNode | OSError]) -> list[v4l2.VideoDevice]:
    @contextlib.contextmanager
    def open_device(path: str) -> Iterator[Ioctl]:
        node = nodes[path]
        if isinstance(node, OSError):
            raise node
        yield node.ioctl

    files = dict.fromkeys(nodes, "")
    files["/sys/class/video4linux/video3/name"] = "Held Camera\n"
    return video_devices(FakeMachine(files=files), open_device)


WEBCAM = FakeNode(
    formats={
        "YUYV": {(640, 480): [(1, 30), (1, 15)]},
        "MJPG": {(640, 480): [(1, 30)], (1920, 1080): [(1001, 30000), (1, 60)]},
    }
)


def test_requests_are_the_kernels() -> None:
    # linux/videodev2.h on x86-64 and aarch64
    assert v4l2.QUERYCAP == 0x80685600
    assert v4l2.ENUM_FMT == 0xC0405602
    assert v4l2.ENUM_FRAMESIZES == 0xC02C564A
    assert v4l2.ENUM_FRAMEINTERVALS == 0xC034564B


def test_camera_with_formats_sizes_and_rates() -> None:
    (camera,) = devices_of({"/dev/video0": WEBCAM})
    assert (camera.index, camera.name, camera.driver) == (0, "Some Webcam", "uvcvideo")
    assert camera.captures
    assert not camera.is_virtual
    assert camera.formats == (
        Format("YUYV", "YUYV words", (Size(640, 480, (30.0, 15.0)),)),
        Format("MJPG", "MJPG words", (Size(1920, 1080, (60.0, 29.97)), Size(640, 480, (30.0,)))),
    )


def test_range_of_sizes_gives_its_ends() -> None:
    node = FakeNode(formats={"NV12": {}}, stepwise=(160, 1920, 2, 120, 1080, 2))
    (camera,) = devices_of({"/dev/video0": node})
    assert camera.formats[0].sizes == (Size(1920, 1080), Size(160, 120))


def test_node_of_metadata_is_no_camera() -> None:
    # a webcam's second node: the device as a whole captures, this node does not
    (node,) = devices_of({"/dev/video1": FakeNode(device_caps=0x00A00000)})
    assert not node.captures
    assert not node.outputs


def test_decoder_is_no_camera() -> None:
    (node,) = devices_of({"/dev/video10": FakeNode("bcm2835-codec", capabilities=0x8000 | 0x3)})
    assert node.converts
    assert not node.captures


def test_loopback_is_virtual_and_nodes_come_in_the_order_of_their_numbers() -> None:
    loop = FakeNode("rt-swap camera", "v4l2 loopback", capabilities=0x2)
    nodes = devices_of({"/dev/video10": loop, "/dev/video2": WEBCAM})
    assert [node.index for node in nodes] == [2, 10]
    assert [node.is_virtual for node in nodes] == [False, True]
    assert nodes[1].outputs


def test_node_that_cannot_be_opened_has_the_reason_and_its_name() -> None:
    (node,) = devices_of({"/dev/video3": PermissionError(errno.EACCES, "Permission denied")})
    assert (node.error, node.name) == ("Permission denied", "Held Camera")
    assert not node.captures


def test_driver_that_never_ends_its_list_is_left() -> None:
    class Endless(FakeNode):
        def _nth(self, values: list, index: int):  # type: ignore[no-untyped-def, type-arg]
            return values[0]

    (camera,) = devices_of({"/dev/video0": Endless(formats={"YUYV": {(4, 2): [(1, 30)]}})})
    assert 1 <= len(camera.formats) <= 128


def test_opened_on_what_is_no_video_device_raises_oserror() -> None:
    with v4l2.opened("/dev/null") as ioctl, pytest.raises(OSError, match=r"nappropriate|nvalid"):
        ioctl(v4l2.QUERYCAP, bytearray(104))
