"""The only socket of the package: a polite GET that reaches public addresses and nothing else.

A name is resolved once per connection; if one of its addresses is not public it is refused, else the connection goes to
exactly the address that was looked at, so that a name which changes its answer (DNS rebinding) gains nothing. That
happens where the socket is opened, hence for every redirect too.
"""

import json
import re
import socket
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import urlencode

import httpcore2
import httpx2

from vez import __version__
from vez.collect.addresses import is_public
from vez.config import Collect
from vez.errors import ConfigError, DataError

Resolve = Callable[[str, int], list[str]]
"""(host, port) → its numeric addresses; raises OSError where there are none."""
Connect = Callable[[str, int, float], httpcore2.NetworkStream]
"""(numeric address, port, seconds allowed) → an open connection; raises what httpcore2 raises."""

_REDIRECTS: Final = 5
_MOST_WAIT: Final = 600.0  # seconds; whoever asks for more is left alone
_CONNECT_SECONDS: Final = 15.0
_BROKEN_TRIES: Final = 3  # a connection that breaks, or a server's own error (500, 502, 504)
_MOST_BACKOFF: Final = 60.0
_BLOCK: Final = 65536
_MOST_JSON: Final = 16_000_000  # bytes; 50 pictures of Commons with their metadata are about 0.2 MB
_BUSY: Final = (429, 503)
_ERRORS: Final = (500, 502, 504)
_MOVED: Final = (301, 302, 303, 307, 308)


class ServerBusy(DataError):
    """A server asks for a longer pause than vez makes; it is not asked again in this collection."""


class _Passing(DataError):
    """What may be different at the next attempt: a broken connection, a server's own error."""


@dataclass(frozen=True)
class Reply:
    """What a server answered with 200. ``headers`` have small names."""

    url: str
    """Where it came from, after redirects."""
    data: bytes
    headers: dict[str, str]


def user_agent(contact: str) -> str:
    """ "vez/<version> (+contact)". Raises ConfigError where the contact cannot stand in a header."""
    if not all(" " <= character <= "~" for character in contact) or set(contact) & set("()\\"):
        raise ConfigError(f"[collect] contact cannot be {contact!r}; write a mail address or a page's URL, plain ASCII")
    return f"vez/{__version__} (+{contact})" if contact else f"vez/{__version__}"


class Web:
    """A polite client: one request at a time, a pause between two to one host, and no more than was allowed.

    It keeps no cookies, sends no credentials, and reads nothing from the environment (proxies, .netrc). Close it after
    use, or use it in a ``with``.
    """

    def __init__(
        self,
        settings: Collect,
        *,
        resolve: Resolve | None = None,
        connect: Connect | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``clock`` counts seconds, ``now`` tells the time of day (for Retry-After dates). Raises ConfigError."""
        self._settings = settings
        self._agent = user_agent(settings.contact)
        self._clock, self._sleep, self._now = clock, sleep, now
        self._backend = _PublicOnly(settings.hosts, resolve or _resolve, connect or _connect)
        self._pools: dict[str, httpcore2.ConnectionPool] = {}
        self._ready: dict[str, float] = {}  # host → when it may be asked again, by the clock
        self._busy: dict[str, str] = {}  # host → why it is not asked any more

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; closing twice is fine."""
        for pool in self._pools.values():
            pool.close()

    def get(self, url: str, *, most_bytes: int | None = None) -> Reply:
        """The body behind an address, following up to 5 redirects, unpacked if it came as gzip.

        Raises DataError (ServerBusy where it is a matter of patience) in a sentence that names the host: no such name,
        an address that is not public, too many bytes or redirects, too slow, any answer but 200.
        """
        most = self._settings.most_bytes if most_bytes is None else most_bytes
        target = _parsed(url)
        for _ in range(_REDIRECTS + 1):
            reply, location = self._patiently(target, most)
            if reply is not None:
                return reply
            moved = _joined(target, location)
            if (target.scheme, moved.scheme) == ("https", "http"):
                raise DataError(f"{target.host} redirects from https to http, which anybody on the way could change")
            target = moved
        raise DataError(f"{target.host} redirects more than {_REDIRECTS} times; the address leads nowhere")

    def wait(self, url: str, seconds: float, *, why: str) -> None:
        """Ask this address's host not before so many seconds. Raises ServerBusy where that is longer than 10 minutes.

        For servers that ask for it in words of their own, inside an answer.
        """
        host = _parsed(url).host
        if seconds > _MOST_WAIT:
            self._busy[host] = (
                f"{host} {why} and asks for a pause of {seconds:,.0f} s; give the same command again then: it goes on"
            )
            raise ServerBusy(self._busy[host])
        self._ready[host] = max(self._ready.get(host, 0.0), self._clock() + seconds)

    def _patiently(self, target: httpx2.URL, most: int) -> tuple[Reply | None, str]:
        """One hop, asked again while the server is busy or the connection breaks: a reply, or where it redirects to."""
        busy = broken = 0
        while True:
            if target.host in self._busy:
                raise ServerBusy(self._busy[target.host])
            self._pause(target.host)
            try:
                status, headers, data = self._once(target, most)
            except _Passing:
                broken += 1
                if broken >= min(_BROKEN_TRIES, self._settings.retries + 1):
                    raise
                self.wait(str(target), 2.0**broken, why="breaks off")
                continue
            finally:
                self._ready[target.host] = max(self._ready.get(target.host, 0.0), self._clock() + self._settings.pause)
            if status in _BUSY:
                seconds = _retry_after(headers.get("retry-after", ""), self._now())
                if busy >= self._settings.retries:
                    self._busy[target.host] = (
                        f"{target.host} is busy ({status}) and stays so after {busy} pauses; try again later"
                    )
                    raise ServerBusy(self._busy[target.host])
                busy += 1
                backoff = min(_MOST_BACKOFF, 5 * 2.0**busy)
                self.wait(str(target), backoff if seconds is None else seconds, why=f"is busy ({status})")
            elif status in _MOVED:
                return None, headers.get("location", "")
            else:
                return Reply(str(target), data, headers), ""

    def _pause(self, host: str) -> None:
        seconds = self._ready.get(host, 0.0) - self._clock()
        if seconds > 0:
            self._sleep(seconds)

    def _pool(self, scheme: str) -> httpcore2.ConnectionPool:
        """One for http and one for https, made when first needed: reading the machine's certificates takes its time."""
        if scheme not in self._pools:
            context = httpx2.create_ssl_context(trust_env=False) if scheme == "https" else None
            self._pools[scheme] = httpcore2.ConnectionPool(
                ssl_context=context, network_backend=self._backend, max_connections=4
            )
        return self._pools[scheme]

    def _once(self, target: httpx2.URL, most: int) -> tuple[int, dict[str, str], bytes]:
        """One request and its answer. Raises _Passing for what may pass, DataError for what will not."""
        host = target.host
        deadline = time.monotonic() + self._settings.seconds
        self._backend.deadline = deadline
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), self._settings.seconds)
        headers = [
            (b"Host", target.netloc),
            (b"User-Agent", self._agent.encode()),
            (b"Accept", b"*/*"),
            (b"Accept-Encoding", b"gzip"),
        ]
        core = httpcore2.URL(
            scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path or b"/"
        )
        try:
            with self._pool(target.scheme).stream(
                "GET", core, headers=headers, extensions={"timeout": timeouts}
            ) as response:
                named = _headers(response.headers)
                if response.status in _ERRORS:
                    raise _Passing(f"{host} answered {_said(response.status)}")
                if response.status in (*_BUSY, *_MOVED):
                    return response.status, named, b""
                if response.status != 200:
                    raise DataError(f"{host} answered {_said(response.status)}")
                return 200, named, _body(response.iter_stream(), named, host, most=most)
        except httpcore2.TimeoutException as error:
            if time.monotonic() >= deadline - 0.01:
                raise DataError(f"{host} took longer than {self._settings.seconds:g} s") from error
            raise _Passing(f"{host} did not answer in time") from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise _Passing(f"the connection to {host} broke: {error or type(error).__name__}") from error


def ask(web: Web, base: str, parameters: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """A JSON object from a server's API, and the answer's headers. Raises DataError for anything else."""
    reply = web.get(f"{base}?{urlencode(parameters)}", most_bytes=_MOST_JSON)
    try:
        answer = json.loads(reply.data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{base} did not answer in JSON ({str(error)[:80]}); is it the address of its API?") from error
    if not isinstance(answer, dict):
        raise DataError(f"{base} did not answer with a JSON object; is it the address of its API?")
    return answer, reply.headers


def _parsed(url: str) -> httpx2.URL:
    """The address, taken apart. Raises DataError for what is not http(s), has no host, or holds a password."""
    try:
        parsed = httpx2.URL(url)
        port = parsed.port
    except (httpx2.InvalidURL, ValueError, TypeError) as error:
        raise DataError(f"{url[:200]!r} is not an address ({error})") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise DataError(f"{url[:200]!r} is not an http or https address")
    if parsed.userinfo:
        raise DataError(f"an address for {parsed.host} holds a user name or a password; vez sends none: take it out")
    if port is not None and not 0 < port < 65536:
        raise DataError(f"{url[:200]!r} has no such port")
    return parsed


def _joined(target: httpx2.URL, location: str) -> httpx2.URL:
    if not location:
        raise DataError(f"{target.host} redirects without saying where to")
    try:
        return _parsed(str(target.join(location)))
    except (httpx2.InvalidURL, ValueError) as error:
        raise DataError(f"{target.host} redirects to {location[:200]!r}, which is not an address") from error


def _headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1").strip() for name, value in pairs}


def _said(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _body(blocks: Iterable[bytes], headers: dict[str, str], host: str, *, most: int) -> bytes:
    """All bytes of an answer, unpacked, counted as they come: neither its length nor its packing is believed."""
    too_many = f"{host} sends more than {most:,} bytes, the most that [collect] most_bytes allows"
    declared = headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > most:
        raise DataError(too_many)
    encoding = headers.get("content-encoding", "").lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise DataError(f"{host} sends {encoding[:40]!r} packing, which was not asked for")
    whole = bytearray()
    packed = 0
    unpack = zlib.decompressobj(wbits=31) if "gzip" in encoding else None
    for block in blocks:
        packed += len(block)
        if packed > most:
            raise DataError(too_many)
        for piece in [block] if unpack is None else _unpacked(unpack, block, host):
            whole += piece
            if len(whole) > most:
                raise DataError(too_many)
    if unpack is not None and not unpack.eof:
        raise DataError(f"{host} sends a gzip body that is cut short")
    return bytes(whole)


def _unpacked(unpack: Any, block: bytes, host: str) -> Iterator[bytes]:
    """What a block of gzip holds, in pieces of at most 64 kB, so that a bomb is counted while it goes off."""
    try:
        while block and not unpack.eof:
            yield unpack.decompress(block, _BLOCK)
            block = unpack.unconsumed_tail
    except zlib.error as error:
        raise DataError(f"{host} says that its answer is gzip, and it is not") from error


def _retry_after(value: str, now: datetime) -> float | None:
    """Seconds that a Retry-After header (seconds or an HTTP date, RFC 9110 §10.2.3) asks for; None for neither."""
    if re.fullmatch(r"\d{1,9}", value, re.ASCII):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())


def _resolve(host: str, port: int) -> list[str]:
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def _connect(address: str, port: int, seconds: float) -> httpcore2.NetworkStream:
    return httpcore2.SyncBackend().connect_tcp(address, port, timeout=seconds)


class _PublicOnly(httpcore2.NetworkBackend):
    """Where httpcore2 opens its sockets: resolves, refuses what is not public, and connects to what it looked at."""

    def __init__(self, exempt: Iterable[str], resolve: Resolve, connect: Connect) -> None:
        self._exempt = {host.strip("[]").rstrip(".").lower() for host in exempt}
        self._resolve, self._open = resolve, connect
        self.deadline = 0.0  # of the request under way, by time.monotonic

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        try:
            addresses = self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise DataError(f"there is no host {host} ({error})") from error
        if host.strip("[]").rstrip(".").lower() not in self._exempt:
            for address in addresses:
                if not is_public(address):
                    raise DataError(
                        f"{host} has the address {address}, which is not public; if it is a server of yours, name it "
                        "in [collect] hosts"
                    )
        failed: httpcore2.NetworkError | httpcore2.TimeoutException = httpcore2.ConnectError(f"{host} has no address")
        for address in addresses[:4]:
            try:
                return _Timed(self._open(address, port, _left(self, _CONNECT_SECONDS)), self)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed


def _left(backend: _PublicOnly, most: float) -> float:
    """Seconds that the request under way still has, at most ``most``. Raises ReadTimeout when it has none."""
    seconds = min(most, backend.deadline - time.monotonic())
    if seconds <= 0:
        raise httpcore2.ReadTimeout("the time is up")
    return seconds


class _Timed(httpcore2.NetworkStream):
    """A connection on which no request outlasts its deadline, however slowly the bytes drip."""

    def __init__(self, stream: httpcore2.NetworkStream, backend: _PublicOnly) -> None:
        self._stream, self._backend = stream, backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._backend, timeout or _CONNECT_SECONDS))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._backend, timeout or _CONNECT_SECONDS))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        seconds = _left(self._backend, _CONNECT_SECONDS)
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, seconds), self._backend)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
