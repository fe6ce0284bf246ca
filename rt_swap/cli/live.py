"""``rt-swap live``: from the camera into the call."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rt_swap.cli.common import OK, common_options, marks_of, marks_options, settings_of
from rt_swap.config import LIVE_ON_LOST, MODES
from rt_swap.errors import ConfigError, ExpressionFileError, SinkError

if TYPE_CHECKING:
    from rt_swap.frames import U8, Frame, FrameResult
    from rt_swap.live.controls import Offer
    from rt_swap.live.engine import LiveEngine
    from rt_swap.live.run import LiveRun, SinkSlot
    from rt_swap.provenance.marker import Marker
    from rt_swap.swapper import Swapper

logger = logging.getLogger(__name__)

_ANY: Final = "\0any"
_NANO: Final = "nano"
_NONE: Final = "none"
_DESCRIPTION = """\
Gives the person before a camera the expression of a source, live, and hands the pictures to a
virtual camera, a window, a file. While the face is lost, the camera gone or anything fails, a
picture that may be shown goes out in its stead.

CAMERA is a camera's number, name or device file; a video file, played in real time; an address
(rtsp://, http://); csi://0 on a Jetson; or gst:PIPELINE, a GStreamer pipeline without a sink.
"""
_EXAMPLES = """\
examples:
  rt-swap live --preset smile                          in a window; keys 1-9 change the expression
  rt-swap live --preset smile --virtual-cam            for Zoom, Meet, Teams, OBS (docs/live.md)
  rt-swap live --source laugh.jpg --source clip.mp4 --gains brows=0.5,mouth=1 --keep-speech
  rt-swap live --camera rtsp://10.0.0.5/main --source-camera 0 --mode relative --calibrate
  rt-swap live --preset smile --virtual-cam --max-latency-ms 60 --delay-mic

keys, in the window and in the terminal:
  1-9 expressions, 0 own face, n p next and previous, m mode, s keep speech, b keep blink,
  - + gains, c calibrate, l what is shown when lost, h hide behind the slate, ? help, q quit
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "live",
        parents=[common_options()],
        help="re-express a camera, into a call",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    camera = parser.add_argument_group("camera")
    camera.add_argument("--camera", metavar="CAMERA", help="who is shown (default: 0)")
    camera.add_argument(
        "--size", default="1280x720", metavar="WxH", help="size to ask it for (default: 1280x720)"
    )
    camera.add_argument(
        "--fps", type=float, default=30.0, metavar="N", help="rate to ask it for (default: 30)"
    )
    camera.add_argument(
        "--once", action="store_true", help="end with the file instead of beginning it again"
    )

    givers = parser.add_argument_group("expression")
    givers.add_argument(
        "--source",
        action="append",
        metavar="FILE",
        help="who gives the expression: a picture, a clip (looped), or a saved expression; may be"
        " given several times, keys 1-9 choose",
    )
    givers.add_argument(
        "--preset",
        action="append",
        metavar="NAME",
        help="a named expression: neutral, smile, laugh, surprise, anger, sadness, disgust, fear,"
        " wink; may be given several times",
    )
    givers.add_argument(
        "--source-camera", metavar="CAMERA", help="somebody before another camera gives it, live"
    )
    givers.add_argument(
        "--gains",
        metavar="LIST",
        help="how much of each part comes from the source, as brows=0.5,mouth=1 (default: all=1)",
    )
    givers.add_argument(
        "--mode",
        choices=MODES,
        help="absolute: take the source's expression; relative: add its difference from a resting"
        " face, so that your own movements stay (default: absolute)",
    )
    givers.add_argument(
        "--keep-speech",
        action="store_true",
        help="the mouth opens as you speak; the smile is the source's",
    )
    givers.add_argument(
        "--no-keep-blink", action="store_true", help="take blinks from the source, too"
    )
    givers.add_argument(
        "--transition",
        type=float,
        default=0.25,
        metavar="S",
        help="seconds from one expression to the next (default: 0.25)",
    )

    neutral = parser.add_argument_group("resting face, for --mode relative")
    neutral.add_argument(
        "--calibrate", action="store_true", help="measure it in the first two seconds and keep it"
    )
    neutral.add_argument(
        "--person", metavar="NAME", help="whose it is; kept per person and camera (default: me)"
    )

    lost = parser.add_argument_group("safety")
    lost.add_argument(
        "--on-lost",
        dest="live_on_lost",
        choices=LIVE_ON_LOST,
        help="what is shown while no face is there: the last re-expressed picture, the frame"
        " itself, the frame blurred, or a slate (default: hold)",
    )
    lost.add_argument("--slate", metavar="FILE", help="the slate's picture")
    marks_options(parser)

    out = parser.add_argument_group("output (without any: a window)")
    out.add_argument(
        "--virtual-cam",
        nargs="?",
        const=_ANY,
        metavar="DEVICE",
        help="a virtual camera for calls; DEVICE as /dev/video10 or its name (default: the first)",
    )
    out.add_argument(
        "--virtual-cam-by",
        default="auto",
        choices=("auto", "v4l2", "pyvirtualcam"),
        help="write to v4l2loopback directly, or through pyvirtualcam (default: auto)",
    )
    out.add_argument("--preview", action="store_true", help="a window beside other outputs")
    out.add_argument("--mirror", action="store_true", help="mirror the window (not the output)")
    out.add_argument("-o", "--output", metavar="FILE", help="record to a file")
    out.add_argument("--overwrite", action="store_true", help="replace an existing file")
    out.add_argument("--null", action="store_true", help="show nothing, as for measuring")

    delay = parser.add_argument_group("latency and sound")
    delay.add_argument(
        "--max-latency-ms",
        type=float,
        metavar="MS",
        help="give up model size, resolution or frame rate, as little as possible, to stay below",
    )
    delay.add_argument(
        "--smaller-model",
        action="append",
        default=[],
        metavar="DIR|NAME",
        help="a smaller model that --max-latency-ms may turn to; may be given several times "
        "(default: the installed nano below the default model; none: no other)",
    )
    delay.add_argument(
        "--delay-mic",
        nargs="?",
        const=_ANY,
        metavar="NAME",
        help="make a microphone that is as late as the picture (PulseAudio, PipeWire)",
    )
    delay.add_argument(
        "--mic-offset-ms",
        type=float,
        default=0.0,
        metavar="MS",
        help="delay it by so much more (default: 0)",
    )
    delay.add_argument(
        "--status-file", metavar="FILE", help="write the delay and more there, once a second, JSON"
    )
    parser.add_argument("--json", action="store_true", help="print a summary as JSON on stdout")
    parser.add_argument("--duration", type=float, metavar="S", help="end after so many seconds")


def run(arguments: argparse.Namespace) -> int:
    """Run until somebody ends it; returns the exit code."""
    settings = settings_of(_without_lists(arguments))
    size_wh = _size(arguments.size)
    if not 1 <= arguments.fps <= 240:
        raise ConfigError(f"--fps: must be 1 to 240, got {arguments.fps:g}")
    from rt_swap.io.captures import open_capture
    from rt_swap.live.controls import HELP, Controls
    from rt_swap.live.engine import LiveEngine
    from rt_swap.live.governor import Governor
    from rt_swap.live.grabber import Grabber
    from rt_swap.live.run import LiveRun, StatusFile
    from rt_swap.provenance import consent
    from rt_swap.swapper import Swapper

    consent.remind(quiet=arguments.quiet)

    with contextlib.ExitStack() as stack:
        opener = functools.partial(
            open_capture,
            settings.camera,
            size_wh=size_wh,
            rate_hz=arguments.fps,
            loop=not arguments.once,
        )
        swappers = [
            stack.enter_context(
                Swapper.load(
                    model,
                    settings.backend,
                    face=settings.face,
                    target_face=settings.target_face,
                    threads=settings.threads,
                    cache=settings.cache or "default",
                )
            )
            for model in (settings.model, *_smaller_models(arguments, settings.model))
        ]
        marks = marks_of(settings)
        marker = swappers[0].marker(marks)
        sealer = None
        if arguments.output is not None:
            output = Path(arguments.output)
            sealer = swappers[0].sealer(
                marks,
                marker,
                output,
                Path("camera"),
                settings.mode,
                other_models=[swapper.bundle for swapper in swappers[1:]],
            )
            sealer.ready()
        slots = _sinks(arguments, sealer)
        governor = Governor(arguments.max_latency_ms, models=len(swappers))
        slate_bgr = _slate(arguments.slate)
        engines = [
            stack.enter_context(
                LiveEngine(
                    swapper,
                    transition_s=arguments.transition,
                    on_lost=settings.live_on_lost,
                    slate_bgr=slate_bgr,
                )
            )
            for swapper in swappers
        ]
        for engine in engines:
            engine.set_gains(settings.gains)
            engine.set_mode(settings.mode)
            engine.set_keep_speech(arguments.keep_speech)
            engine.set_keep_blink(not arguments.no_keep_blink)
        offers = _offers(arguments, swappers, stack, size_wh)
        controls = Controls(engines, offers, engines[0].state.gains)

        capture = opener()
        stack.callback(capture.close)
        info = capture.info
        logger.info(
            "camera: %s, %dx%d, %g fps %s",
            info.name,
            info.width,
            info.height,
            info.rate_hz,
            info.format,
        )
        _neutrals(engines, settings.person, info.name)
        for slot in slots:
            stack.callback(slot.abort)
            slot.open((info.width, info.height) if info.width else size_wh, arguments.fps)
        if arguments.source or arguments.preset or arguments.source_camera:
            controls.choose(0)
        if arguments.calibrate:
            engines[0].start_calibration()

        grabber = stack.enter_context(Grabber(opener, name=f"camera {info.name}"))
        rate_hz = info.rate_hz if 1 <= info.rate_hz <= 240 else arguments.fps
        keys = stack.enter_context(_Keys(slots, controls))
        live = LiveRun(
            engines,
            grabber,
            slots,
            governor=governor,
            decorate=functools.partial(_marked, marker),
            on_frame=keys.look,
            period_s=1 / rate_hz,
        )
        controls.active = lambda: live.engine
        if arguments.status_file:
            stack.enter_context(StatusFile(Path(arguments.status_file), live))
        if arguments.delay_mic is not None:
            _delay_microphone(arguments, live, stack)
        grabber.start(capture)
        for line in HELP:
            logger.info("keys: %s", line)
        summary = live.go(arguments.duration)
    _tell({**summary.as_json(), "marks": marker.record.as_json()}, arguments)
    broken = [text for text in summary.sinks.values() if text]
    if broken:
        raise SinkError("; ".join(broken))
    return OK


def _marked(marker: Marker, shown: Frame, result: FrameResult | None) -> Frame:
    """The picture with its marks; None where something stands in for the camera's picture."""
    from rt_swap.frames import FrameResult, FrameStatus

    if result is None:
        result = FrameResult(shown, FrameStatus.NO_FACE, None, None, {})
    return marker.apply(replace(result, frame=shown)).frame


class _Keys:
    """Looks for keys after each picture, in the window and in the terminal."""

    def __init__(self, slots: list[SinkSlot], controls: object) -> None:
        from rt_swap.cli.keys import TerminalKeys
        from rt_swap.live.controls import Controls

        assert isinstance(controls, Controls)
        self._slots, self._controls = slots, controls
        self._terminal = TerminalKeys()

    def look(self, live: LiveRun) -> None:
        """Do what the keys say."""
        from rt_swap.io.preview import PreviewWindow

        pressed = [self._terminal.key()]
        for slot in self._slots:
            if isinstance(slot.sink, PreviewWindow):
                pressed.append(slot.sink.key())
                slot.sink.lines = self._controls.lines(live)
        for key in pressed:
            said = self._controls.press(key) if key is not None else None
            if said:
                logger.info("%s", said)
        self._controls.apply(live)

    def __enter__(self) -> _Keys:
        self._terminal.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._terminal.__exit__(None, None, None)


# --- parts ---
def _without_lists(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments that are settings; --source and --preset are lists here and no settings."""
    return argparse.Namespace(
        **{k: v for k, v in vars(arguments).items() if not isinstance(v, list)}
    )


def _size(text: str) -> tuple[int, int]:
    sides = re.fullmatch(r"(\d{2,5})[xX](\d{2,5})", text)
    if sides is None:
        raise ConfigError(f"--size: write width x height, as 1280x720, got {text!r}")
    return int(sides[1]), int(sides[2])


def _slate(path: str | None) -> U8 | None:
    if path is None:
        return None
    from rt_swap.io.picture import read_picture

    return read_picture(Path(path))


def _sinks(arguments: argparse.Namespace, seal: Callable[[Path], None] | None) -> list[SinkSlot]:
    from rt_swap.io.base import FrameSink
    from rt_swap.io.null import NullSink
    from rt_swap.io.preview import PreviewWindow
    from rt_swap.io.tee import FileTee
    from rt_swap.io.virtual_camera import open_virtual_camera
    from rt_swap.live.run import SinkSlot

    slots = []
    if arguments.virtual_cam is not None:
        device = None if arguments.virtual_cam == _ANY else arguments.virtual_cam
        by = arguments.virtual_cam_by

        def virtual(size_wh: tuple[int, int], rate_hz: float) -> FrameSink:
            sink = open_virtual_camera(device, size_wh, rate_hz, by=by)
            logger.info("virtual camera: %s", getattr(sink, "name", "open"))
            return sink

        slots.append(SinkSlot("virtual camera", virtual, comes_back=True))
    if arguments.output is not None:

        def file(size_wh: tuple[int, int], rate_hz: float) -> FrameSink:
            return FileTee(
                arguments.output, rate_hz=rate_hz, overwrite=arguments.overwrite, seal=seal
            )

        slots.append(SinkSlot(str(arguments.output), file, comes_back=False))
    if arguments.null:
        slots.append(SinkSlot("null", lambda *_: NullSink(), comes_back=False))
    if arguments.preview or not slots:
        slots.append(
            SinkSlot("window", lambda *_: PreviewWindow(mirror=arguments.mirror), comes_back=False)
        )
    return slots


def _smaller_models(arguments: argparse.Namespace, model: str | None) -> list[str]:
    """What --max-latency-ms may turn to, the best first."""
    asked: list[str] = arguments.smaller_model
    if asked == [_NONE]:
        return []
    if asked or arguments.max_latency_ms is None or arguments.source_camera is not None:
        return asked
    from rt_swap.expression.files import SUFFIX
    from rt_swap.model import DEFAULT_BUNDLE, find_bundle, installed_bundles

    # saved expressions belong to one model
    saved = any(Path(source).suffix.lower() == SUFFIX for source in arguments.source or ())
    nano = installed_bundles().get(_NANO)
    is_default = find_bundle(model).resolve() == DEFAULT_BUNDLE.resolve()
    return [str(nano)] if nano is not None and is_default and not saved else []


def _offers(
    arguments: argparse.Namespace,
    swappers: list[Swapper],
    stack: contextlib.ExitStack,
    size_wh: tuple[int, int],
) -> list[Offer]:
    """What was named, then all presets that were not."""
    from rt_swap.live.controls import Offer

    offers = []
    if arguments.source_camera:
        offers.append(_second_camera(arguments, swappers, stack, size_wh))
    for path in arguments.source or ():
        encoded = tuple(swapper.encode_source(path) for swapper in swappers)
        offers.append(Offer(Path(path).name, encoded))
    named = list(arguments.preset or ())
    shipped = swappers[0].bundle.preset_names
    rest = [name for name in _IN_ORDER if name in shipped and name not in named]
    for name in (*named, *rest):
        offers.append(Offer(name, tuple(swapper.preset(name) for swapper in swappers)))
    return offers


_IN_ORDER: Final = (
    "smile",
    "laugh",
    "surprise",
    "neutral",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "wink",
)


def _second_camera(
    arguments: argparse.Namespace,
    swappers: list[Swapper],
    stack: contextlib.ExitStack,
    size_wh: tuple[int, int],
) -> Offer:
    from rt_swap.io.captures import open_capture
    from rt_swap.live.controls import Offer
    from rt_swap.live.grabber import Grabber
    from rt_swap.live.second import SecondCamera

    if len(swappers) > 1:
        raise ConfigError("--source-camera: cannot be used with --smaller-model; leave one out")
    opener = functools.partial(
        open_capture, arguments.source_camera, size_wh=size_wh, rate_hz=arguments.fps
    )
    grabber = Grabber(opener, name=f"source camera {arguments.source_camera}")
    stack.callback(grabber.close)
    grabber.start()
    second = stack.enter_context(SecondCamera(swappers[0], grabber))
    return Offer(f"camera {arguments.source_camera}", live=(second,))


def _neutrals(engines: list[LiveEngine], person: str, camera: str) -> None:
    """Use the resting face that was kept, and keep the next one that is measured."""
    from rt_swap.live.calibration import Neutral, NeutralStore

    store = NeutralStore()
    for engine in engines:
        model = engine.swapper.bundle.sha256
        try:
            neutral = store.load(person, camera, model)
        except ExpressionFileError as error:
            logger.warning("resting face of %s: %s; looking for it anew", person, error)
            neutral = None
        if neutral is not None:
            engine.set_neutral(neutral)
            logger.info("resting face of %s before %s: as measured earlier", person, camera)

        def keep(measured: Neutral, model: str = model) -> None:
            path = store.save(measured, person, camera, model)
            logger.info("resting face of %s before %s: kept in %s", person, camera, path)

        engine.on_calibrated(keep)


def _delay_microphone(
    arguments: argparse.Namespace, live: LiveRun, stack: contextlib.ExitStack
) -> None:
    from rt_swap.live.sound import DESCRIPTION, DelayedMicrophone, SoundKeeper

    name = None if arguments.delay_mic == _ANY else arguments.delay_mic
    microphone = stack.enter_context(DelayedMicrophone(30.0 + arguments.mic_offset_ms, name))
    logger.info(
        "sound: choose the microphone %r in the call; it delays %s",
        DESCRIPTION.replace("\\", ""),
        microphone.microphone,
    )
    stack.enter_context(
        SoundKeeper(microphone, lambda: live.video_delay_ms, offset_ms=arguments.mic_offset_ms)
    )


def _tell(summary: dict[str, object], arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json.dumps(summary, indent=1, allow_nan=False))
        return
    age = summary["age_ms"]
    assert isinstance(age, dict)
    if age.get("count"):
        logger.info(
            "%s frames, %s fps; age p50 %s, p99 %s ms; %s dropped, camera lost %s times",
            age["count"],
            summary["fps"],
            age["p50"],
            age["p99"],
            summary["dropped"],
            summary["losses"],
        )
