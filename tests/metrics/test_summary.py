import pytest

from vez.metrics import stats
from vez.metrics.summary import summarise

PROMPTS = [f"p{i}" for i in range(8)]


def arm(gain: float, prompts: list[str] = PROMPTS) -> dict[tuple[str, int], float]:
    """Prompts differ, seeds differ a little, and the gain is not quite the same for every prompt."""
    return {(p, s): i + 0.1 * s + gain * (1 + 0.1 * (i % 3)) for i, p in enumerate(prompts) for s in range(2)}


def test_means_differences_pairs_and_words() -> None:
    values = {"T1": {"base": arm(0), "v1": arm(0.5), "v2": arm(-0.5)}, "leak": {"base": arm(0), "v1": arm(0.2)}}
    tables = summarise(values, better_high={"T1": True, "leak": False}, base="base")
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
    values = {"T1": {"base": arm(0), **{f"v{i}": arm(0.1 * i) for i in range(1, 5)}}}
    against = summarise(values, better_high={"T1": True}, base="base")["against_base"]
    alone = summarise({"T1": {k: values["T1"][k] for k in ("base", "v1")}}, better_high={"T1": True}, base="base")
    single, of_four = alone["against_base"]["v1"]["T1"], against["v1"]["T1"]
    assert single["p"] == of_four["p"] == 2 / 2**8
    assert single["p_holm"] == single["p"] and of_four["p_holm"] == pytest.approx(4 * single["p"])
    assert of_four["mde"] > single["mde"] > 0


def test_too_few_prompts_are_never_called_different() -> None:
    few = PROMPTS[:4]
    values = {"T1": {"base": arm(0, few), "v1": arm(100, few)}}
    told = summarise(values, better_high={"T1": True}, base="base")["against_base"]["v1"]["T1"]
    assert told["verdict"] == "not distinguishable" and told["mde"] is None and told["smallest_p"] == 0.125


def test_without_a_base_there_are_only_pairs() -> None:
    tables = summarise({"T1": {"v1": arm(0), "v2": arm(1)}}, better_high={"T1": True}, base=None)
    assert tables["against_base"] == {} and tables["pairs"]["v1"]["v2"]["T1"]["verdict"] == "worse"


def test_arms_without_a_common_prompt_are_not_compared() -> None:
    values = {"T1": {"base": arm(0, ["a", "b"]), "v1": arm(0, ["c", "d"])}}
    tables = summarise(values, better_high={"T1": True}, base="base")
    assert tables["against_base"] == {} and set(tables["arms"]) == {"base", "v1"}
