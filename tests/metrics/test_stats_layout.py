import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vez.metrics.layout import noise_correlation, pair, prompt_correlation, spread
from vez.metrics.stats import compare, t_interval

Cells = dict[tuple[str, int], float]


def cells(grid: np.ndarray) -> Cells:
    return {(f"p{i}", s): float(v) for i, row in enumerate(grid) for s, v in enumerate(row)}


def test_cells_are_paired_and_what_has_no_partner_is_counted() -> None:
    a = {("x", 0): 1.0, ("x", 1): 3.0, ("y", 0): 2.0, ("z", 9): 5.0, ("y", 1): math.nan}
    b = {("x", 0): 0.5, ("y", 0): 1.0, ("y", 1): 1.0, ("x", 1): 1.0, ("w", 0): 0.0}
    layout = pair(a, b)
    assert (layout.prompts, layout.seeds, layout.n_pairs) == (("x", "y"), (0, 1), 3)
    assert np.array_equal(layout.differences, [[0.5, 2.0], [1.0, math.nan]], equal_nan=True)
    assert layout.missing == 3 and layout.lost == ("z", "w")  # z, w, and y's second seed
    assert layout.prompt_means == pytest.approx([1.25, 1.0])


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="share no"):
        pair({("x", 0): 1.0}, {("y", 0): 1.0})
    with pytest.raises(ValueError, match="share no"):
        pair({("x", 0): math.nan}, {("x", 0): 1.0})
    with pytest.raises(ValueError, match="'x', seed 0 is infinite"):
        pair({("x", 0): math.inf}, {("x", 0): 1.0})


def test_spread_finds_the_parts_that_were_put_in() -> None:
    rng = np.random.default_rng(0)
    grid = rng.normal(0, 0.03, (4000, 1)) + rng.normal(0, 0.05, (4000, 4))
    found = spread(pair(cells(grid), cells(np.zeros_like(grid))))
    assert found.prompts == pytest.approx(0.03, rel=0.04)
    assert found.seeds == pytest.approx(0.05, rel=0.02)
    lone = spread(pair(cells(grid[:, :1]), cells(np.zeros((4000, 1)))))
    assert lone.seeds is None and lone.prompts == pytest.approx(math.hypot(0.03, 0.05), rel=0.04)


def test_spread_is_right_with_holes_and_never_negative() -> None:
    rng = np.random.default_rng(1)
    grid = rng.normal(0, 0.03, (3000, 1)) + rng.normal(0, 0.05, (3000, 4))
    holed = {key: value for key, value in cells(grid).items() if rng.random() > 0.3}
    found = spread(pair(holed, cells(np.zeros_like(grid))))
    assert found.prompts == pytest.approx(0.03, rel=0.06) and found.seeds == pytest.approx(0.05, rel=0.03)
    see_saw = np.array([[1.0, -1.0]] * 5)
    assert spread(pair(cells(see_saw), cells(np.zeros_like(see_saw)))).prompts == 0


@pytest.mark.parametrize("r", [0.0, 0.5, 0.8])
def test_noise_correlation_is_the_one_that_pairing_brings(r: float) -> None:
    rng = np.random.default_rng(2)
    noise = rng.multivariate_normal([0, 0], [[1, r], [r, 1]], (600, 4)) * 0.0615
    prompts = rng.normal(0.8, 0.2, (600, 1, 1))  # prompts differ far more than noises: they must not count
    a, b = ((prompts + noise)[..., i] for i in (0, 1))
    layout = pair(cells(a), cells(b))
    found = noise_correlation(layout)
    assert found == pytest.approx(r, abs=0.05)
    sd = spread(layout).seeds
    assert sd == pytest.approx(0.0615 * math.sqrt(2 * (1 - r)), rel=0.05)  # evaluation.md §1.6: .087, .0615, .039
    known = prompt_correlation(layout)
    assert known is not None and known > 0.9


def test_correlations_that_do_not_exist_are_none() -> None:
    one_seed = cells(np.arange(5.0)[:, None])
    assert noise_correlation(pair(one_seed, one_seed)) is None
    flat = cells(np.full((5, 2), 0.3))
    assert noise_correlation(pair(flat, cells(np.random.default_rng(0).normal(size=(5, 2))))) is None
    assert prompt_correlation(pair(flat, flat)) is None
    two = cells(np.eye(2))
    assert prompt_correlation(pair(two, two)) is None


@settings(max_examples=50, deadline=None)
@given(
    st.integers(2, 6), st.integers(1, 4), st.integers(0, 10_000), st.floats(0, 0.6), st.sampled_from([1.0, -2.0, 0.1])
)
def test_order_and_scale_change_nothing_but_the_scale(p: int, s: int, seed: int, holes: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = (
        {key: value for key, value in cells(rng.normal(size=(p, s))).items() if rng.random() >= holes or key[1] == 0}
        for _ in range(2)
    )
    found = compare(a, b)
    turned = compare(dict(reversed(a.items())), dict(reversed(b.items())))
    scaled = compare({k: scale * v + 3 for k, v in a.items()}, {k: scale * v + 3 for k, v in b.items()})
    swapped = compare(b, a)
    assert turned.diff == pytest.approx(found.diff) and turned.p == found.p and turned.missing == found.missing
    assert scaled.diff == pytest.approx(scale * found.diff, abs=1e-9) and scaled.p == found.p
    assert scaled.sd == pytest.approx(abs(scale) * found.sd, abs=1e-9)
    assert swapped.diff == pytest.approx(-found.diff) and swapped.p == found.p
    layout = pair(a, b)
    assert layout.n_pairs + layout.missing == len(a.keys() | b.keys())
    assert t_interval(layout.prompt_means).low == found.low
