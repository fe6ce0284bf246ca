"""Puts the marks that live in pixels into the frames of one stream."""

from __future__ import annotations

from dataclasses import replace

from rt_swap.frames import F64, FrameResult, FrameStatus
from rt_swap.provenance import badge
from rt_swap.provenance.marks import OFF, Marks, Record
from rt_swap.provenance.watermark import Embedder, Payload


class Marker:
    """Marks the pictures of one stream. Use from one thread.

    Args:
        marks: Which marks.
        generator_sha256: Hash of the model's generator; the pixel mark names its beginning.
        threads: CPU threads of native passes; 0 chooses.

    Attributes:
        record: What was done so far.
    """

    def __init__(
        self,
        marks: Marks,
        generator_sha256: str,
        *,
        threads: int = 0,
    ) -> None:
        self._corner = marks.badge
        self._embedder: Embedder | None = None
        self._last_M_crop_from_frame: F64 | None = None
        self.record = Record(badge=marks.badge, watermark=marks.watermark)
        if marks.watermark:
            payload = Payload.of_model(generator_sha256)
            self._embedder = Embedder(payload, threads=threads)
            self.record.watermark_payload = payload.model_text

    @property
    def corner(self) -> str:
        """Where the badge is, or "off"; may be set between frames."""
        return self._corner

    @corner.setter
    def corner(self, corner: str) -> None:
        self._corner = Marks(badge=corner).badge
        self.record.badge = corner

    def apply(self, result: FrameResult) -> FrameResult:
        """Mark a frame: every one with the badge, the face of a re-expressed one imperceptibly, and
        where that is shown again, as while nobody is there, where the face was.

        Args:
            result: Of the pipeline; its picture is changed, or copied where it is read-only.

        Returns:
            The result with the marked picture.
        """
        if self._embedder is None and self._corner == OFF:
            return result
        picture_bgr = result.frame.frame_bgr
        if not picture_bgr.flags.writeable:
            picture_bgr = picture_bgr.copy()
            result = replace(result, frame=replace(result.frame, frame_bgr=picture_bgr))
        if self._embedder is not None:
            altered = result.status is not FrameStatus.NO_FACE
            if altered and result.crop is not None:
                self._last_M_crop_from_frame = result.crop.M_crop_from_frame
            if (altered or result.repeats) and self._last_M_crop_from_frame is not None:
                self._embedder.write(picture_bgr, self._last_M_crop_from_frame)
                self.record.watermarked_frames += 1
        if self._corner != OFF:
            badge.draw(picture_bgr, self._corner)
        return result

    def reset(self) -> None:
        """Begin another stream."""
        self._last_M_crop_from_frame = None
        if self._embedder is not None:
            self._embedder.reset()
