"""The base's real tokenizer: how many tokens a caption has, where it is cut, what the trigger falls into.

CLIP's byte-pair encoding (Radford et al. 2021): lower case, pieces that end a word carry "</w>", and the vocabulary
stands in the order in which pieces were merged, so common ones first.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vez.errors import BaseModelError
from vez.nets.tokens import WORD_END, Tokenizer, read_tokenizer
from vez.store import file_sha256

_SINGLES: Final = 512  # the bytes, and the bytes that end a word: every CLIP vocabulary begins with them
_RARE: Final = 0.95
"""Of the merged pieces, in the order of the vocabulary, those from this share on are rare ("sks", "ohwx": .97)."""
_FILES: Final = ("vocab.json", "merges.txt", "tokenizer.json")


@dataclass(frozen=True, eq=False)
class Tokens:
    """A loaded tokenizer. ``sha256`` is of its files; ``ids`` maps a piece to its place in the vocabulary."""

    tokenizer: Tokenizer
    sha256: str
    ids: dict[str, int]

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """For each text the (start, end) of every token, in characters of the text; start and end token left out."""
        return [self.tokenizer.spans(text) for text in texts]

    def pieces(self, word: str) -> list[str]:
        """The tokens of a word, as text, without the mark of a word's end; bytes of other scripts as they are coded."""
        return [piece.removesuffix(WORD_END) for piece in self.tokenizer.pieces(word)]

    def is_word(self, piece: str) -> bool:
        """Whether the piece is in the vocabulary as a whole word."""
        return f"{piece.lower()}{WORD_END}" in self.ids

    def is_rare(self, piece: str) -> bool:
        """Whether this whole word stands among the rarest of the vocabulary."""
        merged = max(1, len(self.ids) - _SINGLES)
        return (self.ids.get(f"{piece.lower()}{WORD_END}", 0) - _SINGLES) / merged >= _RARE


def tokens_of(source: str) -> Tokens:
    """The tokenizer of a base: "tiny", a diffusers folder (or its tokenizer's folder), or a hub id.

    No weights are read or fetched. Raises BaseModelError.
    """
    folder = _folder(source)
    tokenizer = read_tokenizer(folder)
    sums = [file_sha256(folder / name) for name in _FILES if (folder / name).is_file()]
    return Tokens(tokenizer, hashlib.sha256("\n".join(sums).encode()).hexdigest(), tokenizer.ids)


def _folder(source: str) -> Path:
    if source == "tiny":
        return Path(__file__).parents[1] / "demo" / "base" / "tokenizer"
    path = Path(source).expanduser()
    for folder in (path / "tokenizer", path):
        if any((folder / name).is_file() for name in _FILES):
            return folder
    if path.is_dir():
        raise BaseModelError(f"{path} has no tokenizer in it; give a base's folder as diffusers writes it")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source, re.ASCII):
        raise BaseModelError(
            f'there is no folder {source!r}; a base is "tiny", a diffusers folder, or a hub id (owner/name)'
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        fetched = Path(snapshot_download(source, allow_patterns=["tokenizer/*", *_FILES]))
        return fetched / "tokenizer" if (fetched / "tokenizer").is_dir() else fetched
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseModelError(
            f"the tokenizer of {source!r} is neither here nor to be had from the hub ({first}); check the name and "
            "the network, or give a folder"
        ) from error
