"""Two wordings of one caption, compared word by word, and text that is safe to print on a terminal."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final, Literal

_TOKEN: Final = re.compile(r"[^\s,]+|,")
# Pairs of equal words that are weighed against each other; SequenceMatcher takes their number several times over.
_MOST_PAIRS: Final = 20_000
# Unicode categories that move the cursor, reverse the text, or cannot be seen: control, format, surrogate, private use,
# line and paragraph separator.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


@dataclass(frozen=True)
class Piece:
    """A run of words that is in both wordings, only in the first (removed), or only in the second (added)."""

    kind: Literal["same", "removed", "added"]
    text: str
    """Never empty; its white space is single spaces."""


def compare(before: str, after: str) -> tuple[Piece, ...]:
    """What became of the words of ``before``; a comma is a word of its own, so it can come and go alone.

    Joining the pieces that are same or removed gives ``before``, same or added gives ``after``, up to white space.
    Captions that repeat the same words hundreds of times are compared as wholes where they differ.
    """
    old, new = list(_TOKEN.finditer(before)), list(_TOKEN.finditer(after))
    pieces: list[Piece] = []

    def add(kind: Literal["same", "removed", "added"], text: str, tokens: Sequence[re.Match[str]]) -> None:
        if tokens:
            pieces.append(Piece(kind, " ".join(text[tokens[0].start() : tokens[-1].end()].split())))

    for same, i1, i2, j1, j2 in _blocks([m[0] for m in old], [m[0] for m in new]):
        if same:
            add("same", after, new[j1:j2])
        else:
            add("removed", before, old[i1:i2])
            add("added", after, new[j1:j2])
    return tuple(pieces)


def as_text(pieces: Iterable[Piece]) -> str:
    """The pieces in one line for a terminal: "a [-folk costume-] {+traditional nosnjaoutfit+}"; see `visible`."""
    frames = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}
    line = ""
    for piece in pieces:
        opening, closing = frames[piece.kind]
        space = " " if line and not piece.text.startswith(",") else ""
        line += f"{space}{opening}{visible(piece.text)}{closing}"
    return line


def visible(text: str) -> str:
    r"""``text`` with every character that a terminal obeys or hides written as its escape (\x1b, \u202e); one line."""
    return "".join(_escape(c) if unicodedata.category(c) in _UNSEEN else c for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _blocks(old: Sequence[str], new: Sequence[str]) -> list[tuple[bool, int, int, int, int]]:
    """(equal, i1, i2, j1, j2) in order, as SequenceMatcher's opcodes; equal ends are cut off first."""
    shortest = min(len(old), len(new))
    head = next((i for i in range(shortest) if old[i] != new[i]), shortest)
    tail = next((i for i in range(shortest - head) if old[-1 - i] != new[-1 - i]), shortest - head)
    i, j = len(old) - tail, len(new) - tail
    blocks = [(True, 0, head, 0, head)]
    counts = Counter(new[head:j])
    if sum(counts[token] for token in old[head:i]) > _MOST_PAIRS:
        blocks.append((False, head, i, head, j))
    else:
        matcher = SequenceMatcher(None, old[head:i], new[head:j], autojunk=False)
        blocks += [
            (kind == "equal", head + i1, head + i2, head + j1, head + j2)
            for kind, i1, i2, j1, j2 in matcher.get_opcodes()
        ]
    return [*blocks, (True, i, len(old), j, len(new))]
