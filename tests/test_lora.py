"""The LoRA layers: the formula, its gradients, and that nothing crosses from variant to variant."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vez.base import Base, tokenize
from vez.denoise import Batch, variant_losses
from vez.errors import LoraFileError
from vez.interop import LoraState
from vez.layers import Pair
from vez.lora import LoraLayer, LoraSet, LoraSpec, attach
from vez.optim import AdamW, Rates


@contextmanager
def attached(base: Base, *specs: LoraSpec, seed: int = 0) -> Iterator[LoraSet]:
    lora = attach(base, specs, seed=seed)
    try:
        yield lora
    finally:
        lora.detach()


def batch(base: Base, variants: int, *, size: int = 3, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    latents, noise = torch.randn(2, size, 4, 8, 8, generator=generator)
    timesteps = torch.randint(0, 1000, (size,), generator=generator)
    captions = ["zolka in the snow", "a girl", "zolka, a doll, wood fence"]
    tokens = tokenize(base, [captions[i % 3] for i in range(size)]).repeat(variants, 1)
    return Batch(latents, noise, timesteps, tokens)


def steps(base: Base, lora: LoraSet, rates: Sequence[Rates], *, count: int) -> list[Tensor]:
    """Train a little; each step's losses (V,)."""
    optimizer, losses = AdamW(lora), []
    for i in range(count):
        loss = variant_losses(base, batch(base, len(rates), seed=i), variants=len(rates))
        loss.sum().backward()
        optimizer.step(rates, optimizer.norms())
        losses.append(loss.detach())
    return losses


def difference(one: LoraState, other: LoraState, part: str) -> float:
    flat = [torch.cat([getattr(state[key], part).flatten() for key in other]) for state in (one, other)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


@pytest.mark.parametrize("scales", [None, (0.5, 1.0, 2.0)])
@pytest.mark.parametrize("needs_dx", [True, False])
def test_product_is_the_formula_and_its_gradients_autograds(scales: tuple[float, ...] | None, needs_dx: bool) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 10, 6), torch.randn(5, 6), torch.randn(5)
    down, up = torch.randn(3, 2, 6), torch.randn(3, 5, 2)
    scale = None if scales is None else torch.tensor(scales).view(3, 1, 1)
    out = torch.randn(3, 10, 5)
    plain = [t.clone().requires_grad_() for t in (x, down, up)]
    y = F.linear(plain[0], weight, bias)
    y = y + (plain[0] @ plain[1].mT @ plain[2].mT) * (1 if scale is None else scale)
    (y * out).sum().backward()
    pair = Pair(
        down.clone().requires_grad_(), up.clone().requires_grad_(), torch.zeros_like(down), torch.zeros_like(up), scale
    )
    x.requires_grad_(needs_dx)
    linear = torch.nn.Linear(6, 5).requires_grad_(False)
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)
    ours = LoraLayer(linear, pair)(x)
    (ours * out).sum().backward()
    torch.testing.assert_close(ours, y)
    torch.testing.assert_close(pair.down_grad, plain[1].grad)
    torch.testing.assert_close(pair.up_grad, plain[2].grad)
    if needs_dx:
        torch.testing.assert_close(x.grad, plain[0].grad)
    else:
        assert x.grad is None


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_convolution_is_adapted_as_one(channels_last: bool) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(6, 5, 1).requires_grad_(False)
    down, up = torch.randn(2, 3, 6), torch.randn(2, 5, 3)
    pair = Pair(down, up, torch.zeros_like(down), torch.zeros_like(up))
    x = torch.randn(4, 6, 2, 3)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    expected = [
        conv(part) + F.conv2d(F.conv2d(part, d[..., None, None]), u[..., None, None])
        for part, d, u in zip(x.chunk(2), down, up, strict=True)
    ]
    torch.testing.assert_close(LoraLayer(conv, pair)(x), torch.cat(expected))


def test_a_fresh_lora_changes_nothing_and_a_trained_one_does(random_base: Base) -> None:
    with torch.no_grad():
        alone = variant_losses(random_base, batch(random_base, 1), variants=1)
    with attached(random_base, LoraSpec(4, 4.0), LoraSpec(4, 2.0)) as lora:
        with torch.no_grad():
            fresh = variant_losses(random_base, batch(random_base, 2), variants=2)
        torch.testing.assert_close(fresh, alone.repeat(2))
        steps(random_base, lora, [Rates(1e-2, 1e-2), Rates(0.0, 0.0)], count=6)
        with torch.no_grad():
            after = variant_losses(random_base, batch(random_base, 2), variants=2)
        assert after[0] < alone[0] * 0.99, "a LoRA that learns lowers the loss of what it was shown"
        torch.testing.assert_close(after[1], alone[0])  # its learning rates are 0


def test_every_module_gets_a_gradient(random_base: Base) -> None:
    with attached(random_base, LoraSpec(4, 4.0)) as lora:
        steps(random_base, lora, [Rates(1e-3, 1e-3)], count=1)
        variant_losses(random_base, batch(random_base, 1), variants=1).sum().backward()
        for key, (down, up) in lora.rows(lora.grads, 0).items():
            assert down.abs().sum() > 0 and up.abs().sum() > 0, key


def test_four_variants_at_once_are_four_runs(random_base: Base) -> None:
    specs = [LoraSpec(2, 2.0), LoraSpec(4, 4.0), LoraSpec(8, 4.0), LoraSpec(4, 4.0, text=False)]
    rates = [
        Rates(1e-3, 5e-4),
        Rates(1e-3, 0.0, clip=0.05),
        Rates(2e-3, 1e-3, weight_decay=0.5),
        Rates(1e-3, 5e-4, clip=0),
    ]
    with attached(random_base, *specs) as lora:
        together = torch.stack(steps(random_base, lora, rates, count=4))  # (steps, V)
        states = [lora.state(v) for v in range(4)]
    for v, (spec, rate) in enumerate(zip(specs, rates, strict=True)):
        with attached(random_base, spec) as alone:
            apart = torch.cat(steps(random_base, alone, [rate], count=4))
            torch.testing.assert_close(together[:, v], apart, rtol=1e-5, atol=0)
            assert states[v].keys() == alone.state(0).keys()
            assert difference(states[v], alone.state(0), "down") < 1e-5
            assert (
                difference(states[v], alone.state(0), "up") < 1e-4
            )  # Adam's first steps magnify rounding of tiny gradients
    assert len({round(float(loss), 6) for loss in together[-1]}) == 4, "four settings, four results"


def test_padded_ranks_stay_zero(random_base: Base) -> None:
    with attached(random_base, LoraSpec(2, 2.0), LoraSpec(5, 5.0)) as lora:
        steps(random_base, lora, [Rates(1e-2, 1e-2)] * 2, count=3)
        used = torch.zeros_like(lora.params, dtype=torch.bool)
        for v in range(2):
            for pair in lora.rows(used, v).values():
                for part in pair:
                    part.fill_(True)
        assert used[1].all() and not used[0].all()
        assert lora.params[used].ne(0).all() and not lora.params[~used].any()


def test_first_weights_follow_seed_module_and_rank_alone(random_base: Base) -> None:
    with attached(random_base, LoraSpec(8, 8.0), LoraSpec(3, 1.0)) as lora:
        large, small = lora.state(0), lora.state(1)
    with attached(random_base, LoraSpec(3, 3.0), seed=1) as lora:
        other = lora.state(0)
    for key, weights in large.items():
        assert not weights.up.any()
        bound = weights.down.shape[1] ** -0.5
        assert 0.8 * bound < weights.down.abs().max() <= bound
        assert torch.equal(weights.down[:3], small[key].down)
        assert not torch.equal(other[key].down, small[key].down)
    downs = [weights.down.flatten()[:8] for weights in large.values()]
    assert len({tuple(down.tolist()) for down in downs}) == len(downs), "no two modules start alike"


def test_state_goes_out_and_in(random_base: Base) -> None:
    with attached(random_base, LoraSpec(4, 2.0), LoraSpec(6, 6.0)) as lora:
        steps(random_base, lora, [Rates(1e-2, 1e-2)] * 2, count=2)
        states = [lora.state(v) for v in range(2)]
        with torch.no_grad():
            loss = variant_losses(random_base, batch(random_base, 2), variants=2)
    assert all(weights.alpha == 2.0 and weights.rank == 4 for weights in states[0].values())
    assert all(w.down.dim() == (4 if key.endswith(("proj_in", "proj_out")) else 2) for key, w in states[0].items())
    with attached(random_base, LoraSpec(4, 2.0), LoraSpec(6, 6.0), seed=9) as lora:
        for v, state in enumerate(states):
            lora.load_state(v, state)
        with torch.no_grad():
            assert torch.equal(variant_losses(random_base, batch(random_base, 2), variants=2), loss)
            lora.set_strength(0.0)
            off = variant_losses(random_base, batch(random_base, 2), variants=2)
        assert off[0] == off[1] != loss[0]


def test_weights_that_do_not_fit_are_refused(random_base: Base) -> None:
    with attached(random_base, LoraSpec(4, 4.0)) as lora:
        state = lora.state(0)
        key = next(iter(state))
        with pytest.raises(LoraFileError, match="same modules"):
            lora.load_state(0, {k: w for k, w in state.items() if k != key})
        with pytest.raises(LoraFileError, match="alpha 3"):
            lora.load_state(0, state | {key: state[key]._replace(alpha=3.0)})
        with pytest.raises(LoraFileError, match="rank 3"):
            lora.load_state(0, state | {key: state[key]._replace(down=state[key].down[:3])})


def test_what_no_variant_trains_is_left_alone(random_base: Base) -> None:
    with attached(random_base, LoraSpec(4, 4.0, text=False)) as lora:
        assert lora.state(0).keys() == {s.key for s in lora.segments}
        assert all(key.startswith("lora_unet_") for key in lora.state(0))
        assert not any(isinstance(module, LoraLayer) for module in random_base.text_encoder.modules())
        with pytest.raises(LoraFileError, match="attached already"):
            attach(random_base, [LoraSpec(4, 4.0)], seed=0)


def test_without_its_loras_the_base_is_itself_and_earlier_passes_still_go_backward(random_base: Base) -> None:
    one = batch(random_base, 1)
    with torch.no_grad():
        plain = variant_losses(random_base, one, variants=1)
    with attached(random_base, LoraSpec(4, 4.0)) as lora:
        steps(random_base, lora, [Rates(1e-2, 1e-2)], count=2)
        moved = variant_losses(random_base, one, variants=1)
        with torch.no_grad(), lora.without():
            assert torch.equal(variant_losses(random_base, one, variants=1), plain)
        moved.sum().backward()
        assert not torch.equal(moved, plain) and bool(lora.grads.any())
        assert torch.equal(variant_losses(random_base, one, variants=1), moved)
