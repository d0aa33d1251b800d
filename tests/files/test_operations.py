"""Sums are exact, smaller ranks are the best ones, norms are those of the full matrices."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loras import CONV, FC1, PROJ_IN, TO_Q, deltas, same, small

from vez.errors import LoraFileError
from vez.files.operations import Keep, add, norm, resize
from vez.files.reading import LoraFile
from vez.interop import LoraWeights


def wide(seed: int = 0) -> LoraFile:
    """Singular values that fall, so that there is something to cut: rank 6 each, 3 for one module."""
    return small(ranks=dict.fromkeys(small().modules, 6) | {FC1: 3}, alpha=3.0, seed=seed)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-2, 2, allow_subnormal=False), min_size=1, max_size=3).filter(any))
def test_a_sum_is_the_weighted_sum_of_what_each_adds(weights: list[float]) -> None:
    loras = [small(ranks={TO_Q: 2 + i}, alpha=1.0 + i, seed=i) for i in range(len(weights))]
    made = add(loras, weights, names=[f"{i}.safetensors" for i in range(len(weights))])
    assert made.modules.keys() == loras[0].modules.keys()
    for place, delta in deltas(made).items():
        meant = sum((w * deltas(lora)[place].double() for w, lora in zip(weights, loras, strict=True)), torch.zeros(()))
        torch.testing.assert_close(delta.double(), meant, rtol=1e-5, atol=1e-6)


def test_equal_scales_leave_the_numbers_alone() -> None:
    a, b = small(seed=1), small(seed=2)
    made = add([a, b], [1, 1], names=["a", "b"]).modules[TO_Q]
    assert made.rank == 8 and made.alpha == 4.0
    assert torch.equal(made.down[:4], a.modules[TO_Q].down) and torch.equal(made.up[:, 4:], b.modules[TO_Q].up)


def test_modules_of_one_lora_alone_are_kept_and_weight_0_leaves_one_out() -> None:
    a, b = small(seed=1), small(seed=2)
    a = replace(a, modules={TO_Q: a.modules[TO_Q]})
    made = add([a, b], [1, 0.5], names=["a", "b"])
    assert made.modules.keys() == b.modules.keys() and made.modules[FC1].rank == 4
    assert add([a, b], [1, 0], names=["a", "b"]).modules.keys() == {TO_Q}
    with pytest.raises(LoraFileError, match="nothing is left"):
        add([a, b], [0, 0], names=["a", "b"])


def test_one_lora_with_weight_1_stays_what_it_is() -> None:
    lora = small()
    assert add([lora], [1.0], names=["a"]) is lora


def test_a_linear_layer_and_its_1x1_convolution_add_up() -> None:
    a = small(seed=1)
    flat = a.modules[PROJ_IN]
    b = replace(a, modules=a.modules | {PROJ_IN: flat._replace(down=flat.down.flatten(1), up=flat.up.flatten(1))})
    made = add([a, b], [1, 1], names=["a", "b"])
    torch.testing.assert_close(made.modules[PROJ_IN].delta(), 2 * flat.delta())
    assert made.modules[PROJ_IN].down.dim() == 4


def test_what_does_not_belong_together_is_not_added() -> None:
    a = small()
    with pytest.raises(LoraFileError, match="a is tiny, b is sdxl"):
        add([a, replace(a, family="sdxl")], [1, 1], names=["a", "b"])
    other = replace(a, modules={TO_Q: LoraWeights(torch.ones(2, 9), torch.ones(8, 2), 1.0)})
    with pytest.raises(LoraFileError, match="different sizes at down_blocks"):
        add([a, other], [1, 1], names=["a", "b"])


def test_the_header_of_a_sum_is_what_all_say_and_the_recipe() -> None:
    a, b = small(), replace(small(), metadata=small().metadata | {"ss_output_name": "v2"})
    made = add([a, b], [1, 0.5], names=["a.safetensors", "b.safetensors"]).metadata
    assert made["modelspec.title"] == "v1" and "ss_output_name" not in made
    assert made["ss_network_dim"] == "8" and made["ss_network_alpha"] == "8"
    assert made["ss_training_comment"] == "merged: 1 × a.safetensors + 0.5 × b.safetensors"


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_a_smaller_rank_is_the_truncated_svd_at_the_same_scale(rank: int) -> None:
    lora = wide()
    made, kept = resize(lora, Keep(rank=rank))
    before = after = 0.0
    for place, weights in made.modules.items():
        full = lora.modules[place].delta().double()
        u, values, v = torch.linalg.svd(full, full_matrices=False)
        best = (u[:, :rank] * values[:rank]) @ v[:rank]
        torch.testing.assert_close(weights.delta().double(), best, rtol=1e-4, atol=1e-5)
        old = lora.modules[place]
        assert weights.rank == min(rank, old.rank)
        assert weights.alpha / weights.rank == pytest.approx(old.alpha / old.rank)  # kohya's resize_lora
        assert weights.down.shape[1:] == old.down.shape[1:] and weights.up.dim() == old.up.dim()
        before, after = before + float((values**2).sum()), after + float((values[:rank] ** 2).sum())
    assert kept.energy == pytest.approx(after / before)
    assert made.metadata["ss_network_dim"] == (str(rank) if rank <= 3 else "Dynamic")
    assert made.metadata["ss_training_comment"].startswith("dimension is resized from 6 to ")


def test_a_rank_that_is_large_enough_changes_nothing() -> None:
    lora = wide()
    made, kept = resize(lora, Keep(rank=6))
    assert all(made.modules[place] is weights for place, weights in lora.modules.items())
    assert kept.energy == 1


def test_a_rank_that_is_more_than_needed_is_found_out() -> None:
    """Two copies of one LoRA side by side have twice the rank and need half of it."""
    lora = small()
    double = add([lora, lora], [0.5, 0.5], names=["a", "a"])
    assert {w.rank for w in double.modules.values()} == {8}
    made, kept = resize(double, Keep(energy=1.0))
    assert {w.rank for w in made.modules.values()} == {4} and kept.energy == pytest.approx(1)
    same(made, lora, rtol=1e-4, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=8), st.floats(0.05, 1), st.floats(1, 50))
def test_what_is_kept_is_the_least_that_satisfies(values: list[float], energy: float, ratio: float) -> None:
    s = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    shares = (s**2).cumsum(0) / (s**2).sum()
    by_energy = Keep(energy=energy).of(s)
    assert shares[by_energy - 1] >= energy - 1e-9
    assert by_energy == 1 or shares[by_energy - 2] < energy
    by_ratio = Keep(ratio=ratio).of(s)
    assert s[by_ratio - 1] >= s[0] / ratio and (by_ratio == len(s) or s[by_ratio] < s[0] / ratio)
    assert Keep(2, energy, ratio).of(s) == min(2, by_energy, by_ratio)


def test_zero_keeps_rank_1() -> None:
    lora = replace(small(), modules={TO_Q: LoraWeights(torch.zeros(4, 8), torch.zeros(8, 4), 4.0)})
    made, kept = resize(lora, Keep(energy=0.9))
    assert made.modules[TO_Q].rank == 1 and made.modules[TO_Q].alpha == 1.0 and kept.energy == 1.0


@pytest.mark.parametrize(
    "wrong", [{"rank": 0}, {"rank": -1}, {"energy": 0.0}, {"energy": 1.1}, {"energy": float("nan")}, {"ratio": 0.5}]
)
def test_sizes_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(LoraFileError, match=f"{next(iter(wrong.values())):g}"):
        Keep(**wrong)  # type: ignore[arg-type]


def test_norms_are_those_of_the_full_matrices() -> None:
    for place, weights in wide().modules.items():
        assert norm(weights) == pytest.approx(float(weights.delta().norm()), rel=1e-5), place
    assert norm(wide().modules[CONV]._replace(alpha=-3.0)) > 0
