"""A sample's noise against the published formulas, in numpy."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vez.config import Variant
from vez.noising import changed, changes_noise, with_coarser, with_offset
from vez.tape import dice, noise

PLAIN = torch.from_numpy(noise(5, (4, 12, 8))[1])


def variant(**values: float) -> Variant:
    return Variant(dataset="tiny", **values)  # type: ignore[arg-type]


def test_offset_is_one_number_a_channel() -> None:
    shift = with_offset(PLAIN, 0.3, seed=5) - PLAIN
    numbers = dice(5, "offset").standard_normal((4, 1, 1), dtype=np.float32)
    np.testing.assert_allclose(shift.numpy(), np.broadcast_to(0.3 * numbers, shift.shape), atol=1e-6)


def enlarged(grid: NDArray[np.float32], height: int, width: int) -> NDArray[np.float64]:
    """Bilinear, pixel centres at halves, edges held: one axis after the other."""

    def along(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
        at = np.clip((np.arange(size) + 0.5) * values.shape[-1] / size - 0.5, 0, values.shape[-1] - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, values.shape[-1] - 1)
        return values[..., low] * (1 - (at - low)) + values[..., high] * (at - low)

    wide = along(grid.astype(np.float64), width)
    return np.swapaxes(along(np.swapaxes(wide, 1, 2), height), 1, 2)


@pytest.mark.parametrize(("grids", "discount"), [(1, 0.3), (4, 0.8), (16, 0.9)])
def test_coarser_grids_are_whitakers(grids: int, discount: float) -> None:
    """for i: r in [2, 4), size / r^i, + bilinear(N(0, 1)) · discount^i, until a side is one cell; then / std."""
    random = dice(5, "grids")
    total = PLAIN.numpy().astype(np.float64)
    for i in range(grids):
        r = random.random() * 2 + 2
        size = max(1, int(12 / r**i)), max(1, int(8 / r**i))
        grid = random.standard_normal((1, 4, *size), dtype=np.float32)[0]
        total = total + enlarged(grid, 12, 8) * discount**i
        if min(size) == 1:
            break
    expected = total / total.std(ddof=1)
    np.testing.assert_allclose(with_coarser(PLAIN, grids, discount=discount, seed=5).numpy(), expected, atol=2e-6)


def test_perturbation_is_seen_and_not_predicted() -> None:
    predicted, mixed = changed(variant(input_perturbation=0.1), PLAIN, seed=5)
    assert torch.equal(predicted, PLAIN)
    more = dice(5, "perturbation").standard_normal((4, 12, 8), dtype=np.float32)
    np.testing.assert_allclose((mixed - PLAIN).numpy(), 0.1 * more, atol=1e-6)


@pytest.mark.parametrize("key", ["noise_offset", "input_perturbation"])
def test_a_random_strength_is_each_samples_own_share_of_it(key: str) -> None:
    """In [0, its strength), uniform, and of the same number that it multiplies without."""
    shares = []
    for seed in range(400):
        whole = changed(variant(**{key: 0.5}), PLAIN, seed=seed)[1] - PLAIN
        part = changed(variant(**{key: 0.5, f"{key}_random": True}), PLAIN, seed=seed)[1] - PLAIN
        share = float((part * whole).sum() / whole.square().sum())
        torch.testing.assert_close(part, share * whole, atol=1e-5, rtol=0)
        shares.append(share)
    found = np.sort(shares)
    assert found[0] >= 0 and found[-1] < 1 + 1e-5
    assert np.abs(found - (np.arange(400) + 0.5) / 400).max() < 0.08  # Kolmogorov-Smirnov, p = 0.01

    again = changed(variant(**{key: 0.5, f"{key}_random": True}), PLAIN, seed=399)[1]
    assert torch.equal(again, PLAIN + part), "the seed says it all"


def test_a_random_strength_of_nothing_is_nothing() -> None:
    nothing = variant(noise_offset_random=True, input_perturbation_random=True)
    assert not changes_noise(nothing)
    assert all(torch.equal(field, PLAIN) for field in changed(nothing, PLAIN, seed=5))


def test_each_draws_by_itself() -> None:
    """Offset first, then grids, then the perturbation; and none moves what another draws."""
    both, mixed = changed(variant(noise_offset=0.2, multires_noise=3, input_perturbation=0.1), PLAIN, seed=5)
    expected = with_coarser(with_offset(PLAIN, 0.2, seed=5), 3, discount=0.3, seed=5)
    assert torch.equal(both, expected)
    alone = changed(variant(input_perturbation=0.1), PLAIN, seed=5)
    torch.testing.assert_close(mixed - both, alone[1] - alone[0], atol=1e-6, rtol=0)
    assert not torch.equal(with_offset(PLAIN, 0.2, seed=6), with_offset(PLAIN, 0.2, seed=5))
