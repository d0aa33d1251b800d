"""Groups of one source, and the choice of what is held out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vez.dataset.split import choose_held_out, groups
from vez.errors import DataError
from vez.images.checks import Picture
from vez.images.findings import Finding
from vez.images.provenance import Provenance


def alone(pictures: list[Picture]) -> dict[str, tuple[str, ...]]:
    return {picture.file: (picture.file,) for picture in pictures}


def twins(file: str, other: str, check: str = "near-duplicate") -> Finding:
    return Finding(file, check, 0.0, 0.0, "", "", other=other)


@given(
    st.lists(st.text("abcdef", min_size=4, max_size=4), min_size=3, max_size=9, unique=True),
    st.integers(0, 2),
    st.data(),
)
def test_the_choice_of_held_out_does_not_depend_on_order_or_names(
    hashes: list[str], wanted: int, data: st.DataObject
) -> None:
    pictures = [Picture(f"{i}.png", pixels=value) for i, value in enumerate(hashes)]
    chosen = choose_held_out(pictures, alone(pictures), wanted)
    shuffled = data.draw(st.permutations(pictures))
    assert len(chosen) == wanted and choose_held_out(shuffled, alone(shuffled), wanted) == chosen


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=8), st.integers(0, 7))
def test_no_pair_is_ever_divided(pairs: list[tuple[int, int]], wanted: int) -> None:
    files = [f"{i}.png" for i in range(8)]
    findings = [twins(files[max(pair)], files[min(pair)]) for pair in pairs if pair[0] != pair[1]]
    grouped = groups(files, findings, {})
    assert sorted(file for of in grouped.values() for file in of) == files
    pictures = [Picture(file, pixels=file) for file in files]
    try:
        chosen = choose_held_out(pictures, grouped, wanted)
    except DataError:
        return
    assert len(chosen) == wanted
    assert all((f.file in chosen) == (f.other in chosen) for f in findings)


def test_what_makes_two_pictures_one_source() -> None:
    files = ["a", "b", "c", "d", "e", "f"]
    records = {
        "c": Provenance("c", page="https://example.org/1"),
        "d": Provenance("d", page="https://example.org/1"),
        "e": Provenance("e", original_sha256="00"),
        "f": Provenance("f", original_sha256="00"),
    }
    found = [twins("b", "a"), twins("f", "nobody"), twins("d", "a", "same-scene")]
    assert groups(files, found, records) == {"a": ("a", "b"), "c": ("c", "d"), "e": ("e", "f")}
    assert groups(files, [], {}) == {file: (file,) for file in files}


def test_what_is_left_out_joins_the_others_and_stands_in_no_group() -> None:
    files = ["a", "b", "c", "d"]
    records = {name: Provenance(name, page="https://example.org/1") for name in "ad"}
    found = [twins("b", "a"), twins("c", "a")]
    assert groups(files, found, records, left_out={"a"}) == {"b": ("b", "c", "d")}
    assert groups(files, found, {}, left_out={"b"}) == {"a": ("a", "c"), "d": ("d",)}


def test_a_group_is_held_out_whole_or_not_at_all() -> None:
    files = ["a", "b", "c", "d"]
    pictures = [Picture(file, pixels=file) for file in files]
    grouped = {"a": ("a", "b"), "c": ("c", "d")}
    assert choose_held_out(pictures, grouped, 2) == {"a", "b"}
    with pytest.raises(DataError, match="held_out = 1"):
        choose_held_out(pictures, grouped, 1)
    with pytest.raises(DataError, match="at least one must be left"):
        choose_held_out(pictures, {file: (file,) for file in files}, 4)
    with pytest.raises(DataError, match="no picture is left"):
        choose_held_out([], {}, 0)
