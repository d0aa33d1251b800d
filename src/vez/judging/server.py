"""The page's server: 127.0.0.1 only, behind a random address, for this page's own requests and no others.

Any program and any web page that is open on the machine can send requests to 127.0.0.1. So every request must name this
server in Host (another name that resolves here is refused: DNS rebinding), must hold the token in its path, and where
it changes something must say that it comes from the page itself (Origin). Nothing is cached, nothing names a file, and
both pictures of a pair are of one length.
"""

import json
import secrets
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vez.errors import ConfigError, VezError
from vez.judging import pictures
from vez.judging.session import Session
from vez.judging.votes import Answer

HOST: Final = "127.0.0.1"
MOST_BYTES: Final = 4096
"""Longest body of a request."""
PATIENCE: Final = 10.0
"""Seconds that a request may take to arrive."""
POLICY: Final = (
    "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
PAGES: Final = {
    "": ("page.html", "text/html; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
}


class Asked(BaseModel):
    """A request's body. ``handle`` names what the page shows."""

    model_config = ConfigDict(extra="forbid", strict=True)

    handle: str = Field(max_length=100)


class Voted(Asked):
    """An answer, and how many seconds the page showed the pair before it."""

    answer: Answer
    seconds: float = Field(ge=0, le=1e6, allow_inf_nan=False)


class Server(ThreadingHTTPServer):
    """Serves one session. ``url`` is the page; whoever knows it can judge."""

    daemon_threads = True

    def __init__(self, session: Session, *, port: int = 0, tell: Callable[[str], None] | None = None) -> None:
        """``port`` 0 takes a free one; ``tell`` hears what went wrong, which the page, that must not name files, hides.

        Raises ConfigError where the port is taken.
        """
        self.session = session
        self.tell = tell
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"port {port} cannot be opened on {HOST} ({error}); leave --port out") from error
        self.names = {f"{HOST}:{self.server_port}", f"localhost:{self.server_port}"}

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away in the middle is no news."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    timeout = PATIENCE
    server_version = "vez"
    sys_version = ""

    def do_GET(self) -> None:
        """The page, its parts, what it shows, and pictures."""
        path = self._path()
        if path is None:
            return
        if path in PAGES:
            name, kind = PAGES[path]
            self._send(HTTPStatus.OK, resources.files(__package__).joinpath(name).read_bytes(), kind)
        elif path == "state":
            self._answer(self.server.session.state)
        elif (picture := self.server.session.picture(path.removeprefix("picture/"))) is not None:
            self._send(HTTPStatus.OK, picture, pictures.TYPE)
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """An answer, an undo, the next question."""
        path = self._path()
        if path is None:
            return
        body = self._body()
        if body is None:
            return
        session = self.server.session
        try:
            if path == "vote":
                voted = Voted.model_validate_json(body)
                self._answer(lambda: session.vote(voted.handle, voted.answer, voted.seconds))
            elif path in ("undo", "next"):
                asked = Asked.model_validate_json(body)
                act = session.undo if path == "undo" else session.go_on
                self._answer(lambda: act(asked.handle))
            else:
                self._refuse(HTTPStatus.NOT_FOUND)
        except ValidationError:
            self._refuse(HTTPStatus.BAD_REQUEST)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library refuses by itself (no HTTP, another method), with our headers."""
        self._refuse(HTTPStatus(code))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a log of requests would tell the token."""

    def _path(self) -> str | None:
        """What is asked for below the token; None, and the request is refused, where it is not the page's own."""
        hosts, origins = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        own = {f"http://{name}" for name in self.server.names}
        site = self.headers.get("Sec-Fetch-Site", "none")
        _, token, path = (*self.path.split("/", 2), "", "")[:3]
        if len(hosts) != 1 or hosts[0] not in self.server.names:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST)
        elif set(origins) - own or (self.command != "GET" and not origins) or site not in ("none", "same-origin"):
            self._refuse(HTTPStatus.FORBIDDEN)
        elif not secrets.compare_digest(token.encode(), self.server.token.encode()) or self.path.count("/") < 2:
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            return path
        return None

    def _body(self) -> bytes | None:
        """The body of a request; None, and the request is refused, where it is not a small JSON one."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or self.headers.get("Transfer-Encoding"):
            self._refuse(HTTPStatus.LENGTH_REQUIRED)
        elif len(length) > 9 or int(length) > MOST_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        else:
            return self.rfile.read(int(length))
        return None

    def _answer(self, act: Callable[[], dict[str, Any] | None]) -> None:
        """The state that an act leads to; 409 where the page was behind, 500 where it failed."""
        try:
            state = act()
        except VezError as error:
            if self.server.tell is not None:
                self.server.tell(str(error))
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        if state is None:
            self._refuse(HTTPStatus.CONFLICT)
        else:
            self._send(HTTPStatus.OK, json.dumps(state).encode(), "application/json")

    def _refuse(self, status: HTTPStatus) -> None:
        self._send(status, status.phrase.encode(), "text/plain; charset=utf-8")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if getattr(self, "command", None) != "HEAD":
            self.wfile.write(body)
