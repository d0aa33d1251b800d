"""Token ids against transformers' CLIPTokenizer: on any text, from every layout in which tokenizers are published."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AddedToken, CLIPTokenizer

from small_words import make_tokenizer
from vez.base import tiny_path
from vez.errors import BaseModelError
from vez.nets.tokens import Tokenizer, read_tokenizer, well_formed

LAYOUTS = ("plain", "saved", "of 2022", "of 2022, normalized", "bang", "saved bang", "json alone", "extra", "tiny")
START, END = "<|startoftext|>", "<|endoftext|>"


def layout(folder: Path, kind: str) -> Path:
    """A tokenizer's folder as this or that program wrote it."""
    if kind == "tiny":
        return tiny_path() / "tokenizer"
    make_tokenizer(folder)
    said = folder / "tokenizer_config.json"
    if kind.startswith("saved") or kind == "json alone":
        loaded = CLIPTokenizer.from_pretrained(folder, **({"pad_token": "!"} if "bang" in kind else {}))
        shutil.rmtree(folder)
        loaded.save_pretrained(folder)
        if kind == "json alone":
            for file in folder.iterdir():
                if file.name != "tokenizer.json":
                    file.unlink()
    if kind.startswith("of 2022") or kind == "bang":
        token = {"lstrip": False, "normalized": "normalized" in kind, "rstrip": False, "single_word": False}
        marks: dict[str, Any] = {
            "bos_token": {"content": START, **token},
            "eos_token": {"content": END, **token},
            "pad_token": "!" if kind == "bang" else END,
            "unk_token": {"content": END, **token},
        }
        (folder / "special_tokens_map.json").write_text(json.dumps(marks))
        typed = {k: {"__type": "AddedToken", **v} if isinstance(v, dict) else v for k, v in marks.items()}
        said.write_text(json.dumps({**typed, "do_lower_case": True, "model_max_length": 77}))
    if kind == "extra":
        loaded = CLIPTokenizer.from_pretrained(folder)
        loaded.add_tokens(["zolka", AddedToken("Nosnja", normalized=False), AddedToken(" ab", lstrip=True)])
        shutil.rmtree(folder)
        loaded.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=LAYOUTS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, CLIPTokenizer]:
    folder = layout(tmp_path_factory.mktemp("layouts") / "tokenizer", request.param)
    return read_tokenizer(folder), CLIPTokenizer.from_pretrained(folder)


def same(pair: tuple[Tokenizer, CLIPTokenizer], text: str) -> None:
    ours, theirs = pair
    whole = theirs(text).input_ids
    assert ours.encode([text]) == [whole], text
    assert ours.bare(text) == theirs(text, add_special_tokens=False).input_ids
    for longest in (2, 5, 77):
        assert ours.encode([text], longest=longest) == [theirs(text, truncation=True, max_length=longest).input_ids]
    assert ours.decode(ours.bare(text)) == theirs.decode(ours.bare(text))
    assert ours.pieces(text) == theirs.tokenize(text)
    offsets = theirs(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    assert ours.spans(text) == [tuple(pair) for pair in offsets]


HOSTILE = [
    "", " ", "\n\t\u00a0\u3000", "wow!!", "!", "a ! b", "!!!a",
    f"{START} a {END}", START.upper(), f"x{END}y", "<|endof",
    "zolka Zolka ZOLKA", " ab ab", "nosnja Nosnja", "narodna nošnja",
    "e\u0301", "ﬁ", "İstanbul ı", "ΑΣ ς", "ẞß", "日本語 の 着物",
    "👩‍👩‍👧 🏳️‍🌈", "١٢٣ 12.5e-3", "it's they'll I'D we'VE", "a\u0000b", "\u200b\u200dx\ufeff", "a" * 400,
    "don't(stop)[now]{x}",
    "\U000e0041\U0010ffff", "x\ud7ffy", "</w>", "a</w> b", "\u1e9b\u0323 \u0041\u030a", "ǅ Ǆ ǆ", "½ ² ①", "_-_--",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_have_their_ids(pair: tuple[Tokenizer, CLIPTokenizer], text: str) -> None:
    same(pair, text)


WORDS = st.sampled_from([START, END, "!", "zolka", "Nosnja", "girl", "'s", " ", "\n", "İ", "ß", "着"])


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS | st.text(max_size=12), max_size=8).map("".join).map(well_formed))
def test_any_text_has_their_ids(pair: tuple[Tokenizer, CLIPTokenizer], text: str) -> None:
    same(pair, text)


def test_marks_and_sizes_are_theirs(pair: tuple[Tokenizer, CLIPTokenizer]) -> None:
    ours, theirs = pair
    assert (ours.start, ours.end, ours.pad) == (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
    assert len(ours) == len(theirs) and ours.ids == theirs.get_vocab()


def test_half_a_surrogate_pair_is_a_replacement_character(pair: tuple[Tokenizer, CLIPTokenizer]) -> None:
    assert pair[0].bare("a\ud800b") == pair[0].bare("a\ufffdb")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("vocab.json", "[]", "no table"),
        ("vocab.json", "{}", "no vocabulary"),
        ("vocab.json", '{"a": "b"}', "vocabulary is damaged"),
        ("vocab.json", '{"a": -1}', "vocabulary is damaged"),
        ("vocab.json", '{"a": 1, "b": 99999999999}', "vocabulary is damaged"),
        ("vocab.json", "{" * 100_000, "cannot be read"),
        ("vocab.json", "\x00", "cannot be read"),
        ("merges.txt", "a b c\n", "no merge of two"),
        ("merges.txt", "qqqq zzzz\n", "lacks a part"),
        ("tokenizer_config.json", '{"bos_token": 7}', "no token"),
        ("tokenizer_config.json", '{"eos_token": "nowhere to be seen"}', None),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": 1}}', "cannot be read"),
        ("tokenizer.json", '{"model": null}', "cannot be read"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 1}, "merges": 5}}', "cannot be read"),
    ],
)
def test_damaged_files_are_named_in_a_sentence(tmp_path: Path, file: str, content: str, said: str | None) -> None:
    make_tokenizer(tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / file).write_text(content)
    if said is None:  # a mark that is no word of the vocabulary becomes one
        assert read_tokenizer(tmp_path / "tokenizer").end >= 600 - 300
        return
    with pytest.raises(BaseModelError, match=said) as raised:
        read_tokenizer(tmp_path / "tokenizer")
    assert "\n" not in str(raised.value) and str(tmp_path) in str(raised.value)


def test_a_missing_vocabulary_is_named(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="cannot be read"):
        read_tokenizer(tmp_path)
