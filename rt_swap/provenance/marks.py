"""Which marks a run leaves, and what became of each. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from rt_swap.config import BADGES
from rt_swap.errors import ConfigError

OFF: Final = "off"
CORNERS: Final = tuple(place for place in BADGES if place != OFF)


@dataclass(frozen=True)
class Marks:
    """Which marks are wanted; all of them unless said otherwise.

    Attributes:
        badge: Corner of the visible mark, or "off".
        watermark: Whether the face's pixels are marked imperceptibly.
        manifest: Whether a C2PA manifest is put into the file.
        certificate: PEM file of the chain that signs it, signer first; None takes a self-made one.
        certificate_key: PEM file of its private key.

    Raises:
        ConfigError: If the badge's place is unknown, or of certificate and key only one is given.
    """

    badge: str = "bottom-right"
    watermark: bool = True
    manifest: bool = True
    certificate: str | None = None
    certificate_key: str | None = None

    def __post_init__(self) -> None:
        if self.badge not in BADGES:
            raise ConfigError(f"--badge: must be one of {', '.join(BADGES)}, got {self.badge!r}")
        if (self.certificate is None) != (self.certificate_key is None):
            raise ConfigError(
                "--certificate and --certificate-key: give both, the signer's chain and its"
                " private key, or neither"
            )

    @classmethod
    def none(cls) -> Marks:
        """No mark at all."""
        return cls(badge=OFF, watermark=False, manifest=False)


@dataclass
class Record:
    """What became of the marks of one output.

    Attributes:
        badge: Corner, or "off".
        watermark: Whether faces were marked.
        watermark_payload: What that mark says, or None.
        watermarked_frames: Frames whose face was marked.
        manifest: "written", "off" (not asked for) or "missing".
        manifest_note: Why it is missing, or who signed it.
    """

    badge: str = OFF
    watermark: bool = False
    watermark_payload: str | None = None
    watermarked_frames: int = 0
    manifest: str = OFF
    manifest_note: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values for json.dumps."""
        return {
            "badge": self.badge,
            "watermark": {
                "asked_for": self.watermark,
                "payload": self.watermark_payload,
                "frames": self.watermarked_frames,
            },
            "manifest": {"state": self.manifest, "note": self.manifest_note},
        }
