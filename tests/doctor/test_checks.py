"""Each check on machines that are well and on machines that are not."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rt_swap.cli import DOCTOR_PROBLEM, main
from rt_swap.doctor import checks
from rt_swap.doctor.checks import CHECKS, Context, Finding, examine
from rt_swap.doctor.devices import Devices, all_devices
from rt_swap.doctor.v4l2 import Format, Size, VideoDevice
from rt_swap.machine import Ran
from tests.doctor.test_devices import HELD, LOOPBACK, WEBCAM
from tests.doctor.test_fatbin import entry, fatbin
from tests.support.machines import ORIN_NANO, FakeMachine, rtx_4060
from tests.support.tiny_model import tiny_bundle

CAPS = "/sys/module/v4l2loopback/parameters/exclusive_caps"


def loader(**modules: Any) -> Callable[[str], Any]:
    """Imports what is given, and our own modules; nothing else is installed."""

    def load(name: str) -> Any:
        if name in modules:
            if isinstance(modules[name], Exception):
                raise modules[name]
            return modules[name]
        if name.startswith("rt_swap"):
            return importlib.import_module(name)
        raise ImportError(f"No module named {name!r}")

    return load


def videos(*nodes: VideoDevice) -> Callable[[Any], Devices]:
    return lambda machine: all_devices(machine, lambda _: nodes)


def context(machine: FakeMachine | None = None, **options: Any) -> Context:
    options.setdefault("load", loader())
    options.setdefault("devices", videos())
    return Context(machine=machine or FakeMachine(), **options)


def one(check: Callable[[Context], Any], where: Context) -> Finding:
    (finding,) = check(where)
    return finding


def orin(**commands: Ran) -> FakeMachine:
    return FakeMachine(files=dict(ORIN_NANO), commands=commands, architecture="aarch64")


# --- what rt-swap cannot do without ---
def test_python_too_new_is_a_problem() -> None:
    assert one(checks.check_python, context(python=(3, 11))).state == "ok"
    assert one(checks.check_python, context(python=(3, 13))).state == "problem"


def test_native_module_missing_says_how_to_build_it() -> None:
    broken = context(load=loader(**{"rt_swap._warp": ImportError("undefined symbol: x")}))
    got = one(checks.check_native, broken)
    assert (got.state, got.cure) == ("problem", "make ext")
    assert "undefined symbol" in got.text


def test_settings_variable_that_nobody_knows() -> None:
    got = one(checks.check_settings, context(FakeMachine(environ={"RT_SWAP_SPEED": "9"})))
    assert got.state == "problem"
    assert "RT_SWAP_SPEED" in got.text
    assert one(checks.check_settings, context()).state == "ok"


def test_model_file_that_was_changed(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path / "m")
    where = context(FakeMachine(environ={"RT_SWAP_MODEL": str(folder)}))
    assert one(checks.check_model, where).state == "ok"
    path = folder / "target_generator.onnx"
    path.write_bytes(path.read_bytes() + b"x")
    got = one(checks.check_model, where)
    assert got.state == "problem"
    assert "damaged or changed" in got.text
    assert got.cure == "unset RT_SWAP_MODEL"


def test_numpy_two_is_a_problem() -> None:
    assert one(checks.check_numpy, context(FakeMachine(packages={"numpy": "2.3.1"}))).cure
    assert one(checks.check_numpy, context(FakeMachine(packages={"numpy": "1.26.4"}))).cure is None


def ort(*providers: str) -> SimpleNamespace:
    names = [f"{provider}ExecutionProvider" for provider in providers]
    return SimpleNamespace(__version__="1.32.0", get_available_providers=lambda: names)


@pytest.mark.parametrize(
    ("machine", "providers", "state", "text"),
    [
        (FakeMachine(), ("CPU",), "ok", "1.32.0: CPUExecutionProvider"),
        (rtx_4060(), ("CPU",), "warning", "no CUDA provider"),
        (rtx_4060(), ("CUDA", "CPU"), "ok", "CUDAExecutionProvider"),
        (
            FakeMachine(packages={"onnxruntime": "1", "onnxruntime-gpu": "1"}),
            ("CPU",),
            "warning",
            "overwrite",
        ),
        (FakeMachine(), (), "problem", "1.32.0"),
    ],
)
def test_onnxruntime(machine: FakeMachine, providers: Any, state: str, text: str) -> None:
    got = one(checks.check_onnxruntime, context(machine, load=loader(onnxruntime=ort(*providers))))
    assert got.state == state
    assert text in got.text


def test_opencv_build_is_read_and_two_versions_are_a_warning() -> None:
    information = "  Video I/O:\n    GStreamer:   YES (1.20.3)\n    FFMPEG:   NO\n"
    cv2 = SimpleNamespace(__version__="4.11.0", getBuildInformation=lambda: information)
    system = one(checks.check_opencv, context(load=loader(cv2=cv2)))
    assert system.state == "ok"
    assert "GStreamer yes, FFMPEG no, CUDA no; the system's own" in system.text
    packages = {"opencv-python": "4.10.0.84", "opencv-contrib-python": "4.11.0.86"}
    mixed = one(checks.check_opencv, context(FakeMachine(packages=packages), load=loader(cv2=cv2)))
    assert mixed.state == "warning"
    assert mixed.cure is not None
    assert "4.11.0.86" in mixed.cure
    gone = context(load=loader(cv2=ImportError("libGL.so.1: cannot open shared object file")))
    assert "libgl1" in (one(checks.check_opencv, gone).cure or "")


def test_mediapipe_without_its_models(tmp_path: Path) -> None:
    module = SimpleNamespace(__file__=str(tmp_path / "__init__.py"))
    where = context(orin(), load=loader(mediapipe=module))
    assert "mediapipe==0.10.18" in (one(checks.check_mediapipe, where).cure or "")
    models = tmp_path / "modules" / "face_landmark"
    models.mkdir(parents=True)
    (models / "face_landmark_with_attention.tflite").write_bytes(b"x")
    assert one(checks.check_mediapipe, where).state == "ok"


def test_pyav_without_an_encoder() -> None:
    av = SimpleNamespace(__version__="18.1.0", codecs_available={"aac"})
    assert "libx264" in one(checks.check_video_files, context(load=loader(av=av))).text


def test_backends_none_is_a_problem() -> None:
    module = SimpleNamespace(available_backends=lambda: {"a": "not built", "b": "no GPU"})
    got = one(checks.check_backends, context(load=loader(**{"rt_swap.backends": module})))
    assert got.state == "problem"
    assert "a: not built; b: no GPU" in got.text


# --- the GPU ---
def states(check: Callable[[Context], Any], where: Context) -> list[tuple[str, str]]:
    return [(f.subject, f.state) for f in check(where)]


def test_gpu_of_each_kind_of_machine() -> None:
    assert states(checks.check_gpu, context(rtx_4060())) == [
        ("NVIDIA driver", "ok"),
        ("GPU", "ok"),
    ]
    assert states(checks.check_gpu, context(orin())) == [("NVIDIA driver", "ok")]
    assert states(checks.check_gpu, context()) == [("GPU", "ok")]


def test_gpu_driver_that_lists_none_and_card_without_a_driver() -> None:
    broken = rtx_4060()
    broken.commands.clear()
    assert states(checks.check_gpu, context(broken)) == [("NVIDIA driver", "problem")]
    bare = FakeMachine(files={"/sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n"})
    assert states(checks.check_gpu, context(bare)) == [("NVIDIA driver", "warning")]


def test_gpu_node_of_somebody_else_and_old_card() -> None:
    closed = rtx_4060()
    closed.closed.add("/dev/nvidia0")
    assert ("GPU", "problem") in states(checks.check_gpu, context(closed))
    old = rtx_4060()
    for line, ran in list(old.commands.items()):
        old.commands[line] = replace(ran, text=ran.text.replace(" 8.9,", " 6.1,"))
    assert ("GPU", "warning") in states(checks.check_gpu, context(old))


def test_tensorrt_flavours() -> None:
    def of(machine: FakeMachine, **packages: str) -> list[tuple[str, str]]:
        machine.packages.update({k.replace("_", "-"): v for k, v in packages.items()})
        return states(checks.check_tensorrt, context(machine))

    assert of(rtx_4060()) == [("TensorRT", "warning")]
    assert of(FakeMachine()) == [("TensorRT", "ok")]
    both = of(rtx_4060(), tensorrt="10.13.0", tensorrt_rtx="1.7.1", pycuda="2026.1")
    assert both == [("TensorRT", "ok"), ("TensorRT for RTX", "ok")]
    assert of(rtx_4060(), tensorrt="8.6.1") == [("TensorRT", "warning"), ("PyCUDA", "warning")]
    ahead = FakeMachine(packages={"tensorrt-rtx": "1.7.1"})
    assert "no GPU to run them" in one(checks.check_tensorrt, context(ahead)).text


def test_tensorrt_of_jetpack_is_found_by_importing_it() -> None:
    hidden = one(checks.check_tensorrt, context(orin()))
    assert "system-site-packages" in (hidden.cure or "")
    jetpack = loader(tensorrt=SimpleNamespace(__version__="10.3.0"))
    got = states(checks.check_tensorrt, context(orin(), load=jetpack))
    assert got == [("TensorRT", "ok"), ("PyCUDA", "warning")]


@pytest.mark.parametrize(
    ("blob", "state", "text"),
    [
        (None, "warning", "none"),
        (fatbin(entry(2, 86), entry(1, 120)), "ok", "machine code for 8.6; PTX for 12.0"),
        (fatbin(entry(2, 75), entry(1, 75)), "ok", "compiles PTX"),
        (fatbin(entry(2, 120)), "problem", "nothing for compute capability 8.9"),
        (b"rubbish rubbish rubbish", "problem", "does not begin"),
    ],
)
def test_fatbin_against_the_card(blob: bytes | None, state: str, text: str, tmp_path: Path) -> None:
    if blob is not None:
        (tmp_path / "warp.fatbin").write_bytes(blob)
    got = one(checks.check_fatbin, context(rtx_4060(), package=tmp_path))
    assert got.state == state
    assert text in got.text


def test_fatbin_without_a_gpu_is_no_warning(tmp_path: Path) -> None:
    assert one(checks.check_fatbin, context(package=tmp_path)).state == "ok"


def test_engines_where_they_are_looked_for() -> None:
    home = {"RT_SWAP_HOME": "/home/me/rt"}
    built = rtx_4060()
    built.environ = home
    built.files["/home/me/rt/engines/g.engine"] = ""
    assert "1 in /home/me/rt" in one(checks.check_engines, context(built)).text
    empty = rtx_4060()
    empty.environ = home
    assert one(checks.check_engines, context(empty)).cure == "rt-swap engine build"
    assert one(checks.check_engines, context(FakeMachine(environ=home))).state == "ok"


# --- cameras ---
def test_cameras() -> None:
    assert one(checks.check_cameras, context()).state == "warning"
    good = one(checks.check_cameras, context(devices=videos(WEBCAM)))
    assert good == Finding("camera", "ok", "0: Some Webcam; MJPG 1280x720 at 30")
    small = replace(WEBCAM, formats=(Format("YUYV", "", (Size(640, 480, (30.0,)),)),))
    assert "nothing of 1280" in one(checks.check_cameras, context(devices=videos(small))).text
    held = one(checks.check_cameras, context(devices=videos(HELD)))
    assert held.state == "problem"
    assert "usermod" in (held.cure or "")


def virtual(machine: FakeMachine, *nodes: VideoDevice, system: str = "linux") -> list[Finding]:
    where = context(machine, devices=videos(*nodes), system=system)
    return list(checks.check_virtual_camera(where))


def test_virtual_camera_from_not_installed_to_well() -> None:
    (missing,) = virtual(FakeMachine())
    assert "v4l2loopback-dkms" in (missing.cure or "")
    (unloaded,) = virtual(FakeMachine(commands={"modinfo": Ran(0, "filename: x")}), WEBCAM)
    assert "not loaded" in unloaded.text
    assert (unloaded.cure or "").startswith("sudo modprobe v4l2loopback")
    live = {"pyvirtualcam": "0.13"}
    (nodeless,) = virtual(FakeMachine(files={CAPS: "Y,N"}, packages=live), WEBCAM)
    assert "no device" in nodeless.text
    (shared,) = virtual(FakeMachine(files={CAPS: "N,N"}, packages=live), LOOPBACK)
    assert "exclusive_caps is off" in shared.text
    (closed,) = virtual(
        FakeMachine(files={CAPS: "Y"}, packages=live, closed={"/dev/video10"}), LOOPBACK
    )
    assert closed.state == "problem"
    (well,) = virtual(FakeMachine(files={CAPS: "Y,N"}, packages=live), LOOPBACK)
    assert well.state == "ok"
    without = virtual(FakeMachine(files={CAPS: "Y"}), LOOPBACK)
    assert [f.state for f in without] == ["ok", "warning"]
    assert virtual(FakeMachine(), system="darwin")[0].state == "ok"


def test_gstreamer() -> None:
    assert one(checks.check_gstreamer, context()).state == "warning"
    there = FakeMachine(commands={"gst-inspect-1.0": Ran(0, "gst-inspect\nGStreamer 1.22.0\n")})
    assert "no bindings" in one(checks.check_gstreamer, context(there)).text
    assert one(checks.check_gstreamer, context(there, load=loader(gi=1))).state == "ok"


# --- the machine ---
def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    machine = FakeMachine(environ={"RT_SWAP_CACHE": "/mnt/c"}, files={"/mnt/c/x": ""})
    assert one(checks.check_cache, context(machine)).state == "ok"
    machine.closed.add("/mnt/c")
    got = one(checks.check_cache, context(machine))
    assert got.state == "problem"
    assert got.cure == "export RT_SWAP_CACHE=/a/folder/of/yours"


def test_jetpack_and_power_mode() -> None:
    assert list(checks.check_jetpack(context(rtx_4060()))) == []
    good = orin(**{"dpkg-query": Ran(0, "6.2"), "nvpmodel": Ran(0, "NV Power Mode: MAXN_SUPER\n2")})
    assert [f.state for f in checks.check_jetpack(context(good))] == ["ok", "ok"]
    slow = orin(nvpmodel=Ran(0, "NV Power Mode: 15W\n0"))
    jetpack, mode = checks.check_jetpack(context(slow))
    assert jetpack.cure == "sudo apt install nvidia-jetpack"
    assert "jetson_clocks" in (mode.cure or "")
    slow.files["/etc/nvpmodel.conf"] = (
        "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"
    )
    _, mode = checks.check_jetpack(context(slow))
    assert mode.cure == "sudo nvpmodel -m 2 && sudo jetson_clocks"
    old = orin(**{"dpkg-query": Ran(0, "5.1.2")})
    old.files["/etc/nv_tegra_release"] = "# R35 (release), REVISION: 4.1, GCID"
    assert next(iter(checks.check_jetpack(context(old)))).state == "problem"


def test_power_of_a_pc() -> None:
    governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    slow = FakeMachine(files={governor: "powersave"})
    assert "cpupower" in (one(checks.check_power, context(slow)).cure or "")
    # Intel's driver calls its usual mode powersave; that one is well
    slow.files["/sys/devices/system/cpu/intel_pstate/status"] = "active"
    assert one(checks.check_power, context(slow)).state == "ok"
    battery = FakeMachine(files={"/sys/class/power_supply/BAT0/status": "Discharging"})
    assert one(checks.check_power, context(battery)).state == "warning"
    assert list(checks.check_power(context(orin()))) == []


# --- the report ---
def test_examine_check_that_breaks_is_a_problem_and_the_rest_goes_on() -> None:
    def check_half_broken_thing(_: Context) -> Any:
        raise ZeroDivisionError("division by zero")

    got = examine(context(), [check_half_broken_thing, checks.check_gpu])
    assert got[0].subject == "half broken thing"
    assert got[0].state == "problem"
    assert got[1].subject == "GPU"


def test_every_warning_and_problem_of_a_bare_machine_has_a_cure() -> None:
    findings = examine(context(python=(3, 9)), CHECKS)
    uncured = [f.subject for f in findings if f.state != "ok" and not f.cure]
    # without platformdirs neither cache nor engines can be looked at
    assert set(uncured) <= {"cache", "engines"}
    assert len(findings) >= 15


def test_every_check_is_listed() -> None:
    named = {f for name, f in vars(checks).items() if name.startswith("check_")}
    assert set(CHECKS) == named


def test_doctor_verb_on_this_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = main(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["format"] == "rt-swap doctor 1"
    assert code == (DOCTOR_PROBLEM if told["counts"]["problem"] else 0)
    # what `make test` has set up is well here
    states = {f["subject"]: f["state"] for f in told["findings"]}
    for subject in ("Python", "native module", "model", "NumPy", "mediapipe", "ONNX Runtime"):
        assert states[subject] == "ok", told

    monkeypatch.setenv("RT_SWAP_MODEL", "/no/such/folder")
    assert main(["doctor"]) == DOCTOR_PROBLEM
    said = capsys.readouterr()
    assert "PROBLEM model" in said.out
    assert "-> unset RT_SWAP_MODEL" in said.out
    assert "1 problems" in said.err
