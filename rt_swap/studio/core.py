"""Everything behind the page that outlives one connection."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from rt_swap import __version__
from rt_swap.aus import AUS, REGIONS
from rt_swap.errors import ConfigError
from rt_swap.expression import MAX_GAIN
from rt_swap.frames import U8, Expression
from rt_swap.provenance.marks import Marks
from rt_swap.studio.controls import OWN, Controls
from rt_swap.studio.gallery import Entry, Gallery, MakeSwapper
from rt_swap.studio.jobs import Job, Jobs, Wanted
from rt_swap.studio.output import Outputs
from rt_swap.studio.session import Emit, Session
from rt_swap.studio.uploads import MIB, Upload, Uploads

logger = logging.getLogger(__name__)

MAX_EXPRESSION_MIB: Final = 256
"""The most bytes of a picture or clip that is dropped in as an expression."""
MAX_VIDEO_MIB: Final = 4096
"""The most bytes of a video to be re-expressed, where nothing else is said."""


class Studio:
    """Gallery, jobs, controls and the one live session; a context manager.

    Args:
        make_swapper: Loads the model; called once for each of gallery, jobs and live session, each
            time on the thread that uses it.
        controls: What is set at first.
        max_video_mib: The most that is taken for a job.
        outputs: The virtual camera.
        marks: Of provenance, in every picture and file that leaves; None leaves them unmarked.
    """

    def __init__(
        self,
        make_swapper: MakeSwapper,
        *,
        controls: Controls | None = None,
        max_video_mib: int = MAX_VIDEO_MIB,
        outputs: Outputs | None = None,
        marks: Marks | None = None,
    ) -> None:
        if max_video_mib < 1:
            raise ConfigError(f"--max-upload-mib: must be 1 or more, got {max_video_mib}")
        self.max_video_bytes = max_video_mib * MIB
        self.max_expression_bytes = MAX_EXPRESSION_MIB * MIB
        self._make_swapper, self._marks = make_swapper, marks
        self._closing = contextlib.ExitStack()
        self.uploads = self._closing.enter_context(Uploads())
        self.gallery = Gallery(make_swapper)
        self._closing.callback(self.gallery.close)
        self.jobs = Jobs(make_swapper, self.uploads, marks)
        self._closing.callback(self.jobs.close)
        self.outputs = outputs or Outputs()
        self._lock = threading.Lock()
        self._controls = controls or Controls()
        self._session: Session | None = None
        self.model: dict[str, str] = {}

    def start(self) -> None:
        """Load the model's presets; their thumbnails follow in the background.

        Raises:
            RtSwapError: If the model cannot be loaded.
        """
        self.gallery.start().result()

    # --- controls ---
    @property
    def controls(self) -> Controls:
        """What is set."""
        with self._lock:
            return self._controls

    def change(self, changes: dict[str, Any]) -> Controls:
        """Set some of it; a running stream follows with its next picture.

        Raises:
            ConfigError: Naming everything that is wrong; nothing is changed then.
        """
        with self._lock:
            controls = self._controls.changed(changes)
            expression = self._expression(controls.chosen)
            if changes.get("virtual_camera"):
                self.outputs.forget_error()
            if self._session is not None:
                self._session.apply(controls, expression)
            self._controls = controls
            return controls

    def _expression(self, chosen: str) -> Expression | None:
        return None if chosen == OWN else self.gallery.get(chosen).expression

    def remove_expression(self, id_: str) -> None:
        """Forget an upload; where it is chosen, the person's own expression is chosen instead.

        Raises:
            ConfigError: If there is none, it is a preset, or it is what a running stream shows:
                removing it would show the person's own face without being asked to.
        """
        if self.controls.chosen == id_ and self.session is not None:
            raise ConfigError("it is in use; choose another expression first")
        self.gallery.remove(id_)
        if self.controls.chosen == id_:
            self.change({"chosen": OWN})

    # --- the live stream ---
    def new_session(self, emit: Emit, on_end: Callable[[str], None] | None = None) -> Session:
        """Begin a stream with what is set now."""
        with self._lock:
            session = Session(
                self._make_swapper,
                emit,
                self._controls,
                self._expression(self._controls.chosen),
                self.outputs,
                marks=self._marks,
                on_portrait=self._portrait,
                on_end=on_end,
            )
            self._session = session
        if self.gallery.lacks_thumbnails():
            session.ask_portrait()
        return session

    def session_ended(self, session: Session) -> None:
        """Forget a stream."""
        with self._lock:
            if self._session is session:
                self._session = None

    @property
    def session(self) -> Session | None:
        """The stream that runs, or None."""
        with self._lock:
            return self._session

    def _portrait(self, picture_bgr: U8) -> None:
        with contextlib.suppress(RuntimeError):  # the gallery is closed
            self.gallery.show_presets_on(picture_bgr)

    # --- jobs ---
    def add_job(self, upload: Upload, timing: str) -> Job:
        """Re-express a video with what is set now.

        Raises:
            ConfigError: If no expression is chosen or there are too many jobs.
            SourceError: If the file is not a video that can be read.
        """
        controls = self.controls
        entry = self._chosen_entry(controls)
        wanted = Wanted(entry.expression, entry.name, controls.gains(), controls.mode, timing)
        return self.jobs.add(upload, wanted)

    def check_job(self, timing: str) -> None:
        """What can be refused before a video has come in.

        Raises:
            ConfigError: Saying what is wrong.
        """
        controls = self.controls
        entry = self._chosen_entry(controls)
        Wanted(entry.expression, entry.name, controls.gains(), controls.mode, timing)
        self.jobs.check_room()

    def _chosen_entry(self, controls: Controls) -> Entry:
        if controls.chosen == OWN:
            raise ConfigError("choose an expression first: the video would stay as it is")
        return self.gallery.get(controls.chosen)

    # --- telling ---
    def as_json(self) -> dict[str, Any]:
        """All that the page needs to draw itself."""
        return {
            "version": __version__,
            "model": self.model,
            "max_gain": MAX_GAIN,
            "regions": list(REGIONS),
            "aus": [{"id": a.id.name, "name": a.name, "region": a.region} for a in AUS],
            "gallery": [entry.as_json() for entry in self.gallery.entries()],
            "controls": self.controls.as_json(),
            "output": self.outputs.as_json(),
            "jobs": [job.as_json() for job in self.jobs.all()],
            "limits": {
                "expression_mib": self.max_expression_bytes // MIB,
                "video_mib": self.max_video_bytes // MIB,
            },
        }

    # --- lifetime ---
    def close(self) -> None:
        """Release everything and remove every file; harmless when done twice."""
        session = self.session
        if session is not None:
            session.close()
        self._closing.close()

    def __enter__(self) -> Studio:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
