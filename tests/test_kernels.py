"""The kernels that networks are made of: the plain operators' results, and gradients by finite differences."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn import functional as F

from vez.layers import LoraLayer, Pair
from vez.nets.attention import fused
from vez.nets.blocks import Resnet
from vez.nets.kernels import blocks, convolution, norms, products, scores
from vez.nets.kernels.convolution import LAST, convolve, convolve_back
from vez.nets.unet import TransformerBlock

DOUBLE = torch.float64


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=dice(seed), dtype=torch.float64).to(dtype)


def frozen(module: nn.Module, dtype: torch.dtype = torch.float32) -> Any:
    """A module of random weights that want no gradient."""
    with torch.no_grad():
        for i, weight in enumerate(module.parameters()):
            weight.copy_(random(*weight.shape, seed=i) / max(1, weight[0].numel() if weight.dim() > 1 else 1) ** 0.5)
    return module.to(dtype).requires_grad_(False)


def adapted(linear: Any, rank: int, variants: int, *, scale: bool = False) -> LoraLayer:
    """The layer with random LoRAs beside it."""
    out, inputs = linear.weight.shape[:2]
    down, up = (random(*shape, seed=rank + i, dtype=linear.weight.dtype) for i, shape in
                enumerate(((variants, rank, inputs), (variants, out, rank))))  # fmt: skip
    scales = torch.arange(1, variants + 1, dtype=down.dtype).view(-1, 1, 1) / 2 if scale else None
    zero = torch.zeros_like
    return LoraLayer(linear, Pair(down.requires_grad_(), up.requires_grad_(), zero(down), zero(up), scales))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("few", [0, 10**6])
def test_a_convolution_and_its_gradient(
    stride: int, kernel: int, last: bool, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By either way, in fp64 and, within its rounding, in bfloat16."""
    monkeypatch.setattr(convolution, "_FEW_CELLS", few)
    layout = LAST if last else torch.contiguous_format
    padding = kernel // 2
    for dtype, tolerance in ((DOUBLE, 1e-12), (torch.bfloat16, 2e-2)):
        x, weight, bias = random(2, 4, 7, 6), random(5, 4, kernel, kernel, seed=1) / 6, random(5, seed=2)
        x, weight, bias = (one.to(dtype) for one in (x, weight, bias))
        x, weight = x.contiguous(memory_format=layout), weight.contiguous(memory_format=layout)
        asked = x.double().requires_grad_()
        theirs = F.conv2d(asked, weight.double(), bias.double(), stride, padding)
        ours = convolve(x, weight, bias, stride=stride, padding=padding)
        torch.testing.assert_close(ours.double(), theirs.detach(), rtol=tolerance, atol=tolerance)
        dy = random(*ours.shape, seed=3).to(dtype).contiguous(memory_format=layout)
        dx = convolve_back(dy, x.shape, weight, stride=stride, padding=padding)
        (expected,) = torch.autograd.grad(theirs, asked, dy.double())
        torch.testing.assert_close(dx.double(), expected, rtol=tolerance, atol=2 * tolerance)


@pytest.mark.parametrize("wide", [False, True])
def test_products_are_products(wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By oneDNN or as PyTorch has them; transposed, thin and strided ones too."""
    if wide and not products._wide():
        pytest.skip("this machine has no AVX-512")
    monkeypatch.setattr(products, "_wide", lambda: wide)
    x, weight, bias = random(40, 96)[:, 10:80], random(33, 70, seed=1), random(33, seed=2)
    torch.testing.assert_close(products.linear(x, weight, bias), F.linear(x, weight, bias))
    torch.testing.assert_close(products.matmul(x, weight.mT), x @ weight.mT)
    for thin in (3, 40):
        torch.testing.assert_close(products.matmul(x[:, :thin].mT, x), x[:, :thin].mT @ x)
    a, b = random(3, 10, 7), random(3, 7, 5, seed=1)
    for count in (1, 3):
        torch.testing.assert_close(products.each_matmul(a[:count], b[:count]), a[:count] @ b[:count])
        torch.testing.assert_close(products.each_linear(a[:count], b[:count].mT), a[:count] @ b[:count])


def test_few_rows_in_bfloat16_go_the_other_way_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_LARGE_WEIGHT", 1)
    x, weight, bias = (random(*shape, dtype=torch.bfloat16) for shape in ((9, 30), (20, 30), (20,)))
    ours = products.linear(x, weight, bias)
    assert ours.is_contiguous()
    torch.testing.assert_close(ours, F.linear(x, weight, bias), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("side", [3, 20])
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_group_norm_and_its_gradient(side: int, gate: bool, last: bool) -> None:
    norm = frozen(nn.GroupNorm(2, 6, eps=1e-5), DOUBLE)
    x = random(2, 6, side, side, dtype=DOUBLE).contiguous(memory_format=LAST if last else torch.contiguous_format)
    asked = x.clone().requires_grad_()
    theirs = F.silu(norm(asked)) if gate else norm(asked)
    ours = norms.group_norm(x, norm, gate=gate)
    torch.testing.assert_close(ours, theirs.detach())
    assert ours.is_contiguous(memory_format=LAST) == last
    dy = random(*x.shape, dtype=DOUBLE, seed=5)
    (expected,) = torch.autograd.grad(theirs, asked, dy)
    torch.testing.assert_close(norms.group_norm_back(dy, x, norm, gate=gate), expected)


@pytest.mark.parametrize("quick", [False, True])
def test_activations_and_their_gradients(quick: bool) -> None:
    x, dy = random(5, 8, dtype=DOUBLE).requires_grad_(), random(5, 8, dtype=DOUBLE, seed=1)
    theirs = x * torch.sigmoid(1.702 * x) if quick else F.gelu(x)
    torch.testing.assert_close(norms.activated(x.detach(), quick=quick), theirs.detach())
    torch.testing.assert_close(norms.activated_back(dy, x.detach(), quick=quick), torch.autograd.grad(theirs, x, dy)[0])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("kept", "at_once"), [(10**9, 1), (0, 1), (0, 10**9)])
def test_scores_are_attention(causal: bool, kept: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "_KEPT", kept)
    monkeypatch.setattr(scores, "_AT_ONCE", at_once)
    keys = 5 if causal else 7
    q, k, v = (random(2, tokens, 6, dtype=DOUBLE, seed=i).requires_grad_() for i, tokens in enumerate((5, keys, keys)))
    how: dict[str, Any] = {"heads": 3, "causal": causal}
    torch.testing.assert_close(scores.plain(q, k, v, **how), fused(q, k, v, **how), rtol=1e-6, atol=1e-6)
    ours, theirs = (torch.autograd.grad(mix(q, k, v, **how).square().sum(), (q, k, v)) for mix in (scores.plain, fused))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def checked(function: Callable[..., Tensor], *inputs: Tensor, layers: Sequence[LoraLayer] = ()) -> None:
    """gradcheck of what goes in, and of the layers' downs and ups, whose gradients are added beside autograd."""
    assert gradcheck(function, inputs)
    for layer in layers:
        pair = layer.pair
        for weights, grad in ((pair.down, pair.down_grad), (pair.up, pair.up_grad)):
            grad.zero_()
            torch.autograd.backward(function(*inputs).square().sum())
            found, step = grad.clone(), 1e-5
            for place in (0, weights.numel() // 2):
                flat, values = weights.detach().view(-1), []
                for sign in (1, -1):
                    flat[place] += sign * step
                    values.append(float(function(*inputs).detach().square().sum()))
                    flat[place] -= sign * step
                expected = (values[0] - values[1]) / (2 * step)
                torch.testing.assert_close(float(found.view(-1)[place]), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variants", [1, 2])
@pytest.mark.parametrize("scale", [False, True])
def test_layers_of_one_input(variants: int, scale: bool) -> None:
    linears = [frozen(nn.Linear(4, out), DOUBLE) for out in (3, 5)]
    layers = [adapted(linear, rank, variants, scale=scale) for linear, rank in zip(linears, (2, 3), strict=True)]
    norm, x = frozen(nn.LayerNorm(4), DOUBLE), random(2, 3, 4, dtype=DOUBLE).requires_grad_()
    shortcut = random(2, 3, 3, dtype=DOUBLE, seed=9).requires_grad_()
    checked(lambda x, s: torch.cat(blocks.read(x, *layers, norm=norm, shortcut=s), dim=-1), x, shortcut, layers=layers)


@pytest.mark.parametrize("how", ["gated", "quick", "gelu"])
def test_a_feed_forward(how: Any) -> None:
    first, second = frozen(nn.Linear(4, 6), DOUBLE), frozen(nn.Linear(3 if how == "gated" else 6, 4), DOUBLE)
    layers = [adapted(first, 2, 2), adapted(second, 2, 2)]
    norm, x = frozen(nn.LayerNorm(4), DOUBLE), random(2, 3, 4, dtype=DOUBLE).requires_grad_()
    checked(lambda x: blocks.feed_forward(x, *layers, norm=norm, how=how), x, layers=layers)
    only = lambda x: blocks.feed_forward(x, first, layers[1], norm=norm, how=how)  # noqa: E731
    checked(only, x, layers=layers[1:])


def test_into_tokens_and_out_again() -> None:
    layers = [adapted(frozen(nn.Conv2d(4, 4, 1), DOUBLE), 2, 2) for _ in range(2)]
    norm = frozen(nn.GroupNorm(2, 4), DOUBLE)
    x = random(2, 4, 3, 2, dtype=DOUBLE).requires_grad_()

    def through(x: Tensor) -> Tensor:
        return blocks.leave(blocks.enter(x, layers[0], norm=norm), layers[1], shortcut=x)

    checked(through, x, layers=layers)


@pytest.mark.parametrize("outputs", [4, 6])
def test_a_resnet_is_the_resnet(outputs: int) -> None:
    block = frozen(Resnet(4, outputs, time=5, groups=2, eps=1e-5), DOUBLE)
    x, time = random(2, 4, 3, 2, dtype=DOUBLE).requires_grad_(), random(2, 5, dtype=DOUBLE)
    torch.testing.assert_close(blocks.resnet(x, block.time_emb_proj(time), block), block(x, time))
    told = block.time_emb_proj(time).requires_grad_()
    checked(lambda x, told: blocks.resnet(x, told, block), x, told)
    checked(lambda x: blocks.gated_norm(x, block.norm1), x)
    checked(lambda x: blocks.frozen(x, block.conv1), x)


def test_what_wants_no_gradient_costs_none() -> None:
    block = frozen(TransformerBlock(4, 2, 3, exact=False))
    x = random(2, 3, 4)
    (q,) = blocks.read(x, block.attn1.to_q, norm=block.norm1)
    assert not q.requires_grad
    layer = adapted(block.attn1.to_q, 2, 1)
    (q,) = blocks.read(x, layer, norm=block.norm1)
    torch.autograd.backward(q.sum())
    assert layer.pair.up_grad.abs().sum() > 0, "the first LoRA of a network: nothing before it asks"
