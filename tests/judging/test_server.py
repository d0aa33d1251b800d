"""The page's server by real HTTP: what it answers, what it refuses, and that nothing in it tells the arms."""

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judged_study import ARMS, build, draw
from served import served

from vez.errors import ConfigError
from vez.judging import material
from vez.judging.server import MOST_BYTES, Server
from vez.judging.votes import FOLDER, read

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]
GET, POST = "GET", "POST"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return build(tmp_path, size=24)


@pytest.fixture
def server(study: Path) -> Iterator[Server]:
    with served(study) as server:
        yield server


def ask(
    server: Server, method: str, path: str, body: Any = None, **headers: str | None
) -> tuple[int, dict[str, str], bytes]:
    """One request as the page would send it; ``headers`` replace or (None) remove the page's own."""
    name = f"127.0.0.1:{server.server_port}"
    sent: dict[str, str | None] = {"Host": name}
    data = b""
    if method == POST:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent |= {"Origin": f"http://{name}", "Content-Type": "application/json", "Content-Length": str(len(data))}
    sent |= {key.replace("_", "-"): value for key, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for key, value in sent.items():
            if value is not None:
                connection.putheader(key, value)
        connection.endheaders(data)
        answer = connection.getresponse()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def at(server: Server, path: str = "") -> str:
    return f"/{server.token}/{path}"


def state(server: Server) -> dict[str, Any]:
    status, _, body = ask(server, GET, at(server, "state"))
    assert status == 200
    return dict(json.loads(body))


def vote(server: Server, handle: str, answer: str = "left", seconds: float = 0.01) -> tuple[int, dict[str, Any]]:
    status, _, body = ask(server, POST, at(server, "vote"), {"handle": handle, "answer": answer, "seconds": seconds})
    return status, json.loads(body) if status == 200 else {}


def test_the_page_and_its_parts_come_with_a_strict_policy_and_are_never_kept(server: Server) -> None:
    shown = state(server)
    for path in ("", "page.css", "page.js", "icon.svg", "state", f"picture/{shown['left']}"):
        status, headers, body = ask(server, GET, at(server, path))
        assert status == 200 and body
        assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and "python" not in headers["server"].lower()
        assert not {"etag", "last-modified", "set-cookie"} & headers.keys()


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1" and server.url.startswith("http://127.0.0.1:")
    assert len(server.token) >= 32


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 404),
        ("/state", {}, 404),
        ("/{token}", {}, 404),
        ("/{token}x/state", {}, 404),
        ("/{short}/state", {}, 404),
        ("/{token}/../etc/passwd", {}, 404),
        ("/{token}/picture/../../page.js", {}, 404),
        ("/{token}/samples.jsonl", {}, 404),
        ("/{token}/state", {"Host": "evil.example"}, 421),
        ("/{token}/state", {"Host": "127.0.0.1"}, 421),
        ("/{token}/state", {"Host": None}, 421),
        ("/{token}/state", {"Origin": "http://evil.example"}, 403),
        ("/{token}/state", {"Origin": "null"}, 403),
        ("/{token}/", {"Sec_Fetch_Site": "cross-site"}, 403),
        ("/{token}/state", {"Sec_Fetch_Site": "same-site"}, 403),
    ],
)
def test_hostile_reads_are_refused(server: Server, path: str, headers: dict[str, str | None], status: int) -> None:
    found = ask(server, GET, path.format(token=server.token, short=server.token[:-1]), **headers)
    assert found[0] == status
    assert b"snow" not in found[2] and server.token.encode() not in found[2]
    assert "default-src 'none'" in found[1]["content-security-policy"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": None}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content_Length": None}, 411),
        ({"Content_Length": "-1"}, 411),
        ({"Content_Length": "٣"}, 411),
        ({"Content_Length": "99999999999999"}, 413),
        ({"Content_Length": str(MOST_BYTES + 1)}, 413),
        ({"Transfer_Encoding": "chunked"}, 411),
    ],
)
def test_hostile_votes_are_refused_and_nothing_is_written(
    server: Server, study: Path, headers: dict[str, str | None], status: int
) -> None:
    body = {"handle": state(server)["handle"], "answer": "left", "seconds": 3}
    sent = {key: value and value.encode().decode("latin-1") for key, value in headers.items()}
    assert ask(server, POST, at(server, "vote"), body, **sent)[0] == status
    assert read(study / FOLDER) == []


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b"\xff\xfe", b'{"handle": "HANDLE"}', b'{"handle": "HANDLE", "answer": "best", "seconds": 1}',
        b'{"handle": "HANDLE", "answer": "left", "seconds": -1}',
        b'{"handle": "HANDLE", "answer": "left", "seconds": NaN}',
        b'{"handle": "HANDLE", "answer": "left", "seconds": 1e999}', b'{"handle": 3, "answer": "left", "seconds": 1}',
        b'{"handle": "HANDLE", "answer": "left", "seconds": 1, "arm": "v1"}', b'{"handle": "' + b"x" * 200 + b'"}',
    ],
)  # fmt: skip
def test_bodies_that_are_no_vote_are_refused(server: Server, study: Path, body: bytes) -> None:
    body = body.replace(b"HANDLE", state(server)["handle"].encode())
    assert ask(server, POST, at(server, "vote"), body)[0] == 400
    assert read(study / FOLDER) == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "BREW"])
def test_other_methods_are_refused(server: Server, method: str) -> None:
    status, headers, _ = ask(server, method, at(server))
    assert status == 501 and "content-security-policy" in headers


def test_garbage_and_silence_do_not_stop_the_server(server: Server) -> None:
    for data in (b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 70_000 + b"\r\n", b""):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    assert state(server)["asked"] == 20


def test_votes_go_through_and_the_next_pair_comes(server: Server, study: Path) -> None:
    shown = state(server)
    assert shown["answered"] == 0 and shown["asked"] == 20 and shown["part"] == [1, 2] and not shown["undo"]
    assert shown["question"] == "Which one shows the folk costume more faithfully?"
    assert "traditional Serbian folk costume" in shown["prompt"] and "nosnja" not in json.dumps(shown)
    status, following = vote(server, shown["handle"], "right")
    assert status == 200 and following["answered"] == 1 and following["undo"]
    assert following["handle"] != shown["handle"] and following["left"] != shown["left"]
    (kept,) = read(study / FOLDER)
    assert kept.answer == "right" and kept.seconds <= 0.01


def test_an_answer_sent_twice_counts_once(server: Server, study: Path) -> None:
    handle = state(server)["handle"]
    assert vote(server, handle)[0] == 200
    assert vote(server, handle, "right")[0] == 409
    assert [kept.answer for kept in read(study / FOLDER)] == ["left"]


def test_an_answer_from_before_an_undo_does_not_count_after_it(server: Server, study: Path) -> None:
    first = state(server)
    _, second = vote(server, first["handle"])
    status, _, body = ask(server, POST, at(server, "undo"), {"handle": second["handle"]})
    again = json.loads(body)
    assert status == 200 and again["answered"] == 0 and again["prompt"] == first["prompt"] and not again["undo"]
    assert vote(server, first["handle"])[0] == 409 and read(study / FOLDER) == []
    assert ask(server, POST, at(server, "undo"), {"handle": second["handle"]})[0] == 409
    assert vote(server, again["handle"], "tie")[0] == 200


def test_a_reload_shows_the_same_pair_under_the_same_names(server: Server) -> None:
    assert state(server) == state(server)


def test_the_page_is_not_believed_about_time_beyond_the_clock(server: Server, study: Path) -> None:
    vote(server, state(server)["handle"], seconds=1e5)
    (kept,) = read(study / FOLDER)
    assert kept.seconds < 60


def test_pictures_vanish_with_their_pair(server: Server) -> None:
    first = state(server)
    vote(server, first["handle"])
    assert ask(server, GET, at(server, f"picture/{first['left']}"))[0] == 404


def test_the_second_question_is_offered_after_the_first_and_both_end(server: Server, study: Path) -> None:
    for _ in range(20):
        shown = state(server)
        assert not shown["done"] and shown["references"] == []
        assert ask(server, POST, at(server, "next"), {"handle": shown["handle"]})[0] == 200  # too early: no change
        _, shown = vote(server, shown["handle"])
    assert shown["done"] and shown["next"] == "Which one follows the text better?"
    _, _, body = ask(server, POST, at(server, "next"), {"handle": shown["handle"]})
    shown = json.loads(body)
    assert shown["part"] == [2, 2] and shown["answered"] == 0
    for _ in range(20):
        _, shown = vote(server, shown["handle"])
    assert shown["done"] and shown["next"] is None
    assert len(read(study / FOLDER)) == 40


def test_a_sitting_goes_on_where_it_stopped_and_a_longer_one_asks_what_is_left(study: Path) -> None:
    with served(study) as server:
        for _ in range(7):
            vote(server, state(server)["handle"])
        prompt = state(server)["prompt"]
    with served(study, votes=40) as server:
        shown = state(server)
        assert shown["answered"] == 7 and shown["asked"] == 40 and shown["prompt"] == prompt


def test_nothing_that_is_sent_tells_the_arms(study: Path) -> None:
    """All of a sitting: every header and body, but the pixels themselves."""
    with served(study, votes=20) as server:
        lengths, heads, said = set(), set(), []
        for _ in range(20):
            shown = state(server)
            said.append(json.dumps(shown))
            for side in ("left", "right"):
                status, headers, body = ask(server, GET, at(server, f"picture/{shown[side]}"))
                assert status == 200 and not any(arm.encode() in body for arm in ("lora", "nosnja"))
                lengths.add(len(body))
                heads.add(tuple(sorted((k, v) for k, v in headers.items() if k != "date")))
            vote(server, shown["handle"])
        names = [shown_name for text in said for shown_name in (json.loads(text)["left"], json.loads(text)["right"])]
    assert len(lengths) == 1 and len(heads) == 1
    assert len(set(names)) == 40 and all(len(name) == 32 for name in names)
    keys = {key for text in said for key in json.loads(text)}
    assert keys == {
        "question", "part", "answered", "asked", "undo", "handle", "done", "prompt", "left", "right", "references",
    }  # fmt: skip
    texts = " ".join(said)
    assert not [arm for arm in ARMS if f'"{arm}"' in texts or f"{arm}/" in texts or f"{arm}-" in texts]
    sums = material.read(study).sha256.values()
    assert not [sum_ for sum_ in sums if sum_[:12] in texts]


def test_what_goes_wrong_is_told_to_the_terminal_and_not_to_the_page(study: Path) -> None:
    with served(study) as server:
        for path in (study / "samples").rglob("*-trigger-*.png"):
            path.write_bytes(b"torn")
        status, _, body = ask(server, GET, at(server, "state"))
        assert status == 500 and body == b"Internal Server Error"
        assert server.troubles and ".png" in server.troubles[0]  # type: ignore[attr-defined]


def test_a_taken_port_is_said(server: Server) -> None:
    with pytest.raises(ConfigError, match=f"port {server.server_port} cannot be opened"):
        Server(server.session, port=server.server_port)


def test_real_pictures_are_shown_with_the_first_question(study: Path, tmp_path: Path) -> None:
    draw("v2", 0, 0, 64).save(tmp_path / "real.png")
    with served(study, votes=1, real=(tmp_path / "real.png",)) as server:
        shown = state(server)
        (name,) = shown["references"]
        assert ask(server, GET, at(server, f"picture/{name}"))[2][:2] == b"BM"
        _, done = vote(server, shown["handle"])
        _, _, body = ask(server, POST, at(server, "next"), {"handle": done["handle"]})
        assert json.loads(body)["references"] == []
