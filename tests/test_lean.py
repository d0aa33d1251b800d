"""What keeps less for the backward pass computes the same: frozen modules in `lean`, blocks that are computed again."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor

from graphs import kept_by
from small import fingerprint
from vez.base import Base, computing, computing_in, plain_attention
from vez.base.checkpointing import checkpointed
from vez.base.lean import large_tensors_apart, lean
from vez.bench.step import random_batch
from vez.bench.work import Workload
from vez.config import Checkpointing, Variant
from vez.dataset import Dataset
from vez.denoise import variant_losses
from vez.lora import LoraSet, LoraSpec, attach
from vez.nets.attention import Attention
from vez.nets.kernels import scores
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
def test_losses_and_gradients_are_the_same(random_base: Base, how: str, dtype: torch.dtype, first: str) -> None:
    """With LoRAs attached before or after, of two variants; what is computed again is the same bits."""

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
    if how == "lean":
        torch.testing.assert_close(lean_losses, losses, rtol=1e-5, atol=0)
        assert float((lean_grads - grads).norm()) < 1e-5 * float(grads.norm())
    else:
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
        with computing(random_base, torch.float32, pixels=1024, checkpointing=how):
            kept.append(gradients(random_base, lora)[2])
    lora.detach()
    assert sorted(kept, reverse=True) == kept
    assert kept[1] < 0.75 * kept[0], "without any checkpointing"
    assert kept[3] < 0.4 * kept[1]


def test_a_block_that_fails_inside_gives_everything_back(random_base: Base) -> None:
    with pytest.raises(KeyError), lean(random_base), checkpointed(random_base, "whole"):
        raise KeyError("an error inside changes nothing")
    assert not any("forward" in vars(m) for m in random_base.unet.modules())


def openly(q: Tensor, k: Tensor, v: Tensor, *, heads: int, **_: bool) -> Tensor:
    """Attention by the book, whose matrices autograd keeps."""
    q, k, v = (one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in (q, k, v))
    return ((q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1) @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("largest", [1, 2**22])
def test_plain_attention_keeps_no_matrices(
    random_base: Base, dtype: torch.dtype, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "_KEPT", 0)
    monkeypatch.setattr(scores, "_AT_ONCE", largest)  # 1: every head alone
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
