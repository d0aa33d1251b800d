"""The vez.toml that says what kohya's files said, and the list of what it does not say."""

import json
import re
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from vez.dataset.imports import Imported
from vez.images.wording import visible
from vez.kohya_config.carried import Carried
from vez.kohya_config.options import BY_NAME
from vez.kohya_config.read import Said, shown

STUDY: Final = "first"
_WIDTH: Final = 118


def toml(said: Said, carried: Carried, *, name: str, imported: Sequence[Imported], images: str) -> str:
    """The whole file. ``name``: the dataset's; ``images``: its folder where nothing was imported."""
    tables = [
        *_comment(
            f"Made of kohya's {visible(said.path.name)} ({said.source}); what was not carried over is listed at its "
            "end. Every key is explained in docs/reference.md."
        ),
        "",
        *_table("project", carried.tables["project"], _of(carried, "project")),
        *_datasets(said, carried, name=name, imported=imported, images=images),
        *_study(said, carried, name=name),
        *(line for text in listed(said, carried, imported) for line in _comment(text)),
    ]
    return "\n".join(tables) + "\n"


def listed(said: Said, carried: Carried, imported: Sequence[Imported]) -> list[str]:
    """What was not carried over and why, in lines for a terminal and for the end of the file."""
    remarks = [*said.remarks, *(r.text for made in imported for r in made.remarks if r.kind != "settings")]
    lines = ["Not carried over:" if carried.left else "All that the file says was carried over."]
    lines += [f"- {left.text}" for left in carried.left if not _secret(left.option)]
    if remarks:
        lines += ["To know:", *(f"- {remark}" for remark in remarks)]
    if carried.idle:
        lines.append(f"Needs no key in vez: {', '.join(sorted(carried.idle))}")
    return lines


def variant_name(said: Said) -> str:
    """The name of the LoRA's file, as far as a variant can have it."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", shown(said.values.get("output_name", ""))).strip("-._")
    return "lora" if name in ("", "base") else name


def _secret(name: str) -> bool:
    return name in BY_NAME and BY_NAME[name].secret


def _datasets(
    said: Said, carried: Carried, *, name: str, imported: Sequence[Imported], images: str
) -> Iterator[str]:  # fmt: skip
    known: dict[str, dict[str, Any]] = {}
    shapes = {key: of for key, of in carried.tables["dataset"].items() if key in ("resolution", "buckets")}
    for made in imported:
        known |= tomllib.loads(made.tables)["dataset"]
        yield from (line for line in made.tables.splitlines() if line.startswith("#"))
    if not imported:
        for folder in said.folders:
            pictures = "" if folder.pictures is None else f"{folder.pictures} pictures, "
            words = f", class tokens {folder.words}" if folder.words else ""
            yield from _comment(f"In the file: {folder.name}: {pictures}repeats {folder.repeats}{words}")
        yield from _comment(f"Its pictures are not here: put them into {images}, or say where they are.")
        known[name] = {"images": images, "captions": f"captions/{name}"}
    for key, table in known.items():
        if table.get("role") == "class":
            yield from _table(f"dataset.{key}", table | shapes, {})
        else:
            of_folders = {top: table[top] for top in ("images", "captions") if top in table}
            said_here = of_folders | carried.tables["dataset"] | table
            yield from _table(f"dataset.{key}", said_here, _of(carried, "dataset"), last=False)
            if not carried.tables["dataset"].get("held_out"):
                yield "# held_out = 4  # kohya trains on all pictures; what is kept from training judges likeness"
            yield ""


def _study(said: Said, carried: Carried, *, name: str) -> Iterator[str]:
    study = dict(carried.tables["study"])
    if not {"steps", "images_seen", "epochs"} & set(study):
        study = {"images_seen": 2000} | study
        yield from _comment("kohya's file says nothing of how long to train: vez's own length.")
    yield from _table(f"study.{STUDY}", study, _of(carried, "study"))
    variant = {"dataset": name} | carried.tables["variant"]
    yield from _table(f"study.{STUDY}.variant.{_key(variant_name(said))}", variant, _of(carried, "variant"))


def _of(carried: Carried, table: str) -> dict[str, str]:
    start = f"{table}."
    return {key.removeprefix(start): text for key, text in carried.comments.items() if key.startswith(start)}


def _table(heading: str, values: Mapping[str, Any], comments: Mapping[str, str], *, last: bool = True) -> Iterator[str]:
    """A table with its comments: behind the value where they fit, else above it."""
    yield f"[{heading}]"
    for key, value in values.items():
        line = f"{key} = {_value(value)}"
        comment = visible(comments.get(key, ""))
        if comment and len(line) + len(comment) + 4 > _WIDTH:
            yield from _comment(comment)
            comment = ""
        yield f"{line}  # {comment}" if comment else line
    if last:
        yield ""


def _comment(text: str) -> Iterable[str]:
    hanging = "  " if text.startswith("- ") else ""
    return textwrap.wrap(visible(text), _WIDTH, initial_indent="# ", subsequent_indent=f"# {hanging}",
                         break_on_hyphens=False)  # fmt: skip


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    """A value in TOML: JSON's spelling, with every character escaped that a terminal obeys or hides."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(str(key))} = {_value(of)}" for key, of in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(of) for of in value)}]"
    text = json.dumps(value, ensure_ascii=False)
    return "".join(f"\\U{ord(c):08x}" if c != visible(c) else c for c in text)
