"""Nobody but this machine's own page gets anything, and nothing it sends is trusted."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from rt_swap.studio.core import Studio
from rt_swap.studio.server import HOST
from tests.studio.conftest import TOKEN, Page, Serve

ENDPOINTS = [
    ("GET", ""),
    ("GET", "web/main.js"),
    ("GET", "api/state"),
    ("PATCH", "api/controls"),
    ("POST", "api/offer"),
    ("POST", "api/stop"),
    ("POST", "api/calibrate"),
    ("POST", "api/expressions"),
    ("GET", "api/expressions/preset:smile/thumbnail"),
    ("POST", "api/jobs?timing=loop"),
    ("GET", "api/jobs"),
    ("GET", "api/jobs/abc/result"),
    ("DELETE", "api/jobs/abc"),
]


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "%00", "é"])
def test_every_endpoint_wants_the_token(page: Page, token: str) -> None:
    for method, path in ENDPOINTS:
        quoted = token.replace("é", "%C3%A9")
        answer = page.ask(method, path, b"{}" if method != "GET" else None, token=quoted)
        assert answer.status == 403, (method, path)
        assert b"key" in answer.body
        assert TOKEN.encode() not in answer.body


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil:{port}"],
)
def test_a_rebound_name_is_refused(page: Page, host: str) -> None:
    answer = page.ask("GET", "api/state", host=host.format(port=page.port))
    assert answer.status == 421


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_loopback_names_are_served(page: Page, name: str) -> None:
    assert page.ask("GET", "api/state", host=f"{name}:{page.port}").status == 200


def test_two_hosts_are_refused(page: Page) -> None:
    with socket.create_connection((HOST, page.port)) as sock:
        sock.sendall(
            f"GET /{TOKEN}/api/state HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n"
            f"Host: evil.example\r\nConnection: close\r\n\r\n".encode()
        )
        assert re.match(rb"HTTP/1.1 4\d\d ", sock.recv(4096))


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1"]
)
def test_another_page_may_not_ask(page: Page, origin: str) -> None:
    headers = {"origin": origin.format(port=page.port)}
    for method, path in ENDPOINTS:
        assert page.ask(method, path, b"{}", **headers).status == 403, (method, path)


def test_own_page_may_ask(page: Page) -> None:
    own = {"origin": f"http://127.0.0.1:{page.port}", "sec_fetch_site": "same-origin"}
    assert page.ask("PATCH", "api/controls", b'{"overall": 0.5}', **own).json["overall"] == 0.5


def test_cross_site_fetch_is_refused_but_a_link_may_lead_here(page: Page) -> None:
    there = {"sec_fetch_site": "cross-site"}
    assert page.ask("GET", "api/state", **there, sec_fetch_dest="empty").status == 403
    assert page.ask("GET", "web/main.js", **there, sec_fetch_dest="script").status == 403
    assert page.ask("POST", "api/stop", b"{}", **there, sec_fetch_dest="document").status == 403
    assert page.ask("GET", "", **there, sec_fetch_dest="document").status == 200


def test_listens_on_loopback_only(page: Page) -> None:
    import ifaddr

    others = [ip.ip for a in ifaddr.get_adapters() for ip in a.ips if isinstance(ip.ip, str)]
    for address in others:
        if not address.startswith("127."):
            with pytest.raises(OSError, match=r"."):
                socket.create_connection((address, page.port), timeout=2).close()


def test_every_answer_has_the_headers_that_protect(page: Page) -> None:
    answers = [page.ask("GET", path) for path in ("", "web/style.css", "api/state", "api/nothing")]
    answers += [page.ask("GET", "", token="wrong"), page.ask("GET", "", host="evil")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


def test_the_page_loads_nothing_from_elsewhere() -> None:
    from rt_swap.studio.app import WEB

    for path in WEB.iterdir():
        text = path.read_text(encoding="utf-8")
        text = text.replace("http://www.w3.org/2000/svg", "").replace("http://127.0.0.1", "")
        assert not re.search(r"https?://|//cdn|@import|url\(", text), path.name
        if path.suffix == ".html":  # inline script and style would be blocked by our own policy
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*src=)", text)


def test_all_files_of_the_page_are_package_data() -> None:
    import fnmatch
    import sys

    if sys.version_info < (3, 11):
        pytest.skip("needs tomllib (Python 3.11)")
    import tomllib

    from rt_swap.studio.app import WEB

    root = Path(__file__).resolve().parents[2]
    globs = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]["rt_swap"]
    for path in WEB.iterdir():
        name = path.relative_to(root / "rt_swap").as_posix()
        assert any(fnmatch.fnmatch(name, glob) for glob in globs), name


@pytest.mark.parametrize(
    "name",
    [
        "../core.py",
        "..%2fcore.py",
        "%2e%2e%2fcore.py",
        "..\\core.py",
        "..%5ccore.py",
        "%2fetc%2fpasswd",
        "main.js%00.css",
        "....//main.js",
        "",
        ".",
    ],
)
def test_no_path_leaves_the_folder_of_the_page(page: Page, name: str) -> None:
    for path in (f"web/{name}", f"web/x/../{name}"):
        answer = page.ask("GET", path)
        assert answer.status in (404, 405), path
        assert b"import" not in answer.body
        assert b"root:" not in answer.body


@pytest.mark.parametrize("id_", ["..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "preset:..", "own"])
def test_ids_are_looked_up_never_opened(page: Page, id_: str) -> None:
    assert page.ask("GET", f"api/expressions/{id_}/thumbnail").status == 404
    assert page.ask("DELETE", f"api/expressions/{id_}").status == 404
    assert page.ask("GET", f"api/jobs/{id_}/result").status == 404
    assert page.ask("DELETE", f"api/jobs/{id_}").status == 404


def test_no_interactive_documentation_is_served(page: Page) -> None:
    for path in ("docs", "redoc", "openapi.json"):
        assert page.ask("GET", path).status == 404


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"overall": 2.01}, "overall: must be a number from 0 to 2"),
        ({"overall": True}, "overall: must be a number"),
        ({"regions": {"ears": 1}}, "there is no 'ears'"),
        ({"regions": 3}, "regions: must be names with gains"),
        ({"aus": {"AU99": 1, "AU12": -1}}, "there is no 'AU99'.*AU12: must be a number"),
        ({"mode": "sideways"}, "mode: must be one of absolute, relative"),
        ({"keep_speech": 1}, "keep_speech: must be true or false"),
        ({"chosen": "preset:grin"}, "the gallery has no such expression"),
        ({"chosen": 3}, "chosen: must be an expression's id"),
        ({"volume": 3}, "there is no control 'volume'"),
    ],
)
def test_wrong_controls_are_told_and_change_nothing(
    page: Page, changes: dict[str, object], text: str
) -> None:
    before = page.ask("GET", "api/state").json["controls"]
    answer = page.patch(**changes)
    assert answer.status == 422
    assert re.search(text, answer.error)
    assert page.ask("GET", "api/state").json["controls"] == before


def test_controls_come_back_as_set(page: Page) -> None:
    page.patch(chosen="preset:smile", regions={"brows": 0.5}, aus={"AU12": 1.5}, overall=0.5)
    controls = page.patch(mode="relative", keep_speech=True, keep_blink=False).json
    assert controls["chosen"] == "preset:smile"
    assert controls["regions"]["brows"] == 0.5
    assert controls["regions"]["mouth"] == 1
    assert controls["aus"] == {"AU12": 1.5}
    assert page.patch(aus={"AU12": None}).json["aus"] == {}
    reset = page.patch(reset=True).json
    assert (reset["overall"], reset["regions"]["brows"]) == (1.0, 1.0)
    assert reset["mode"] == "relative"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"a":' * 2000])
def test_requests_that_are_no_json_objects_are_told(page: Page, body: bytes) -> None:
    assert page.ask("PATCH", "api/controls", body).status == 422


def test_long_requests_are_refused(page: Page) -> None:
    assert page.ask("PATCH", "api/controls", b" " * 300_000).status == 413
    assert page.ask("POST", "api/stop", iter([b"{}"]), transfer_encoding="chunked").status == 411


@pytest.mark.parametrize(
    "body",
    [
        {"sdp": "nonsense"},
        {"sdp": ""},
        {"sdp": "v=0\r\n" * 30_000},
        {"sdp": 3},
        {"sdp": "v=0", "type": "offer"},
        {},
    ],
)
def test_wrong_offers_are_told_and_leave_nothing(page: Page, body: dict[str, object]) -> None:
    answer = page.ask("POST", "api/offer", json.dumps(body).encode())
    assert answer.status in (413, 422), answer.body
    assert page.studio.session is None


def test_calibration_needs_a_camera(page: Page) -> None:
    assert page.ask("POST", "api/calibrate", b'{"seconds": 2.0}').status == 409
    assert page.ask("POST", "api/calibrate", b'{"seconds": 99.0}').status == 422
    assert page.ask("POST", "api/stop", b"{}").json == {"stopped": False}


# --- uploads -------------------------------------------------------------------------------------
BAD_FILES = {
    "empty": (b"", "empty"),
    "text": (b"hello " * 100, "neither a picture nor a video"),
    "page": (b"<!DOCTYPE html><script>alert(1)</script>", "neither a picture nor a video"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "neither a picture nor a video"),
    # FFmpeg would open what these name
    "playlist": (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "neither a picture nor a video",
    ),
    "list": (b"ffconcat version 1.0\nfile /etc/passwd\n", "neither a picture nor a video"),
    "pickle": (b"\x80\x04\x95\x00\x00.", "neither a picture nor a video"),
    "executable": (b"\x7fELF" + bytes(400), "neither a picture nor a video"),
    "half a JPEG": (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(300), "x.jpg"),
    "half an MP4": (b"\x00\x00\x00\x20ftypisom" + bytes(300), "x.jpg"),
}


@pytest.mark.parametrize("kind", list(BAD_FILES))
def test_bad_files_are_told_and_removed(page: Page, kind: str) -> None:
    body, text = BAD_FILES[kind]
    answer = page.ask("POST", "api/expressions", body, x_file_name="x.jpg")
    assert answer.status == 422
    assert text in answer.error
    assert str(page.studio.uploads.folder) not in answer.error
    page.patch(chosen="preset:smile")
    answer = page.ask("POST", "api/jobs", body, x_file_name="x.jpg")
    assert answer.status == 422
    assert str(page.studio.uploads.folder) not in answer.error
    assert page.files == []
    assert page.ask("GET", "api/jobs").json == []


def test_size_is_limited_whether_announced_or_not(page: Page) -> None:
    page.studio.max_expression_bytes = page.studio.max_video_bytes = 1024 * 1024
    page.patch(chosen="preset:smile")
    jpeg = b"\xff\xd8\xff" + bytes(1024)
    for path in ("api/expressions", "api/jobs"):
        announced = page.ask("POST", path, b"", content_length=str(2**40))
        assert announced.status == 413
        chunks = (jpeg + bytes(64 * 1024) for _ in range(40))
        try:
            answer = page.ask("POST", path, chunks, transfer_encoding="chunked", x_file_name="big")
        except (BrokenPipeError, ConnectionResetError):  # hung up on while it sent
            pass
        else:
            assert answer.status == 413
            assert "1 MiB" in answer.error
    assert page.files == []


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("C%3A%5CUsers%5Cme%5Cface.png", "face.png"),
        ("a%0Ab%00c%1B%5B31m.jpg", "abc[31m.jpg"),
        ("%E2%80%AEgpj.exe", "gpj.exe"),
        ("x" * 300 + ".jpeg", "x" * 74 + "…" + ".jpeg"),
        ("%2F", "file"),
        ("%FF", "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_names_are_labels_only(sent: str, shown: str) -> None:
    from rt_swap.studio.uploads import clean_name

    assert clean_name(sent) == shown


def test_picture_becomes_an_expression_and_its_file_is_gone(page: Page) -> None:
    import cv2
    import numpy as np

    _, png = cv2.imencode(".png", np.full((64, 64, 3), 90, np.uint8))
    answer = page.ask(
        "POST", "api/expressions", bytes(png), x_file_name="..%2F%3Cb%3Eme%3C%2Fb%3E.png"
    )
    assert answer.status == 200, answer.body
    entry = answer.json
    assert entry["name"] == "b>.png"
    assert entry["kind"] == "picture"
    assert set(entry["aus"]) >= {"AU1", "AU12"}
    assert page.files == []
    thumbnail = page.ask("GET", f"api/expressions/{entry['id']}/thumbnail")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert thumbnail.body.startswith(b"\xff\xd8\xff")
    assert page.patch(chosen=entry["id"]).status == 200
    # while a stream shows it, taking it away would show the person's own face unasked
    session = page.studio.new_session(lambda *_: None)
    try:
        refused = page.ask("DELETE", f"api/expressions/{entry['id']}")
        assert refused.status == 422
        assert "it is in use; choose another expression first" in refused.body.decode()
        assert page.studio.controls.chosen == entry["id"]
    finally:
        session.close()
        page.studio.session_ended(session)
    assert page.ask("DELETE", f"api/expressions/{entry['id']}").json["chosen"] == "own"
    assert page.ask("GET", f"api/expressions/{entry['id']}/thumbnail").status == 404


def test_presets_cannot_be_removed(page: Page) -> None:
    assert page.ask("DELETE", "api/expressions/preset:smile").status == 422


def test_folder_is_private_and_gone_afterwards(serve: Serve, make_tiny: object) -> None:
    studio = Studio(make_tiny)  # type: ignore[arg-type]
    folder = studio.uploads.folder
    assert folder.stat().st_mode & 0o077 == 0
    (folder / "left").write_bytes(b"x")
    studio.close()
    studio.close()
    assert not folder.exists()
