import numpy as np
import pytest

from vez.metrics.confirmation import apart, confirm, select
from vez.metrics.power import best_of, spread_limit
from vez.metrics.replicates import replicate
from vez.metrics.stats import t_interval

Cells = dict[tuple[str, int], float]


def cells(values: np.ndarray, *, of: str = "p") -> Cells:
    return {(f"{of}{i}", 0): float(v) for i, v in enumerate(values)}


def test_the_best_is_chosen_and_its_luck_is_told() -> None:
    rng = np.random.default_rng(0)
    arms = {f"v{i}": cells(rng.normal(0, 0.1, 400)) for i in range(5)}
    found = select(arms, higher_is_better=True)
    means = {arm: np.mean(list(of.values())) for arm, of in arms.items()}
    assert found.chosen == max(means, key=lambda arm: means[arm]) and found.candidates == 5
    assert found.selected.mean == pytest.approx(means[found.chosen])
    assert found.expected_bias == pytest.approx(best_of(5) * 0.1 / 20, rel=0.05)
    assert found.spread_of_equals == pytest.approx(2 * found.expected_bias)
    assert found.spread_limit == pytest.approx(spread_limit(5) * 0.1 / 20, rel=0.05)
    lowest = select(arms, higher_is_better=False)
    assert lowest.chosen == min(means, key=lambda arm: means[arm])
    assert lowest.expected_bias == pytest.approx(-found.expected_bias)


def test_what_arms_share_is_no_luck() -> None:
    """Hard prompts are hard for all: the lead of the best comes from what each arm has for itself."""
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 5, 300)
    arms = {f"v{i}": cells(shared + rng.normal(0, 0.1, 300)) for i in range(4)}
    found = select(arms, higher_is_better=True)
    assert found.expected_bias == pytest.approx(best_of(4) * 0.1 / 300**0.5, rel=0.1)


def test_a_choice_of_one_has_no_luck_and_none_is_refused() -> None:
    found = select({"v": cells(np.arange(4.0))}, higher_is_better=True)
    assert (found.chosen, found.expected_bias, found.spread_limit) == ("v", None, None)
    with pytest.raises(ValueError, match="nothing to choose"):
        select({}, higher_is_better=True)


def test_a_choice_is_confirmed_by_other_prompts_only() -> None:
    arms = {"v1": cells(np.array([1.0, 2, 3])), "v2": cells(np.array([0.0, 1, 2]))}
    later = {"v1": cells(np.array([0.5, 1.5]), of="g")}
    found = confirm(arms, later, higher_is_better=True)
    assert found.selection.chosen == "v1" and found.confirmed == t_interval([0.5, 1.5])
    with pytest.raises(ValueError, match="'p0' both selects and confirms"):
        confirm(arms, {"v1": cells(np.array([1.0]))}, higher_is_better=True)
    with pytest.raises(ValueError, match="v2 was chosen"):
        confirm(arms, later, higher_is_better=False)


def test_prompts_part_and_missing_values_fall_out() -> None:
    values = {("a", 0): 1.0, ("b", 0): 2.0, ("a", 1): float("nan"), ("b", 1): 3.0}
    assert apart(values, {"b"}) == ({("a", 0): 1.0}, {("b", 0): 2.0, ("b", 1): 3.0})


def grid(table: np.ndarray) -> list[tuple[Cells, Cells]]:
    return [(cells(row), dict.fromkeys(cells(row), 0.0)) for row in table]


def test_fewer_than_three_training_seeds_say_nothing_of_a_setting() -> None:
    rng = np.random.default_rng(0)
    for seeds, said in ((1, "there is 1"), (2, "there are 2")):
        found = replicate(grid(rng.normal(size=(seeds, 8))))
        assert found.setting is None and found.p is None and found.why_not is not None
        assert "needs at least 3 training seeds" in found.why_not and said in found.why_not
        assert found.weights.low is not None
    lone = replicate(grid(rng.normal(size=(3, 1))))
    assert lone.setting is None and lone.why_not is not None and "two prompts" in lone.why_not


def test_a_setting_is_less_sure_than_its_weights() -> None:
    rng = np.random.default_rng(1)
    table = 0.1 + rng.normal(0, 0.05, (4, 1)) + rng.normal(0, 0.02, (1, 12)) + rng.normal(0, 0.01, (4, 12))
    found = replicate(grid(table))
    assert found.setting is not None and found.setting.low is not None and found.weights.low is not None
    assert found.weights.mean == pytest.approx(table.mean()) == found.setting.mean
    assert found.setting.low < found.weights.low
    assert found.training_sd == pytest.approx(table.mean(axis=1).std(ddof=1), rel=0.05)
    # the p and the interval are one test: p is 0.05 where the interval just touches 0
    edge = replicate(grid(table - found.setting.low))
    assert edge.p == pytest.approx(0.05)


def test_seeds_that_do_not_matter_cost_little() -> None:
    table = np.random.default_rng(3).normal(0.1, 0.02, (1, 12)) + np.zeros((5, 1))
    found = replicate(grid(table))
    assert found.training_sd == 0 and found.setting is not None
    assert (found.setting.low, found.setting.high) == pytest.approx((found.weights.low, found.weights.high))
    same = replicate(grid(np.zeros((3, 4))))
    assert same.p == 1.0 and same.setting is not None and same.setting.low == 0


def test_only_pictures_of_all_replicates_count() -> None:
    rng = np.random.default_rng(4)
    pairs = grid(rng.normal(size=(3, 6)))
    del pairs[1][0]["p0", 0]
    pairs[2][0]["p1", 0] = float("nan")
    assert replicate(pairs).n_prompts == 4
    with pytest.raises(ValueError, match="share no training seed"):
        replicate([])
    with pytest.raises(ValueError, match="no picture was drawn by every"):
        replicate([(cells(np.ones(2)), cells(np.ones(2))), (cells(np.ones(2), of="q"), cells(np.ones(2), of="q"))])
