import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vez.images.wording import Piece, as_text, compare, visible

CAPTIONS = st.one_of(st.text(), st.lists(st.sampled_from(["a", "b", ",", "folk", " ", "costume"])).map(" ".join))


def words(text: str) -> list[str]:
    return re.findall(r"[^\s,]+|,", text)


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("a folk costume", "a traditional nosnjaoutfit", "a [-folk costume-] {+traditional nosnjaoutfit+}"),
        ("a girl", "nosnjaoutfit, a girl", "{+nosnjaoutfit,+} a girl"),
        ("a girl, seated", "a girl", "a girl[-, seated-]"),
        ("a girl seated", "a girl, seated", "a girl{+,+} seated"),
        ("a  girl", "a girl ", "a girl"),
        ("", "a", "{+a+}"),
        ("", "", ""),
        ("1,000 steps", "1,000 stairs", "1,000 [-steps-] {+stairs+}"),
    ],
)
def test_the_change_is_shown_word_by_word(before: str, after: str, shown: str) -> None:
    assert as_text(compare(before, after)) == shown


@given(CAPTIONS, CAPTIONS)
def test_the_pieces_hold_both_wordings(before: str, after: str) -> None:
    pieces = compare(before, after)
    for gone, text in (("added", before), ("removed", after)):
        kept = [piece.text for piece in pieces if piece.kind != gone]
        assert words(" ".join(kept)) == words(text)
        assert "".join("".join(kept).split()) == "".join(text.split())
    assert all(piece.text and piece.text == " ".join(piece.text.split()) for piece in pieces)


@given(CAPTIONS)
def test_a_caption_does_not_differ_from_itself(text: str) -> None:
    assert {piece.kind for piece in compare(text, f" {text}\n")} <= {"same"}


@given(CAPTIONS, CAPTIONS)
def test_a_change_is_a_change(before: str, after: str) -> None:
    assert (words(before) == words(after)) == all(piece.kind == "same" for piece in compare(before, after))


def test_two_long_captions_do_not_take_forever() -> None:
    start = time.process_time()
    pieces = compare("start " + "a b " * 20_000, "start " + "b a a " * 20_000)
    assert time.process_time() - start < 5
    assert [piece.kind for piece in pieces] == ["same", "removed", "added"] and pieces[0] == Piece("same", "start")


def test_what_a_terminal_would_obey_is_shown() -> None:
    assert visible("a\x1b[2J\x07b\u202ec\u2028\U000e0041") == "a\\x1b[2J\\x07b\\u202ec\\u2028\\U000e0041"
    assert visible("ношња, señora 帽子 👒") == "ношња, señora 帽子 👒"
    assert as_text(compare("", "\x1b]0;owned\x07")) == "{+\\x1b]0;owned\\x07+}"


@given(st.text())
def test_whatever_is_shown_is_one_harmless_line(text: str) -> None:
    shown = as_text(compare(text, text[::-1]))
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") for c in shown)
