"""A study's search: what vary makes of its variants."""

from collections import Counter
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vez.config import load
from vez.config.vary import golden, spread, subset, written
from vez.errors import ConfigError

FILE = """
[project]
trigger = "ohwx"
noun = "costume"
describes = "folk costume"
base = "tiny"

[dataset.d]
images = "pictures"

[study.s]
steps = 1
{search}

[study.s.variant.v1]
dataset = "d"
batch = 2

[study.s.variant.v2]
dataset = "d"
"""


def loaded(folder: Path, search: str):
    (folder / "vez.toml").write_text(FILE.replace("{search}", search))
    return load(folder / "vez.toml").study["s"]


def test_every_variant_with_every_combination(tmp_path):
    study = loaded(tmp_path, "vary = { rank = [4, 16, 64], lr_unet = [5e-5, 1e-4] }")
    assert len(study.variant) == 12
    assert {(v.batch, v.rank, v.lr_unet) for v in study.variant.values()} == set(
        product((1, 2), (4, 16, 64), (5e-5, 1e-4))
    )
    chosen = study.variant["v1.rank-16.lr_unet-5e-05"]
    assert (chosen.rank, chosen.lr_unet, chosen.batch) == (16, 5e-5, 2)


def test_without_vary_the_variants_are_those_of_the_file(tmp_path):
    assert list(loaded(tmp_path, "").variant) == ["v1", "v2"]


def test_pick_takes_that_many_of_each_variant(tmp_path):
    study = loaded(tmp_path, "vary = { rank = [4, 16, 64] }\npick = 2")
    assert len(study.variant) == 4
    assert len({v.rank for name, v in study.variant.items() if name.startswith("v1.")}) == 2


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("vary = { rank = [] }", "list of values"),
        ("vary = { rank = 4 }", "rank"),
        ("vary = { rank = [4, 4] }", "twice"),
        ("vary = { batch = [1, 2] }", "the variant v1 sets batch"),
        ("vary = { rnak = [4, 8] }", 'did you mean "rank"'),
        ("pick = 3", "pick goes with vary"),
        ("vary = { rank = [0, 4] }", "rank"),
        (f"vary.rank = {list(range(1, 200))}\nvary.alpha = {list(range(1, 200))}", "39601 combinations"),
    ],
)
def test_mistakes(tmp_path, search, said):
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        loaded(tmp_path, search)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.data())
def test_a_subset_holds_different_cells_and_a_larger_one_the_smaller(sizes, data):
    cells = 1
    for size in sizes:
        cells *= size
    count = data.draw(st.integers(1, min(cells, 60)))
    small, large = subset(sizes, count), subset(sizes, min(cells, count + 3))
    assert len(set(small)) == count
    assert large[:count] == small
    assert all(0 <= i < size for cell in small for i, size in zip(cell, sizes, strict=True))


def test_a_subset_is_spread_over_every_setting():
    cells = subset([4, 4, 4], 16)
    for setting in range(3):
        assert max(Counter(cell[setting] for cell in cells).values()) <= 6  # 4 where it is even
    assert [len(subset([3, 3], 9)), len(subset([5], 5))] == [9, 5]


def test_the_whole_cannot_be_exceeded():
    with pytest.raises(ValueError, match="no 5"):
        subset([2, 2], 5)


def test_golden_ratios():
    assert golden(1) == pytest.approx((1 + 5**0.5) / 2)
    assert golden(2) == pytest.approx(1.324717957244746)


@pytest.mark.parametrize(
    ("value", "text"), [(5e-5, "5e-05"), (16, "16"), (True, "true"), ("a/b c", "a_b_c"), ({"x": 1}, "x_1"), ("", "_")]
)
def test_values_in_names(value, text):
    assert written(value) == text


def test_a_variant_that_is_no_table_is_left_to_its_own_check():
    assert spread({"v": 3}, {"rank": [1, 2]}, pick=None) == {"v.rank-1": 3, "v.rank-2": 3}
