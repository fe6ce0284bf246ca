"""Settings: a TOML file < environment variables ``RT_SWAP_*`` < command-line flags.

The file is what ``--config`` or RT_SWAP_CONFIG names, else ``config.toml`` in the user's
configuration folder, where it exists. Its keys are the fields of :class:`Settings`, with ``_`` or
``-``; ``gains`` may be a table. The variable of the field ``on_lost`` is RT_SWAP_ON_LOST, and so
on. A key nobody knows is an error, wherever it stands. Nothing is read when this module is
imported.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rt_swap.errors import ConfigError

ENVIRONMENT_PREFIX: Final = "RT_SWAP_"
CONFIG_VARIABLE: Final = "RT_SWAP_CONFIG"
_OTHER_VARIABLES: Final = frozenset(
    {CONFIG_VARIABLE, "RT_SWAP_DATA", "RT_SWAP_DEBUG", "RT_SWAP_HOME", "RT_SWAP_NATIVE"}
)
_OTHER_PREFIXES: Final = ("RT_SWAP_TEST_", "RT_SWAP_BUILD_", "RT_SWAP_BENCH_")

MODES: Final = ("absolute", "relative")
SOURCE_TIMINGS: Final = ("stretch", "loop", "hold", "trim")
ON_LOST: Final = ("passthrough", "hold", "blur")
LIVE_ON_LOST: Final = ("hold", "passthrough", "blur", "slate")
BADGES: Final = ("bottom-right", "bottom-left", "top-right", "top-left", "off")
"""Where the visible mark may be."""


@dataclass(frozen=True)
class Settings:
    """Every option that more than one verb or a settings file may want; the only place of its
    default.

    Raises:
        ConfigError: Naming every option that is wrong.
    """

    model: str | None = None
    """Folder of the model bundle, or the name of an installed one, such as "nano"; None takes what
    RT_SWAP_MODEL names, else the default one."""
    backend: str = "auto"
    """What runs the networks: "auto" or a registered name."""
    threads: int = 0
    """CPU threads per network run; 0 chooses."""
    face: str = "largest"
    """Whose face gives the expression: "largest", or a number counted from the left, 0 being the
    leftmost."""
    target_face: str = "largest"
    """Whose face is re-expressed: the same."""
    cache: str | None = None
    """Folder of the cache of encoded expressions; None takes the user's cache folder."""
    gains: str = ""
    """How much of each AU comes from the source, as "brows=0.5,mouth=1,AU12=0.3"; empty is 1
    everywhere."""
    mode: str = "absolute"
    """"absolute" takes the source's expression; "relative" adds its difference from a resting
    face."""
    neutral: str = "auto"
    """The source's resting face for "relative": a picture or expression file, or "auto" (a clip's
    calmest moment; for a still picture or a preset, the preset "neutral")."""
    source_timing: str = "hold"
    """How a source clip fills the target's length."""
    on_lost: str = "passthrough"
    """What is shown while nobody is there to re-express: the frame itself, the last picture shown,
    or the frame blurred."""
    live_on_lost: str = "hold"
    """The same for live pictures: the last re-expressed picture, the frame itself, the frame
    blurred, or a slate."""
    camera: str = "0"
    """Whom live pictures come from: a camera's number, name or device file, a file, an address,
    "csi://0" or "gst:" and a pipeline."""
    person: str = "me"
    """Whose resting face is kept and used: any name."""
    codec: str | None = None
    """FFmpeg's name of the video encoder; None takes the container's usual one."""
    crf: int | None = None
    """Constant-rate factor of the encoder, smaller is better and larger; None takes its default."""
    audio: bool = True
    """Whether the target's sound is copied."""
    badge: str = "bottom-right"
    """Corner of the visible mark; "off" leaves it out."""
    watermark: bool = True
    """Whether the pixels of re-expressed faces are marked imperceptibly."""
    manifest: bool = True
    """Whether files get a C2PA manifest."""
    certificate: str | None = None
    """PEM file of the certificates that sign manifests; None takes a self-made one."""
    certificate_key: str | None = None
    """PEM file of its private key."""

    def __post_init__(self) -> None:
        if wrong := [text for name in _FIELDS if (text := _wrong(name, getattr(self, name)))]:
            raise ConfigError("; ".join(wrong))


_FIELDS: Final[dict[str, dataclasses.Field[Any]]] = {
    f.name: f for f in dataclasses.fields(Settings)
}
_INTEGERS: Final = {"threads": (0, 256), "crf": (0, 63)}
_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "mode": MODES,
    "source_timing": SOURCE_TIMINGS,
    "on_lost": ON_LOST,
    "live_on_lost": LIVE_ON_LOST,
    "badge": BADGES,
}
_OPTIONAL: Final = frozenset({"model", "cache", "codec", "crf", "certificate", "certificate_key"})
_SWITCHES: Final = frozenset({"audio", "watermark", "manifest"})


def _wrong(name: str, value: object) -> str | None:
    """What is wrong with a field's value, or None."""
    option = "--" + name.replace("_", "-")
    if value is None and name in _OPTIONAL:
        return None
    if name in _INTEGERS:
        low, high = _INTEGERS[name]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            return f"{option}: must be a whole number from {low} to {high}, got {value!r}"
    elif name in _CHOICES:
        if value not in _CHOICES[name]:
            return f"{option}: must be one of {', '.join(_CHOICES[name])}, got {value!r}"
    elif name in ("face", "target_face"):
        if value != "largest" and not (isinstance(value, str) and value.isdecimal()):
            return f"{option}: must be 'largest' or a number from 0, got {value!r}"
    elif name in _SWITCHES:
        if not isinstance(value, bool):
            return f"{option}: must be true or false, got {value!r}"
    elif not isinstance(value, str) or (not value and name != "gains"):
        return f"{option}: must be text, got {value!r}"
    return None


def load_settings(
    flags: Mapping[str, object] | None = None,
    *,
    config_file: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Put the settings together.

    Args:
        flags: Command-line values by field; None means "not given". Unknown names are the caller's
            mistake.
        config_file: The file that ``--config`` names; it must exist then.
        environ: The environment; None takes the process's own.

    Raises:
        ConfigError: For a file that is missing or no TOML, an unknown key, or a wrong value; says
            where it stands.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for path in [_file(config_file, environ)]:
        if path is not None:
            for name, value in _from_file(path).items():
                values[name], origin[name] = value, str(path)
    for name, value in _from_environment(environ).items():
        values[name], origin[name] = value, ENVIRONMENT_PREFIX + name.upper()
    for name, value in (flags or {}).items():
        if name not in _FIELDS:
            raise ConfigError(f"load_settings: there is no setting {name!r}{_hint(name)}")
        if value is not None:
            values[name], origin[name] = value, "the command line"
    wrong = [
        f"{text} (from {origin[name]})"
        for name, value in values.items()
        if (text := _wrong(name, value))
    ]
    if wrong:
        raise ConfigError("; ".join(wrong))
    return Settings(**values)


def _file(named: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    named = named or environ.get(CONFIG_VARIABLE)
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise ConfigError(f"--config {path}: there is no such file")
        return path
    path = config_dir() / "config.toml"
    return path if path.is_file() else None


def config_dir() -> Path:
    """The user's configuration folder; it need not exist."""
    import platformdirs

    return Path(platformdirs.user_config_dir("rt_swap", appauthor=False))


def _from_file(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: is not a TOML file: {exc}") from exc
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror}") from exc
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in _FIELDS:
            wrong.append(f"there is no setting {key!r}{_hint(name)}")
        elif name in values:
            wrong.append(f"{key!r} is set twice")
        elif name == "gains" and isinstance(value, dict):
            values[name] = ",".join(f"{k}={v}" for k, v in value.items())
        elif (
            name in ("face", "target_face")
            and isinstance(value, int)
            and not isinstance(value, bool)
        ):
            values[name] = str(value)
        else:
            values[name] = value
    if wrong:
        raise ConfigError(f"{path}: {'; '.join(wrong)}")
    return values


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        name = variable[len(ENVIRONMENT_PREFIX) :].lower()
        if name not in _FIELDS:
            if variable not in _OTHER_VARIABLES and not variable.startswith(_OTHER_PREFIXES):
                wrong.append(f"{variable}: there is no such setting{_hint(name)}; unset it")
            continue
        if text == "":
            continue  # as if unset, so that a script can clear one
        values[name] = _from_text(name, text)
    if wrong:
        raise ConfigError("; ".join(wrong))
    return values


def _from_text(name: str, text: str) -> object:
    """A value of the field's type where the text is one, else the text itself, for :func:`_wrong`
    to refuse.
    """
    if name in _INTEGERS:
        try:
            return int(text)
        except ValueError:
            return text
    if name in _SWITCHES:
        return {"1": True, "true": True, "yes": True, "on": True}.get(
            text.lower(),
            {"0": False, "false": False, "no": False, "off": False}.get(text.lower(), text),
        )
    return text


def _hint(name: str) -> str:
    close = difflib.get_close_matches(name, _FIELDS, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(_FIELDS)}"
