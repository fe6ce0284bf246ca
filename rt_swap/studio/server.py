"""The process behind the page: a socket on the loopback interface, uvicorn, an orderly end."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from rt_swap.errors import BackendUnavailable, ConfigError
from rt_swap.studio.core import Studio

if TYPE_CHECKING:
    import uvicorn

logger = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8471
_GRACE_S: Final = 2


def check_installed() -> None:
    """Refuse early where the page's libraries are missing.

    Raises:
        BackendUnavailable: Naming them.
    """
    import importlib.util

    missing = [n for n in ("fastapi", "uvicorn", "aiortc") if importlib.util.find_spec(n) is None]
    if missing:
        raise BackendUnavailable(
            f"studio: needs {', '.join(missing)}; install them: pip install 'rt-swap[studio]'"
        )


def listen(port: int | None) -> socket.socket:
    """A socket on the loopback interface.

    Args:
        port: Which; 0 for any; None for the usual one, or any where that is taken (a browser
            remembers the camera's permission by port, so the usual one is better).

    Raises:
        ConfigError: If the port asked for is taken or out of range.
    """
    if port is not None and not 0 <= port <= 65535:
        raise ConfigError(f"--port: must be 0 to 65535, got {port}")
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        try:
            sock.bind((HOST, DEFAULT_PORT if port is None else port))
        except OSError as error:
            if port is not None:
                raise ConfigError(
                    f"--port {port}: cannot be used ({error.strerror}); give another, or 0 for any"
                ) from error
            sock.bind((HOST, 0))
        sock.listen(64)
    except BaseException:
        sock.close()
        raise
    return sock


def make_server(
    studio: Studio, sock: socket.socket, token: str, ready: Callable[[str], None] | None = None
) -> uvicorn.Server:
    """The server, not yet running: ``run(sockets=[sock])`` runs it, ``should_exit`` ends it.

    Args:
        studio: Started.
        sock: From :func:`listen`.
        token: The secret.
        ready: Called with the page's address once it is served.
    """
    import uvicorn

    from rt_swap.studio.app import create_app

    port = int(sock.getsockname()[1])
    config = uvicorn.Config(
        create_app(studio, token, port),
        log_config=None,
        access_log=False,  # it would hold the token
        server_header=False,
        date_header=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=_GRACE_S,
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if ready is not None and not self.should_exit:
                ready(f"http://{HOST}:{port}/{token}/")

    return Server(config)


def serve(
    studio: Studio, sock: socket.socket, *, ready: Callable[[str], None] | None = None
) -> None:
    """Serve until Ctrl-C or SIGTERM; the caller closes the studio.

    Args:
        studio: Started.
        sock: From :func:`listen`; closed at the end.
        ready: Called with the page's address once it is served.
    """
    try:
        make_server(studio, sock, secrets.token_urlsafe(24), ready).run(sockets=[sock])
    finally:
        sock.close()
