"""Captions written by hand: ``<stem>.txt`` for a training picture ``<stem>.png`` (``<stem>.upper.txt`` for a crop).

vez only reads that folder. What a captioner says is kept elsewhere (`vez.dataset.spoken`), so captioning again cannot
touch what a person wrote.
"""

import difflib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, Literal

from vez.errors import DataError
from vez.images.findings import Finding

_SUFFIXES: Final = (".txt", ".caption")  # .caption: as kohya's scripts name them
_MOST_BYTES: Final = 100_000


def read(folder: Path | None) -> dict[str, bytes]:
    """Stem → bytes of each hand caption, by name; nothing for None. Hidden files are left alone.

    Raises DataError where the folder is absent, a file cannot be read or is no caption by its size, or one stem has two
    files that differ.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; put the captions there, or take `captions` out of vez.toml")
    captions: dict[str, bytes] = {}
    try:
        for path in sorted(folder.iterdir()):
            # is_file: a named pipe would never end
            if path.suffix.lower() not in _SUFFIXES or path.name.startswith(".") or not path.is_file():
                continue
            if path.stat().st_size > _MOST_BYTES:
                raise DataError(f"{path} is larger than {_MOST_BYTES} bytes, which no caption is; take it out")
            data = path.read_bytes()
            if captions.setdefault(path.stem, data) != data:
                raise DataError(f"{folder / path.stem} has two captions that differ; keep one of .txt and .caption")
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
    return captions


def texts(
    captions: Mapping[str, bytes],
    wanted_stems: Iterable[str],
    *,
    left_out: Collection[str] = (),
    lines: Literal["join", "draw"] = "join",
) -> tuple[dict[str, str], list[Finding]]:
    """Stem → caption, for the training pictures of these stems; and findings about the others.

    A caption is one line, or where ``lines`` are to be drawn from as many as are filled.

    A caption that is empty or not UTF-8 is an error, and the machine's stands; one that no picture is called by is a
    warning, unless its stem is one of ``left_out``.
    """
    wanted = list(dict.fromkeys(wanted_stems))
    read: dict[str, str] = {}
    found: list[Finding] = []
    for stem in wanted:
        if stem not in captions:
            continue
        text = _decoded(captions[stem], lines)
        if text is None:
            why, fix = "it cannot be read, so the captioner's words stand in its place", "save it as UTF-8"
            found.append(Finding(f"{stem}.txt", "caption-encoding", "not UTF-8", "", why, fix, level="error"))
        elif not text:
            why, fix = "it is empty, so the captioner's words stand in its place", "write the caption, or remove it"
            found.append(Finding(f"{stem}.txt", "caption-missing", "empty", "", why, fix, level="error"))
        else:
            read[stem] = text
    for stem in captions:
        if stem not in wanted and stem not in left_out:
            near = difflib.get_close_matches(stem, wanted, n=1)
            fix = f"rename it, perhaps to {near[0]}.txt, or remove it" if near else "rename it, or remove it"
            why = "no training picture has this name, so nothing is trained on it"
            found.append(Finding(f"{stem}.txt", "caption-unused", "", "", why, fix))
    return read, found


def _decoded(data: bytes, lines: Literal["join", "draw"]) -> str | None:
    """The caption without needless white space; None for what is no UTF-8, or has the zero bytes of UTF-16."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    parts = [text] if lines == "join" else text.replace("\r", "\n").split("\n")
    return "\n".join(filled for part in parts if (filled := " ".join(part.split())))
