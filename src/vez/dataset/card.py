"""A dataset's card: what it is, how it was made, where its pictures come from and under which terms, in Markdown.

The questions are those of Gebru et al., "Datasheets for Datasets" (2021), as far as a dataset of pictures and captions
can answer them; the front matter is what the Hugging Face Hub reads. The card reports what the records say, and is no
legal advice. The same dataset gives the same bytes: no date of its own, no path of this machine.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from vez.config import Project
from vez.dataset.diff import label, reason
from vez.dataset.rows import Dataset, Row
from vez.images.findings import LEVELS, Finding
from vez.images.provenance import Provenance
from vez.images.wording import visible

_ADDRESS: Final = re.compile(r"https?://[A-Za-z0-9][^\s<>\"'`\\|{}^\[\]]*")
_TERMS: Final = {  # part of a Creative Commons id → what it asks of whoever passes the pictures on
    "BY": "name the author (BY)",
    "SA": "pass derived pictures on under the same licence (SA)",
    "NC": "no commercial use (NC)",
    "ND": "pass on no derived pictures (ND); a crop is one",
}
_FREE: Final = ("CC0", "PDM", "PUBLIC-DOMAIN")
_SOFTWARE: Final = {
    "APACHE-2.0": "keep the licence text and the notices",
    "MIT": "keep the licence text and the notice",
}
_HUB: Final = frozenset(
    {
        "apache-2.0",
        "mit",
        "cc0-1.0",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-nd-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
    }
    | {f"cc-by-nc-{kind}" for kind in ("2.0", "3.0", "4.0", "nd-3.0", "nd-4.0", "sa-2.0", "sa-3.0", "sa-4.0")}
)
_NOT_SETTINGS: Final = frozenset({"sources", "hand", "pictures", "project", "exclude", "waive", "override"})
_SIZES: Final = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))


def card(dataset: Dataset, project: Project | None) -> str:
    """The card of a frozen dataset. Raises DataError where its provenance.jsonl is damaged.

    ``project`` says what the pictures are of; None: not known (a dataset from elsewhere).
    """
    parts = [
        _front_matter(dataset),
        f"# {plain(dataset.name)}",
        _what(dataset, project),
        _made(dataset),
        _licences(dataset),
        _sources(dataset),
        _people(dataset),
        _findings(dataset.findings),
        _dropped(dataset),
        _identity(dataset),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str) -> str:
    """``text`` as Markdown that shows it as it is: no markup, no HTML, no link, one line."""
    escaped = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", visible(" ".join(text.split())))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(
        r"://|www\.|@", lambda m: m[0].replace(":", "&#58;").replace(".", "&#46;").replace("@", "&#64;"), escaped
    )


def _front_matter(dataset: Dataset) -> str:
    named = sorted({_hub_id(row.licence) for row in dataset.rows})
    licence = named[0] if len(named) == 1 else "other" if named else "unknown"
    size = next((name for most, name in _SIZES if len(dataset.rows) < most), "100K<n<1M")
    lines = [
        f"license: {licence}",
        f"pretty_name: {json.dumps(visible(dataset.name), ensure_ascii=False)}",
        "task_categories:",
        "- text-to-image",
        "tags:",
        "- lora",
        "- stable-diffusion",
        "- vez",
        "size_categories:",
        f"- {size}",
    ]
    return "\n".join(["---", *lines, "---"])


def _hub_id(licence: str) -> str:
    """The Hub's name of a licence; "other" for one that it has no name for, "unknown" for none."""
    if not licence:
        return "unknown"
    return licence.lower() if licence.lower() in _HUB else "other"


def _what(dataset: Dataset, project: Project | None) -> str:
    role = dataset.config.get("role", "concept")
    of = ""
    if project is not None:
        of = f" of {plain(project.noun if role == 'class' else project.describes)}"
    lines = [
        "## What it is",
        "",
        f"{_number(len(dataset.rows), 'training picture')}{of}, each with a caption, made to teach an image model "
        + ("what the class looks like beside the concept (regularisation)." if role == "class" else "one concept."),
    ]
    if project is not None and role != "class":
        lines += ["", f'Trigger word: "{plain(project.trigger)}"; class noun: "{plain(project.noun)}".']
    crops = Counter(str(row.crop) for row in dataset.rows)
    shapes = Counter(f"{row.width}×{row.height}" for row in dataset.rows if row.width)
    facts = [
        ("to train on", str(len(dataset.train))),
        ("held out", str(len(dataset.held_out))),
        ("files they were cut from", str(len({row.source for row in dataset.rows}))),
        ("sources (copies and near-copies are one)", str(len({row.group or row.source for row in dataset.rows}))),
        ("captions by hand", str(sum(row.hand for row in dataset.rows))),
        ("captions by machine", str(sum(not row.hand for row in dataset.rows))),
        ("crops", _counted(crops)),
        ("sizes in pixels", _counted(shapes)),
        ("enlarged", str(sum(row.scale > 1 for row in dataset.rows))),
        ("with a mask", str(sum(bool(row.mask) for row in dataset.rows))),
        ("cut at other places besides", str(moved) if (moved := sum(len(row.moved) for row in dataset.rows)) else ""),
    ]
    return "\n".join([*lines, "", *_table(("", "pictures"), [fact for fact in facts if fact[1]])])


def _made(dataset: Dataset) -> str:
    settings = [(key, _value(value)) for key, value in sorted(dataset.config.items()) if key not in _NOT_SETTINGS]
    text = (
        "Each picture was decoded to upright sRGB, checked, cropped and resized; a caption by hand stands where there "
        "is one, else a captioner's, changed by the rules below. The person's files were only read."
    )
    return "\n".join(["## How it was made", "", text, "", *_table(("setting", "value"), settings)])


def _licences(dataset: Dataset) -> str:
    counts = Counter(row.licence for row in dataset.rows)
    lines = ["## Licences", "", "What the pictures' records say; vez does not judge whether they are right.", ""]
    lines += _table(("licence", "pictures"), [(name or "none recorded", str(n)) for name, n in sorted(counts.items())])
    asked = [
        (terms, str(n))
        for part, terms in _TERMS.items()
        if (n := sum(count for name, count in counts.items() if part in name.upper().split("-")))
    ]
    upper = Counter(row.licence.upper() for row in dataset.rows)
    asked += [(terms, str(n)) for name, terms in _SOFTWARE.items() if (n := upper[name])]
    known = [name for name in counts if name.upper().startswith(("CC-", *_FREE, *_SOFTWARE))]
    others = sum(count for name, count in counts.items() if name and name not in known)
    if others:
        asked.append(("terms that vez does not know", str(others)))
    if counts[""]:
        asked.append(("no licence recorded: nothing is known to be allowed", str(counts[""])))
    if asked:
        lines += ["", "Who passes the whole on meets the strictest of these:", "", *_table(("asked", "by"), asked)]
    elif counts:
        lines += ["", "None of the licences recorded asks for anything."]
    return "\n".join(lines)


def _sources(dataset: Dataset) -> str:
    records = dataset.provenance
    lines = []
    for source in sorted({row.source for row in dataset.rows}):
        record = records.get(source, Provenance(source))
        said = [plain(text) for text in (record.title, record.author) if text]
        link = next((_linked(address) for address in (record.page, record.url) if address), "")
        collected = f"collected {plain(record.retrieved)}" if record.retrieved else ""
        where = [part for part in (link, plain(record.origin), collected) if part]
        terms = [_linked(record.licence_url) if record.licence_url else "", plain(record.attribution)]
        licence = [plain(record.licence), *[term for term in terms if term]]
        cells = ["; ".join(said), "; ".join(where), "; ".join(part for part in licence if part)]
        lines.append((source, *(Ready(cell or "not recorded") for cell in cells)))
    return "\n".join(["## Sources", "", *_table(("file", "title, author", "from", "licence, attribution"), lines)])


def _people(dataset: Dataset) -> str:
    sources = sorted({row.source for row in dataset.rows})
    records = [dataset.provenance.get(source, Provenance(source)) for source in sources]
    counts = Counter(record.people or "not recorded" for record in records)
    lines = ["## People", "", *_table(("people to be seen", "files"), [(k, str(n)) for k, n in sorted(counts.items())])]
    shown = [r for r in records if r.people == "identifiable" or r.consent]
    if shown:
        rows = [(r.file, r.people or "not recorded", r.consent or "none recorded") for r in shown]
        lines += ["", *_table(("file", "people", "consent"), rows)]
    return "\n".join([*lines, "", "A model trained on a person's pictures can draw that person."])


def _findings(findings: Sequence[Finding]) -> str:
    lines = ["## What the checks found", ""]
    if not findings:
        return "\n".join([*lines, "Nothing."])
    ordered = sorted(findings, key=lambda f: (bool(f.waived), LEVELS.index(f.level), f.check, f.file, f.other))
    rows = [
        (
            f.check,
            "waived" if f.waived else f.level,
            ("the whole set" if f.file == "*" else f.file) + (f" and {f.other}" if f.other else ""),
            f"{f.value:g}" if isinstance(f.value, float | int) else f.value,
            f"accepted: {f.waived}" if f.waived else f.why,
        )
        for f in ordered
    ]
    return "\n".join([*lines, *_table(("check", "state", "where", "value", "why"), rows)])


def _dropped(dataset: Dataset) -> str:
    lines = ["## What was left out", ""]
    if not dataset.dropped:
        return "\n".join([*lines, "Nothing."])
    return "\n".join([*lines, *_table(("file", "why"), [(d.file, reason(d)) for d in dataset.dropped])])


def _identity(dataset: Dataset) -> str:
    lines = [
        "## Identity",
        "",
        f"- id: `{re.sub('[^0-9A-Za-z]', '', dataset.id)}`, the SHA-256 of what it was made from",
        f"- rows: `{rows_sha256(dataset.rows)}`, the SHA-256 of what it holds: pixels, captions, crops, splits",
    ]
    pictures = [(label(row), row.sha256[:16]) for row in dataset.rows]
    return "\n".join([*lines, "", *_table(("picture", "SHA-256 of its pixels, first 16"), pictures)])


def rows_sha256(rows: Iterable[Row]) -> str:
    """SHA-256 (hex) of the rows' contents: equal for two datasets that would train the same."""
    told = hashlib.sha256()
    for row in rows:
        told.update(json.dumps(row.table, sort_keys=True, ensure_ascii=True).encode() + b"\n")
    return told.hexdigest()


class Ready(str):
    """A cell that is Markdown already."""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    body = ["| " + " | ".join(c if isinstance(c, Ready) else plain(c) for c in row) + " |" for row in rows]
    return ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *body]


def _linked(address: str) -> str:
    """An address to click on, if it is one; else as text."""
    return f"<{address}>" if _ADDRESS.fullmatch(address) and visible(address) == address else plain(address)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(inner)}" for key, inner in sorted(value.items())) or "none"
    if isinstance(value, str):
        return value[:8] if re.fullmatch(r"[0-9a-f]{64}", value) else value
    if value is None or value == []:
        return "none"
    return json.dumps(value, ensure_ascii=False)


def _counted(counts: Mapping[str, int]) -> str:
    if len(counts) < 2:
        return ", ".join(counts)
    return ", ".join(f"{name}: {n}" for name, n in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"
