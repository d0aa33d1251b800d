"""What every source of pictures yields: candidates to be read, and entries it will not give, with the reason."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vez.images.provenance import Provenance


@dataclass(frozen=True)
class Candidate:
    """A picture that a source offers; nothing of it has been read yet."""

    key: str
    """What tells it from all others and is the same tomorrow (a URL, "archive.zip!inner/path", a relative path).

    A collection that was cut goes on by it.
    """
    name: str
    """The file name wished for. It is hostile: the stage makes a safe one of it."""
    read: Callable[[], bytes]
    """Its bytes. Raises DataError with the reason why they cannot be had."""
    provenance: Provenance
    """What is known of it; file, sha256, original_sha256 and retrieved are still empty."""


@dataclass(frozen=True)
class Refused:
    """A picture (or an entry) that a source will not give, and why."""

    key: str
    reason: str


Source = Iterator[Candidate | Refused]
