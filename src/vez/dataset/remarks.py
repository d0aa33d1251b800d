"""What an import says aloud: where kohya, or who reads a folder next, would pass over something in silence."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from vez.images.wording import visible

REMARKS: Final[Mapping[str, str]] = {
    "no caption": "there are no class tokens either, so kohya trains on the empty caption with no more than a warning; "
    "vez's captioner will caption them",
    "class tokens": "without a caption kohya trains on the class tokens; those were taken for the caption",
    "other extension": "the caption has another extension than the one read (.caption, unless caption_extension says "
    "otherwise), so kohya would not see it; it was taken",
    "other extension, left": "the caption has another extension than the one asked for; it was not taken",
    "two captions": "a .caption and a .txt lie there and differ; as kohya, vez took the one whose extension is read",
    "fallback": "without a caption kohya also tries the whole path less its last four parts between underscores, and "
    "would quietly take another file's caption; it was not taken",
    "not UTF-8": "kohya stops on such a caption; it was not taken: save it as UTF-8 and import again",
    "byte order mark": "kohya makes it a part of the caption; it was taken off",
    "first line": "kohya trains on the first line of a caption only; so the first was taken",
    "joined lines": "the lines of the caption were joined; kohya would train on the first only",
    "empty caption": "kohya stops on a file without a byte, else trains on the empty caption; vez's captioner will "
    "caption them",
    "too large": "no caption has that many bytes; it was not taken",
    "one stem": "the names differ in their suffix only, so kohya gives them one caption; each got its own copy",
    "not read": "kohya passes over this kind of picture, or over a suffix in mixed case; left out",
    "link": "a link to a file outside the dataset is not followed; left out",
    "unknown kind": "vez cannot read this kind of picture; left out",
    "no picture": "no picture is called as this caption is",
    "nested folder": "kohya does not look into a folder of pictures inside another, nor did vez",
    "no number": "kohya ignores a folder whose name begins with no number, and so did vez",
    "no repeats": "kohya ignores a folder with less than 1 repeat, and so did vez",
    "beside folders": "kohya does not read pictures beside the numbered folders, nor did vez",
    "empty folder": "there is no picture in it",
    "twice": "of a folder named twice kohya takes the first, and so did vez",
    "folder name": "with a config file kohya reads neither the number nor the words of a folder's name; what the "
    "config says was taken",
    "regularisation": "kohya reads it only as --reg_data_dir; taken for class pictures",
    "settings": "these are of training, not of a dataset, and were not taken over",
    "repeats": "kohya shows these more often than others; vez shows every picture equally often",
    "wildcards": "with enable_wildcard kohya draws a line, and one of {a|b}, anew each time; so do variants with "
    "wildcards = true",
    "resolution": "vez.toml cannot say this; set resolution by hand",
    "mask": "a mask that is no .png was not taken",
    "no row": "a picture without a row in the metadata; left out",
    "no file": "the metadata names it, and it is not there",
    "no text": "the metadata has no column that reads as a caption (text, caption, prompt)",
    "several texts": "of the captions of a picture the first was taken",
    "validation": "held out there; vez makes its own choice, see held_out",
    "renamed": "a caption belongs to one stem, and a dot in it names a crop",
    "place": "the place that the metadata tells could not be taken out; left out",
}
"""Kind → what it means."""


@dataclass(frozen=True)
class Remark:
    """One kind of thing to know, and what it is about."""

    kind: str
    """A key of `REMARKS`."""
    files: tuple[str, ...]

    def __str__(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        """A sentence that names up to five of the files; safe to print."""
        named = ", ".join(visible(file) for file in self.files[:5])
        more = f" and {len(self.files) - 5} more" if len(self.files) > 5 else ""
        return f"{self.kind} ({len(self.files)}): {REMARKS[self.kind]}: {named}{more}"


@dataclass(frozen=True)
class Remarks:
    """Remarks while they are gathered."""

    found: defaultdict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, kind: str, file: str) -> None:
        """Remark on one more file; saying it twice is saying it once."""
        self.found[kind][file] = None

    def all(self) -> tuple[Remark, ...]:
        """Every remark, in the order of `REMARKS`."""
        return tuple(Remark(kind, tuple(self.found[kind])) for kind in REMARKS if kind in self.found)
