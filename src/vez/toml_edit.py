"""Adding to a person's vez.toml: waivers, exclusions, datasets. Comments and every other byte stay as they are.

An edit is tried on a copy beside the file and takes its place only if it says what was there, plus the entry, and
`vez.config.load` accepts it.
"""

import difflib
import re
import secrets
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError

from vez import config
from vez.config import PICTURE_CHECKS, WORD_CHECKS
from vez.errors import ConfigError
from vez.store import write_atomic

_BOM: Final = "\ufeff"
_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")  # TOML's lines; Python's splitlines() knows more line ends


def add_waiver(path: Path, dataset: str, *, check: str, file: str = "*", reason: str) -> None:
    """Accept a finding in ``[dataset.<name>]`` of the vez.toml at ``path``; file "*": wherever it is found.

    Raises ConfigError for an unknown dataset or check, a finding that is waived already, or a file that cannot be
    edited; vez.toml is then as it was.
    """
    known = (*PICTURE_CHECKS, *WORD_CHECKS)
    if check not in known:
        near = difflib.get_close_matches(check, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        raise ConfigError(f"there is no check {check!r}; {hint}")
    _add_entry(path, dataset, "waive", {"check": check, "file": file, "reason": reason}, same=("check", "file"))


def add_exclusion(path: Path, dataset: str, *, file: str, reason: str) -> None:
    """Leave a picture out of ``[dataset.<name>]`` by hand. Raises ConfigError as `add_waiver` does."""
    _add_entry(path, dataset, "exclude", {"file": file, "reason": reason}, same=("file",))


def add_dataset(path: Path, tables: str) -> None:
    """Add the datasets that a piece of TOML holds to the end of the file.

    Raises ConfigError where the piece holds anything else, or a dataset whose name is taken.
    """
    text, newline = _read(path)
    try:
        new = tomllib.loads(tables)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the tables for {path} are not valid TOML: {error}") from error
    if set(new) != {"dataset"} or not isinstance(new["dataset"], dict):
        raise ConfigError(f"only [dataset.<name>] tables can be added to {path}, not {', '.join(new) or 'nothing'}")
    wanted = tomllib.loads(text)
    taken = sorted(set(wanted.get("dataset", {})) & set(new["dataset"]))
    if taken:
        raise ConfigError(f"{path} has a [dataset.{taken[0]}] already; give the new one another name")
    wanted.setdefault("dataset", {}).update(new["dataset"])
    _write(path, _chosen(path, [lambda: _at_end(text, tables, newline)], wanted))


def _add_entry(path: Path, dataset: str, key: str, entry: Mapping[str, str], *, same: tuple[str, ...]) -> None:
    text, newline = _read(path)
    wanted = tomllib.loads(text)
    tables = wanted.get("dataset", {})
    if dataset not in tables:
        raise ConfigError(f"there is no [dataset.{dataset}] in {path}; known are: {', '.join(tables) or 'none'}")
    entries = wanted["dataset"][dataset].setdefault(key, [])
    for other in entries:
        if all(other.get(name, "*") == entry[name] for name in same):
            raise ConfigError(
                f"[dataset.{dataset}] has that already under {key}, because {other.get('reason')!r}; change it there"
            )
    entries.append(dict(entry))
    lines = [f"[[dataset.{_name(dataset)}.{key}]]", *(f"{name} = {_quoted(value)}" for name, value in entry.items())]
    table = "\n".join(lines)
    ways: list[Callable[[], str]] = [
        lambda: _beside(text, dataset, table, newline),
        lambda: _at_end(text, table, newline),
        lambda: _inline(text, dataset, key, entry),
    ]
    _write(path, _chosen(path, ways, wanted))


def _read(path: Path) -> tuple[str, str]:
    """The file's text and its line end. Raises ConfigError where it is not a valid vez.toml to begin with."""
    config.load(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error})") from error
    return text, "\r\n" if "\r\n" in text else "\n"


def _chosen(path: Path, ways: list[Callable[[], str]], wanted: Mapping[str, Any]) -> str:
    """The text of the first way of editing after which the file says what is wanted, and nothing else."""
    for way in ways:
        try:
            text = way()
            if tomllib.loads(text) == wanted:
                return text
        except (tomllib.TOMLDecodeError, TOMLKitError, LookupError):
            continue  # the file is written in a way that this edit cannot extend; the next one may
    raise ConfigError(f"{path} is written in a way that vez cannot add to; make the change by hand")


def _beside(text: str, dataset: str, table: str, newline: str) -> str:
    """The table after the last line of the dataset's own tables; a comment above the next header stays with that."""
    lines = _LINE.findall(text)
    headers = dict(_headers(lines))
    own = [i for i, place in headers.items() if place[:2] == ("dataset", dataset)]
    if not own:
        raise LookupError(f"[dataset.{dataset}] has no line of its own")
    last = own[-1]
    end = min((i for i in headers if i > last), default=len(lines))
    if end < len(lines):
        while lines[end - 1].lstrip().startswith("#"):
            end -= 1
    while not lines[end - 1].strip():
        end -= 1
    return _joined("".join(lines[:end]), table, "".join(lines[end:]), newline)


def _headers(lines: list[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line number → key of what looks like the header of a table (a line inside a long string may, too)."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith("["):
            continue
        try:
            value: Any = tomllib.loads(line)
        except tomllib.TOMLDecodeError:
            continue
        place = []
        while isinstance(value, dict | list) and value:
            if isinstance(value, dict):
                place.append(next(iter(value)))
            value = value[0] if isinstance(value, list) else value[place[-1]]
        yield number, tuple(place)


def _at_end(text: str, table: str, newline: str) -> str:
    return _joined(text, table, "", newline)


def _joined(before: str, table: str, after: str, newline: str) -> str:
    gap = "" if not before or before.endswith("\n") else newline
    lines = table.replace("\r\n", "\n").strip("\n").split("\n")
    return before + gap + newline + "".join(line + newline for line in lines) + after


def _inline(text: str, dataset: str, key: str, entry: Mapping[str, str]) -> str:
    """The entry inside ``key = [ … ]``, or in a dataset that is itself written in one line."""
    document = tomlkit.parse(text)
    table: Any = document["dataset"][dataset]
    item = tomlkit.inline_table()
    item.update(entry)
    if key in table:
        table[key].append(item)
    else:
        entries = tomlkit.array()
        entries.append(item)
        table[key] = entries
    return tomlkit.dumps(document)


def _name(key: str) -> str:
    return key if all(c.isalnum() or c in "-_" for c in key) and key.isascii() else _quoted(key)


def _quoted(text: str) -> str:
    """A basic string in TOML. Raises ConfigError for text that UTF-8 cannot hold (a damaged file name)."""
    if any(0xD800 <= ord(c) < 0xE000 for c in text):
        raise ConfigError(f"{text!r} is not text that vez.toml can hold; rename the file")
    return "".join(('"', *(_escaped(c) for c in text), '"'))


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    # also U+0080 … U+009F, which TOML allows bare but a terminal obeys
    return f"\\u{ord(character):04x}" if ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 else character


def _write(path: Path, text: str) -> None:
    """Put the text in the file's place, if it is accepted there. Raises ConfigError or StoreError."""
    path = path.resolve()  # a link stays a link
    head = _BOM if path.read_bytes().startswith(_BOM.encode()) else ""
    data, mode = (head + text).encode(), path.stat().st_mode
    trial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.try")
    try:
        write_atomic(trial, data)
        config.load(trial)
    except ConfigError as error:
        raise ConfigError(str(error).replace(str(trial), str(path))) from error
    finally:
        trial.unlink(missing_ok=True)
    write_atomic(path, data)
    path.chmod(mode)
