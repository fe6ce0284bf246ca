"""C2PA manifests: written into finished files, and read back.

A manifest says, signed: this was edited with a trained model ("composite with trained algorithmic
media" in IPTC's words: a real picture with generated parts), by which model, and which marks the
pixels carry. It names neither the target's nor the source's file.

Needs ``c2pa-python`` (``pip install 'rt-swap[provenance]'``). Where it is missing, or the container
cannot hold a manifest, the file is written without one, a warning says so, and the record, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rt_swap.config import config_dir
from rt_swap.errors import ConfigError, SourceError
from rt_swap.provenance import certificate
from rt_swap.provenance.marks import Marks, Record

logger = logging.getLogger(__name__)

SOURCE_TYPE: Final = (
    "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
)
ASSERTION: Final = "io.rt-swap.reenactment"
MIME_TYPES: Final[Mapping[str, str]] = {
    ".mp4": "video/mp4",
    ".m4v": "video/x-m4v",
    ".mov": "video/quicktime",
    ".avi": "video/avi",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".gif": "image/gif",
}
"""Files that can hold a manifest, by extension."""

_SETTINGS: Final = {
    # otherwise a file is held in memory, twice, while it is signed
    "core": {"backing_store_memory_threshold_in_mb": 8, "merkle_tree_chunk_size_in_kb": 1024}
}

INSTALL: Final = "pip install 'rt-swap[provenance]'"


class Sealer:
    """Puts a manifest into a finished file, before it gets its name.

    Args:
        marks: What is wanted; certificate included.
        record: What was done to the pixels; what becomes of the manifest is added to it.
        output: The final name.
        target: The file that was re-expressed, hashed as the manifest's ingredient.
        model: Name of the model.
        model_sha256: Hashes of its graphs, by name.
        about: More to say, as {"mode": "absolute"}.

    Raises:
        ConfigError: If the certificate given cannot be used.
    """

    def __init__(
        self,
        marks: Marks,
        record: Record,
        output: Path,
        target: Path,
        *,
        model: str,
        model_sha256: Mapping[str, str],
        about: Mapping[str, object],
    ) -> None:
        self._record, self._output, self._target = record, output, target
        self._claim = {
            "model": model,
            "model_sha256": dict(model_sha256),
            **about,
        }
        self._identity: certificate.Identity | None = None
        self._wanted = marks.manifest
        if not marks.manifest:
            return
        record.manifest = "missing"
        record.manifest_note = self._obstacle()
        if record.manifest_note is None and marks.certificate and marks.certificate_key:
            self._identity = certificate.own(marks.certificate, marks.certificate_key)

    def ready(self) -> None:
        """Say beforehand that there will be no manifest, where that is known."""
        if self._wanted and self._record.manifest_note is not None:
            logger.warning("%s: no C2PA manifest: %s", self._output, self._record.manifest_note)

    def _obstacle(self) -> str | None:
        try:
            import c2pa  # noqa: F401
        except (ImportError, OSError) as exc:
            return f"c2pa-python cannot be imported ({exc}); {INSTALL}, or pass --no-manifest"
        if self._output.suffix.lower() not in MIME_TYPES:
            return (
                f"a {self._output.suffix} file cannot hold one; write to .mp4, .mov, .png or .jpg,"
                " or pass --no-manifest"
            )
        return None

    def __call__(self, part: Path) -> None:
        """Sign a complete file, in place. Never fails: what goes wrong is warned of and recorded.

        Args:
            part: The file, under its temporary name.
        """
        if not self._wanted or self._record.manifest_note is not None:
            return
        import c2pa

        give_back_memory()
        try:
            identity = self._identity or self._self_made()
        except ConfigError as exc:
            self._missing(str(exc))
            return
        handle, name = tempfile.mkstemp(
            prefix=part.name[: -len(part.suffix)], suffix=part.suffix, dir=part.parent
        )
        os.close(handle)
        signed = Path(name)
        try:
            self._sign(part, signed, identity)
            os.replace(signed, part)
        except (c2pa.C2paError, OSError, ValueError) as exc:
            self._missing(f"signing failed ({exc})")
            return
        finally:
            with contextlib.suppress(OSError):
                signed.unlink(missing_ok=True)
        self._record.manifest = "written"
        self._record.manifest_note = identity.note

    def _missing(self, why: str) -> None:
        self._record.manifest_note = why
        logger.warning("%s: complete, but without a C2PA manifest: %s", self._output, why)

    @staticmethod
    def _self_made() -> certificate.Identity:
        identity, fresh = certificate.self_made()
        if fresh:
            logger.info(
                "made a certificate to sign manifests with, in %s; it shows whether a file was"
                " changed later, and proves nothing about who you are",
                config_dir() / certificate.FOLDER,
            )
        return identity

    def _sign(self, part: Path, signed: Path, identity: certificate.Identity) -> None:
        import c2pa

        info = c2pa.C2paSignerInfo(
            identity.algorithm.encode(),
            identity.chain_pem,
            identity.key_pem,
            None,
        )
        mime = MIME_TYPES[self._output.suffix.lower()]
        with (
            c2pa.Signer.from_info(info) as signer,
            self._builder() as builder,
            part.open("rb") as before,
            signed.open("w+b") as after,
        ):
            builder.sign(signer, mime, before, after)

    def _builder(self) -> Any:
        """The manifest, not yet signed."""
        import c2pa

        ingredient = {
            "title": "the recording before",
            "relationship": "parentOf",
            "label": "target",
        }
        mime = MIME_TYPES.get(self._target.suffix.lower())
        text = self._definition([] if mime else [{**ingredient, "format": "video/unknown"}])
        builder = c2pa.Builder(text, c2pa.Context(c2pa.Settings.from_dict(_SETTINGS)))
        if mime is not None:
            # its own manifest, where it has one, comes along
            with self._target.open("rb") as file:
                builder.add_ingredient(json.dumps(ingredient), mime, file)
        return builder

    def _definition(self, ingredients: list[dict[str, str]]) -> str:
        from rt_swap import __version__

        software = {"name": "rt_swap", "version": __version__}
        record = self._record.as_json()
        del record["manifest"]
        edited = {
            "action": "c2pa.edited",
            "description": "the facial expression of a person was altered",
            "softwareAgent": software,
            "digitalSourceType": SOURCE_TYPE,
            "parameters": {"description": "expression transfer by a neural network"},
        }
        opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["target"]}}
        return json.dumps(
            {
                "claim_generator_info": [software],
                "title": self._output.name,
                "ingredients": ingredients,
                "assertions": [
                    {"label": "c2pa.actions.v2", "data": {"actions": [opened, edited]}},
                    {"label": ASSERTION, "data": {**self._claim, "marks": record}},
                ],
            }
        )


def give_back_memory() -> bool:
    """Return freed memory to the system (glibc's malloc_trim(3)), so that what signing needs comes
    in the place of what making the frames needed, not on top of it.

    Returns:
        Whether this C library can, and there was any.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return trim is not None and trim(0) == 1


def read(path: Path) -> dict[str, Any]:
    """What a file's manifest says.

    Returns:
        state: "none", "valid" (unchanged since it was signed), "invalid", or "unreadable", then
        with a note; and where there is one: signer, trusted, problems, synthetic (whether any
        action names a trained model's media), and rt_swap, our own assertion, or None.

    Raises:
        SourceError: If the file cannot be read at all.
    """
    try:
        import c2pa
    except (ImportError, OSError) as exc:
        return {"state": "unreadable", "note": f"needs c2pa-python ({exc}); {INSTALL}"}
    mime = MIME_TYPES.get(path.suffix.lower())
    try:
        with path.open("rb") as file:
            reader = c2pa.Reader.try_create(mime or "", file)
            if reader is None:
                return {"state": "none"}
            with reader:
                store = json.loads(reader.json())
    except c2pa.C2paError as exc:
        if mime is None:
            return {"state": "none", "note": f"a {path.suffix} file cannot hold a manifest"}
        return {"state": "unreadable", "note": str(exc)}
    except OSError as exc:
        raise SourceError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    return _told(store)


def _told(store: Mapping[str, Any]) -> dict[str, Any]:
    active = store.get("manifests", {}).get(store.get("active_manifest"), {})
    codes = [str(status.get("code")) for status in store.get("validation_status", ())]
    untrusted = "signingCredential.untrusted"
    problems = [code for code in codes if code != untrusted]
    actions: list[Mapping[str, Any]] = []
    own = None
    for assertion in active.get("assertions", ()):
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            actions += assertion.get("data", {}).get("actions", [])
        elif assertion.get("label") == ASSERTION:
            own = assertion.get("data")
    types = [str(action.get("digitalSourceType", "")) for action in actions]
    signature = active.get("signature_info", {})
    return {
        "state": "invalid" if problems else "valid",
        "signer": signature.get("issuer"),
        "signed_by": signature.get("common_name"),
        "time": signature.get("time"),
        "trusted": untrusted not in codes and not problems,
        "problems": problems,
        "synthetic": any("rainedAlgorithmicMedia" in kind for kind in types),
        "actions": [
            {k: a[k] for k in ("action", "description", "digitalSourceType") if k in a}
            for a in actions
        ],
        "rt_swap": own,
    }
