"""Names of licences as data: what servers and people write, to SPDX-like ids, families, URLs and the sentence to print.

Ids follow SPDX where it has one (CC-BY-SA-3.0-DE, CC0-1.0); PDM-1.0 is Creative Commons' public domain mark, and
Public-Domain what a page calls so without naming a mark. https://spdx.org/licenses, https://creativecommons.org/licenses
"""

import re
from collections.abc import Sequence
from typing import Final

from vez.errors import ConfigError

FAMILIES: Final = (
    "cc0",
    "pdm",
    "by",
    "by-sa",
    "by-nc",
    "by-nc-sa",
    "by-nd",
    "by-nc-nd",
)
"""What may stand in [collect] licences, besides whole ids. pdm covers everything in the public domain."""

_NOT_CC: Final = {"CC0-1.0": "cc0", "PDM-1.0": "pdm", "Public-Domain": "pdm"}
# What is written for a licence that has no parts, in small letters with single blanks between words.
_SPELLED: Final = {
    "cc0": "CC0-1.0",
    "cc 0": "CC0-1.0",
    "cc zero": "CC0-1.0",
    "cc0 1.0": "CC0-1.0",
    "cc0 1.0 universal": "CC0-1.0",
    "zero": "CC0-1.0",
    "cc zero 1.0": "CC0-1.0",
    "creative commons zero, public domain dedication": "CC0-1.0",
    "pdm": "PDM-1.0",
    "pdm 1.0": "PDM-1.0",
    "cc pdm 1.0": "PDM-1.0",
    "mark": "PDM-1.0",
    "public domain mark": "PDM-1.0",
    "public domain mark 1.0": "PDM-1.0",
    "cc pd mark 1.0": "PDM-1.0",
    "pd": "Public-Domain",
    "public domain": "Public-Domain",
}
_URL: Final = re.compile(
    r"(?:https?:)?//(?:www\.)?creativecommons\.org/(licenses|publicdomain)/([a-z+-]+)(?:/(\d\.\d))?(?:/([a-z]{2,3}))?"
    r"(?:/|$|\?|#)"
)
_NAME: Final = re.compile(
    r"(?:cc )?(by(?: nc)?(?: sa)?(?: nd)?(?: nc)?)(?: v?(\d(?:\.\d)?))?(?:[ ,]\d\.\d)*(?: ([a-z]{2}|igo|scotland))?"
    r"(?: (?:migrated|int|international|unported|generic)(?: .*)?)?"
)
_LONG: Final = (
    ("creative commons", "cc"),
    ("attribution", "by"),
    ("non commercial", "nc"),
    ("noncommercial", "nc"),
    ("share alike", "sa"),
    ("sharealike", "sa"),
    ("no derivatives", "nd"),
    ("noderivatives", "nd"),
    ("noderivs", "nd"),
)


def licence_id(text: str) -> str:
    """The id of what is written: a name ("CC BY-SA 3.0 de", "by-nc 4.0", "Public domain"), an id or a URL.

    Empty for what is not known; nothing is guessed. Of several versions ("4.0-3.0-2.5") the first counts. A licence
    without a version has an id without one ("CC-BY").
    """
    text = text.strip()
    if address := _URL.search(text.lower()):
        kind, code, version, place = address.groups()
        if kind == "publicdomain":
            return _SPELLED.get(code, "")
        return _named(code.replace("-", " "), version or "", place or "")
    words = " ".join(text.lower().replace("-", " ").replace("_", " ").split())
    if words in _SPELLED:
        return _SPELLED[words]
    for long, short in _LONG:
        words = words.replace(long, short)
    words = words.removesuffix(" license").removesuffix(" licence")
    if parts := _NAME.fullmatch(words):
        return _named(parts[1], parts[2] or "", parts[3] or "")
    return ""


def _named(code: str, version: str, place: str) -> str:
    parts = set(code.split())
    if not parts <= {"by", "nc", "sa", "nd"} or "by" not in parts or {"sa", "nd"} <= parts:
        return ""
    ordered = "-".join(part for part in ("by", "nc", "sa", "nd") if part in parts)
    version = version if "." in version or not version else f"{version}.0"
    return "-".join(part.upper() for part in ("cc", ordered, version, place) if part)


def family(licence: str) -> str:
    """The family of an id: one of `FAMILIES`; empty where the id is not one that `licence_id` gives."""
    if licence in _NOT_CC:
        return _NOT_CC[licence]
    parts = re.fullmatch(r"CC-(BY(?:-NC)?(?:-SA|-ND)?)(?:-\d\.\d(?:-[A-Z]+)?)?", licence)
    return parts[1].lower() if parts else ""


def refusal(licence: str, allowed: Sequence[str]) -> str:
    """Why a picture under this licence is not taken; empty: it is. ``licence`` may be a text that is no known id."""
    known = family(licence)
    if not licence:
        return "nothing says under which licence it is"
    if not known:
        return f"its licence {licence[:80]!r} is none that vez knows"
    if known in allowed or licence in allowed:
        return ""
    why = "; a crop is a derivative, which it forbids" if known.endswith("nd") else ""
    return f"its licence {licence} is not among {', '.join(allowed) or 'none'}{why}"


def checked(allowed: Sequence[str]) -> tuple[str, ...]:
    """The licences that are taken, as families in small letters and ids. Raises ConfigError naming a wrong one."""
    taken = []
    for text in allowed:
        if text.lower() in FAMILIES:
            taken.append(text.lower())
        elif licence := licence_id(text):
            taken.append(licence)
        else:
            raise ConfigError(
                f"[collect] licences cannot name {text!r}; known are {', '.join(FAMILIES)}, and whole ids"
            )
    return tuple(taken)


def readable(licence: str) -> str:
    """An id as people write it: "CC BY-SA 3.0 DE" for CC-BY-SA-3.0-DE."""
    if licence == "PDM-1.0":
        return "Public Domain Mark 1.0"
    parts = re.fullmatch(r"(CC0|CC-BY(?:-NC)?(?:-SA|-ND)?)((?:-.+)?)", licence)
    return (parts[1].replace("CC-", "CC ") + parts[2].replace("-", " ")) if parts else licence.replace("-", " ")


def url_of(licence: str) -> str:
    """Where the text of a licence stands; empty where it is not known or has no version."""
    if licence == "CC0-1.0":
        return "https://creativecommons.org/publicdomain/zero/1.0/"
    if licence == "PDM-1.0":
        return "https://creativecommons.org/publicdomain/mark/1.0/"
    parts = re.fullmatch(r"CC-(BY(?:-NC)?(?:-SA|-ND)?)-(\d\.\d)(?:-([A-Z]+))?", licence)
    if parts is None:
        return ""
    place = f"{parts[3].lower()}/" if parts[3] else ""
    return f"https://creativecommons.org/licenses/{parts[1].lower()}/{parts[2]}/{place}"


def attribution(*, title: str, author: str, licence: str, licence_url: str, page: str) -> str:
    """The sentence to print with a picture: title, author, source and licence, as Creative Commons recommends."""
    named = f"“{title}”" if title else "Picture"
    by = f" by {author}" if author else ""
    where = f", {page}" if page else ""
    terms = f", {readable(licence)}" if licence else ""
    return f"{named}{by}{where}{terms}{f' ({licence_url})' if licence and licence_url else ''}"
