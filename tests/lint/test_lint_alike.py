import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from vez.lint.alike import clusters, near_copies

SETS = st.lists(
    st.one_of(
        st.frozensets(st.sampled_from("abcdefgh"), max_size=6),
        # nearly full sets of 24 words: those that differ in one word are alike, in two are not
        st.frozensets(st.integers(0, 23), max_size=3).map(lambda out: frozenset(map(str, {*range(24)} - out))),
    ),
    max_size=25,
)


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a | b else 0.0


@given(SETS, st.sampled_from([0.6, 0.8, 0.9]))
def test_the_clusters_are_those_of_comparing_every_two(sets: list[frozenset[str]], above: float) -> None:
    every_two = [(i, j) for i, j in itertools.combinations(range(len(sets)), 2) if jaccard(sets[i], sets[j]) > above]
    found = near_copies(sets, above=above)
    assert clusters(len(sets), found) == clusters(len(sets), every_two)
    assert set(found) <= set(every_two)


def test_equal_sets_are_chained_and_not_paired_each_with_each() -> None:
    assert len(near_copies([frozenset("abc")] * 10_000, above=0.9)) == 9_999


def test_clusters() -> None:
    assert clusters(5, [(0, 3), (3, 4)]) == [0, 1, 2, 0, 0]
    assert clusters(0, []) == []
    pairs = [(i, i + 1) for i in range(0, 98, 2)]
    random.Random(0).shuffle(pairs)
    assert len(set(clusters(100, pairs))) == 51
