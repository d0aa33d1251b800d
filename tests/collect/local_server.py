"""A real HTTP server on 127.0.0.1 whose answers a test writes down, and a clock that a test turns."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpcore2
from PIL import Image

from vez.collect.fetch import Web
from vez.config import Collect

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Local:
    """``routes``: path → what answers it; ``asked``: paths with queries, in order; ``headers``: of each request."""

    port: int
    routes: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


@dataclass
class Time:
    """Seconds that pass only where somebody sleeps."""

    seconds: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


@contextmanager
def serving() -> Iterator[Local]:
    local = Local(0)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # headers and body leave in two pieces; the second would wait 40 ms

        def do_GET(self) -> None:
            local.asked.append(self.path)
            local.headers.append({name.lower(): value for name, value in self.headers.items()})
            try:
                local.routes.get(urlsplit(self.path).path, says(404, b"nothing here"))(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    local.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield local
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def says(status: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def in_turn(*answers: Answer) -> Answer:
    """The first answer, then the second, …; the last one for ever."""
    left = list(answers)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)


def raw(data: bytes) -> Answer:
    """These very bytes instead of an answer; then the connection is closed."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(data)
        handler.close_connection = True

    return answer


def tells(row: object, **headers: str) -> Answer:
    return says(200, json.dumps(row).encode(), **headers)


def query(path: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(path).query, keep_blank_values=True).items()}


def web(time: Time | None = None, *, resolve: Any = None, connect: Any = None, **settings: Any) -> Web:
    """A client that reaches 127.0.0.1 and whose pauses take no time."""
    time = time or Time()
    given = {"hosts": ("127.0.0.1",), "contact": "test@example.org", "seconds": 10.0} | settings
    return Web(Collect(**given), clock=time.clock, sleep=time.sleep, resolve=resolve, connect=connect)


def to_local(port: int, reached: list[str]) -> Any:
    """A connect function that writes down the address asked for and goes to the local server instead."""

    def connect(address: str, _: int, seconds: float) -> httpcore2.NetworkStream:
        reached.append(address)
        return httpcore2.SyncBackend().connect_tcp("127.0.0.1", port, timeout=seconds)

    return connect


def picture(number: int = 0, kind: str = "PNG", size: tuple[int, int] = (24, 16)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (number * 37 % 256, number // 7 % 256, 90)).save(file, kind)
    return file.getvalue()
