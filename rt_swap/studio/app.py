"""The page's HTTP side, by FastAPI. It sees paths without the token; see ``guard``."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rt_swap.errors import ConfigError, ContractError, RtSwapError
from rt_swap.studio.core import Studio
from rt_swap.studio.guard import Guard
from rt_swap.studio.jobs import DONE
from rt_swap.studio.session import Session
from rt_swap.studio.uploads import TooLargeError, Upload

logger = logging.getLogger(__name__)

WEB: Final = Path(__file__).resolve().parent / "web"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_MAX_BODY: Final = 256 * 1024
"""The most bytes of a request that is not an upload."""

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Offer(_Body):
    """A browser's side of a connection."""

    sdp: str = Field(max_length=100_000)


class Calibration(_Body):
    """How long the resting face is looked at."""

    seconds: float = Field(default=2.0, ge=0.5, le=30.0)


def create_app(studio: Studio, token: str, port: int) -> Guard:
    """The whole application, guarded.

    Args:
        studio: What it serves; the caller closes it after the server has ended.
        token: The first part of every path.
        port: Listened on.
    """
    # files are looked up by name in this table; no path is made from what a client sends
    files = {path.name: path for path in WEB.iterdir() if path.suffix in _TYPES}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await live.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    live = _Live(studio)

    @app.middleware("http")
    async def limit(request: Request, call_next: Callable[..., Any]) -> Response:
        uploads = request.method == "POST" and request.url.path in ("/api/expressions", "/api/jobs")
        if not uploads:
            length = request.headers.get("content-length", "0")
            if "transfer-encoding" in request.headers or not length.isdecimal():
                return _error(411, "say how long the request is")
            if int(length) > _MAX_BODY:
                return _error(413, "the request is too long")
        response: Response = await call_next(request)
        return response

    @app.exception_handler(RtSwapError)
    async def told(_: Request, error: RtSwapError) -> JSONResponse:
        status = 413 if isinstance(error, TooLargeError) else 422
        return _error(status, " ".join(str(error).split()))

    @app.exception_handler(HTTPException)
    @app.exception_handler(404)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail))

    # --- the page ---
    @app.get("/")
    async def page() -> FileResponse:
        return FileResponse(files["index.html"], media_type=_TYPES[".html"])

    @app.get("/web/{name}")
    async def web(request: Request) -> FileResponse:
        path = files.get(request.path_params["name"])
        if path is None:
            raise HTTPException(404, "there is no such file")
        return FileResponse(path, media_type=_TYPES[path.suffix])

    @app.get("/api/state")
    async def state() -> dict[str, Any]:
        return studio.as_json()

    @app.patch("/api/controls")
    async def controls(request: Request) -> dict[str, Any]:
        changes = await _json(request)
        return (await _aside(lambda: studio.change(changes))).as_json()

    # --- live ---
    @app.post("/api/offer")
    async def offer(request: Request) -> dict[str, str]:
        body = await _of(Offer, request)
        return {"sdp": await live.answer(body.sdp)}

    @app.post("/api/stop")
    async def stop() -> dict[str, bool]:
        return {"stopped": await live.stop()}

    @app.post("/api/calibrate")
    async def calibrate(request: Request) -> dict[str, bool]:
        body = await _of(Calibration, request)
        session = studio.session
        if session is None or not session.calibrate(body.seconds):
            raise HTTPException(409, "turn the camera on first")
        return {"calibrating": True}

    @app.post("/api/presets/portrait")
    async def portrait() -> dict[str, bool]:
        session = studio.session
        if session is None:
            raise HTTPException(409, "turn the camera on first")
        session.ask_portrait()
        return {"asked": True}

    # --- the gallery ---
    @app.get("/api/expressions/{id_}/thumbnail")
    async def thumbnail(request: Request) -> Response:
        id_ = request.path_params["id_"]
        data = _found(lambda: studio.gallery.get(id_)).thumbnail
        if data is None:
            raise HTTPException(404, "there is no picture of it yet")
        return Response(data, media_type="image/jpeg")

    @app.post("/api/expressions")
    async def add_expression(request: Request) -> dict[str, Any]:
        upload = await _receive(request, studio, studio.max_expression_bytes)
        entry = await asyncio.wrap_future(studio.gallery.add(upload))
        return entry.as_json()

    @app.delete("/api/expressions/{id_}")
    async def remove_expression(request: Request) -> dict[str, Any]:
        id_ = request.path_params["id_"]
        _found(lambda: studio.gallery.get(id_))
        studio.remove_expression(id_)
        return studio.controls.as_json()

    # --- jobs ---
    @app.get("/api/jobs")
    async def jobs() -> list[dict[str, Any]]:
        return [job.as_json() for job in studio.jobs.all()]

    @app.post("/api/jobs")
    async def add_job(request: Request) -> dict[str, Any]:
        timing = request.query_params.get("timing", "loop")
        studio.check_job(timing)
        upload = await _receive(request, studio, studio.max_video_bytes)
        job = await _aside(lambda: studio.add_job(upload, timing))
        return job.as_json()

    @app.delete("/api/jobs/{id_}")
    async def remove_job(request: Request) -> dict[str, bool]:
        id_ = request.path_params["id_"]
        _found(lambda: studio.jobs.get(id_))
        studio.jobs.remove(id_)
        return {"removed": True}

    @app.get("/api/jobs/{id_}/result")
    async def result(request: Request) -> FileResponse:
        job = _found(lambda: studio.jobs.get(request.path_params["id_"]))
        path = job.result
        if job.state != DONE or path is None:
            raise HTTPException(409, "it is not done yet")
        return FileResponse(
            path,
            media_type="video/mp4",
            filename=job.download_name if "download" in request.query_params else None,
        )

    return Guard(app, token, port)


class _Live:
    """The one connection; a new one takes the place of the old."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._peer: Any = None
        self._turn = asyncio.Lock()

    async def answer(self, sdp: str) -> str:
        from rt_swap.studio.webrtc import Peer

        async with self._turn:
            if self._peer is not None:
                await self._peer.end("the camera was turned on in another window")
            sessions: list[Session] = []

            def make(emit: Any) -> Session:
                sessions.append(self._studio.new_session(emit))
                return sessions[0]

            def closed(peer: Peer) -> None:
                self._studio.session_ended(peer.session)
                if self._peer is peer:
                    self._peer = None

            peer = Peer(make, closed)
            self._peer = peer
            try:
                return await peer.answer(sdp)
            except ContractError:
                await peer.close()
                raise

    async def stop(self) -> bool:
        async with self._turn:
            if self._peer is None:
                return False
            await self._peer.close()
            return True

    async def close(self) -> None:
        if self._peer is not None:
            await self._peer.end("rt-swap studio was ended")


async def _receive(request: Request, studio: Studio, limit_bytes: int) -> Upload:
    length = request.headers.get("content-length", "")
    return await studio.uploads.receive(
        request.stream(),
        request.headers.get("x-file-name", "file")[:1024],
        limit_bytes,
        int(length) if length.isdecimal() else None,
    )


async def _json(request: Request) -> dict[str, Any]:
    try:
        values = await request.json()
    except (ValueError, RecursionError) as error:
        raise ConfigError("the request is not JSON") from error
    if not isinstance(values, dict):
        raise ConfigError("the request must be a JSON object")
    return values


async def _of(model: type[M], request: Request) -> M:
    values = await _json(request)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError("; ".join(wrong)) from error


async def _aside(function: Callable[[], T]) -> T:
    """Run what takes a moment beside the event loop."""
    return await asyncio.get_running_loop().run_in_executor(None, functools.partial(function))


def _found(get: Callable[[], T]) -> T:
    try:
        return get()
    except ConfigError as error:
        raise HTTPException(404, str(error)) from error


def _error(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status)
