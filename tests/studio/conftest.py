"""The page's server over a real socket, and a client that may lie about everything."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs FastAPI (pip install 'rt-swap[studio]')")
pytest.importorskip("uvicorn", reason="needs uvicorn (pip install 'rt-swap[studio]')")
pytest.importorskip("aiortc", reason="needs aiortc (pip install 'rt-swap[studio]')")

from rt_swap.model import load_bundle
from rt_swap.studio.core import Studio
from rt_swap.studio.output import Outputs
from rt_swap.studio.server import listen, make_server
from rt_swap.swapper import Swapper
from tests.support.swapping import sitting_swapper
from tests.support.tiny_model import tiny_bundle

TOKEN = "a-token-for-tests-0123456789"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


@dataclass
class Page:
    """A served studio.

    Attributes:
        studio: What is behind it.
        port: Where it listens.
    """

    studio: Studio
    port: int

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        *,
        token: str = TOKEN,
        **headers: str,
    ) -> Answer:
        """One request; underscores in header names stand for hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(
                method,
                f"/{token}/{path}" if token else f"/{path}",
                body,
                {name.replace("_", "-"): value for name, value in headers.items()},
                encode_chunked=body is not None and not isinstance(body, bytes),
            )
            response = connection.getresponse()
            got = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, got, response.read())
        finally:
            connection.close()

    def patch(self, **changes: Any) -> Answer:
        return self.ask("PATCH", "api/controls", json.dumps(changes).encode())

    @property
    def files(self) -> list[Path]:
        """What lies in the folder of uploads."""
        return list(self.studio.uploads.folder.iterdir())


Serve = Callable[..., Page]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("studio") / "bundle")


@pytest.fixture
def make_tiny(tiny: Path) -> Callable[[], Swapper]:
    """Loads a model without weights whose tracker sees a face in every picture."""
    bundle = load_bundle(tiny)
    return lambda: sitting_swapper(bundle)


@pytest.fixture
def serve(make_tiny: Callable[[], Swapper]) -> Iterator[Serve]:
    """Serves a studio; all of them end with the test."""
    ends: list[Callable[[], None]] = []

    def start(make_swapper: Callable[[], Swapper] = make_tiny, **options: Any) -> Page:
        options.setdefault("outputs", Outputs(why_not=lambda: "there is none in tests"))
        studio = Studio(make_swapper, **options)
        ends.append(studio.close)
        studio.start()
        sock = listen(0)
        port = int(sock.getsockname()[1])
        up = threading.Event()
        server = make_server(studio, sock, TOKEN, lambda address: up.set())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()

        def end() -> None:
            server.should_exit = True
            thread.join(20)
            sock.close()
            assert not thread.is_alive()

        ends.append(end)
        assert up.wait(20)
        return Page(studio, port)

    yield start
    for end in reversed(ends):
        end()


@pytest.fixture
def page(serve: Serve) -> Page:
    return serve()
