import gzip
import io
import socket
import time
import zlib
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler

import httpcore2
import pytest
from local_server import Local, Time, in_turn, raw, says, tells, to_local, web

from vez import __version__
from vez.collect.fetch import ServerBusy, Web, ask, user_agent
from vez.config import Collect
from vez.errors import ConfigError, DataError

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]

PUBLIC = "93.184.215.14"


# what is sent, and what comes back


def test_a_body_and_what_is_sent_for_it(local: Local) -> None:
    local.routes["/a"] = says(200, b"bytes", Set_Cookie="id=1")
    with web() as client:
        assert client.get(local.url("/a#part")).data == b"bytes"
        client.get(local.url("/a"))
    sent = local.headers[1]
    assert sent["user-agent"] == f"vez/{__version__} (+test@example.org)"
    assert set(sent) == {"host", "user-agent", "accept", "accept-encoding"}, "no cookie, no referer, no credentials"
    assert local.asked == ["/a", "/a"]


def test_without_a_contact_the_agent_names_none() -> None:
    assert user_agent("") == f"vez/{__version__}"


@pytest.mark.parametrize("contact", ["a@b\r\nX-Evil: 1", "Ђорђе", "a) b", "tab\there"])
def test_a_contact_that_cannot_stand_in_a_header(contact: str) -> None:
    with pytest.raises(ConfigError, match=r"\[collect\] contact"):
        Web(Collect(contact=contact))


def test_the_environment_is_not_asked(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    local.routes["/a"] = says(200, b"direct")
    with web() as client:
        assert client.get(local.url("/a")).data == b"direct"


@pytest.mark.parametrize(
    ("url", "says_what"),
    [
        ("ftp://example.org/a", "http or https"),
        ("file:///etc/passwd", "http or https"),
        ("gopher://127.0.0.1/", "http or https"),
        ("/a.jpg", "http or https"),
        ("http://", "http or https"),
        ("http://me:secret@example.org/a", "user name or a password"),
        ("http://me@example.org/a", "user name or a password"),
        ("http://example.org:99999/", "not an address|no such port"),
        ("http://[::1/", "not an address"),
        ("http://exa\x00mple.org/", "not an address"),
        ("", "http or https"),
    ],
)
def test_addresses_that_are_none(url: str, says_what: str) -> None:
    with web() as client, pytest.raises(DataError, match=says_what) as raised:
        client.get(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("status", [201, 204, 206, 304, 400, 403, 404, 410, 451, 501, 599])
def test_other_answers_are_refused_with_their_number(local: Local, status: int) -> None:
    local.routes["/a"] = says(status)
    with web() as client, pytest.raises(DataError, match=f"127.0.0.1 answered {status}"):
        client.get(local.url("/a"))
    assert len(local.asked) == 1


# public addresses only


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["::1"],
        ["10.0.0.7"],
        ["100.64.1.1"],
        ["::ffff:192.168.0.1"],
        ["64:ff9b::a00:1"],
        [PUBLIC, "192.168.0.1"],
        ["fd00::1", PUBLIC],
    ],
)
def test_a_name_with_an_address_that_is_not_public(local: Local, answers: list[str]) -> None:
    reached: list[str] = []
    client = web(resolve=lambda host, port: answers, connect=to_local(local.port, reached))
    with client, pytest.raises(DataError, match=r"not public.*\[collect\] hosts"):
        client.get("http://museum.example/a")
    assert not reached
    assert not local.asked


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "0"]
)
def test_without_an_exemption_this_machine_is_out_of_reach(local: Local, host: str) -> None:
    local.routes["/a"] = says(200, b"secret")
    with web(hosts=()) as client, pytest.raises(DataError, match=r"not public|no host"):
        client.get(local.url("/a", host))
    assert not local.asked


def test_a_name_that_changes_its_answer_gains_nothing(local: Local) -> None:
    """DNS rebinding: public when it is looked at, private when it is used. It is looked at once."""
    local.routes["/a"] = says(200, b"fine", Connection="close")
    answers = iter([[PUBLIC], ["127.0.0.1"], ["10.0.0.1"]])
    looked, reached = [], []

    def resolve(host: str, port: int) -> list[str]:
        looked.append(host)
        return next(answers)

    with web(resolve=resolve, connect=to_local(local.port, reached)) as client:
        assert client.get("http://rebind.example/a").data == b"fine"
        assert (looked, reached) == (["rebind.example"], [PUBLIC])
        with pytest.raises(DataError, match="not public"):
            client.get("http://rebind.example/a")
        assert reached == [PUBLIC]


def test_the_next_address_is_tried_when_one_does_not_answer(local: Local) -> None:
    local.routes["/a"] = says(200, b"fine")
    reached: list[str] = []
    onward = to_local(local.port, reached)

    def connect(address: str, port: int, seconds: float) -> httpcore2.NetworkStream:
        if address == "2606:4700::1":
            raise httpcore2.ConnectError("no route")
        return onward(address, port, seconds)

    with web(resolve=lambda host, port: ["2606:4700::1", PUBLIC], connect=connect) as client:
        assert client.get("http://two.example/a").data == b"fine"
    assert reached == [PUBLIC]


def test_a_host_that_is_named_may_be_private(local: Local) -> None:
    local.routes["/a"] = says(200, b"fine")
    reached: list[str] = []
    settings = {"hosts": ("Archive.Museum.Example",)}
    client = web(resolve=lambda host, port: ["10.0.0.1"], connect=to_local(local.port, reached), **settings)
    with client:
        assert client.get("http://archive.museum.example/a").data == b"fine"
        with pytest.raises(DataError, match="not public"):
            client.get("http://museum.example/a")
    assert reached == ["10.0.0.1"]


def test_a_name_that_nobody_has() -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with web(resolve=resolve) as client, pytest.raises(DataError, match="no host nowhere"):
        client.get("http://nowhere.example/a")


# redirects


def test_redirects_are_followed_relative_and_absolute(local: Local) -> None:
    local.routes["/a"] = says(302, Location="b?x=1")
    local.routes["/b"] = says(308, Location=local.url("/c"))
    local.routes["/c"] = says(200, b"there")
    with web() as client:
        reply = client.get(local.url("/a"))
    assert (reply.data, reply.url) == (b"there", local.url("/c"))
    assert local.asked == ["/a", "/b?x=1", "/c"]


def test_a_redirect_loop_ends(local: Local) -> None:
    local.routes["/a"] = says(301, Location="/b")
    local.routes["/b"] = says(301, Location="/a")
    with web() as client, pytest.raises(DataError, match="more than 5 times"):
        client.get(local.url("/a"))
    assert len(local.asked) == 6


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/secret",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]:{port}/secret",
        "//[::ffff:127.0.0.1]:{port}/secret",
        "http://intranet.example:{port}/secret",
    ],
)
def test_a_redirect_to_an_address_that_is_not_public(local: Local, target: str) -> None:
    local.routes["/a"] = says(302, Location=target.format(port=local.port))
    local.routes["/secret"] = says(200, b"secret")
    names = {"public.example": [PUBLIC], "intranet.example": ["192.168.7.7"]}
    reached: list[str] = []
    resolve = lambda host, port: names.get(host, [host])  # noqa: E731
    client = web(hosts=(), resolve=resolve, connect=to_local(local.port, reached))
    with client, pytest.raises(DataError, match="not public"):
        client.get("http://public.example/a")
    assert reached == [PUBLIC]
    assert local.asked == ["/a"]


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://example.org/", "http://u:p@127.0.0.1/", "", "http://[x"]
)
def test_a_redirect_to_what_is_no_address(local: Local, target: str) -> None:
    local.routes["/a"] = says(302, Location=target)
    with web() as client, pytest.raises(DataError):
        client.get(local.url("/a"))
    assert len(local.asked) == 1


def test_a_redirect_from_https_to_http_is_refused() -> None:
    class Answering(httpcore2.NetworkStream):
        def __init__(self) -> None:
            self._data = io.BytesIO(b"HTTP/1.1 302 Found\r\nLocation: http://example.org/\r\nContent-Length: 0\r\n\r\n")

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            return self._data.read(max_bytes)

        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            pass

        def close(self) -> None:
            pass

        def start_tls(self, *args: object, **kwargs: object) -> httpcore2.NetworkStream:
            return self

    client = web(resolve=lambda host, port: [PUBLIC], connect=lambda *_: Answering())
    with client, pytest.raises(DataError, match="https to http"):
        client.get("https://example.org/")


# bytes and seconds


def test_a_declared_length_above_the_cap(local: Local) -> None:
    local.routes["/a"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
    with web() as client, pytest.raises(DataError, match="more than 50,000,000 bytes"):
        client.get(local.url("/a"))


def test_a_body_without_a_length_is_counted(local: Local) -> None:
    local.routes["/a"] = raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2000)
    with web(most_bytes=1000) as client, pytest.raises(DataError, match="more than 1,000 bytes"):
        client.get(local.url("/a"))
    with web(most_bytes=2000) as client:
        assert len(client.get(local.url("/a")).data) == 2000


def test_a_length_that_promises_too_much(local: Local) -> None:
    local.routes["/a"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
    with web() as client, pytest.raises(DataError, match=r"connection to 127\.0\.0\.1 broke"):
        client.get(local.url("/a"))


def test_a_length_that_promises_too_little(local: Local) -> None:
    local.routes["/a"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345678")
    with web() as client:
        assert client.get(local.url("/a")).data == b"12345"


def test_gzip_is_unpacked(local: Local) -> None:
    body = bytes(range(256)) * 3000
    local.routes["/a"] = says(200, gzip.compress(body), Content_Encoding="gzip")
    with web() as client:
        assert client.get(local.url("/a")).data == body


def test_a_gzip_bomb_is_counted_while_it_goes_off(local: Local) -> None:
    packed = gzip.compress(b"\0" * 30_000_000)
    assert len(packed) < 40_000
    local.routes["/a"] = says(200, packed, Content_Encoding="gzip")
    with web(most_bytes=1_000_000) as client, pytest.raises(DataError, match="more than 1,000,000 bytes"):
        client.get(local.url("/a"))


def test_what_follows_the_end_of_a_gzip_body_is_counted_too(local: Local) -> None:
    local.routes["/a"] = raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"abc") + b"x" * 2000)
    with web(most_bytes=1000) as client, pytest.raises(DataError, match="more than 1,000 bytes"):
        client.get(local.url("/a"))


def test_a_highly_packed_body_below_the_cap_comes_whole(local: Local) -> None:
    local.routes["/a"] = says(200, gzip.compress(b"\0" * 30_000_000), Content_Encoding="gzip")
    with web() as client:
        assert client.get(local.url("/a")).data == b"\0" * 30_000_000


@pytest.mark.parametrize(
    ("body", "encoding", "says_what"),
    [
        (b"not gzip at all", "gzip", "it is not"),
        (gzip.compress(b"abc" * 100)[:-12], "gzip", "cut short"),
        (zlib.compress(b"abc"), "deflate", "'deflate' packing"),
        (b"abc", "br", "'br' packing"),
        (gzip.compress(gzip.compress(b"abc")), "gzip, gzip", "packing"),
    ],
)
def test_packing_that_is_wrong(local: Local, body: bytes, encoding: str, says_what: str) -> None:
    local.routes["/a"] = says(200, body, Content_Encoding=encoding)
    with web() as client, pytest.raises(DataError, match=says_what):
        client.get(local.url("/a"))


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        handler.wfile.write(b"x")
        time.sleep(0.05)


def drip_header(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(1000):
        handler.wfile.write(b"X-%d: y\r\n" % number)
        time.sleep(0.05)


def silence(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.0)
    handler.close_connection = True


@pytest.mark.parametrize("answer", [drip, drip_header, silence])
def test_a_slow_answer_ends_at_its_time(local: Local, answer: object) -> None:
    local.routes["/a"] = answer  # type: ignore[assignment]
    begun = time.monotonic()
    with web(seconds=0.3) as client, pytest.raises(DataError, match=r"longer than 0\.3 s"):
        client.get(local.url("/a"))
    assert 0.25 < time.monotonic() - begun < 0.9
    assert len(local.asked) == 1, "what was slow once is not asked again"


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"\x00" * 99]
)
def test_what_is_no_http(local: Local, answer: bytes) -> None:
    local.routes["/a"] = raw(answer)
    with web() as client, pytest.raises(DataError, match=r"connection to 127\.0\.0\.1 broke"):
        client.get(local.url("/a"))


# patience


def test_pauses_between_two_requests_to_one_host(local: Local) -> None:
    local.routes["/a"] = says(200, b"a")
    turned = Time()
    reached: list[str] = []
    names = {"one.example": [PUBLIC], "two.example": [PUBLIC]}
    client = web(turned, pause=2.5, resolve=lambda host, port: names[host], connect=to_local(local.port, reached))
    with client:
        client.get("http://one.example/a")
        client.get("http://two.example/a")
        assert turned.slept == []
        client.get("http://one.example/a")
        assert turned.slept == [2.5]
        turned.seconds += 100
        client.get("http://one.example/a")
    assert turned.slept == [2.5]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("0", 0.0), ("600", 600.0)])
def test_a_busy_server_is_asked_again_after_the_time_it_names(
    local: Local, status: int, value: str, seconds: float
) -> None:
    local.routes["/a"] = in_turn(says(status, Retry_After=value), says(200, b"now"))
    turned = Time()
    with web(turned, pause=0) as client:
        assert client.get(local.url("/a")).data == b"now"
    assert sum(turned.slept) == seconds


def test_a_date_to_come_back_at(local: Local) -> None:
    local.routes["/a"] = in_turn(says(429, Retry_After="Sun, 01 Nov 2026 12:00:30 GMT"), says(200, b"now"))
    turned = Time()
    now = datetime(2026, 11, 1, 12, 0, 0, tzinfo=UTC)
    settings = Collect(hosts=("127.0.0.1",), pause=0)
    with Web(settings, clock=turned.clock, sleep=turned.sleep, now=lambda: now) as client:
        assert client.get(local.url("/a")).data == b"now"
    assert turned.slept == [30.0]


@pytest.mark.parametrize("value", ["soon", "-5", "1e9999", "", "Sun, 99 Nov 2026 12:00:30 GMT", "٣"])
def test_a_time_that_is_none_is_a_pause_that_grows(local: Local, value: str) -> None:
    header = f"HTTP/1.1 429 Busy\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n".encode()
    local.routes["/a"] = in_turn(raw(header), raw(header), says(200, b"now"))
    turned = Time()
    with web(turned, pause=0) as client:
        assert client.get(local.url("/a")).data == b"now"
    assert turned.slept == [10.0, 20.0]


def test_a_server_that_asks_for_an_hour_is_left_alone(local: Local) -> None:
    local.routes["/a"] = says(429, Retry_After="3600")
    turned = Time()
    with web(turned) as client:
        for _ in range(2):
            with pytest.raises(ServerBusy, match=r"pause of 3,600 s; give the same command again"):
                client.get(local.url("/a"))
    assert len(local.asked) == 1, "the second time it is not even asked"
    assert turned.slept == []


def test_a_server_that_stays_busy(local: Local) -> None:
    local.routes["/a"] = says(503, Retry_After="1")
    with (
        web(retries=2, pause=0) as client,
        pytest.raises(ServerBusy, match="stays so after 2 pauses"),
    ):
        client.get(local.url("/a"))
    assert len(local.asked) == 3


@pytest.mark.parametrize("answer", [says(500), says(502), says(504), raw(b"")])
def test_a_servers_own_error_may_pass(local: Local, answer: object) -> None:
    local.routes["/a"] = in_turn(answer, answer, says(200, b"now"))  # type: ignore[arg-type]
    turned = Time()
    with web(turned, pause=0) as client:
        assert client.get(local.url("/a")).data == b"now"
    assert turned.slept == [2.0, 4.0]


def test_a_servers_own_error_that_does_not_pass(local: Local) -> None:
    local.routes["/a"] = says(500)
    with web(pause=0) as client, pytest.raises(DataError, match="answered 500 Internal Server Error"):
        client.get(local.url("/a"))
    assert len(local.asked) == 3
    with web(pause=0, retries=0) as client, pytest.raises(DataError, match="500"):
        client.get(local.url("/a"))
    assert len(local.asked) == 4


def test_nobody_listens(local: Local) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with web() as client, pytest.raises(DataError, match=r"connection to 127\.0\.0\.1 broke"):
        client.get(f"http://127.0.0.1:{port}/")


# answers in JSON


@pytest.mark.parametrize("body", [b"<html>", b"[1, 2]", b'"text"', b"\xff", b"[" * 100_000, b""])
def test_an_api_that_does_not_answer_with_an_object(local: Local, body: bytes) -> None:
    local.routes["/api"] = says(200, body)
    with web() as client, pytest.raises(DataError, match="JSON"):
        ask(client, local.url("/api"), {})


def test_an_api_is_asked_in_utf8(local: Local) -> None:
    local.routes["/api"] = tells({"a": 1})
    with web() as client:
        assert ask(client, local.url("/api"), {"q": "ношња & co"})[0] == {"a": 1}
    assert local.asked == ["/api?q=%D0%BD%D0%BE%D1%88%D1%9A%D0%B0+%26+co"]
