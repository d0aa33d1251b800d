"""Pictures by a list of addresses: a text file with one a line, or a CSV table with what is known of each."""

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from vez.collect.candidate import Candidate, Source
from vez.collect.fetch import Web
from vez.collect.licences import attribution, licence_id, url_of
from vez.collect.plain_text import one_line
from vez.errors import DataError
from vez.images.provenance import Provenance

COLUMNS: Final = ("url", "page", "title", "author", "licence", "licence_url", "attribution")
_SPELLED: Final = {"license": "licence", "license_url": "licence_url"}


def from_list(web: Web, path: Path) -> Source:
    """The pictures that a .txt (an address a line, # begins a comment) or a .csv (with a column "url") names.

    The whole list is read before the first picture is. Raises DataError naming the file and the line that is wrong.
    """
    rows = list(_csv_rows(path) if path.suffix.lower() == ".csv" else _text_rows(path))
    return (_candidate(web, row, path.name) for row in rows)


def _candidate(web: Web, row: dict[str, str], file: str) -> Candidate:
    url = row["url"]
    stated = row.get("licence", "")
    licence = licence_id(stated) or licence_id(row.get("licence_url", "")) or stated
    licence_url = row.get("licence_url", "") or url_of(licence)
    title, author, page = (row.get(name, "") for name in ("title", "author", "page"))
    printed = row.get("attribution", "")
    if not printed and (title or author or licence):
        printed = attribution(title=title, author=author, licence=licence, licence_url=licence_url, page=page or url)
    return Candidate(
        key=url,
        name=unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2]) or title,
        read=_reader(web, url),
        provenance=Provenance(
            file="",
            origin="url",
            page=page,
            url=url,
            title=title,
            author=author,
            licence=licence,
            licence_url=licence_url,
            attribution=printed,
            note=f"listed in {one_line(file)}",
        ),
    )


def _reader(web: Web, url: str) -> Callable[[], bytes]:
    return lambda: web.get(url).data


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error


def _text_rows(path: Path) -> Iterator[dict[str, str]]:
    for number, line in enumerate(_text(path).splitlines(), start=1):
        words = line.split(" #", 1)[0].split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 1:
            raise DataError(f"{path}, line {number} has more than an address: {line.strip()[:80]!r}; put one on a line")
        yield {"url": _address(words[0], path, number)}


def _csv_rows(path: Path) -> Iterator[dict[str, str]]:
    text = _text(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=_delimiter(text))
    head: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not head:
                head = _head(cells, path, reader.line_num)
                continue
            if len(cells) != len(head):
                raise DataError(
                    f"{path}, line {reader.line_num} has {len(cells)} fields and the table {len(head)} columns; "
                    'put a text with the delimiter in it into "quotes"'
                )
            row = {name: one_line(cell) for name, cell in zip(head, cells, strict=True) if name}
            row["url"] = _address(cells[head.index("url")], path, reader.line_num)
            yield row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num} is not CSV ({error}); mend its quotes") from error
    if not head:
        raise DataError(f'{path} is empty; it needs a first line with the names of its columns, one of them "url"')


def _delimiter(text: str) -> str:
    """What parts the columns' names: a comma, or what spreadsheets of other countries write."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return max(",;\t", key=first.count)


def _head(cells: list[str], path: Path, number: int) -> list[str]:
    names = [cell.strip().lower().replace(" ", "_") for cell in cells]
    names = [_SPELLED.get(name, name) for name in names]
    wrong = [name for name in names if name not in COLUMNS]
    if wrong or "url" not in names or len(set(names)) != len(names):
        about = (
            f"an unknown column {wrong[0][:40]!r}" if wrong else "one twice" if "url" in names else 'no column "url"'
        )
        raise DataError(f"{path}, line {number}: the table has {about}; known columns are {', '.join(COLUMNS)}")
    return names


def _address(text: str, path: Path, number: int) -> str:
    text = text.strip()
    if not text.lower().startswith(("http://", "https://")):
        raise DataError(f"{path}, line {number}: {text[:80]!r} is not an address; it begins with http:// or https://")
    try:
        host = urlsplit(text).hostname
    except ValueError as error:
        raise DataError(f"{path}, line {number}: {text[:80]!r} is not an address ({error})") from error
    if not host:
        raise DataError(f"{path}, line {number}: {text[:80]!r} is not an address: it has no host")
    return text
