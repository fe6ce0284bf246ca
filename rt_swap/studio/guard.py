"""Who may ask: only this machine, only with the token, only from our own page.

The token is the first part of every path (``/TOKEN/...``), so it protects pages, scripts and
uploads alike, and the page's relative addresses carry it on without knowing it. ``Host`` must be a
name of the loopback interface, which a name that was rebound to it (DNS rebinding) is not;
``Origin`` and ``Sec-Fetch-Site``, where a browser sends them, must be our own.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob: mediastream:",
        "connect-src 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = tuple(
    (name.encode(), value.encode())
    for name, value in (
        ("content-security-policy", CONTENT_SECURITY_POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(self), microphone=(), geolocation=()"),
        ("cache-control", "no-store"),
    )
)


class Guard:
    """Wraps an application; what may not pass is answered here.

    Args:
        app: What is guarded; it sees paths without the token.
        token: The secret, 16 characters or more.
        port: The one that is listened on; a Host without it is not ours.
    """

    def __init__(self, app: App, token: str, port: int) -> None:
        if len(token) < 16:
            raise ValueError("Guard: a token has 16 characters or more")
        self._app, self._token = app, token.encode()
        self._hosts = {f"{name}:{port}" for name in LOOPBACK_NAMES}
        if port == 80:
            self._hosts |= set(LOOPBACK_NAMES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if scope["type"] != "http":  # no other kind is spoken here
            await send({"type": "websocket.close", "code": 4403})
            return
        if refusal is not None:
            await _answer(send, *refusal)
            return
        path = scope["path"].split("/", 2)[2]
        inner = {**scope, "path": f"/{path}", "raw_path": f"/{path}".encode(), "root_path": ""}

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = {name for name, _ in HEADERS}
                kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in ours]
                message = {**message, "headers": [*kept, *HEADERS]}
            await send(message)

        await self._app(inner, receive, with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and text, or None where the request may pass."""
        hosts = _values(scope, b"host")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return 421, "This address is not served here. Use the one that rt-swap studio printed."
        origins = _values(scope, b"origin")
        if any(origin != f"http://{hosts[0]}" for origin in origins):
            return 403, "Another page may not ask this one."
        # a link to the page may stand anywhere, say in a terminal that is itself a page
        navigates = scope.get("method") == "GET" and _values(scope, b"sec-fetch-dest") == [
            "document"
        ]
        sites = _values(scope, b"sec-fetch-site")
        if not navigates and any(site not in ("same-origin", "none") for site in sites):
            return 403, "Another page may not ask this one."
        first, slash, _ = scope["path"].removeprefix("/").partition("/")
        if not slash or not hmac.compare_digest(first.encode(), self._token):
            return 403, "Open the whole address that rt-swap studio printed; it holds a key."
        return None


def _values(scope: Scope, name: bytes) -> list[str]:
    headers: Iterable[tuple[bytes, bytes]] = scope.get("headers", ())
    return [value.decode("latin-1").lower() for key, value in headers if key.lower() == name]


async def _answer(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *HEADERS,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
