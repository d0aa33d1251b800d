"""From what a person writes ("photos/", "heap.zip", "commons:category:…") to the pictures it stands for."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vez.collect.candidate import Source
from vez.config import Collect
from vez.errors import ConfigError

if TYPE_CHECKING:
    from vez.collect.fetch import Web

FORMS: Final = (
    "a folder, an archive (.zip, .tar, .tgz, .tar.gz, .tar.bz2, .tar.xz), a list of addresses (.txt, .csv), "
    "commons:category:NAME, commons:WORDS, openverse:WORDS"
)
_ARCHIVES: Final = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
_LISTS: Final = (".txt", ".csv")


@dataclass(frozen=True)
class Apis:
    """Where the servers' APIs are; empty: where the projects themselves have them."""

    commons: str = ""
    openverse: str = ""


@dataclass(frozen=True)
class Opened:
    """A source, ready to be read."""

    name: str
    """What stands for it in the folder's journal: keys are told apart within it. Holds no path of this machine."""
    candidates: Source
    local: bool
    """Its files are at hand: what was refused is cheap to look at again."""
    api: bool
    """One server answers for all of it: when that one is busy, the whole collection waits for another day."""


def open_source(
    source: str,
    *,
    settings: Collect,
    web: "Callable[[], Web]",
    side: int | None,
    licences: Sequence[str],
    apis: Apis,
) -> Opened:
    """The pictures that ``source`` stands for, unread. ``web`` is asked for only where the network is needed.

    Raises ConfigError for a source of no known form and for Commons and Openverse without a contact, DataError where a
    folder, an archive or a list cannot be read.
    """
    scheme, colon, rest = source.partition(":")
    if colon and scheme.lower() in ("commons", "openverse"):
        return _searched(scheme.lower(), rest.strip(), settings, web, side, licences, apis)
    path = Path(source)
    if path.is_dir():
        from vez.collect.folders import from_folder

        candidates = from_folder(path, most_bytes=settings.most_bytes)
        return Opened(_local_name("folder", path), candidates, local=True, api=False)
    name = path.name.lower()
    known = name.endswith((*_ARCHIVES, *_LISTS))
    if not known or not path.is_file():
        why = "it is nothing that pictures come from" if path.exists() else "there is no such file or folder"
        raise ConfigError(f"cannot collect from {source!r}: {why}; write {FORMS}")
    if name.endswith(_ARCHIVES):
        from vez.collect.archives import from_archive

        candidates = from_archive(path, most_bytes=settings.most_bytes)
        return Opened(_local_name("archive", path), candidates, local=True, api=False)
    from vez.collect.urls import from_list

    return Opened(f"list:{path.name}", from_list(web(), path), local=False, api=False)


def _searched(
    scheme: str,
    words: str,
    settings: Collect,
    web: "Callable[[], Web]",
    side: int | None,
    licences: Sequence[str],
    apis: Apis,
) -> Opened:
    kind, colon, name = words.partition(":")
    in_category = scheme == "commons" and colon and kind.strip().lower() == "category"
    words = name.strip() if in_category else words
    if not words:
        raise ConfigError(f"{scheme}: needs words to search for; write {FORMS}")
    if not settings.contact.strip():
        raise ConfigError(
            f"{scheme} asks every program to say who uses it; write [collect] contact in vez.toml, a mail address or a "
            "page where you can be reached"
        )
    if scheme == "openverse":
        from vez.collect import openverse

        found = openverse.search(web(), words, licences=licences, api=apis.openverse or openverse.API)
        return Opened(f"openverse:{words}", found, local=False, api=False)
    from vez.collect import commons

    api = apis.commons or commons.API
    if in_category:
        return Opened(
            f"commons:category:{words}", commons.category(web(), words, side=side, api=api), local=False, api=True
        )
    return Opened(f"commons:{words}", commons.search(web(), words, side=side, api=api), local=False, api=True)


def _local_name(kind: str, path: Path) -> str:
    """Two folders of one name are two sources; the hash tells them apart without writing down where they are."""
    place = hashlib.sha256(path.resolve().as_posix().encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{kind}:{path.resolve().name}:{place}"
