"""The stage `vez collect`: pictures from a source into a folder, each with a record of where it is from.

Nothing in the folder is changed or overwritten; a collection that was cut goes on where it stopped.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

from vez.collect.candidate import Candidate, Refused
from vez.collect.journal import FILE as JOURNAL
from vez.collect.journal import Journal
from vez.collect.licences import checked, refusal
from vez.collect.names import safe_name, suffix_of
from vez.collect.plain_text import one_line
from vez.collect.sources import Apis, Opened, open_source
from vez.config import Collect
from vez.errors import ConfigError, DataError, MissingExtra, StoreError
from vez.events import Done, Event, Item, Note, Stage
from vez.images import provenance
from vez.images.provenance import Provenance
from vez.store import file_sha256

if TYPE_CHECKING:
    from vez.collect.fetch import Web

_LOCK: Final = ".collected.lock"
_APIS: Final = ("commons", "openverse")
_EMPTY: Final = hashlib.sha256(b"").hexdigest()


def collect(
    source: str,
    into: Path,
    *,
    settings: Collect,
    limit: int | None = None,
    side: int | None = None,
    licences: Sequence[str] | None = None,
    web: "Web | None" = None,
    apis: Apis | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Event]:
    """Take pictures from a source into the folder ``into``, made where it is not there; yields events, Done last.

    ``source``: a folder, an archive, a .txt or .csv of addresses, commons:category:NAME, commons:WORDS,
    openverse:WORDS. ``limit``: the most pictures of this source in the folder, those of earlier runs included.
    ``side``: Commons is asked for pictures whose shorter side has at least so many pixels, instead of the originals.
    ``licences``: families and ids that are taken instead of the settings'; if given, they hold for every source, else
    for Commons and Openverse. ``web``, ``apis`` and ``now`` are for tests and mirrors.

    What cannot be taken is a Note with the reason, and in the folder's journal; the collection goes on. Done's id is
    the SHA-256 of provenance.jsonl. Raises ConfigError (no such source, no contact), DataError (a source that cannot
    be read, a server that asks for hours of patience) and StoreError (the folder cannot be written, or is in use).
    """
    allowed = checked(settings.licences if licences is None else licences)
    terms = _Terms(allowed, licences is not None, settings.most_pixels)
    _check_folder(Path(source), into)
    with ExitStack() as stack:

        def opened_web() -> "Web":
            from vez.collect.fetch import Web

            return web if web is not None else stack.enter_context(Web(settings))

        opened = open_source(
            source, settings=settings, web=opened_web, side=side, licences=allowed, apis=apis or Apis()
        )
        stack.callback(_locked(into).release)
        journal = Journal(into, opened.name)
        yield Stage("collect", limit, source)
        if journal.taken:
            yield Note(f"{journal.taken} of them are there already")
        yield from _take_all(opened, into, journal, terms, limit, now)
    records = into / provenance.FILE
    yield Done(into, file_sha256(records) if records.exists() else _EMPTY)


@dataclass(frozen=True)
class _Terms:
    """What is taken at all."""

    allowed: tuple[str, ...]
    everywhere: bool
    most_pixels: int


class _No(DataError):
    """A picture is not taken. ``again``: the reason may pass."""

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again


def _take_all(
    opened: Opened, into: Path, journal: Journal, terms: _Terms, limit: int | None, now: Callable[[], datetime]
) -> Iterator[Event]:
    before = journal.taken
    refused = earlier = seen = 0
    while limit is None or journal.taken < limit:
        found = next(opened.candidates, None)
        if found is None:
            break
        seen += 1
        if journal.is_settled(found.key):
            earlier += not journal.is_taken(found.key)
            continue
        try:
            if isinstance(found, Refused):
                raise _No(found.reason, again=True)
            record, data = _looked_at(found, opened, journal, terms)
        except _No as no:
            refused += 1
            reason = one_line(str(no))
            journal.refuse(found.key, reason, again=no.again or opened.local)
            yield Note(f"refused {one_line(found.key)}: {reason}")
            continue
        name = safe_name(found.name, suffix_of(data), journal.stems)
        retrieved = now().astimezone(UTC).isoformat(timespec="seconds")
        journal.take(found.key, replace(record, file=name, retrieved=retrieved), data)
        yield Item("collect", journal.taken, limit)
    if not seen and before == 0:
        yield Note("there is no picture in it")
    if earlier:
        them = "1 of them was" if earlier == 1 else f"{earlier} of them were"
        yield Note(f"{them} refused for good on an earlier run; {JOURNAL} says why")
    yield Note(f"taken: {journal.taken - before}, refused: {refused}; of this source in {into}: {journal.taken}")


def _looked_at(found: Candidate, opened: Opened, journal: Journal, terms: _Terms) -> tuple[Provenance, bytes]:
    """A picture that has passed every test: its record but for the file's name and the date, and its bytes to write."""
    from vez.collect.fetch import ServerBusy
    from vez.images.decode import decode
    from vez.images.metadata import strip_places

    stated = terms.everywhere or found.provenance.origin in _APIS
    if stated and (why := refusal(found.provenance.licence, terms.allowed)):
        raise _No(why, again=True)
    try:
        data = found.read()
    except ServerBusy as busy:
        if opened.api:
            raise
        raise _No(str(busy), again=True) from busy
    except DataError as error:
        raise _No(str(error), again=True) from error
    original = hashlib.sha256(data).hexdigest()
    if first := journal.originals.get(original):
        raise _No(f"it is the same file as {first}", again=False)
    try:
        decode(data, max_pixels=terms.most_pixels)
        suffix_of(data)
        stripped = strip_places(data)
    except (DataError, MissingExtra) as error:
        raise _No(str(error), again=isinstance(error, MissingExtra)) from error
    sha256 = hashlib.sha256(stripped).hexdigest()
    if first := journal.originals.get(sha256):
        raise _No(f"without the place in its metadata it is the same file as {first}", again=False)
    return replace(found.provenance, sha256=sha256, original_sha256=original), stripped


def _check_folder(source: Path, into: Path) -> None:
    if into.exists() and not into.is_dir():
        raise ConfigError(f"{into} is a file; name the folder that is to get the pictures")
    if source.is_dir() and (into.resolve().is_relative_to(source.resolve())):
        raise ConfigError(f"{into} lies in {source}, which is being read; name a folder outside it")


def _locked(into: Path) -> FileLock:
    """The folder, made and locked. Raises StoreError where it cannot be, or another process collects into it."""
    lock = FileLock(into / _LOCK)
    try:
        into.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise StoreError(f"another process collects into {into}; wait for it or stop it") from error
    except OSError as error:
        raise StoreError(f"cannot write into {into}: {error.strerror}") from error
    return lock
