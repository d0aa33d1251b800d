"""What captioners said, kept so that no picture is captioned twice; and what became of it.

``.vez/captions/<first 16 of the identity's hash>.jsonl`` has a file per captioner and a line per picture:
``{"sha256": of its pixels, "caption": …}``. Lines are only added; of two for one picture the later one counts, and a
line that cannot be read (its writer was killed inside it) is as good as none.
"""

import json
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Final

from PIL import Image

from vez.dataset.rows import Row
from vez.errors import BaseModelError, DataError, MissingExtra, StoreError
from vez.events import Event, Item, Note
from vez.images.captioners import Captioner, digest
from vez.images.wording import as_text, compare, visible

_AT_ONCE: Final = 8


def say(
    pictures: Mapping[str, Path],
    *,
    captioner: Callable[[], Captioner],
    identity: Mapping[str, str] | None = None,
    cache: Path | None = None,
    again: bool = False,
    at_once: int = _AT_ONCE,
) -> Generator[Event, None, dict[str, str]]:
    """SHA-256 of a picture's pixels → what the captioner says of it; ``pictures`` has the file for each.

    ``captioner`` is called only if a picture is not in the ``cache`` (a folder; None: no cache), whose file goes by the
    ``identity`` of the captioner (`captioners.identity_of`). ``again`` asks about all pictures anew. No more than
    ``at_once`` pictures are in memory, and what they were called is on disk before the next are opened.
    Raises DataError where a picture cannot be read or the captioner does not give a text for each, StoreError where the
    cache cannot be read or written.
    """
    if cache is not None and identity is None:
        raise ValueError("a cache needs the captioner's identity")
    file = None if cache is None or identity is None else cache / f"{digest(identity)[:16]}.jsonl"
    known = {} if file is None or again else _read(file)
    said = {key: known[key] for key in pictures if key in known}
    if said:
        yield Note(f"{len(said)} of {len(pictures)} pictures were captioned before")
    todo = [key for key in pictures if key not in said]
    speaker = _ready(captioner, [pictures[key].name for key in todo]) if todo else None
    for start in range(0, len(todo), at_once):
        group = todo[start : start + at_once]
        assert speaker is not None
        captions = speaker.caption([_opened(pictures[key]) for key in group])
        if len(captions) != len(group) or not all(isinstance(caption, str) for caption in captions):
            raise DataError(
                f"the captioner gave {len(captions)} captions for {len(group)} pictures; it must give one each"
            )
        new = {key: _line(caption) for key, caption in zip(group, captions, strict=True)}
        if file is not None:
            _append(file, new)
        for key, caption in new.items():
            said[key] = caption
            yield Item(pictures[key].name, len(said), len(pictures))
    return {key: said[key] for key in pictures}


def _ready(captioner: Callable[[], Captioner], names: Sequence[str]) -> Captioner:
    """The captioner; where it cannot be had, the error says which pictures wanted it."""
    try:
        return captioner()
    except (BaseModelError, MissingExtra) as error:
        more = f" and {len(names) - 1} more have" if len(names) > 1 else " has"
        raise type(error)(f"{visible(names[0])}{more} no caption, and {error}") from error


def caption_changes(rows: Sequence[Row]) -> str:
    """Per training picture what the captioner said, and the caption trained on as a change of it, word by word.

    For a terminal: characters that a terminal obeys or hides are written as escapes.
    """
    blocks = []
    kinds: Counter[str] = Counter()
    for row in rows:
        mark = "   (by hand)" if row.hand else ""
        said = "–" if row.machine is None else visible(row.machine)
        trained = visible(row.caption) if row.machine is None else as_text(compare(row.machine, row.caption))
        blocks.append(f"{visible(row.file)}{mark}\n  said:    {said}\n  trained: {trained}\n")
        kinds["by hand" if row.hand else "as said" if row.machine == row.caption else "by the rules"] += 1
    counts = ", ".join(f"{kinds[kind]} {kind}" for kind in ("by the rules", "as said", "by hand") if kinds[kind])
    words = sorted(len(row.caption.split()) for row in rows)
    length = f"; {words[0]} to {words[-1]} words, half of them up to {words[(len(words) - 1) // 2]}" if words else ""
    total = f"{len(rows)} caption{'' if len(rows) == 1 else 's'}"
    return "\n".join([*blocks, f"{total}{f': {counts}' if counts else ''}{length}"])


def _read(file: Path) -> dict[str, str]:
    """SHA-256 → caption of every whole line."""
    known: dict[str, str] = {}
    try:
        text = file.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return known
    except OSError as error:
        raise StoreError(f"the captions {file} cannot be read: {error.strerror}") from error
    for line in text.split("\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("sha256"), str) and isinstance(row.get("caption"), str):
            known[row["sha256"]] = _line(row["caption"])
    return known


def _append(file: Path, captions: Mapping[str, str]) -> None:
    """Add the lines in one write; after a torn line they begin on a line of their own."""
    # ASCII only: no character that another reader takes for the end of a line
    lines = "".join(json.dumps({"sha256": key, "caption": caption}) + "\n" for key, caption in captions.items())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "ab+", buffering=0) as out:
            end = out.seek(0, 2)
            out.seek(max(0, end - 1))
            torn = end > 0 and out.read(1) != b"\n"
            data = ("\n" * torn + lines).encode("ascii")
            written = out.write(data)
    except OSError as error:
        raise StoreError(f"the captions {file} cannot be written: {error.strerror}") from error
    if written != len(data):
        raise StoreError(f"the captions {file} cannot be written: the disk is full")


def _line(caption: str) -> str:
    """In one line, and of characters that a file can hold (a lone surrogate becomes "?")."""
    return " ".join(caption.encode("utf-8", "replace").decode().split())


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be opened to be captioned ({error}); build again") from error
