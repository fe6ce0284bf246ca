"""The connection itself, with aiortc as the browser: no STUN server, candidates hidden or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from rt_swap.errors import ContractError
from rt_swap.studio.controls import Controls
from rt_swap.studio.output import Outputs
from rt_swap.studio.session import Session
from rt_swap.swapper import Swapper

aiortc = pytest.importorskip("aiortc", reason="needs aiortc (pip install 'rt-swap[studio]')")

MDNS = "4f2a8c1e-0d6b-4a52-9a51-0c5a6c1c2b3d.local"


def _camera(size_wh: tuple[int, int]) -> Any:
    import av

    class Camera(aiortc.MediaStreamTrack):  # type: ignore[misc, name-defined]
        kind = "video"
        number = 0

        async def recv(self) -> Any:
            await asyncio.sleep(1 / 30)
            level = 40 + 5 * (self.number % 30)
            picture_bgr = np.full((size_wh[1], size_wh[0], 3), level, np.uint8)
            picture = av.VideoFrame.from_ndarray(picture_bgr, "bgr24")
            picture.pts, picture.time_base = self.number * 3000, Fraction(1, 90000)
            self.number += 1
            return picture

    return Camera()


async def _talk(make: Callable[[], Swapper], hide: bool) -> dict[str, Any]:
    """Connect, look at pictures and figures, hang up; returns what was seen."""
    from rt_swap.studio.webrtc import Peer

    closed: list[Peer] = []
    sessions: list[Session] = []

    def make_session(emit: Any) -> Session:
        outputs = Outputs(why_not=lambda: "none")
        sessions.append(Session(make, emit, Controls(), None, outputs))
        return sessions[0]

    peer = Peer(make_session, closed.append)
    browser = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
    seen: dict[str, Any] = {"stats": [], "pong": None}
    got_track: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    try:
        browser.on("track", lambda track: got_track.set_result(track))
        browser.addTrack(_camera((128, 96)))
        channel = browser.createDataChannel("studio")

        def hear(text: str) -> None:
            message = json.loads(text)
            seen["pong"] = message.get("pong", seen["pong"])
            seen["stats"] += [message["stats"]] if "stats" in message else []

        channel.on("message", hear)
        channel.on("open", lambda: channel.send("123.5"))
        await browser.setLocalDescription(await browser.createOffer())
        sdp = browser.localDescription.sdp
        if hide:
            lines = sdp.splitlines()
            for i, line in enumerate(lines):
                if line.startswith("a=candidate:"):
                    pieces = line.split(" ")
                    lines[i] = " ".join([*pieces[:4], MDNS, *pieces[5:]])
            sdp = "\r\n".join(lines) + "\r\n"
        answer = await peer.answer(sdp)
        await browser.setRemoteDescription(aiortc.RTCSessionDescription(answer, "answer"))
        track = await asyncio.wait_for(got_track, 10)
        pictures = [await asyncio.wait_for(track.recv(), 20) for _ in range(5)]
        while not (seen["pong"] and any(s["age_ms"] for s in seen["stats"])):
            await asyncio.wait_for(track.recv(), 20)
        seen["sizes"] = {(p.width, p.height) for p in pictures}
        seen["times"] = [p.pts for p in pictures]
        seen["answer"] = answer
    finally:
        await browser.close()
        await peer.close()
    assert closed == [peer]
    assert sessions[0].stats()["phase"] == "ended"
    return seen


@pytest.mark.parametrize("hide", [False, True], ids=["addresses", "mdns"])
def test_pictures_go_there_and_back(make_tiny: Callable[[], Swapper], hide: bool) -> None:
    seen = asyncio.run(_talk(make_tiny, hide))
    assert seen["sizes"] == {(128, 96)}
    assert seen["times"] == sorted(set(seen["times"]))
    assert seen["pong"] == "123.5"
    assert seen["stats"][-1]["phase"] == "live"
    assert "127.0.0.1" in seen["answer"]  # so that it works without a network, too


def test_offers_of_something_else_are_refused(make_tiny: Callable[[], Swapper]) -> None:
    async def offer(sdp: str) -> None:
        from rt_swap.studio.webrtc import Peer

        outputs = Outputs(why_not=lambda: "none")
        peer = Peer(
            lambda emit: Session(make_tiny, emit, Controls(), None, outputs), lambda _: None
        )
        try:
            await peer.answer(sdp)
        finally:
            await peer.close()

    for sdp in ("", "v=0", "nonsense", "v=0\r\n" * 30_000):
        with pytest.raises(ContractError, match="offer"):
            asyncio.run(offer(sdp))


def test_candidates_elsewhere_are_left_out_and_hidden_ones_are_ours() -> None:
    from rt_swap.studio.webrtc import local_sdp

    def candidate(host: str, protocol: str = "udp") -> str:
        return f"a=candidate:1 1 {protocol} 2113937151 {host} 50000 typ host"

    sdp = "\r\n".join(
        [
            "v=0",
            candidate("192.0.2.7"),
            candidate("10.0.0.5"),
            candidate("10.0.0.5", "tcp"),
            candidate(MDNS),
            candidate("example.com"),
            "a=candidate:short",
            "a=end-of-candidates",
        ]
    )
    kept = local_sdp(sdp, ["127.0.0.1", "10.0.0.5"]).split("\r\n")
    assert kept == [
        "v=0",
        candidate("10.0.0.5"),
        candidate("127.0.0.1"),
        candidate("10.0.0.5"),
        "a=end-of-candidates",
        "",
    ]


def test_clock_ascends_over_the_wrap() -> None:
    from rt_swap.studio.webrtc import _Clock

    wrap = 1 << 32
    clock = _Clock()
    assert [clock.at(pts) for pts in (wrap - 3000, 0, 3000)] == [0, 3000, 6000]
    # what comes twice or too late still ascends
    assert [clock.at(pts) for pts in (3000, 1000, 7000)] == [6001, 6002, 12002]
