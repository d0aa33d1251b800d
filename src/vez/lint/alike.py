"""Sets of words that are nearly the same, found without comparing every two of them."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def near_copies(sets: Sequence[frozenset[str]], *, above: float) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, that join all sets whose Jaccard index is more than ``above`` (0.5 to 1, not 1).

    Equal sets are joined in a chain, not each with each. Prefix filtering (Chaudhuri et al. 2006; Bayardo et al. 2007,
    "Scaling up all pairs similarity search"): two sets that are alike enough share one of their few rarest words.
    Empty sets are like nothing.
    """
    same: dict[frozenset[str], list[int]] = defaultdict(list)
    for i, words in enumerate(sets):
        if words:
            same[words].append(i)
    pairs = [(a, b) for places in same.values() for a, b in pairwise(places)]
    different = [(words, places[0]) for words, places in same.items()]
    joined = ((different[a][1], different[b][1]) for a, b in _joined([words for words, _ in different], above))
    pairs += [(min(pair), max(pair)) for pair in joined]
    return sorted(pairs)


def _joined(sets: Sequence[frozenset[str]], above: float) -> Iterator[tuple[int, int]]:
    """Pairs of different sets that are alike, each once."""
    often: dict[str, int] = defaultdict(int)
    for words in sets:
        for word in words:
            often[word] += 1
    holding: dict[str, list[int]] = defaultdict(list)  # rare word → the shorter sets that have it in front
    for i in sorted(range(len(sets)), key=lambda i: len(sets[i])):
        words = sets[i]
        front = sorted(words, key=lambda w: (often[w], w))[: len(words) - math.ceil(above * len(words)) + 1]
        for j in {j for word in front for j in holding[word]}:
            other = sets[j]
            if len(other) > above * len(words):
                shared = len(words & other)
                if shared > above * (len(words) + len(other) - shared):
                    yield j, i
        for word in front:
            holding[word].append(i)


def clusters(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """The number of the cluster that each of ``count`` things belongs to, 0 for the first's; pairs belong together."""
    ends = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    return [int(label) for label in connected_components(graph, directed=False)[1]] if count else []
