"""The list of devices."""

from __future__ import annotations

import json

from rt_swap.cli import main
from rt_swap.doctor.devices import all_devices, audio_sources
from rt_swap.doctor.v4l2 import Format, Size, VideoDevice
from rt_swap.machine import Ran
from tests.support.machines import FakeMachine, rtx_4060

WEBCAM = VideoDevice(
    "/dev/video0",
    0,
    "Some Webcam",
    "uvcvideo",
    "usb-1",
    captures=True,
    formats=(Format("MJPG", "Motion-JPEG", (Size(1280, 720, (30.0, 15.0)), Size(640, 480))),),
)
LOOPBACK = VideoDevice(
    "/dev/video10", 10, "rt-swap camera", "v4l2 loopback", captures=True, outputs=True
)
HELD = VideoDevice("/dev/video3", 3, "Held", error="Permission denied")
PCM = (
    "00-00: ALC257 Analog : ALC257 Analog : playback 1 : capture 1\n"
    "00-03: HDMI 0 : HDMI 0 : playback 1\n01-00: USB Audio : USB Audio : capture 1\n"
)
SOURCES = (
    "51\talsa_output.pci.analog-stereo.monitor\tPipeWire\ts32le 2ch 48000Hz\tSUSPENDED\n"
    "52\talsa_input.usb-mic.mono-fallback\tPipeWire\ts16le 1ch 48000Hz\tRUNNING\n"
)


def test_devices_are_sorted_into_kinds() -> None:
    got = all_devices(rtx_4060(), lambda _: [WEBCAM, HELD, LOOPBACK])
    assert got.cameras == (WEBCAM,)
    assert got.virtual_cameras == (LOOPBACK,)
    assert got.unreadable == (HELD,)
    text = "\n".join(got.lines())
    assert "MJPG 1280x720 @ 30/15, 640x480" in text
    assert "cannot be asked: /dev/video3 Held: Permission denied" in text
    assert "NVIDIA GeForce RTX 4060, 8188 MiB, compute capability 8.9" in text
    plain = json.loads(json.dumps(got.as_json()))
    assert plain["cameras"][0]["formats"][0]["sizes"][0]["rates"] == [30.0, 15.0]
    assert plain["gpus"][0]["compute_capability"] == "8.9"


def test_devices_of_an_empty_machine() -> None:
    lines = all_devices(FakeMachine(), lambda _: []).lines()
    assert lines.count("  none") == 3
    assert "  none that rt-swap can use" in lines


def test_audio_sources_of_the_sound_server_without_monitors() -> None:
    machine = FakeMachine(commands={"pactl": Ran(0, SOURCES)}, files={"/proc/asound/pcm": PCM})
    assert [s.name for s in audio_sources(machine)] == ["alsa_input.usb-mic.mono-fallback"]


def test_audio_sources_of_alsa_where_no_server_runs() -> None:
    refused = Ran(1, "Connection failure: Connection refused\npa_context_connect() failed\n")
    machine = FakeMachine(commands={"pactl": refused}, files={"/proc/asound/pcm": PCM})
    assert [s.name for s in audio_sources(machine)] == ["hw:0,0", "hw:1,0"]


def test_devices_verb_on_this_machine(capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["devices"]) == 0
    assert capsys.readouterr().out.startswith("cameras:\n")
    assert main(["devices", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "rt-swap devices 1"
