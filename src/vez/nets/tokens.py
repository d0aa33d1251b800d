"""CLIP's byte-pair encoding (Radford et al. 2021): texts to token ids, by the `tokenizers` library.

Text is brought to Unicode's composed form, white space to single spaces, letters to lower case; it is cut into words,
digits and runs of other signs; and each is put together from bytes by the vocabulary's merges. Some words of a
vocabulary are tokens as they stand, wherever they stand: the marks of a text's start and end, and whatever its files
add, such as "!" where texts are filled up with it (OpenCLIP's of SD 2.x and SDXL).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from vez.errors import BaseModelError

WORD_END = "</w>"
_WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""  # OpenAI's
_START, _END = "<|startoftext|>", "<|endoftext|>"
_NAMED = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "sep_token": None, "pad_token": _END,
          "cls_token": None, "mask_token": None}  # fmt: skip
_LARGEST = 64 * 2**20  # bytes of a vocabulary's file; CLIP's has 1 to 4 MB
_MOST = 2**20
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A loaded tokenizer: the ids of a text's start and end, and of what fills a short one up."""

    backend: Any
    start: int
    end: int
    pad: int

    def __len__(self) -> int:
        """Tokens that it knows."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    @property
    def ids(self) -> dict[str, int]:
        """Its vocabulary."""
        return dict(self.backend.get_vocab(with_added_tokens=True))

    def encode(self, texts: Sequence[str], *, longest: int | None = None) -> list[list[int]]:
        """The token ids of each text, start and end around it; cut to ``longest``, the two included."""
        most = None if longest is None else longest - 2
        return [[self.start, *ids[:most], self.end] for ids in map(self.bare, texts)]

    def bare(self, text: str) -> list[int]:
        """The token ids of a text alone."""
        return list(self.backend.encode(well_formed(text), add_special_tokens=False).ids)

    def pieces(self, text: str) -> list[str]:
        """The tokens of a text as the vocabulary writes them."""
        return list(self.backend.encode(well_formed(text), add_special_tokens=False).tokens)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where each token of a text begins and ends in it, in characters."""
        return [(int(a), int(b)) for a, b in self.backend.encode(well_formed(text), add_special_tokens=False).offsets]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, in lower case."""
        text: str = self.backend.decode(list(ids), skip_special_tokens=False)
        return text.replace(WORD_END, " ").strip()


def well_formed(text: str) -> str:
    """The text with a replacement character for each half of a surrogate pair: JSON can hold them, UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in a folder: vocab.json and merges.txt, or tokenizer.json. Raises BaseModelError.

    Of what else may lie there, tokenizer_config.json, special_tokens_map.json and added_tokens.json say which tokens
    are taken as they stand and which one fills up.
    """
    try:
        whole = _json(folder / "tokenizer.json")
        vocabulary = _vocabulary(_json(folder / "vocab.json") if whole is None else whole["model"]["vocab"])
        merges = _merges(_lines(folder / "merges.txt") if whole is None else whole["model"]["merges"], vocabulary)
        settings, added = _settings(folder, whole)
        return _built(vocabulary, merges, settings, added)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseModelError(f"the tokenizer in {folder} cannot be read ({first}); copy the folder again") from error


def _text(path: Path) -> str:
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path.name} has more than {_LARGEST // 2**20} MB")
    return path.read_text(encoding="utf-8")


def _json(path: Path) -> dict[str, Any] | None:
    """A file's table; None where there is no file."""
    if not path.is_file():
        return None
    found = json.loads(_text(path))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no table")
    return found


def _lines(path: Path) -> list[str]:
    return [line for line in _text(path).split("\n") if line and not line.startswith("#version")]


def _vocabulary(found: Any) -> dict[str, int]:
    if not isinstance(found, dict) or not 0 < len(found) <= _MOST:
        raise ValueError("it has no vocabulary")
    if not all(type(number) is int and 0 <= number < _MOST for number in found.values()):
        raise ValueError("its vocabulary is damaged")
    return {well_formed(word): number for word, number in found.items()}


def _merges(found: Sequence[Any], vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    merges = []
    for merge in found:
        parts = merge.rstrip("\r").split(" ") if isinstance(merge, str) else merge
        if len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise ValueError(f"{str(merge)[:40]!r} is no merge of two")
        one, other = parts
        if one not in vocabulary or other not in vocabulary or one + other not in vocabulary:
            raise ValueError(f"its vocabulary lacks a part of the merge {str(merge)[:40]!r}")
        merges.append((one, other))
    return merges


def _settings(folder: Path, whole: dict[str, Any] | None) -> tuple[dict[str, Any], dict[int, AddedToken]]:
    """What the named tokens are, and those that are taken as they stand, by their numbers."""
    settings = _json(folder / "tokenizer_config.json") or {}
    found = settings.get("added_tokens_decoder")
    if found is not None:
        return settings, {int(number): _token(value) for number, value in found.items()}
    added: dict[int, AddedToken] = {}
    settings = settings | (_json(folder / "special_tokens_map.json") or {})
    special = {_content(value) for key, value in settings.items() if key in _NAMED and value}
    special |= {_content(value) for value in _extra(settings)}
    for word, number in (_json(folder / "added_tokens.json") or {}).items():
        own = word in special
        added[int(number)] = AddedToken(well_formed(word), special=own, normalized=not own)
    for entry in (whole or {}).get("added_tokens") or ():
        added[int(entry["id"])] = _token(entry)
    return settings, added


def _extra(settings: Mapping[str, Any]) -> Iterator[Any]:
    for key in ("additional_special_tokens", "extra_special_tokens"):
        found = settings.get(key) or ()
        yield from found.values() if isinstance(found, dict) else found


def _content(value: Any) -> str:
    content = value["content"] if isinstance(value, dict) else value
    if not isinstance(content, str) or not content:
        raise ValueError(f"{str(value)[:40]!r} is no token")
    return well_formed(content)


def _token(value: Any) -> AddedToken:
    """A token that is taken as it stands, as a file describes it: its text alone, or with its flags."""
    if not isinstance(value, dict):
        return AddedToken(_content(value), special=True)
    flags = {flag: bool(value[flag]) for flag in _FLAGS if flag in value}
    return AddedToken(_content(value), special=bool(value.get("special", True)), **flags)


def _built(
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    settings: Mapping[str, Any],
    added: Mapping[int, AddedToken],
) -> Tokenizer:
    named = {key: settings.get(key) or default for key, default in _NAMED.items()}
    unknown = _content(named["unk_token"])
    if unknown not in vocabulary:
        raise ValueError(f"its vocabulary lacks {unknown[:40]!r}")
    model = models.BPE(
        vocab=vocabulary,
        merges=merges,
        unk_token=unknown,
        continuing_subword_prefix="",
        end_of_word_suffix=WORD_END,
        fuse_unk=False,
    )
    backend = Backend(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.decoder = decoders.ByteLevel()
    known = {token.content for token in added.values()}
    own = [value for value in (*named.values(), *_extra(settings)) if value and _content(value) not in known]
    for token in (*(added[number] for number in sorted(added)), *map(_token, own)):
        backend.add_tokens([token])
    marks = []
    for key in ("bos_token", "eos_token", "pad_token"):
        number = backend.token_to_id(_content(named[key]))
        if number is None:
            raise ValueError(f"its vocabulary lacks {_content(named[key])[:40]!r}")
        marks.append(int(number))
    return Tokenizer(backend, *marks)
