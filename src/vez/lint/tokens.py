"""The base's real tokenizer: how many tokens a caption has, where it is cut, what the trigger falls into.

CLIP's byte-pair encoding (Radford et al. 2021): lower case, pieces that end a word carry "</w>", and the vocabulary
stands in the order in which pieces were merged, so common ones first.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import CLIPTokenizer

from vez.errors import BaseModelError
from vez.store import file_sha256

_WORD_END: Final = "</w>"
_SINGLES: Final = 512  # the bytes, and the bytes that end a word: every CLIP vocabulary begins with them
_RARE: Final = 0.95
"""Of the merged pieces, in the order of the vocabulary, those from this share on are rare ("sks", "ohwx": .97)."""
_FILES: Final = ("vocab.json", "merges.txt", "tokenizer.json")


@dataclass(frozen=True, eq=False)
class Tokens:
    """A loaded tokenizer. ``sha256`` is of its files; ``ids`` maps a piece to its place in the vocabulary."""

    tokenizer: Any
    sha256: str
    ids: dict[str, int]

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """For each text the (start, end) of every token, in characters of the text; start and end token left out."""
        if not texts:
            return []
        coded = self.tokenizer(
            [well_formed(text) for text in texts], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return [[(int(a), int(b)) for a, b in offsets] for offsets in coded["offset_mapping"]]

    def pieces(self, word: str) -> list[str]:
        """The tokens of a word, as text, without the mark of a word's end; bytes of other scripts as they are coded."""
        return [piece.removesuffix(_WORD_END) for piece in self.tokenizer.tokenize(word, verbose=False)]

    def is_word(self, piece: str) -> bool:
        """Whether the piece is in the vocabulary as a whole word."""
        return f"{piece.lower()}{_WORD_END}" in self.ids

    def is_rare(self, piece: str) -> bool:
        """Whether this whole word stands among the rarest of the vocabulary."""
        merged = max(1, len(self.ids) - _SINGLES)
        return (self.ids.get(f"{piece.lower()}{_WORD_END}", 0) - _SINGLES) / merged >= _RARE


def well_formed(text: str) -> str:
    """The text with a replacement character for each half of a surrogate pair: JSON can hold them, UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def tokens_of(source: str) -> Tokens:
    """The tokenizer of a base: "tiny", a diffusers folder (or its tokenizer's folder), or a hub id.

    No weights are read or fetched. Raises BaseModelError.
    """
    folder = _folder(source)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        sums = [file_sha256(folder / name) for name in _FILES if (folder / name).is_file()]
    except (OSError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseModelError(f"the tokenizer in {folder} cannot be read ({first}); copy the folder again") from error
    return Tokens(tokenizer, hashlib.sha256("\n".join(sums).encode()).hexdigest(), dict(tokenizer.get_vocab()))


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
    try:
        fetched = Path(snapshot_download(source, allow_patterns=["tokenizer/*", *_FILES]))
        return fetched / "tokenizer" if (fetched / "tokenizer").is_dir() else fetched
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseModelError(
            f"the tokenizer of {source!r} is neither here nor to be had from the hub ({first}); check the name and "
            "the network, or give a folder"
        ) from error
