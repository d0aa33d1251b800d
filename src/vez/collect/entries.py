"""What a name in a folder or an archive stands for, before anything of it is read."""

from pathlib import PurePosixPath
from typing import Final, Literal

# What stands beside pictures and is none: captions, tables, notes. Passed over in silence.
_BESIDE: Final = frozenset(
    {".caption", ".csv", ".db", ".htm", ".html", ".ini", ".json", ".jsonl", ".md", ".npz", ".pdf", ".safetensors"}
    | {".toml", ".tsv", ".txt", ".url", ".xml", ".xmp", ".yaml", ".yml"}
)
_ARCHIVES: Final = frozenset(
    {".7z", ".bz2", ".cab", ".cbr", ".cbz", ".gz", ".iso", ".lz", ".lzma", ".rar", ".tar", ".tbz2", ".tgz", ".txz"}
    | {".xz", ".zip", ".zst"}
)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is meant to be out of sight: ".name", and what macOS puts into archives."""
    return name.startswith(".") or name == "__MACOSX"


def kind_of(name: str) -> Literal["candidate", "beside", "archive"]:
    """A file by its name: a possible picture, something to pass over, or an archive.

    Only decoding tells whether a candidate is a picture; it may have any suffix, or none.
    """
    suffix = PurePosixPath(name.lower()).suffix
    if is_hidden(name) or suffix in _BESIDE:
        return "beside"
    return "archive" if suffix in _ARCHIVES else "candidate"


def readable(name: str) -> str:
    """A name that can be written as UTF-8: bytes that are no text, as file systems and archives hold them, escaped."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
