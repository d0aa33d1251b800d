"""Where each picture comes from, and who may use it how: provenance.jsonl in a folder of pictures.

One JSON object a line, one line a picture, the fields of `Provenance`. `vez collect` writes it; a person may edit it or
write it by hand, with the fields they know. Unknown fields are kept out with an error, so that a mistyped "licence" is
not lost silently.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from vez.errors import DataError
from vez.store import write_atomic

FILE: Final = "provenance.jsonl"


@dataclass(frozen=True)
class Provenance:
    """The record of one picture. All is text; what is not known is empty."""

    file: str
    """Its name in the folder."""
    sha256: str = ""
    """Of the file as it lies in the folder."""
    original_sha256: str = ""
    """Of the bytes as they came (before places were stripped from the metadata)."""
    origin: str = ""
    """How it came: folder, archive, url, commons, openverse, or what a person writes."""
    page: str = ""
    """Address of the page that shows and describes it; pictures of one page are one source."""
    url: str = ""
    """Address of the file; for an archive, its name and the path in it."""
    title: str = ""
    author: str = ""
    licence: str = ""
    """SPDX-like id: CC0-1.0, CC-BY-SA-4.0, PDM-1.0, …"""
    licence_url: str = ""
    attribution: str = ""
    """The sentence that the licence asks to be printed."""
    retrieved: str = ""
    """When it was collected: ISO 8601, UTC."""
    people: str = ""
    """none, non-identifiable, identifiable."""
    consent: str = ""
    """On what the use of an identifiable person's picture rests."""
    note: str = ""


def read(folder: Path) -> dict[str, Provenance]:
    """File name → record; empty where the folder has no such file. Raises DataError naming the line that is wrong."""
    path = folder / FILE
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); save it as UTF-8") from error
    records: dict[str, Provenance] = {}
    known = {field.name for field in fields(Provenance)}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number} is not JSON ({error}); mend it or take it out") from error
        if not isinstance(row, dict) or not all(isinstance(value, str) for value in row.values()) or "file" not in row:
            raise DataError(f'{path}, line {number} is not a record: it needs "file", and every value is text')
        if unknown := sorted(set(row) - known):
            raise DataError(f"{path}, line {number} has an unknown field {unknown[0]!r}; known are {', '.join(known)}")
        records[row["file"]] = Provenance(**row)
    return records


def write(folder: Path, records: Iterable[Provenance]) -> None:
    """Write the records of a folder, sorted by file, whole or not at all; empty fields are left out."""
    rows = [
        {key: value for key, value in asdict(record).items() if value}
        for record in sorted(records, key=lambda record: record.file)
    ]
    write_atomic(folder / FILE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
