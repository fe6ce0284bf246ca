"""Who may import whom, read off the source, so that an arrow that points upwards fails here.

A new third-party library, or a new module that uses one, is entered in ADAPTERS below.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
FOLDERS = ("rt_swap", "training", "engines", "benchmarks")

MAY_IMPORT = {
    "rt_swap": {"rt_swap"},
    "training": {"training", "rt_swap"},
    "engines": {"engines", "training", "rt_swap"},
    "benchmarks": {"benchmarks", "rt_swap"},
}

# Inside rt_swap: a part may import itself and parts of a lower number; equals keep apart.
RANK = {
    "errors": 0,
    "aus": 1,
    "frames": 1,
    "contract": 2,
    "geometry": 3,
    "config": 3,
    "model": 3,
    "metrics": 3,
    # knows no library: what builds is handed in
    "enginecache": 3.5,
    "machine": 3,
    "ops": 4,
    # a GPU backend crops and composes as ops does
    "backends": 5,
    "io": 4,
    "tracking": 4,
    # encodes what a reader gives, cut out by ops
    "expression": 5,
    "pipeline": 6,
    "stream": 7,
    # reads files and follows faces; marks what the pipeline gives
    "provenance": 7,
    "swapper": 8,
    "bench": 9,
    "doctor": 9,
    "live": 9,
    "gst": 10,
    "studio": 11,
    "cli": 12,
    "__init__": 13,
    "__main__": 13,
}

# Where rt_swap may import a third-party library, beside NumPy. A trailing dot: a whole package.
ADAPTERS = {
    "PIL": {"rt_swap.io.picture"},
    "aioice": {"rt_swap.studio.webrtc"},
    "aiortc": {"rt_swap.studio.webrtc"},
    "av": {"rt_swap.io.network", "rt_swap.io.video", "rt_swap.studio.webrtc"},
    "c2pa": {"rt_swap.provenance.manifest"},
    "cryptography": {"rt_swap.provenance.certificate"},
    "cv2": {
        "rt_swap.bench.clip",
        "rt_swap.io.camera",
        "rt_swap.io.handheld",
        "rt_swap.io.picture",
        "rt_swap.io.pixels",
        "rt_swap.io.preview",
        "rt_swap.io.sheet",
        "rt_swap.io.slate",
        "rt_swap.io.still",
        "rt_swap.provenance.badge",
        "rt_swap.provenance.watermark",
        "rt_swap.studio.pictures",
        "rt_swap.tracking.mediapipe_tracker",
    },
    "fastapi": {"rt_swap.studio.app"},
    "gi": {"rt_swap.gst.bindings", "rt_swap.gst.element", "rt_swap.io.gstreamer"},
    "ifaddr": {"rt_swap.studio.webrtc"},
    "mediapipe": {"rt_swap.tracking.mediapipe_tracker"},
    "onnxruntime": {"rt_swap.backends.onnxruntime"},
    "platformdirs": {
        "rt_swap.config",
        "rt_swap.enginecache.store",
        "rt_swap.expression.cache",
        "rt_swap.live.calibration",
    },
    "pybind11": set(),
    "pycuda": {"rt_swap.backends.cuda.pycuda_driver", "rt_swap.backends.trt_runner"},
    "pydantic": {"rt_swap.studio.app"},
    "pynvml": {"rt_swap.bench.power"},
    "pyvirtualcam": {"rt_swap.io.virtual_camera"},
    "safetensors": {"rt_swap.expression.files"},
    "skimage": {"rt_swap.bench.clip", "rt_swap.cli.demo", "rt_swap.studio.pictures"},
    "tensorrt": {"rt_swap.backends.trt"},
    "tensorrt_rtx": {"rt_swap.backends.trt"},
    "tomli": {"rt_swap.config"},
    "tqdm": {"rt_swap.cli.common"},
    "uvicorn": {"rt_swap.studio.server"},
}
# Adapters as a whole: they import their library at the top, and nobody imports *them* at the top.
WHOLE_ADAPTERS = (
    "rt_swap.backends.onnxruntime",
    "rt_swap.gst.element",
    "rt_swap.studio.app",
    "rt_swap.studio.webrtc",
)
# No NumPy at the top either: these are loaded by `rt-swap --help`.
LIGHT = ("rt_swap", "rt_swap.__main__", "rt_swap.cli", "rt_swap.config", "rt_swap.errors")


@dataclass(frozen=True)
class Import:
    """One import as it stands in a file.

    Attributes:
        name: Full name of what is imported; for ``from a import b`` it is a.b.
        line: Where.
        at_top: Runs when the module is imported: not in a function, not for type checkers only.
    """

    name: str
    line: int
    at_top: bool


def imports_of(source: str, module: str, is_package: bool) -> list[Import]:
    """Every import in a file, with relative ones made absolute.

    Args:
        source: Python.
        module: Its full name.
        is_package: Whether it is an ``__init__.py``.
    """
    found: list[Import] = []

    def visit(node: ast.AST, at_top: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = module.split(".")
                up = up[: len(up) - node.level + is_package]
                base = ".".join([*up, *([base] if base else [])])
            found.extend(
                Import(f"{base}.{alias.name}", node.lineno, at_top) for alias in node.names
            )
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            at_top = False
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                visit(child, False)
            for child in node.orelse:
                visit(child, at_top)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, at_top)

    visit(ast.parse(source), True)
    return found


def is_in(name: str, module: str) -> bool:
    """Whether a dotted name is a module or lies in it."""
    return name == module or name.startswith(f"{module}.")


def wrong_folders(module: str, imports: list[Import]) -> Iterator[str]:
    """Imports of our own top-level folders against the arrows."""
    own = module.partition(".")[0]
    for each in imports:
        top = each.name.partition(".")[0]
        if top in (*FOLDERS, "tests") and top not in MAY_IMPORT[own]:
            yield f"{module}:{each.line}: {own} may not import {each.name}"


def part_of(name: str) -> str:
    """The part of rt_swap that a name belongs to; "__init__" for the package's own names."""
    pieces = name.split(".")
    return pieces[1] if len(pieces) > 1 and pieces[1] in RANK else "__init__"


def wrong_ranks(module: str, imports: list[Import]) -> Iterator[str]:
    """Imports inside rt_swap that point upwards or sideways."""
    own = part_of(module)
    for each in imports:
        if not is_in(each.name, "rt_swap"):
            continue
        if each.name == "rt_swap.__version__":
            continue
        other = part_of(each.name)
        if other != own and RANK[other] >= RANK[own]:
            yield f"{module}:{each.line}: {own} may not import {each.name}"


def wrong_libraries(module: str, imports: list[Import]) -> Iterator[str]:
    """Third-party imports outside their adapter, or where they run too early."""
    whole = any(is_in(module, adapter) for adapter in WHOLE_ADAPTERS)
    light = module in LIGHT or is_in(module, "rt_swap.cli")
    for each in imports:
        where = f"{module}:{each.line}"
        top = each.name.partition(".")[0]
        if top in sys.stdlib_module_names or top == "tomllib":
            continue
        if top == "rt_swap":
            adapter = next((a for a in WHOLE_ADAPTERS if is_in(each.name, a)), None)
            if adapter and each.at_top and not is_in(module, adapter):
                yield f"{where}: {each.name} loads its library; import it inside a function"
        elif top == "numpy":
            if light and each.at_top:
                yield f"{where}: rt-swap --help would load NumPy; import it inside a function"
        elif top not in ADAPTERS:
            yield f"{where}: {top} is not known here; see ADAPTERS in tests/test_layering.py"
        elif not any(
            is_in(module, place.rstrip(".")) if place.endswith(".") else module == place
            for place in ADAPTERS[top]
        ):
            yield f"{where}: {top} is for {', '.join(sorted(ADAPTERS[top])) or 'nobody'}"
        elif each.at_top and not whole:
            yield f"{where}: {top} must be imported inside a function"


def _modules(folder: str) -> list[tuple[str, Path]]:
    """(full name, file) of every module of a folder."""
    found = []
    for path in sorted((CHECKOUT / folder).rglob("*.py")):
        pieces = path.relative_to(CHECKOUT).with_suffix("").parts
        found.append((".".join(pieces[:-1] if pieces[-1] == "__init__" else pieces), path))
    return found


def _read(module: str, path: Path) -> list[Import]:
    return imports_of(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_import_only_along_the_arrows(folder: str) -> None:
    modules = _modules(folder)
    assert modules, f"{folder}/ has no modules"
    wrong = [text for name, path in modules for text in wrong_folders(name, _read(name, path))]
    assert not wrong, "\n".join(wrong)


def test_parts_of_rt_swap_import_only_downwards() -> None:
    modules = _modules("rt_swap")
    wrong = [text for name, path in modules for text in wrong_ranks(name, _read(name, path))]
    assert not wrong, "\n".join(wrong)


def test_every_part_of_rt_swap_has_a_rank() -> None:
    parts = {
        path.relative_to(CHECKOUT / "rt_swap").parts[0].removesuffix(".py")
        for _, path in _modules("rt_swap")
    }
    parts.discard("data")
    assert parts == set(RANK)


def test_libraries_are_imported_lazily_and_only_in_their_adapters() -> None:
    modules = _modules("rt_swap")
    wrong = [text for name, path in modules for text in wrong_libraries(name, _read(name, path))]
    assert not wrong, "\n".join(wrong)


def test_rt_swap_knows_no_torch_anywhere() -> None:
    for name, path in _modules("rt_swap"):
        assert not [i for i in _read(name, path) if is_in(i.name, "torch")], name


@pytest.mark.parametrize(
    "statement",
    [
        "import rt_swap",
        "import rt_swap.cli",
        "import rt_swap.cli; rt_swap.cli.build_parser()",
        "import rt_swap.cli; rt_swap.cli.main(['--help'])",
        "import rt_swap.cli; rt_swap.cli.main(['reenact', '--help'])",
    ],
)
def test_help_loads_nothing_but_the_standard_library(statement: str) -> None:
    program = (
        "import sys; before = set(sys.modules)\n"
        f"{statement}\n"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before}\n"
        "print('LOADED', *sorted(new - set(sys.stdlib_module_names) - {'rt_swap'}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].split() == ["LOADED"]


# --- the checks themselves -----------------------------------------------------------------------
def _imports(
    source: str, module: str = "rt_swap.io.video", is_package: bool = False
) -> list[Import]:
    return imports_of(source, module, is_package)


def test_imports_of_tells_the_top_from_functions_and_type_checking() -> None:
    source = """
import a
try:
    import b.c
except ImportError:
    from d import e
if TYPE_CHECKING:
    import f
else:
    import g
class C:
    import h
    def method(self):
        import i
async def k():
    def inner():
        import j
"""
    assert {(i.name, i.at_top) for i in _imports(source)} == {
        *((name, True) for name in ("a", "b.c", "d.e", "g", "h")),
        *((name, False) for name in ("f", "i", "j")),
    }


@pytest.mark.parametrize(
    ("statement", "is_package", "name"),
    [
        ("from . import x", False, "rt_swap.io.x"),
        ("from .y import x", False, "rt_swap.io.y.x"),
        ("from ..ops import x", False, "rt_swap.ops.x"),
        ("from . import x", True, "rt_swap.io.video.x"),
        ("from ..y import x", True, "rt_swap.io.y.x"),
    ],
)
def test_imports_of_makes_relative_names_absolute(
    statement: str, is_package: bool, name: str
) -> None:
    assert [i.name for i in _imports(statement, is_package=is_package)] == [name]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rt_swap.ops.crop", "import training"),
        ("rt_swap.ops.crop", "def f():\n    from engines.export import x"),
        ("training.loop", "import engines.export"),
        ("training.loop", "from tests.support import data"),
        ("benchmarks.common", "from training import loop"),
        ("engines.export", "import benchmarks"),
    ],
)
def test_wrong_folders_sees(module: str, source: str) -> None:
    assert len(list(wrong_folders(module, _imports(source, module)))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rt_swap.errors", "from rt_swap import aus"),
        ("rt_swap.geometry", "from rt_swap.config import Settings"),
        ("rt_swap.io.video", "from rt_swap.ops import crop_rgb"),
        ("rt_swap.tracking.follower", "def f():\n    import rt_swap.io.video"),
        ("rt_swap.pipeline", "if TYPE_CHECKING:\n    from rt_swap.swapper import Swapper"),
        ("rt_swap.expression.encode", "from ..pipeline import Pipeline"),
        ("rt_swap.swapper", "from rt_swap import Swapper"),
    ],
)
def test_wrong_ranks_sees(module: str, source: str) -> None:
    assert len(list(wrong_ranks(module, _imports(source, module)))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rt_swap.pipeline", "def f():\n    import cv2"),
        ("rt_swap.io.video", "import av"),
        ("rt_swap.io.video", "from av.codec import Codec"),
        ("rt_swap.io.video", "def f():\n    import scipy"),
        ("rt_swap.cli.reenact", "import numpy as np"),
        ("rt_swap.swapper", "from rt_swap.backends.onnxruntime import OnnxRuntime"),
        ("rt_swap.backends.trt", "import tensorrt"),
        ("rt_swap.backends.trt", "def f():\n    import onnxruntime"),
    ],
)
def test_wrong_libraries_sees(module: str, source: str) -> None:
    assert len(list(wrong_libraries(module, _imports(source, module)))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rt_swap.io.video", "import numpy as np\nimport json"),
        ("rt_swap.io.video", "if TYPE_CHECKING:\n    import av"),
        ("rt_swap.io.video", "def f():\n    import av.error"),
        ("rt_swap.backends.onnxruntime", "import onnxruntime as ort"),
        ("rt_swap.backends.trt", "def f():\n    import tensorrt"),
        ("rt_swap.backends.registry", "def f():\n    from rt_swap.backends import onnxruntime"),
    ],
)
def test_wrong_libraries_lets_pass(module: str, source: str) -> None:
    assert not list(wrong_libraries(module, _imports(source, module)))
