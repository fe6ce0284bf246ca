"""What ``rt-swap doctor`` looks at: one function a subject, each giving findings.

Nothing is changed and nothing is loaded onto a GPU. Everything is asked through a :class:`Context`,
so that a test can be any machine.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from rt_swap import machine as machines
from rt_swap.doctor.devices import Devices, all_devices
from rt_swap.doctor.fatbin import Fatbin, read_fatbin
from rt_swap.errors import RtSwapError
from rt_swap.machine import Machine, ThisMachine

FORMAT: Final = "rt-swap doctor 1"
State = Literal["ok", "warning", "problem"]
_PACKAGE: Final = Path(__file__).resolve().parents[1]

_TENSORRT: Final = ((10, 0), (12, 0))
"""Versions of TensorRT that the adapter speaks: from, and up to but not including."""
_OPENCVS: Final = (
    "opencv-python",
    "opencv-contrib-python",
    "opencv-python-headless",
    "opencv-contrib-python-headless",
)
_MODPROBE: Final = (
    'sudo modprobe v4l2loopback devices=1 exclusive_caps=1 card_label="rt-swap camera"'
)


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: What was looked at.
        state: "ok"; "warning": works, but something is missing or slow; "problem": rt-swap does not
            work, or not as it was told to.
        text: What was found.
        cure: The command that helps, or None where there is nothing to do.
    """

    subject: str
    state: State
    text: str
    cure: str | None = None


@dataclass
class Context:
    """Where the checks look.

    Attributes:
        machine: Files, commands, packages.
        load: Imports a module by name; raises ImportError.
        devices: Lists cameras and the like.
        python: Version of Python.
        package: Folder of the rt_swap package.
        system: As sys.platform.
    """

    machine: Machine = field(default_factory=ThisMachine)
    load: Callable[[str], Any] = importlib.import_module
    devices: Callable[[Machine], Devices] = all_devices
    python: tuple[int, int] = (sys.version_info[0], sys.version_info[1])
    package: Path = _PACKAGE
    system: str = sys.platform


Check = Callable[[Context], Iterator[Finding]]


# --- what rt-swap cannot do without --------------------------------------------------------------
def check_python(context: Context) -> Iterator[Finding]:
    """Python and the package itself."""
    told = "{}.{}".format(*context.python)
    own = context.machine.version("rt-swap") or "not installed as a package"
    if (3, 10) <= context.python <= (3, 12):
        yield Finding("Python", "ok", f"{told} on {context.machine.architecture}; rt-swap {own}")
    else:
        yield Finding(
            "Python",
            "problem",
            f"{told}; the face tracker's wheels exist for 3.10 to 3.12",
            "python3.12 -m venv .venv && .venv/bin/pip install rt-swap",
        )


def check_native(context: Context) -> Iterator[Finding]:
    """The compiled crop and composition."""
    try:
        module = context.load("rt_swap._warp")
    except ImportError as exc:
        yield Finding("native module", "problem", f"cannot be loaded: {exc}", "make ext")
        return
    yield Finding("native module", "ok", f"loaded; {module.usable_cores()} cores to work on")


def check_settings(context: Context) -> Iterator[Finding]:
    """The settings file and RT_SWAP_* variables."""
    config = context.load("rt_swap.config")
    try:
        config.load_settings(environ=context.machine.environ)
    except RtSwapError as exc:
        yield Finding("settings", "problem", str(exc), "rt-swap reenact --help  # lists them")
        return
    yield Finding("settings", "ok", "file and environment are understood")


def check_model(context: Context) -> Iterator[Finding]:
    """The model in use: every file against its hash."""
    model = context.load("rt_swap.model")
    named = context.machine.environ.get(model.ENVIRONMENT_VARIABLE)
    try:
        bundle = model.load_bundle(Path(named) if named else None)
    except RtSwapError as exc:
        cure = f"unset {model.ENVIRONMENT_VARIABLE}" if named else "pip install --force-reinstall"
        yield Finding("model", "problem", str(exc), cure if named else f"{cure} rt-swap")
        return
    yield Finding(
        "model",
        "ok",
        f"{bundle.name}, {len(bundle.manifest['files'])} files as their hashes say, generator"
        f" {bundle.generator_sha256[:12]}, presets: {', '.join(bundle.preset_names) or 'none'}",
    )


def check_numpy(context: Context) -> Iterator[Finding]:
    """NumPy 1, which mediapipe is built against."""
    version = context.machine.version("numpy")
    if version is None or not version.startswith("1."):
        yield Finding(
            "NumPy",
            "problem",
            f"{version or 'not installed'}; mediapipe's wheels are built against NumPy 1",
            "pip install 'numpy<2'",
        )
    else:
        yield Finding("NumPy", "ok", version)


def check_onnxruntime(context: Context) -> Iterator[Finding]:
    """ONNX Runtime and what it can run on."""
    try:
        ort = context.load("onnxruntime")
    except ImportError as exc:
        yield Finding(
            "ONNX Runtime", "problem", f"cannot be loaded: {exc}", "pip install onnxruntime"
        )
        return
    providers = list(ort.get_available_providers())
    text = f"{ort.__version__}: {', '.join(providers)}"
    both = [context.machine.version(name) for name in ("onnxruntime", "onnxruntime-gpu")]
    if all(both):
        yield Finding(
            "ONNX Runtime",
            "warning",
            f"{text}; onnxruntime and onnxruntime-gpu are both installed and overwrite each other",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
        )
    elif "CPUExecutionProvider" not in providers:
        yield Finding("ONNX Runtime", "problem", text, "pip install --force-reinstall onnxruntime")
    elif _has_gpu(context) and "CUDAExecutionProvider" not in providers:
        yield Finding(
            "ONNX Runtime",
            "warning",
            f"{text}; a GPU is here, but this build has no CUDA provider",
            "pip uninstall -y onnxruntime && pip install onnxruntime-gpu",
        )
    else:
        yield Finding("ONNX Runtime", "ok", text)


def check_opencv(context: Context) -> Iterator[Finding]:
    """OpenCV and what it was built with."""
    try:
        cv2 = context.load("cv2")
    except ImportError as exc:
        yield Finding(
            "OpenCV",
            "problem",
            f"cannot be loaded: {exc}",
            "sudo apt install libgl1 libglib2.0-0  # or: pip install opencv-python-headless",
        )
        return
    information = str(cv2.getBuildInformation())
    built = [
        f"{name} {'yes' if re.search(name + r':[ ]+YES', information) else 'no'}"
        for name in ("GStreamer", "FFMPEG", "CUDA")
    ]
    text = f"{cv2.__version__}, built with {', '.join(built)}"
    installed = {name: context.machine.version(name) for name in _OPENCVS}
    versions = {version for version in installed.values() if version}
    if len(versions) > 1:
        names = ", ".join(f"{name} {v}" for name, v in installed.items() if v)
        yield Finding(
            "OpenCV",
            "warning",
            f"{text}; {names} are installed over one another",
            f"pip install --force-reinstall --no-deps opencv-contrib-python=={max(versions)}",
        )
    else:
        origin = "" if versions else "; the system's own"
        yield Finding("OpenCV", "ok", text + origin)


def check_mediapipe(context: Context) -> Iterator[Finding]:
    """The face tracker and its models."""
    version = context.machine.version("mediapipe")
    wanted = "0.10.18" if context.machine.architecture == "aarch64" else "0.10.21"
    cure = f"pip install 'mediapipe=={wanted}' 'numpy<2'"
    try:
        module = context.load("mediapipe")
    except ImportError as exc:
        yield Finding("mediapipe", "problem", f"cannot be loaded: {exc}", cure)
        return
    models = Path(str(module.__file__)).parent / "modules" / "face_landmark"
    if not list(models.glob("face_landmark*.tflite")):
        yield Finding(
            "mediapipe",
            "problem",
            f"{version}: this release ships without the face models",
            cure,
        )
    else:
        yield Finding("mediapipe", "ok", f"{version}, face models inside")


def check_video_files(context: Context) -> Iterator[Finding]:
    """PyAV, which reads and writes video."""
    try:
        av = context.load("av")
    except ImportError as exc:
        yield Finding("PyAV", "problem", f"cannot be loaded: {exc}", "pip install av")
        return
    missing = [name for name in ("libx264", "aac") if name not in av.codecs_available]
    if missing:
        yield Finding(
            "PyAV",
            "warning",
            f"{av.__version__} cannot encode {', '.join(missing)}",
            "pip install --force-reinstall --only-binary av av",
        )
    else:
        yield Finding("PyAV", "ok", f"{av.__version__}, encodes H.264")


# --- the GPU -------------------------------------------------------------------------------------
def _has_gpu(context: Context) -> bool:
    return bool(machines.nvidia_gpus(context.machine)) or bool(
        machines.jetson_model(context.machine)
    )


def check_gpu(context: Context) -> Iterator[Finding]:
    """Driver and GPUs."""
    machine = context.machine
    driver, gpus = machines.nvidia_driver(machine), machines.nvidia_gpus(machine)
    jetson = machines.jetson_model(machine)
    listed = "/sys/bus/pci/devices/*/vendor"
    card = any((machine.read(path) or "").strip() == "0x10de" for path in machine.find(listed))
    if jetson:
        release = machines.l4t_release(machine)
        yield Finding("NVIDIA driver", "ok", f"{jetson}, part of Jetson Linux {release}")
    elif gpus:
        cuda = machines.cuda_of_driver(machine) or "unknown"
        yield Finding("NVIDIA driver", "ok", f"{gpus[0].driver}, speaks CUDA up to {cuda}")
        for gpu in gpus:
            told = gpu.compute_capability
            text = f"{gpu.name}, compute capability "
            text += "unknown" if told is None else "{}.{}".format(*told)
            if told is not None and told < (7, 5):
                yield Finding(
                    "GPU", "warning", f"{text}: older than TensorRT 10 runs on (7.5)", None
                )
            else:
                yield Finding("GPU", "ok", text)
    elif driver:
        yield Finding(
            "NVIDIA driver",
            "problem",
            f"{driver} is loaded, but nvidia-smi lists no GPU",
            "nvidia-smi  # says why; after an update of the driver: sudo reboot",
        )
    elif card:
        yield Finding(
            "NVIDIA driver",
            "warning",
            "there is an NVIDIA card and no driver for it",
            "sudo ubuntu-drivers install  # or NVIDIA's own package, then reboot",
        )
    else:
        yield Finding("GPU", "ok", "no NVIDIA GPU; the networks run on the processor")
    for path in machine.find("/dev/nvidia[0-9]*") + machine.find("/dev/nvhost-gpu"):
        if not machine.may(path, "rw"):
            yield Finding(
                "GPU", "problem", f"{path} is not for this user", "sudo usermod -aG video $USER"
            )


def check_tensorrt(context: Context) -> Iterator[Finding]:
    """TensorRT's flavours and PyCUDA."""
    machine = context.machine
    found = {
        "TensorRT": machine.version("tensorrt") or machine.version("tensorrt-cu12"),
        "TensorRT for RTX": machine.version("tensorrt-rtx"),
    }
    if machines.jetson_model(machine) and found["TensorRT"] is None:
        # JetPack's Debian package has no metadata that pip sees
        try:
            found["TensorRT"] = str(context.load("tensorrt").__version__)
        except ImportError:
            yield Finding(
                "TensorRT",
                "warning",
                "JetPack's TensorRT is not visible to this Python",
                "sudo apt install python3-libnvinfer && python3 -m venv --system-site-packages"
                " .venv",
            )
    has_gpu = _has_gpu(context)
    for name, version in found.items():
        if version is None:
            continue
        numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
        low, high = _TENSORRT
        if name == "TensorRT" and not low <= numbers < high:
            yield Finding(
                name,
                "warning",
                f"{version}; engines are made with {low[0]}.{low[1]} up to, not including,"
                f" {high[0]}.{high[1]}",
                "pip install 'tensorrt>=10,<12'",
            )
        else:
            runs = "" if has_gpu else "; builds engines ahead, but there is no GPU to run them"
            yield Finding(name, "ok", version + runs)
    if has_gpu and not any(found.values()) and not machines.jetson_model(machine):
        yield Finding(
            "TensorRT",
            "warning",
            "not installed: networks do not run as TensorRT engines on this GPU",
            "pip install 'rt-swap[rtx]'  # or 'rt-swap[tensorrt]' on a data-centre card",
        )
    elif not any(found.values()) and not has_gpu:
        yield Finding("TensorRT", "ok", "not installed, and no GPU that would need it")
    if has_gpu and any(found.values()) and machine.version("pycuda") is None:
        yield Finding(
            "PyCUDA", "warning", "not installed; engines cannot be run", "pip install pycuda"
        )


def check_fatbin(context: Context) -> Iterator[Finding]:
    """The CUDA kernels that are installed, against the GPUs that are there."""
    paths = sorted(context.package.glob("*.fatbin"))
    gpus = machines.nvidia_gpus(context.machine)
    jetson = machines.jetson_model(context.machine) is not None
    if not paths:
        if gpus or jetson:
            yield Finding(
                "CUDA kernels",
                "warning",
                "this installation has none, so crop and composition run on the processor",
                "make ext  # with CUDA's nvcc on the PATH",
            )
        else:
            yield Finding("CUDA kernels", "ok", "none installed, and no GPU that would need them")
        return
    for path in paths:
        try:
            fatbin = read_fatbin(path.read_bytes())
        except (OSError, ValueError) as exc:
            yield Finding("CUDA kernels", "problem", f"{path.name}: {exc}", "make ext")
            continue
        text = f"{path.name}: {_architectures(fatbin)}"
        capabilities = {g.compute_capability for g in gpus if g.compute_capability is not None}
        unfit = [c for c in sorted(capabilities) if fatbin.runs_on(c) is None]
        compiled = [c for c in sorted(capabilities) if fatbin.runs_on(c) == "PTX"]
        if unfit:
            names = ", ".join("{}.{}".format(*c) for c in unfit)
            yield Finding(
                "CUDA kernels",
                "problem",
                f"{text}; nothing for compute capability {names}",
                "make ext  # with a CUDA that knows this GPU",
            )
        elif compiled:
            yield Finding(
                "CUDA kernels",
                "ok",
                f"{text}; for this GPU the driver compiles PTX at the first start",
            )
        else:
            yield Finding("CUDA kernels", "ok", text)


def _architectures(fatbin: Fatbin) -> str:
    code = ", ".join(f"{sm / 10:.1f}" for sm in fatbin.machine_code) or "none"
    ptx = ", ".join(f"{sm / 10:.1f}" for sm in fatbin.ptx) or "none"
    return f"machine code for {code}; PTX for {ptx}"


def check_engines(context: Context) -> Iterator[Finding]:
    """Built engines."""
    folder = _home(context)
    files = context.machine.find(f"{folder}/**/*.engine")
    if files:
        yield Finding(
            "engines",
            "ok",
            f"{len(files)} in {folder}; rt-swap engine verify looks into them",
        )
    elif _has_gpu(context):
        yield Finding(
            "engines",
            "warning",
            f"none in {folder}; the first start builds them, which takes minutes",
            "rt-swap engine build",
        )
    else:
        yield Finding("engines", "ok", "none built, and no GPU that would need them")


def _home(context: Context) -> str:
    named = context.machine.environ.get("RT_SWAP_HOME")
    if named:
        return str(Path(named).expanduser())
    return str(context.load("platformdirs").user_cache_dir("rt_swap", appauthor=False))


# --- cameras and sound ---------------------------------------------------------------------------
def check_cameras(context: Context) -> Iterator[Finding]:
    """Cameras that can be opened."""
    devices = context.devices(context.machine)
    for node in devices.unreadable:
        held = "denied" in (node.error or "").lower()
        yield Finding(
            "camera",
            "problem",
            f"{node.path} {node.name}: {node.error}",
            "sudo usermod -aG video $USER  # then log in again" if held else None,
        )
    for camera in devices.cameras:
        best = [
            f"{form.fourcc} {size.width}x{size.height}"
            + (f" at {size.rates[0]:g}" if size.rates else "")
            for form in camera.formats
            for size in form.sizes[:1]
        ]
        told = f"{camera.index}: {camera.name}; {', '.join(best) or 'tells no formats'}"
        fast = any(
            size.width >= 1280 and (not size.rates or max(size.rates) >= 30)
            for form in camera.formats
            for size in form.sizes
        )
        if camera.formats and not fast:
            told += "; nothing of 1280 pixels at 30 frames a second"
        yield Finding("camera", "ok", told)
    if not devices.cameras and not devices.unreadable:
        yield Finding(
            "camera",
            "warning",
            "none; files can be re-expressed, nobody live",
            "lsusb  # plug one in; in a container: --device /dev/video0",
        )


def check_virtual_camera(context: Context) -> Iterator[Finding]:
    """v4l2loopback: what a video call sees rt-swap as."""
    machine = context.machine
    if context.system != "linux":
        yield Finding("virtual camera", "ok", "this system's own; v4l2loopback is Linux's")
        return
    caps = machine.read("/sys/module/v4l2loopback/parameters/exclusive_caps")
    loaded = caps is not None or bool(machine.find("/sys/module/v4l2loopback"))
    if not loaded:
        installed = machine.run(["modinfo", "v4l2loopback"])
        there = installed is not None and installed.code == 0
        yield Finding(
            "virtual camera",
            "warning",
            "v4l2loopback is "
            + ("not loaded" if there else "not installed")
            + "; --virtual-cam needs it",
            _MODPROBE if there else f"sudo apt install v4l2loopback-dkms && {_MODPROBE}",
        )
        return
    nodes = context.devices(machine).virtual_cameras
    if not nodes:
        yield Finding(
            "virtual camera",
            "warning",
            "v4l2loopback is loaded, but has made no device",
            f"sudo modprobe -r v4l2loopback && {_MODPROBE}",
        )
        return
    names = ", ".join(f"{node.path} {node.name}" for node in nodes)
    closed = [node.path for node in nodes if not machine.may(node.path, "rw")]
    if closed:
        yield Finding(
            "virtual camera",
            "problem",
            f"{', '.join(closed)} is not for this user",
            "sudo usermod -aG video $USER  # then log in again",
        )
    elif not (caps or "").strip().upper().startswith(("Y", "1")):
        yield Finding(
            "virtual camera",
            "warning",
            f"{names}: exclusive_caps is off, so browsers do not take it for a camera",
            f"sudo modprobe -r v4l2loopback && {_MODPROBE}",
        )
    else:
        yield Finding("virtual camera", "ok", f"{names}, exclusive_caps on")
    if machine.version("pyvirtualcam") is None:
        yield Finding(
            "virtual camera",
            "warning",
            "the package pyvirtualcam, which writes to it, is not installed",
            "pip install 'rt-swap[live]'",
        )


def check_gstreamer(context: Context) -> Iterator[Finding]:
    """GStreamer's program and its Python side."""
    done = context.machine.run(["gst-inspect-1.0", "--version"])
    version = re.search(r"GStreamer ([\d.]+)", done.text) if done else None
    if version is None:
        yield Finding(
            "GStreamer",
            "warning",
            "not installed; only pipelines of GStreamer need it",
            "sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-good python3-gst-1.0",
        )
        return
    try:
        context.load("gi")
    except ImportError:
        yield Finding(
            "GStreamer",
            "warning",
            f"{version[1]}, but this Python has no bindings for it (gi)",
            "sudo apt install python3-gst-1.0 && python3 -m venv --system-site-packages .venv",
        )
        return
    yield Finding("GStreamer", "ok", f"{version[1]}, with Python bindings")


# --- the machine ---------------------------------------------------------------------------------
def check_cache(context: Context) -> Iterator[Finding]:
    """The folder that encoded sources are kept in."""
    cache = context.load("rt_swap.expression.cache")
    named = context.machine.environ.get(cache.ENVIRONMENT_VARIABLE)
    folder = Path(cache.cache_dir(named))
    there = folder
    while not context.machine.find(str(there)) and there != there.parent:
        there = there.parent
    if not context.machine.may(str(there), "rw"):
        yield Finding(
            "cache",
            "problem",
            f"{there} cannot be written to; sources are encoded again at every start",
            f"export {cache.ENVIRONMENT_VARIABLE}=/a/folder/of/yours",
        )
        return
    files = context.machine.find(f"{folder}/*.safetensors")
    yield Finding("cache", "ok", f"{folder}: {len(files)} encoded sources")


def check_jetpack(context: Context) -> Iterator[Finding]:
    """JetPack and Jetson's power mode; nothing elsewhere."""
    machine = context.machine
    if machines.jetson_model(machine) is None:
        return
    release, jetpack = machines.l4t_release(machine), machines.jetpack_version(machine)
    major = int((release or "0").partition(".")[0])
    text = f"JetPack {jetpack or 'not installed as a package'}, Jetson Linux {release}"
    if 0 < major < 36:
        yield Finding(
            "JetPack",
            "problem",
            f"{text}: its TensorRT is older than 10; JetPack 6.1 or newer is needed",
            "# flash JetPack 6.2: https://developer.nvidia.com/embedded/jetpack",
        )
    elif jetpack is None:
        yield Finding("JetPack", "warning", text, "sudo apt install nvidia-jetpack")
    else:
        yield Finding("JetPack", "ok", text)
    mode, fastest = machines.power_mode(machine), machines.fastest_power_mode(machine)
    if mode is None:
        yield Finding("power mode", "warning", "nvpmodel does not tell", "sudo nvpmodel -q")
    elif not mode.startswith("MAXN"):
        yield Finding(
            "power mode",
            "warning",
            f"{mode}; not the fastest",
            "grep POWER_MODEL /etc/nvpmodel.conf  # then sudo nvpmodel -m ID && sudo jetson_clocks"
            if fastest is None
            else f"sudo nvpmodel -m {fastest} && sudo jetson_clocks",
        )
    else:
        yield Finding("power mode", "ok", mode)


def check_power(context: Context) -> Iterator[Finding]:
    """What keeps a PC's processor slow."""
    machine = context.machine
    if machines.jetson_model(machine) is not None:
        return
    governor = machines.cpu_governor(machine)
    if machines.on_battery(machine):
        yield Finding(
            "power mode", "warning", "on battery: many machines are slower then", "# plug it in"
        )
    elif governor == "powersave" and not machine.find("/sys/devices/system/cpu/intel_pstate"):
        yield Finding(
            "power mode",
            "warning",
            "the processor's governor is powersave",
            "sudo cpupower frequency-set -g performance",
        )
    else:
        yield Finding("power mode", "ok", f"governor {governor or 'not told by this machine'}")


def check_backends(context: Context) -> Iterator[Finding]:
    """Which backends run here, and which one "auto" takes."""
    backends = context.load("rt_swap.backends")
    available = dict(backends.available_backends())
    usable = [name for name, reason in available.items() if reason is None]
    if not usable:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in available.items())
        yield Finding("backends", "problem", f"none can run: {reasons}", "pip install onnxruntime")
        return
    others = "; ".join(f"{name} cannot: {reason}" for name, reason in available.items() if reason)
    text = f"auto takes {usable[0]}" + (f"; {others}" if others else "")
    yield Finding("backends", "ok", text)


CHECKS: Final[tuple[Check, ...]] = (
    check_python,
    check_native,
    check_settings,
    check_model,
    check_numpy,
    check_onnxruntime,
    check_opencv,
    check_mediapipe,
    check_video_files,
    check_backends,
    check_gpu,
    check_tensorrt,
    check_fatbin,
    check_engines,
    check_cache,
    check_cameras,
    check_virtual_camera,
    check_gstreamer,
    check_jetpack,
    check_power,
)


def examine(context: Context, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Run the checks. One that breaks is itself a problem, and the others still run.

    Args:
        context: Where to look.
        checks: Which.
    """
    findings: list[Finding] = []
    for check in checks:
        try:
            findings.extend(check(context))
        except Exception as exc:  # whatever a half-broken machine throws must not end the report
            name = check.__name__.removeprefix("check_").replace("_", " ")
            findings.append(
                Finding(name, "problem", f"could not be looked at: {type(exc).__name__}: {exc}")
            )
    return findings


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Plain values for json.dumps."""
    counts = {
        state: sum(f.state == state for f in findings) for state in ("ok", "warning", "problem")
    }
    return {"format": FORMAT, "counts": counts, "findings": [vars(f) for f in findings]}


def lines_of(findings: Sequence[Finding]) -> Iterator[str]:
    """For a terminal."""
    marks = {"ok": "ok      ", "warning": "warning ", "problem": "PROBLEM "}
    for finding in findings:
        yield f"{marks[finding.state]}{finding.subject:18}{finding.text}"
        if finding.cure and finding.state != "ok":
            yield f"{'':8}{'':18}  -> {finding.cure}"
