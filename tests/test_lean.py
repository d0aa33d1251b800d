"""What keeps less for the backward pass computes the same: frozen modules in `lean`, blocks that are computed again."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from graphs import kept_by
from small import fingerprint
from vez.base import Base, attention, computing, computing_in, plain_attention
from vez.base.checkpointing import checkpointed
from vez.base.lean import _again, _convolution, _norm, _Pantry, large_tensors_apart, lean
from vez.bench.step import random_batch
from vez.bench.work import Workload
from vez.config import Checkpointing, Variant
from vez.dataset import Dataset
from vez.denoise import variant_losses
from vez.lora import LoraSet, LoraSpec, attach
from vez.nets.attention import Attention
from vez.train import train

SPECS = (LoraSpec(4, 4), LoraSpec(2, 1))


def gradients(base: Base, lora: LoraSet, *, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, int]:
    """Losses and gradients of one step, and the bytes that its forward pass keeps besides weights."""
    batch = random_batch(base, Workload(base="tiny", size=64, batch=2, ranks=tuple(s.rank for s in lora.specs)))
    batch = batch.__class__(**(vars(batch) | {"tokens": batch.tokens % 300 if batch.tokens is not None else None}))
    weights = {p.untyped_storage().data_ptr() for n in (base.unet, *base.text_encoders) for p in n.parameters()}
    weights.add(lora.params.untyped_storage().data_ptr())
    losses = variant_losses(base, batch, variants=len(lora.specs))
    kept = kept_by(losses.grad_fn, weights)
    lora.grads.zero_()
    losses.sum().backward()  # type: ignore[no-untyped-call]
    return losses.detach(), lora.grads.clone(), kept


def warm(lora: LoraSet) -> None:
    """Ups that are not zero, so that every gradient is one."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        lora.params.add_(torch.randn(lora.params.shape, generator=generator), alpha=0.02)


@pytest.mark.parametrize("how", ["lean", "selective", "whole"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("first", ["LoRAs", "blocks"])
def test_losses_and_gradients_are_the_same_bits(random_base: Base, how: str, dtype: torch.dtype, first: str) -> None:
    """With LoRAs attached before or after, of two variants; a prior pass through a block changes nothing."""

    def blocks(on: bool) -> AbstractContextManager[None]:
        if how == "lean" or not on:
            return lean(random_base) if on else nullcontext()
        return computing(random_base, dtype, pixels=1024, checkpointing=how)  # type: ignore[arg-type]

    before = fingerprint(random_base)
    results = []
    for on in (False, True):
        with computing(random_base, dtype, pixels=1024) if how != "lean" and not on else nullcontext():
            if first == "LoRAs":
                lora = attach(random_base, SPECS, seed=0)
                warm(lora)
                with blocks(on):
                    results.append(gradients(random_base, lora))
                lora.detach()
            else:
                with blocks(on):
                    lora = attach(random_base, SPECS, seed=0)
                    warm(lora)
                    results.append(gradients(random_base, lora))
                    lora.detach()
    (losses, grads, kept), (lean_losses, lean_grads, lean_kept) = results
    assert torch.equal(losses, lean_losses)
    assert torch.equal(grads, lean_grads)
    assert float(grads.abs().max()) > 0
    assert lean_kept < 0.9 * kept
    assert fingerprint(random_base) == before
    assert not any("forward" in vars(m) for n in (random_base.unet, random_base.text_encoder) for m in n.modules())


def test_each_step_keeps_less_than_the_one_before_it(random_base: Base) -> None:
    lora = attach(random_base, SPECS, seed=0)
    kept = [gradients(random_base, lora)[2]]
    levels: tuple[Checkpointing, ...] = ("none", "selective", "whole")
    for how in levels:
        with computing(random_base, torch.float32, pixels=64, checkpointing=how):
            kept.append(gradients(random_base, lora)[2])
    lora.detach()
    assert sorted(kept, reverse=True) == kept
    assert kept[1] < 0.75 * kept[0], "without any checkpointing"
    assert kept[3] < 0.4 * kept[1]


def test_a_block_that_fails_inside_gives_everything_back(random_base: Base) -> None:
    with pytest.raises(KeyError), lean(random_base), checkpointed(random_base, "whole"):
        raise KeyError("an error inside changes nothing")
    assert not any("forward" in vars(m) for m in random_base.unet.modules())


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.Conv2d(3, 4, 1, bias=False),
        nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2),
    ],
)
def test_a_frozen_convolution_is_the_convolution(conv: nn.Conv2d) -> None:
    conv = conv.double().requires_grad_(False)
    x = torch.randn(2, conv.in_channels, 7, 6, dtype=torch.float64, requires_grad=True)
    run = _convolution(conv)
    assert gradcheck(run, (x,))
    ours, theirs = run(x), conv(x)
    assert torch.equal(ours, theirs)
    dy = torch.randn_like(ours)
    assert torch.equal(torch.autograd.grad(ours, x, dy)[0], torch.autograd.grad(theirs, x, dy)[0])


def test_a_gate_computed_again_is_the_gate() -> None:
    x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: _again(lambda y: y[:, :4] * torch.sigmoid(y[:, 4:]), x, _Pantry()), (x,))


def test_a_norms_result_is_made_again_for_every_reader_and_only_while_it_is_that() -> None:
    pantry, norm = _Pantry(), nn.LayerNorm(5).requires_grad_(False)
    x = torch.randn(4, 5, requires_grad=True)
    y = _norm(norm, pantry)(x)
    kept = [pantry.pack(y), pantry.pack(y.view(2, 10)), pantry.pack(y.mT)]
    assert not any(isinstance(one, Tensor) for one in kept)
    for one, shape in zip(kept, ((4, 5), (2, 10), (5, 4)), strict=True):
        assert pantry.unpack(one).shape == shape
    assert torch.equal(pantry.unpack(kept[2]), y.detach().mT), "a second backward pass"
    with torch.no_grad():
        y += 1
    assert pantry.pack(y) is y, "changed since: no longer the norm's result"
    del y
    assert not pantry.known


def openly(q: Tensor, k: Tensor, v: Tensor, *, heads: int, **_: bool) -> Tensor:
    """Attention by the book, whose matrices autograd keeps."""
    q, k, v = (one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in (q, k, v))
    return ((q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1) @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("largest", [1, 2**22])
def test_plain_attention_keeps_no_matrices(
    random_base: Base, dtype: torch.dtype, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_LARGEST", largest)  # 1: every head alone
    lora = attach(random_base, SPECS, seed=0)
    warm(lora)
    results = []
    with computing_in(random_base, dtype), plain_attention(random_base):
        results.append(gradients(random_base, lora))
        for module in random_base.unet.modules():
            if isinstance(module, Attention):
                module.mix = openly
        results.append(gradients(random_base, lora))
    lora.detach()
    (losses, grads, kept), (theirs, their_grads, more) = results
    close = {"rtol": 1e-5, "atol": 1e-7} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 1e-3}
    torch.testing.assert_close(losses, theirs, **close)
    torch.testing.assert_close(grads, their_grads, **close)
    assert kept < more


@pytest.mark.parametrize("how", ["selective", "whole"])
def test_a_run_is_the_same_file_with_blocks_computed_again(
    random_base: Base, tiny_dataset: Dataset, tmp_path: Path, how: Checkpointing
) -> None:
    """Dropout in the LoRAs asks for the same masks again; and it is the same run, which is found and not made anew."""
    variants = {"a": Variant(dataset="v1", batch=2, rank=4, dropout=0.2, module_dropout=0.2)}

    def files(folder: Path, checkpointing: Checkpointing) -> Sequence[object]:
        return list(train(random_base, tiny_dataset, variants, seed=1, steps=3, into={"a": folder / "a"},
                          checkpointing=checkpointing))  # fmt: skip

    files(tmp_path / "none", "none")
    files(tmp_path / how, how)
    one, other = ((tmp_path / name / "a" / "lora.safetensors").read_bytes() for name in ("none", how))
    assert one == other
    assert len(files(tmp_path / "none", how)) == 1, "done already: how it is computed is no part of what it is"


def test_large_tensors_are_mappings_where_the_c_library_is_glibc() -> None:
    assert large_tensors_apart() in (True, False)
    assert torch.zeros(2**20).sum() == 0
