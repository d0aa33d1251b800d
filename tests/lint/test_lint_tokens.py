import json
import shutil
from pathlib import Path

import pytest

from vez.base import tiny_path
from vez.errors import BaseModelError
from vez.lint.tokens import Tokens, tokens_of


def test_spans_are_the_tokenizers_own_and_cut_the_text(tokens: Tokens) -> None:
    text = "A girl wearing a RED dress, naïve 漢字!"
    (places,) = tokens.spans([text])
    assert len(places) == len(tokens.tokenizer.bare(text))
    assert text[places[0][0] : places[0][1]] == "A" and text[places[4][0] : places[4][1]] == "RED"
    assert tokens.spans([]) == []


def test_half_a_surrogate_pair_is_one_character_more_and_no_crash(tokens: Tokens) -> None:
    (with_it,), (without,) = tokens.spans(["a \ud800 girl"]), tokens.spans(["a x girl"])
    assert with_it[-1] == without[-1]


def test_pieces_and_what_is_a_word_by_itself(tokens: Tokens) -> None:
    assert tokens.pieces("Costume") == ["costume"] and tokens.is_word("COSTUME")
    assert "".join(tokens.pieces("nosnjaoutfit")) == "nosnjaoutfit" and len(tokens.pieces("nosnjaoutfit")) > 1
    assert not tokens.is_word("nosnjaoutfit")


def vocabulary(folder: Path, words: list[str]) -> Path:
    """A tokenizer in CLIP's layout that knows these words as wholes, in this order."""
    singles = sorted(json.loads((tiny_path() / "tokenizer" / "vocab.json").read_text(encoding="utf-8")).items(),
                     key=lambda item: item[1])[:512]  # fmt: skip
    pieces, merges = [piece for piece, _ in singles], []
    for word in words:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append(f"{parts[0]} {parts[1]}")
            parts[:2] = ["".join(parts[:2])]
            pieces.append(parts[0])
    folder.mkdir()
    pieces = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(dict.fromkeys(merges)) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_rare_words_stand_last_in_the_vocabulary(tmp_path: Path) -> None:
    common = [f"{a}{b}" for a in "bcdfghjklm" for b in "aeiouy"]
    made = tokens_of(str(vocabulary(tmp_path / "tokenizer", [*common, "sks"])))
    assert made.is_word("sks") and made.is_rare("sks")
    assert made.is_word("ba") and not made.is_rare("ba") and not made.is_rare("nosuchword")


def test_a_bases_folder_and_its_tokenizers_folder_are_both_taken(tokens: Tokens, tmp_path: Path) -> None:
    shutil.copytree(tiny_path() / "tokenizer", tmp_path / "base" / "tokenizer")
    assert tokens_of(str(tmp_path / "base")).sha256 == tokens_of(str(tmp_path / "base" / "tokenizer")).sha256
    assert tokens_of(str(tmp_path / "base")).sha256 == tokens.sha256
    (tmp_path / "base" / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    assert tokens_of(str(tmp_path / "base")).sha256 != tokens.sha256


def test_what_is_no_tokenizer_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="no tokenizer in it"):
        tokens_of(str(tmp_path))
    with pytest.raises(BaseModelError, match="no folder"):
        tokens_of("nowhere")
    with pytest.raises(BaseModelError, match="neither here nor"):
        tokens_of("nobody/nothing")  # the hub is off in tests
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.json").write_text("{")
    with pytest.raises(BaseModelError, match="cannot be read"):
        tokens_of(str(tmp_path))
