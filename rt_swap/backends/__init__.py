"""Ways of running our graphs. Importing this imports no runtime library.

``get_backend("onnxruntime").load(bundle.generator_path, GENERATOR_SPEC, threads=1)`` is a session;
``available_backends()`` says which ones can run here and why the others cannot.
"""

from rt_swap.backends.base import Backend, Composed, FusedSession, Session, check_inputs
from rt_swap.backends.registry import available_backends, get_backend, register_backend

__all__ = [
    "Backend",
    "Composed",
    "FusedSession",
    "Session",
    "available_backends",
    "check_inputs",
    "get_backend",
    "register_backend",
]
