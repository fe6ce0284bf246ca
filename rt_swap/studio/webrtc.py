"""aiortc's side: a peer connection to the page, its pictures to the session and back.

The browser is on this machine, so no STUN server is needed: it reaches one of our host candidates.
Its own candidates may be hidden behind mDNS names; whichever address such a name stands for, it is
one of this machine's, so each is replaced by all of those, and candidates elsewhere are left out.
Browsers leave the loopback interface out of their candidates, so ours are on all of the machine's
addresses; what arrives there needs the connection's secrets (ICE's passwords, then DTLS with the
fingerprints exchanged over the guarded page).
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import time
from collections.abc import Callable
from typing import Any, Final

import aioice.ice
import aiortc.codecs.h264
import aiortc.codecs.vpx
import av
import ifaddr
import numpy as np
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from rt_swap.errors import ContractError
from rt_swap.frames import U8
from rt_swap.studio.session import CLOCK, Incoming, Session

logger = logging.getLogger(__name__)

_STATS_EVERY_S: Final = 0.2
_CONNECT_S: Final = 20.0
_SILENCE_S: Final = 15.0
"""Without a picture for this long the browser is taken for gone."""
_MAX_SDP: Final = 100_000
_MAX_MESSAGE: Final = 512
_BITRATES: Final = {
    "MIN_BITRATE": 1_000_000,
    "DEFAULT_BITRATE": 4_000_000,
    "MAX_BITRATE": 12_000_000,
}
"""aiortc's own are for the internet; on one machine they would only make the picture worse."""
_RTP_WRAP: Final = 1 << 32


def own_addresses(use_ipv4: bool = True, use_ipv6: bool = True) -> list[str]:
    """This machine's addresses, the loopback one first."""
    found = ["127.0.0.1"] if use_ipv4 else []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if isinstance(ip.ip, str):
                if use_ipv4 and ip.ip not in found:
                    found.append(ip.ip)
            elif use_ipv6 and ip.ip[2] == 0 and ip.ip[0] != "::1":  # not link-local
                found.append(ip.ip[0])
    return found


def _adapt_libraries() -> None:
    aioice.ice.get_host_addresses = own_addresses
    for codec in (aiortc.codecs.vpx, aiortc.codecs.h264):
        for name, value in _BITRATES.items():
            setattr(codec, name, value)


_adapt_libraries()


def local_sdp(sdp: str, addresses: list[str]) -> str:
    """An offer whose candidates are this machine's.

    Args:
        sdp: From the browser.
        addresses: This machine's.

    Returns:
        The same with mDNS candidates replaced by one for each address, and others removed.
    """
    lines = []
    known = {ipaddress.ip_address(a) for a in addresses}
    for line in sdp.splitlines():
        if not line.startswith("a=candidate:"):
            lines.append(line)
            continue
        pieces = line.split(" ")
        if len(pieces) < 8 or pieces[2].lower() != "udp":
            continue
        if pieces[4].lower().endswith(".local"):
            for address in addresses:
                lines.append(" ".join([*pieces[:4], address, *pieces[5:]]))
            continue
        try:
            if ipaddress.ip_address(pieces[4].partition("%")[0]) in known:
                lines.append(line)
        except ValueError:
            continue
    return "\r\n".join(lines) + "\r\n"


class _Returning(MediaStreamTrack):
    """The track back to the browser: always the newest picture."""

    kind = "video"

    def __init__(self, on_sent: Callable[[Incoming, float], None]) -> None:
        super().__init__()
        self._on_sent = on_sent
        self._sending: tuple[Incoming, float] | None = None
        self._newest: tuple[av.VideoFrame, Incoming] | None = None
        self._changed = asyncio.Event()

    def put(self, picture: av.VideoFrame, incoming: Incoming) -> None:
        """On the event loop."""
        self._newest = (picture, incoming)
        self._changed.set()

    async def recv(self) -> av.VideoFrame:
        """The newest picture; aiortc asks for it once the last one is encoded and sent."""
        if self._sending is not None:
            (incoming, begin_s), self._sending = self._sending, None
            self._on_sent(incoming, (time.perf_counter() - begin_s) * 1e3)
        while True:
            if self.readyState != "live":
                raise MediaStreamError
            if self._newest is not None:
                (picture, incoming), self._newest = self._newest, None
                self._sending = (incoming, time.perf_counter())
                return picture
            self._changed.clear()
            await self._changed.wait()

    def stop(self) -> None:
        """End the track."""
        super().stop()
        self._changed.set()


class Peer:
    """One browser's connection. Lives on the event loop.

    Args:
        make_session: Makes the session from a function that takes its pictures.
        on_closed: Called once when all is over.
    """

    def __init__(
        self,
        make_session: Callable[[Callable[[U8, Incoming], None]], Session],
        on_closed: Callable[[Peer], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pc = RTCPeerConnection()
        self._on_closed = on_closed
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._channel: Any = None
        self._farewell = ""
        self._last_picture_s = time.monotonic()
        self._returning = _Returning(lambda *sent: self.session.sent(*sent))
        self.session = make_session(self._emit)

    async def answer(self, sdp: str) -> str:
        """Take the browser's offer.

        Args:
            sdp: The offer, candidates included.

        Returns:
            The answer, candidates included.

        Raises:
            ContractError: If it is no offer of one video and a data channel.
        """
        if len(sdp) > _MAX_SDP:
            raise ContractError("the offer is too long")
        pc = self._pc
        pc.on("track", self._on_track)
        pc.on("datachannel", self._on_channel)
        pc.on("connectionstatechange", self._on_state)
        try:
            offer = RTCSessionDescription(local_sdp(sdp, own_addresses()), "offer")
            await pc.setRemoteDescription(offer)
            pc.addTrack(self._returning)
            await pc.setLocalDescription(await pc.createAnswer())
        except (ValueError, KeyError, IndexError, AttributeError, AssertionError) as error:
            raise ContractError(f"the browser's offer cannot be used: {error}") from error
        except Exception as error:  # aiortc's own errors have no common ancestor
            raise ContractError(f"the browser's offer cannot be used: {error}") from error
        self._start(self._watch())
        return str(pc.localDescription.sdp)

    def end(self, why: str = "") -> asyncio.Task[None]:
        """Begin to end the connection; the task is done when all is released.

        Args:
            why: Told to the page, where it can still be.
        """
        if self._closing is None:
            self._farewell = why
            self._closing = self._loop.create_task(self._close())
        return self._closing

    async def close(self) -> None:
        """End the connection and wait until all is released."""
        await asyncio.shield(self.end())

    # --- from the browser ---
    def _on_track(self, track: Any) -> None:
        if track.kind == "video":
            self._start(self._receive(track))

    async def _receive(self, track: Any) -> None:
        clock = _Clock()
        try:
            while True:
                picture = await track.recv()
                arrived_s = time.perf_counter()
                self._last_picture_s = time.monotonic()
                self.session.offer(Incoming(_reader(picture), clock.at(picture.pts), arrived_s))
        except MediaStreamError:
            self.end()

    def _on_channel(self, channel: Any) -> None:
        if channel.label != "studio" or self._channel is not None:
            channel.close()
            return
        self._channel = channel
        channel.on("message", self._on_message)
        self._start(self._tell())

    def _on_message(self, message: Any) -> None:
        """A ping, sent back as it came, so that the page can tell how long the way is."""
        if isinstance(message, str) and len(message) <= _MAX_MESSAGE and self._channel is not None:
            self._channel.send(json.dumps({"pong": message}))

    async def _tell(self) -> None:
        while self._channel.readyState == "open":
            stats = self.session.stats()
            if self._channel.bufferedAmount < 65_536:  # else the page does not listen
                self._channel.send(json.dumps({"stats": stats}))
            if stats["phase"] == "ended":
                self.end(stats["error"])
                return
            await asyncio.sleep(_STATS_EVERY_S)

    def _on_state(self) -> None:
        if self._pc.connectionState in ("failed", "closed"):
            self.end()

    async def _watch(self) -> None:
        """End what never connects, or whose browser is gone without a word."""
        begin = time.monotonic()
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            connected = self._pc.connectionState == "connected"
            if not connected and now - begin > _CONNECT_S:
                logger.warning("the browser did not connect within %g s", _CONNECT_S)
                self.end()
                return
            if connected and now - self._last_picture_s > _SILENCE_S:
                self.end("no picture came from the browser")
                return

    # --- to the browser ---
    def _emit(self, picture_bgr: U8, incoming: Incoming) -> None:
        """On the session's thread."""
        height, width = picture_bgr.shape[:2]
        even = np.ascontiguousarray(picture_bgr[: height & ~1, : width & ~1])
        picture = av.VideoFrame.from_ndarray(even, "bgr24").reformat(format="yuv420p")
        picture.pts, picture.time_base = incoming.pts, CLOCK
        try:
            self._loop.call_soon_threadsafe(self._returning.put, picture, incoming)
        except RuntimeError:  # the loop has ended
            logger.debug("a picture came after the end")

    # --- lifetime ---
    def _start(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("the connection failed: %s", error, exc_info=error)
            self.end()

    async def _close(self) -> None:
        if self._channel is not None and self._channel.readyState == "open":
            self._channel.send(json.dumps({"bye": self._farewell}))
            await asyncio.sleep(0.05)
        for task in list(self._tasks):
            task.cancel()
        self._returning.stop()
        await self._pc.close()
        await self._loop.run_in_executor(None, self.session.close)
        self._on_closed(self)


class _Clock:
    """RTP's times, which wrap around and start anywhere, as times that ascend from 0."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._time = 0

    def at(self, pts: int | None) -> int:
        """The time of the next picture, in units of CLOCK."""
        pts = 0 if pts is None else pts
        step = 0
        if self._last is not None:
            step = (pts - self._last + _RTP_WRAP // 2) % _RTP_WRAP - _RTP_WRAP // 2
            self._time += max(step, 1)
        self._last = pts
        return self._time


def _reader(picture: av.VideoFrame) -> Callable[[], U8]:
    def read() -> U8:
        return np.ascontiguousarray(picture.to_ndarray(format="bgr24"), np.uint8)

    return read
