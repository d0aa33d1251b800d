from typing import Any, Literal

import numpy as np
import pytest

from vez.metrics import stats
from vez.metrics.rules import Gate, Rule
from vez.metrics.summary import EXPLAINED, summarise

PROMPTS = [f"p{i}" for i in range(8)]
UP, DOWN = Rule(True, primary=True), Rule(False, primary=True)


def arm(gain: float, prompts: list[str] = PROMPTS) -> dict[tuple[str, int], float]:
    """Prompts differ, seeds differ a little, and the gain is not quite the same for every prompt."""
    return {(p, s): i + 0.1 * s + gain * (1 + 0.1 * (i % 3)) for i, p in enumerate(prompts) for s in range(2)}


def rough(gain: float, *, seed: int, noise: float = 0.1, prompts: list[str] = PROMPTS) -> dict[tuple[str, int], float]:
    rng = np.random.default_rng(seed)
    return {(p, s): gain + float(rng.normal(0, noise)) for p in prompts for s in range(2)}


def told(values: Any, rule: Rule, **more: Any) -> dict[str, Any]:
    return summarise({"T1": values}, rules={"T1": rule}, base="base", **more)


def test_means_differences_pairs_and_words() -> None:
    values = {"T1": {"base": arm(0), "v1": arm(0.5), "v2": arm(-0.5)}, "leak": {"base": arm(0), "v1": arm(0.2)}}
    tables = summarise(values, rules={"T1": UP, "leak": DOWN}, base="base")
    mean = tables["arms"]["v1"]["T1"]
    assert (mean["n_prompts"], mean["n_images"]) == (8, 16)
    expected = stats.t_interval(list(stats.prompt_means(arm(0.5)).values()))
    assert (mean["mean"], mean["low"], mean["high"]) == (expected.mean, expected.low, expected.high)
    against = tables["against_base"]
    assert set(against) == {"v1", "v2"}
    assert against["v1"]["T1"]["verdict"] == "better" and against["v2"]["T1"]["verdict"] == "worse"
    assert against["v1"]["leak"]["verdict"] == "worse" and "leak" not in against["v2"]
    assert tables["pairs"] == {"v1": {"v2": {"T1": tables["pairs"]["v1"]["v2"]["T1"]}}}
    assert tables["pairs"]["v1"]["v2"]["T1"]["diff"] == pytest.approx(2 * against["v1"]["T1"]["diff"])


def test_holm_and_detectable_difference_count_the_comparisons() -> None:
    values = {"base": arm(0), **{f"v{i}": arm(0.1 * i) for i in range(1, 5)}}
    against = told(values, UP)["against_base"]
    single = told({k: values[k] for k in ("base", "v1")}, UP)["against_base"]["v1"]["T1"]
    of_four = against["v1"]["T1"]
    assert single["p"] == of_four["p"] == 2 / 2**8
    assert single["p_holm"] == single["p"] and of_four["p_holm"] == pytest.approx(4 * single["p"])
    assert of_four["mde"] > single["mde"] > 0 and of_four["p_bh"] is None and of_four["family"] == "primary"


def test_primary_metrics_are_families_of_their_own_and_the_rest_is_one() -> None:
    arms = {"base": arm(0), "v1": rough(0.1, seed=1), "v2": rough(0.2, seed=2)}
    rules = {"F": UP, "P": UP, "x": Rule(True), "y": Rule(True)}
    tables = summarise(dict.fromkeys(rules, arms), rules=rules, base="base")["against_base"]
    p = [tables[v]["F"]["p"] for v in ("v1", "v2")]
    for metric in ("F", "P"):
        assert [tables[v][metric]["p_holm"] for v in ("v1", "v2")] == pytest.approx(stats.holm(p))
    q = stats.benjamini_hochberg([*p, *p])
    rest = [tables[v][metric] for metric in ("x", "y") for v in ("v1", "v2")]
    assert [row["p_bh"] for row in rest] == pytest.approx(q)
    assert all(row["family"] == "exploratory" and row["p_holm"] is None for row in rest)


def test_what_was_not_found_says_what_it_would_take() -> None:
    row = told({"base": rough(0, seed=1), "v1": rough(0.03, seed=2)}, UP)["against_base"]["v1"]["T1"]
    assert row["verdict"] == "not distinguishable"
    assert row["says"] == f"not distinguishable (would need n = {row['needs_prompts']} prompts)"
    assert row["needs_prompts"] > 8 and abs(row["diff"]) < row["mde"]
    assert 0 <= row["mde_more_seeds"] < row["mde"]
    assert -1 <= row["noise_correlation"] <= 1 and row["sd_seeds"] > 0
    tiny = told({"base": rough(0, seed=1), "v1": {k: v + 1e-6 * (-1) ** i for i, (k, v) in
                 enumerate(rough(0, seed=1).items())}}, UP)["against_base"]["v1"]["T1"]  # fmt: skip
    assert tiny["says"].startswith("not distinguishable")
    same = told({"base": arm(0), "v1": arm(0)}, UP)["against_base"]["v1"]["T1"]
    assert same["says"] == "not distinguishable" and same["needs_prompts"] is None


def test_equivalence_needs_a_margin_and_enough_prompts() -> None:
    values = {"base": rough(0, seed=1, noise=0.01), "v1": rough(0, seed=2, noise=0.01)}
    assert told(values, UP)["against_base"]["v1"]["T1"]["equivalence"] is None
    wide = told(values, Rule(True, primary=True, margin=0.1))["against_base"]["v1"]["T1"]
    assert (wide["verdict"], wide["says"]) == ("equivalent", "equivalent (within ±0.1)")
    assert wide["equivalence"]["equivalent"] and wide["equivalence"]["not_worse"]
    narrow = told(values, Rule(True, primary=True, margin=1e-4))["against_base"]["v1"]["T1"]
    assert narrow["verdict"] == "not distinguishable" and not narrow["equivalence"]["equivalent"]


def test_gates_are_passed_failed_or_not_shown() -> None:
    values = {"base": rough(0, seed=1), "v1": rough(1, seed=2), "v2": rough(-1, seed=3), "v3": rough(0.15, seed=4)}
    gates = told(values, Rule(True, gate=Gate(0.15, "above")))["gates"]
    assert {a: of["T1"]["limit"]["word"] for a, of in gates.items()} == {
        "v1": "passed", "v2": "failed", "v3": "not shown"}  # fmt: skip
    assert gates["v1"]["T1"]["limit"]["calibrated"] is False
    below = told(values, Rule(False, gate=Gate(0.15, "below")))["gates"]
    assert [below[a]["T1"]["limit"]["word"] for a in ("v1", "v2", "v3")] == ["failed", "passed", "not shown"]
    # a metric that no LoRA leaves unmeasured for the base (drift) still has its gate
    alone = told({"v1": values["v1"]}, Rule(True, gate=Gate(0.15, "above")))
    assert alone["against_base"] == {} and alone["gates"]["v1"]["T1"]["limit"]["word"] == "passed"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_lora_is_not_blamed_for_what_the_words_make_of_the_base(sign: int) -> None:
    keep: Literal["above", "below"] = "above" if sign > 0 else "below"
    name = "trigger_effect" if sign > 0 else "specificity"
    far = {"base": -1.0, "v1": -1.0, "v2": -2.0, "v3": -0.5, "v4": 1.0}
    values = {arm: rough(sign * at, seed=i) for i, (arm, at) in enumerate(far.items())}

    def words(metric: str, gate: Gate) -> list[str]:
        found = summarise({metric: values}, rules={metric: Rule(sign > 0, gate=gate)}, base="base")
        return [found["gates"][arm][metric]["limit"]["word"] for arm in ("v1", "v2", "v3", "v4")]

    assert words(name, Gate(0.0, keep)) == ["not shown", "failed", "not shown", "passed"]
    assert words(name, Gate(0.0, keep, calibrated=True)) == ["failed", "failed", "failed", "passed"]
    assert words("similarity", Gate(0.0, keep)) == ["failed", "failed", "failed", "passed"]


@pytest.mark.parametrize("higher", [True, False])
def test_a_guard_asks_that_nothing_is_lost(higher: bool) -> None:
    sign = 1 if higher else -1
    gains = {"v1": 0.0, "v2": -1.0, "v3": -0.3, "v4": 1.0}
    values = {"base": rough(0, seed=9), **{v: rough(sign * g, seed=i) for i, (v, g) in enumerate(gains.items())}}
    gates = told(values, Rule(higher, primary=True, margin=0.3, guard=True))["gates"]
    words = {a: of["T1"]["not_worse"]["word"] for a, of in gates.items()}
    assert words == {"v1": "passed", "v2": "failed", "v3": "not shown", "v4": "passed"}


def test_training_seeds_turn_weights_into_a_setting() -> None:
    rng = np.random.default_rng(5)
    luck = rng.normal(0, 0.2, 6)
    arms = {f"{v}-{s}": rough(g + luck[3 * i + s], seed=10 * i + s, noise=0.02)
            for i, (v, g) in enumerate((("a", 0.3), ("b", 0.0))) for s in range(3)}  # fmt: skip
    settings = {name: (name[0], int(name[-1])) for name in arms}
    tables = told({"base": rough(0, seed=99, noise=0.02), **arms}, UP, settings=settings)
    row = tables["settings"]["a"]["T1"]
    assert (row["training_seeds"], row["n_prompts"]) == (3, 8)
    width = {key: row[key]["high"] - row[key]["low"] for key in ("weights", "setting")}
    assert width["setting"] > 3 * width["weights"] and row["training_sd"] > 0.05 and row["why_not"] is None
    assert row["p_holm"] == pytest.approx(stats.holm([tables["settings"][v]["T1"]["p"] for v in "ab"])[0])
    pair = tables["setting_pairs"]["a"]["b"]["T1"]
    of_a, of_b = (tables["settings"][v]["T1"]["setting"]["mean"] for v in "ab")
    assert pair["setting"]["mean"] == pytest.approx(of_a - of_b)
    # each of a's LoRAs is surely better than no LoRA; of the setting that cannot be said
    assert tables["against_base"]["a-0"]["T1"]["verdict"] != "not distinguishable"
    assert row["verdict"] == "not distinguishable"


def test_two_training_seeds_are_too_few_and_it_is_said() -> None:
    values = {"base": rough(0, seed=1), "a-0": rough(1, seed=2), "a-1": rough(1, seed=3)}
    row = told(values, UP, settings={"a-0": ("a", 0), "a-1": ("a", 1)})["settings"]["a"]["T1"]
    assert row["verdict"] == "not measured" and row["setting"] is None and row["p_holm"] is None
    assert "needs at least 3 training seeds, there are 2" in row["why_not"]
    assert told(values, UP)["settings"] == {}


def test_a_choice_is_told_with_its_luck_and_confirmed_elsewhere() -> None:
    later = [f"g{i}" for i in range(8)]
    values = {a: rough(g, seed=i) | rough(g, seed=10 + i, prompts=later)
              for i, (a, g) in enumerate((("base", 0.0), ("v1", 1.0), ("v2", 0.9)))}  # fmt: skip
    tables = told(values, UP, confirming=later)
    assert tables["arms"]["v1"]["T1"]["n_prompts"] == 8
    picked = tables["selection"]["T1"]
    assert picked["candidates"] == 2 and picked["expected_bias"] > 0
    confirmed = tables["confirmation"]
    assert confirmed["chosen"]["T1"]["selection"] == picked
    only_later = summarise(
        {"T1": {a: {k: v for k, v in of.items() if k[0] in later} for a, of in values.items()}},
        rules={"T1": UP}, base="base",
    )  # fmt: skip
    for table in ("arms", "against_base", "pairs"):
        assert confirmed[table] == only_later[table]
    mean = confirmed["arms"][picked["chosen"]]["T1"]["mean"]
    assert confirmed["chosen"]["T1"]["confirmed"]["mean"] == pytest.approx(mean)


def test_without_confirmation_there_is_none() -> None:
    tables = told({"base": arm(0), "v1": arm(1), "v2": arm(2)}, UP)
    assert tables["confirmation"] == {} and tables["selection"]["T1"]["chosen"] == "v2"
    assert told({"base": arm(0), "v1": arm(1)}, UP)["selection"] == {}
    assert told({"base": arm(0), "v1": arm(1), "v2": arm(2)}, Rule(True))["selection"] == {}  # exploratory: no choice


def test_too_few_prompts_are_never_called_different() -> None:
    few = PROMPTS[:4]
    row = told({"base": arm(0, few), "v1": arm(100, few)}, UP)["against_base"]["v1"]["T1"]
    assert row["verdict"] == "not distinguishable" and row["mde"] is None and row["smallest_p"] == 0.125
    assert row["needs_prompts"] == 6


def test_without_a_base_there_are_only_pairs() -> None:
    tables = summarise({"T1": {"v1": arm(0), "v2": arm(1)}}, rules={"T1": UP}, base=None)
    assert tables["against_base"] == {} and tables["pairs"]["v1"]["v2"]["T1"]["verdict"] == "worse"


def test_arms_without_a_common_prompt_are_not_compared() -> None:
    tables = told({"base": arm(0, ["a", "b"]), "v1": arm(0, ["c", "d"])}, UP)
    assert tables["against_base"] == {} and set(tables["arms"]) == {"base", "v1"}


def test_missing_pictures_are_left_out_and_counted() -> None:
    holed = arm(0.5)
    del holed["p0", 0], holed["p1", 0], holed["p1", 1]
    holed["p2", 0] = float("nan")
    row = told({"base": arm(0), "v1": holed}, UP)["against_base"]["v1"]["T1"]
    assert (row["n_prompts"], row["n_pairs"], row["missing"], row["lost"]) == (7, 12, 4, 1)


def test_every_column_of_a_difference_is_explained() -> None:
    row = told({"base": arm(0), "v1": arm(1)}, UP)["against_base"]["v1"]["T1"]
    words = {word for key in EXPLAINED for word in key.split(", ")} | {"diff", "says", "n_prompts", "n_pairs"}
    text = " ".join(EXPLAINED.values())
    assert [key for key in row if key not in words and key not in text] == []


def test_a_sweeps_arms_take_no_power_from_the_declared_ones() -> None:
    swept = {f"v1@{step}": rough(0.05 * step, seed=step, prompts=PROMPTS) for step in range(1, 9)}
    few = {"base": rough(0, seed=100), "v1": rough(0.3, seed=101), "v2": rough(0.2, seed=102)}
    rules = {"F": UP, "x": Rule(True)}
    alone = summarise(dict.fromkeys(rules, few), rules=rules, base="base")
    tables = summarise(dict.fromkeys(rules, few | swept), rules=rules, base="base", explored=swept)
    for arm_ in ("v1", "v2"):
        assert tables["against_base"][arm_]["F"] == alone["against_base"][arm_]["F"]
    row = tables["against_base"]["v1@3"]["F"]
    assert row["family"] == "exploratory" and row["p_holm"] is None and row["p_bh"] is not None
    assert tables["pairs"]["v1"]["v2"]["F"] == alone["pairs"]["v1"]["v2"]["F"]
    assert set(tables["pairs"]["v1"]["v1@3"]) == {"F"}, "what is explored is compared by what decides alone"
    assert tables["explored"] == sorted(swept) and alone["explored"] == []
