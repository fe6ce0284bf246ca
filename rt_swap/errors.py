"""Exceptions of rt_swap. Each one also *is* the builtin in brackets, so ``except ValueError``
works.

    RtSwapError (Exception)
    +- ConfigError       (ValueError)    a wrong option, file of settings or environment variable
    +- ContractError     (ValueError)    a wrong shape, dtype, range or device
    +- BackendError      (RuntimeError)
    |  +- BackendUnavailable             the runtime or device asked for is not here
    |  +- EngineBuildError               an engine could not be built
    |  +- EngineMismatch                 a cached engine belongs to something else
    |  +- ModelFileError                 a model file is missing, corrupt or not the one the
    manifest names
    |  +- InferenceError                 a graph failed while running
    +- ExpressionError   (ValueError)    an expression cannot be had
    |  +- NoFaceError                    there is no face where one is needed
    |  +- ExpressionFileError            an expression file is corrupt or made by another model
    +- StreamError       (OSError)
       +- SourceError                    frames cannot be read
       +- SinkError                      frames cannot be written

The command line turns each into one sentence and an exit code of its own
(``rt_swap.cli.EXIT_CODES``).
"""

from __future__ import annotations


class RtSwapError(Exception):
    """Root of everything rt_swap raises on purpose."""


class ConfigError(RtSwapError, ValueError):
    """An option, settings file or environment variable is wrong; the message names it."""


class ContractError(RtSwapError, ValueError):
    """An array is not what an operation takes.

    Attributes:
        expected: What was expected, as text, or None.
        actual: What came, as text, or None.
    """

    def __init__(
        self, message: str, *, expected: str | None = None, actual: str | None = None
    ) -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class BackendError(RtSwapError, RuntimeError):
    """A way of running graphs failed."""


class BackendUnavailable(BackendError):
    """The backend asked for cannot run here; the message says why and what to do."""


class EngineBuildError(BackendError):
    """An engine could not be built; the message carries the parser's or builder's own words."""


class EngineMismatch(BackendError):
    """A cached engine was built for something else; the message names the field that differs."""


class ModelFileError(BackendError):
    """A model file is missing, corrupt, or not the one the manifest names."""


class InferenceError(BackendError):
    """A loaded graph failed while running."""


class ExpressionError(RtSwapError, ValueError):
    """An expression could not be made, found or read."""


class NoFaceError(ExpressionError):
    """No face was found where one is needed."""


class ExpressionFileError(ExpressionError):
    """An expression file is corrupt or belongs to another model."""


class StreamError(RtSwapError, OSError):
    """Frames could not be read or written."""


class SourceError(StreamError):
    """Frames cannot be read: missing, unreadable, empty or not a video at all."""


class SinkError(StreamError):
    """Frames cannot be written: the path exists, is the input, is not writable, or the disk is
    full.
    """


def in_one_line(error: BaseException) -> str:
    """What to tell people of an error: our own say it themselves, others need their kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, RtSwapError) else f"{type(error).__name__}: {text}"
