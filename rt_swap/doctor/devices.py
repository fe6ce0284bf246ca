"""Cameras, virtual cameras, GPUs and audio sources, as ``rt-swap devices`` lists them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rt_swap import machine as machines
from rt_swap.doctor.v4l2 import VideoDevice, video_devices
from rt_swap.machine import Gpu, Machine

FORMAT: Final = "rt-swap devices 1"


@dataclass(frozen=True)
class AudioSource:
    """Something sound can be recorded from.

    Attributes:
        name: What to open it by.
        system: "PulseAudio" (PipeWire answers to that name, too) or "ALSA".
        description: In words, or the same as the name.
    """

    name: str
    system: str
    description: str


@dataclass(frozen=True)
class Devices:
    """All of them."""

    cameras: tuple[VideoDevice, ...]
    virtual_cameras: tuple[VideoDevice, ...]
    unreadable: tuple[VideoDevice, ...]
    gpus: tuple[Gpu, ...]
    jetson: str | None
    audio_sources: tuple[AudioSource, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "format": FORMAT,
            "cameras": [_plain(each) for each in self.cameras],
            "virtual_cameras": [_plain(each) for each in self.virtual_cameras],
            "unreadable": [_plain(each) for each in self.unreadable],
            "gpus": [_plain(each) for each in self.gpus],
            "jetson": self.jetson,
            "audio_sources": [_plain(each) for each in self.audio_sources],
        }

    def lines(self) -> list[str]:
        """For a terminal."""
        lines = ["cameras:"]
        for camera in self.cameras:
            lines.append(f"  {camera.index}  {camera.name}  ({camera.path}, {camera.driver})")
            lines += [f"       {text}" for text in _format_lines(camera)]
        lines += [] if self.cameras else ["  none"]
        lines.append("virtual cameras:")
        lines += [
            f"  {each.index}  {each.name}  ({each.path})" for each in self.virtual_cameras
        ] or ["  none"]
        for each in self.unreadable:
            lines.append(f"cannot be asked: {each.path} {each.name}: {each.error}")
        lines.append("GPUs:")
        if self.jetson:
            lines.append(f"  0  {self.jetson}")
        for gpu in self.gpus:
            capability = gpu.compute_capability
            told = "unknown" if capability is None else f"{capability[0]}.{capability[1]}"
            memory = "" if gpu.memory_mib is None else f", {gpu.memory_mib:.0f} MiB"
            lines.append(f"  {gpu.index}  {gpu.name}{memory}, compute capability {told}")
        lines += [] if self.gpus or self.jetson else ["  none that rt-swap can use"]
        lines.append("audio sources:")
        lines += [
            f"  {each.name}  ({each.system}; {each.description})" for each in self.audio_sources
        ] or ["  none"]
        return lines


def all_devices(
    machine: Machine, videos: Callable[[Machine], Sequence[VideoDevice]] = video_devices
) -> Devices:
    """Look for everything.

    Args:
        machine: Where to look.
        videos: Lists the video devices.
    """
    nodes = list(videos(machine))
    return Devices(
        # with exclusive_caps a loopback that is being fed captures, and only then
        cameras=tuple(n for n in nodes if n.captures and not n.is_virtual),
        virtual_cameras=tuple(n for n in nodes if n.is_virtual),
        unreadable=tuple(n for n in nodes if n.error is not None),
        gpus=tuple(machines.nvidia_gpus(machine)),
        jetson=machines.jetson_model(machine),
        audio_sources=tuple(audio_sources(machine)),
    )


def audio_sources(machine: Machine) -> list[AudioSource]:
    """What sound can be recorded from: the sound server's sources, else ALSA's devices."""
    done = machine.run(["pactl", "list", "short", "sources"])
    if done is not None and done.code == 0:
        names = [line.split("\t")[1] for line in done.text.splitlines() if line.count("\t") >= 1]
        return [AudioSource(n, "PulseAudio", n) for n in names if not n.endswith(".monitor")]
    found = []
    for line in (machine.read("/proc/asound/pcm") or "").splitlines():
        place = re.match(r"(\d+)-(\d+): ([^:]+):", line)
        if place and "capture" in line:
            card, device = int(place[1]), int(place[2])
            found.append(AudioSource(f"hw:{card},{device}", "ALSA", place[3].strip()))
    return found


def _format_lines(camera: VideoDevice, most: int = 4) -> list[str]:
    lines = []
    for form in camera.formats:
        sizes = [
            f"{s.width}x{s.height}"
            + (f" @ {'/'.join(f'{r:g}' for r in s.rates)}" if s.rates else "")
            for s in form.sizes[:most]
        ]
        more = len(form.sizes) - most
        if more > 0:
            sizes.append(f"and {more} more (--json lists them)")
        lines.append(f"{form.fourcc:5}{', '.join(sizes)}")
    return lines


def _plain(each: Any) -> dict[str, Any]:
    values = asdict(each)
    if isinstance(each, Gpu) and each.compute_capability is not None:
        values["compute_capability"] = "{}.{}".format(*each.compute_capability)
    return values
