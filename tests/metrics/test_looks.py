from typing import Any

import numpy as np
import pytest
from scipy import stats as theirs

from vez.metrics.claims import adjust, claims
from vez.metrics.looks import MOST, Look, ordinal, says, says_of_confirmation, share, spent, would_follow
from vez.metrics.rules import Rule
from vez.metrics.stats import ALPHA, compare, holm
from vez.metrics.summary import summarise

UP = Rule(True, primary=True)
RULES = {"F": UP, "x": Rule(True)}


def arm(gain: float, *, seed: int, prompts: int = 12) -> dict[tuple[str, int], float]:
    rng = np.random.default_rng(seed)
    return {(f"p{i}", s): gain + float(rng.normal(0, 0.1)) for i in range(prompts) for s in range(2)}


def test_the_spending_function_is_lan_and_demets() -> None:
    for of in range(1, MOST + 1):
        alphas = [Look(k, of).alpha for k in range(1, of + 1)]
        assert sum(alphas) == pytest.approx(ALPHA, abs=1e-15) and alphas == sorted(alphas) and min(alphas) > 0
        for k in range(1, of + 1):
            t = k / of
            expected = 2 * theirs.norm.sf(theirs.norm.ppf(1 - ALPHA / 2) / np.sqrt(t))
            assert spent(k, of) == pytest.approx(float(expected), rel=1e-9)
            assert sum(alphas[:k]) == pytest.approx(spent(k, of), rel=1e-9)
    assert Look(1, 1).alpha == ALPHA == 0.05  # to the bit: one look changes nothing
    assert round(Look(1, 2).alpha, 4) == 0.0056


def test_a_look_that_was_not_planned_has_nothing_left() -> None:
    assert [Look(k, 2).alpha > 0 for k in (1, 2, 3, 9)] == [True, True, False, False]
    assert [Look(k, 2).planned for k in (1, 2, 3)] == [True, True, False]
    assert Look(1, 2).after == Look(2, 2) and Look(2, 2).after is None and Look(3, 2).after is None


def test_p_values_count_more_often_and_before_or_after_holm_is_the_same() -> None:
    p = {("F", f"v{i}", "base"): value for i, value in enumerate((0.0004, 0.003, 0.02, 0.9))}
    extra = {("x", "v0", "base"): 0.01}
    alpha = Look(1, 2).alpha
    found = adjust(p | extra, RULES, alpha=alpha)
    after = [min(1.0, ALPHA / alpha * of) for of in holm(list(p.values()))]
    assert [found[key] for key in p] == pytest.approx(after)
    assert found["x", "v0", "base"] == 0.01  # what is only explored is as it was
    assert adjust(p | extra, RULES, alpha=ALPHA) == adjust(p | extra, RULES)
    # what is called by 0.05 after all that is what Holm calls at this look's own alpha
    assert [value <= ALPHA for value in found.values()][:4] == [of <= alpha for of in holm(list(p.values()))]


def test_power_is_told_at_what_is_left() -> None:
    found = {("F", v, "base"): compare(arm(0.02, seed=i), arm(0, seed=9)) for i, v in enumerate(("v1", "v2"))}
    usual, early = claims(found, RULES), claims(found, RULES, alpha=Look(1, 2).alpha)
    none = claims(found, RULES, alpha=0.0)
    for key in found:
        assert (early[key].mde or 0) > (usual[key].mde or 1) and early[key].family == "primary"
        assert (early[key].needs_prompts or 0) > (usual[key].needs_prompts or 1e9)
        assert none[key].family == "exploratory" and none[key].record()["p_holm"] is None
        assert none[key].record()["p_bh"] is not None


def test_one_look_changes_nothing_and_a_spent_one_declares_nothing() -> None:
    values = {"F": {"base": arm(0, seed=0), "v1": arm(0.3, seed=1), "v2": arm(0.3, seed=2)}}
    values["x"] = values["F"]
    settings = {"v1": ("v", 0), "v2": ("v", 1)}

    def told(**more: Any) -> dict[str, Any]:
        return summarise(values, rules=RULES, base="base", settings=settings, confirming=["p0", "p1", "p2"], **more)

    assert told() == told(alpha=Look(1, 1).alpha)
    spent, usual = told(alpha=0.0), told()
    assert spent["against_base"]["v1"]["F"]["family"] == "exploratory"
    assert spent["pairs"]["v1"]["v2"]["x"]["diff"] == usual["pairs"]["v1"]["v2"]["x"]["diff"]  # no table gets shorter
    assert "p_bh" in spent["settings"]["v"]["F"] and "p_holm" in usual["settings"]["v"]["F"]
    assert spent["confirmation"] == usual["confirmation"]  # other pictures: their error is their own
    again = told(alpha_confirming=0.0)
    assert again["confirmation"]["against_base"]["v1"]["F"]["family"] == "exploratory"
    assert again["against_base"] == usual["against_base"]


def test_a_difference_may_be_too_small_for_the_first_look_and_not_for_the_second() -> None:
    rng = np.random.default_rng(5)
    base = {(f"p{i}", 0): float(rng.normal()) for i in range(8)}
    better = {key: value + 1 + 0.1 * i for i, (key, value) in enumerate(base.items())}
    values = {"F": {"base": base, "v1": better}}  # eight prompts: p = 2/2^8 = 0.0078 at the least

    def row(look: Look) -> dict[str, Any]:
        tables = summarise(values, rules=RULES, base="base", alpha=look.alpha)
        return dict(tables["against_base"]["v1"]["F"])

    first, second = row(Look(1, 2)), row(Look(2, 2))
    assert first["verdict"] == "not distinguishable" and first["mde"] is None and second["verdict"] == "better"
    assert first["p"] == second["p"] == 2 / 2**8


def test_the_words() -> None:
    assert says(Look(1, 1)) == () and says(Look(1, 1), asked=1) == () and says_of_confirmation(Look(1, 1)) == ()
    assert "This is the second of 2 planned looks: 4.4 % of the 5 % error was left for it." in says(Look(2, 2))
    assert says(Look(1, 3))[0].startswith("This is the first of 3 planned looks: 0.069 % of the 5 % error is spent on")
    (beyond,) = says(Look(2, 1))
    assert beyond.startswith("Look 2 at these LoRAs, and one was planned: the 5 % error is spent")
    assert "exploratory" in beyond and "vez sample --profile confirm" in beyond and "looks in the study" in beyond
    assert "3 were planned" not in beyond and "and 3 were planned" in says(Look(4, 3))[0]
    assert says(Look(1, 1), asked=3)[0].startswith("vez.toml says looks = 3, but the plan that was recorded")
    assert "look 2; one counts" in says_of_confirmation(Look(2, 1))[0]
    assert would_follow(Look(2, 2)) == would_follow(Look(3, 2)) == ""
    assert "as the second of 2 planned looks" in would_follow(Look(1, 2)) and "4.4 %" in would_follow(Look(1, 2))
    assert (ordinal(1), ordinal(5), ordinal(7)) == ("first", "fifth", "number 7")
    assert (share(0.05), share(0.0055746)) == ("5 %", "0.56 %")
