"""A base kept in eight bits: what a weight loses, and that nothing else is different."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graphs import kept_by
from vez import base as bases
from vez.base import Base, computing
from vez.config import Variant
from vez.dataset import Dataset
from vez.denoise import Batch, variant_losses
from vez.errors import LoraFileError
from vez.events import Done, Event, Step, Validated
from vez.interop import LoraWeights, load_kohya, merge
from vez.lora import LoraSpec, attach
from vez.nets.clip import Embeddings
from vez.nets.coded import Coded, coded, coded_modules, decoded
from vez.shape import Part, modules_of
from vez.store import open_artifact
from vez.train import train

LINEAR = LoraSpec(4, 4)
CONV = LoraSpec(4, 4, conv=Part(2, 2.0), resnets=True)


@given(seed=st.integers(0, 2**16), size=st.floats(1e-6, 1e3), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
@settings(max_examples=30, deadline=None)
def test_no_weight_is_off_by_more_than_half_a_scale(seed: int, size: float, dtype: torch.dtype) -> None:
    weight = size * torch.randn(7, 5, 3, 3, generator=torch.Generator().manual_seed(seed))
    weight[2] = 0
    codes, scale = coded(weight.to(dtype))
    exact = weight.to(dtype).float()
    off = (decoded(codes, scale, torch.float32) - exact).abs()
    assert (off <= scale.float() * 0.5001).all()
    assert (scale.flatten()[[0, 1, 3]] <= exact.abs().amax((1, 2, 3))[[0, 1, 3]] / 127 * (1 + 2**-7)).all()
    assert not decoded(codes, scale, torch.float32)[2].any()
    assert codes.min() >= -127, "a code of -128 would have no opposite"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_smaller_format_has_the_same_weight_rounded_once(dtype: torch.dtype) -> None:
    codes, scale = coded(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(decoded(codes, scale, dtype), decoded(codes, scale, torch.float32).to(dtype))


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def pair(request: pytest.FixtureRequest, family_folders: dict[str, Path]) -> Iterator[tuple[Base, Base]]:
    """A base in eight bits; and one in fp32 whose weights are those that the codes stand for."""
    folder = str(family_folders[request.param])
    kept, same = bases.load(folder, quantize="int8"), bases.load(folder)
    for mine, theirs in zip(_networks(kept), _networks(same), strict=True):
        found = dict(mine.named_modules())
        for name, module in theirs.named_modules():
            if isinstance(found[name], Coded):
                weight: Any = found[name].weight
                module.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    yield kept, same


def _networks(base: Base) -> tuple[nn.Module, ...]:
    return (base.unet, *base.text_encoders)


def _batch(base: Base, *, variants: int) -> Batch:
    dice = torch.Generator().manual_seed(1)
    latents, noise = torch.randn(2, 2, 4, 16, 16, generator=dice)
    words = 77 * len(base.text_encoders)
    tokens = torch.randint(0, 300, (2, words), generator=dice).repeat(variants, 1)
    sizes = torch.tensor([[128.0, 128, 0, 0, 128, 128]] * 2) if base.family.pooled else None
    return Batch(latents, noise, torch.tensor([100, 800]), tokens=tokens, sizes=sizes)


def _step(base: Base, *, dtype: torch.dtype = torch.float32, specs: Any = (LINEAR,), how: Any = None) -> Any:
    """Losses and the LoRAs' gradients of one step, ups being no longer zero."""
    how = {"checkpointing": "none", "pixels": 128} | (how or {})
    with ExitStack() as stack:
        stack.enter_context(computing(base, dtype, **how))
        lora = attach(base, specs, seed=0)
        stack.callback(lora.detach)
        dice = torch.Generator().manual_seed(2)
        for s in lora.segments:
            for v, part in enumerate(s.parts):
                if part is not None:
                    up = lora.params.detach()[v, s.up].view(s.outputs, s.rank)[:, : part.rank]
                    up.copy_(0.05 * torch.randn(up.shape, generator=dice))
        losses = variant_losses(base, _batch(base, variants=len(specs)), variants=len(specs))
        losses.sum().backward()  # type: ignore[no-untyped-call]
        return losses.detach(), lora.grads.clone()


@pytest.mark.parametrize("checkpointing", ["none", "selective", "whole"])
@pytest.mark.parametrize("specs", [(LINEAR,), (LINEAR, LoraSpec(2, 2)), (CONV,)], ids=["1", "2", "conv"])
def test_a_step_is_that_of_the_weights_that_the_codes_stand_for(
    pair: tuple[Base, Base], checkpointing: str, specs: Any
) -> None:
    (losses, grads), (others, theirs) = (_step(b, specs=specs, how={"checkpointing": checkpointing}) for b in pair)
    assert torch.allclose(losses, others, rtol=1e-6, atol=0)
    # Layers without a LoRA are multiplied by another library in the other base: rounding, about 2e-6.
    assert float((grads - theirs).norm()) <= 5e-6 * float(theirs.norm())
    again = _step(pair[0], specs=specs, how={"checkpointing": checkpointing})
    assert torch.equal(again[0], losses) and torch.equal(again[1], grads)


def test_in_half_precision_too_and_afterwards_the_weights_are_as_before(pair: tuple[Base, Base]) -> None:
    before = [module.weight for module in coded_modules(*_networks(pair[0]))]
    (losses, grads), (others, theirs) = (_step(b, dtype=torch.bfloat16) for b in pair)
    assert torch.allclose(losses, others, rtol=1e-2)
    assert float((grads - theirs).norm()) <= 1e-2 * float(theirs.norm())
    after = [module.weight for module in coded_modules(*_networks(pair[0]))]
    assert all(one.dtype == torch.float32 and torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_what_lies_in_the_blocks_is_in_eight_bits_and_nothing_else_is(pair: tuple[Base, Base]) -> None:
    kept, same = pair
    inside = 0
    for mine, theirs in zip(_networks(kept), _networks(same), strict=True):
        for name, module in theirs.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                found: Any = mine.get_submodule(name)
                blocks = ("down_blocks.", "mid_block.", "up_blocks.", "encoder.layers.", "text_model.encoder.layers.")
                assert isinstance(found, Coded) == name.startswith(blocks), name
                assert found.bias is None or torch.equal(found.bias, module.bias)
                inside += isinstance(found, Coded)
        for module in mine.modules():
            assert not isinstance(module, Embeddings) or module.token_embedding.weight.dtype == torch.float32
    assert inside
    for module in coded_modules(*_networks(kept)):
        assert module.codes.dtype == torch.int8 and not list(module.parameters(recurse=False))[1:]
    targets = modules_of(kept.layout, CONV)
    assert targets, "and every module that a LoRA adapts is one of them, or attach would have refused"


@pytest.mark.parametrize("specs", [(LINEAR,), (CONV,)], ids=["linear", "conv"])
def test_autograd_keeps_no_weight_that_was_made(pair: tuple[Base, Base], specs: Any) -> None:
    """So much lies in memory between the passes as with weights as they are, which are not counted."""
    kept = []
    for base in pair:
        with ExitStack() as stack:
            stack.enter_context(computing(base, torch.float32, pixels=128))
            lora = attach(base, specs, seed=0)
            stack.callback(lora.detach)
            own = {p.untyped_storage().data_ptr() for n in _networks(base) for p in n.parameters()}
            own |= {m.codes.untyped_storage().data_ptr() for m in coded_modules(*_networks(base))}
            own |= {lora.params.untyped_storage().data_ptr()}
            loss = variant_losses(base, _batch(base, variants=1), variants=1).sum()
            kept.append(kept_by(loss.grad_fn, own))
    smallest = min(m.codes.numel() for m in coded_modules(*_networks(pair[0])))
    assert abs(kept[0] - kept[1]) < 4 * smallest, "an input of a small layer at most"


def test_no_lora_is_merged_into_it(pair: tuple[Base, Base]) -> None:
    base = pair[0]
    key, (target, _) = next(iter(modules_of(base.layout, LoraSpec(2, 2)).items()))
    lora = attach(base, [LoraSpec(2, 2)], seed=0)
    state = lora.state(0)
    lora.detach()
    assert key in state and isinstance(state[key], LoraWeights) and target
    with pytest.raises(LoraFileError, match="no weight to merge into"):
        merge(base, state)


def test_the_peak_at_loading_is_that_of_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a weight is read, all before it are in eight bits already."""
    from vez.nets import weights

    alive: list[int] = []
    network: list[nn.Module] = []
    real = weights.code

    def seen(made: nn.Module) -> None:
        network.append(made)
        real(made)

    monkeypatch.setattr(weights, "code", seen)
    take = Coded.take

    def taking(self: Coded, weight: Tensor) -> None:
        own = [p for p in network[-1].parameters() if not p.is_meta]
        done = [m.codes for m in coded_modules(network[-1]) if m.codes is not None and not m.codes.is_meta]
        alive.append(sum(p.nbytes for p in own) + sum(codes.nbytes for codes in done))
        take(self, weight)

    monkeypatch.setattr(Coded, "take", taking)
    base = bases.load("tiny", quantize="int8")
    whole = sum(p.numel() for p in bases.load("tiny").unet.parameters())
    assert len(list(coded_modules(*_networks(base)))) == len(alive)
    assert max(alive) < 0.5 * 4 * whole


def _train(base: Base, dataset: Dataset, into: Path, *, steps: int = 6, **rest: Any) -> Iterator[Event]:
    return train(base, dataset, {"v1": VARIANT}, seed=0, steps=steps, into={"v1": into / "v1"}, **rest)


def _lora(into: Path) -> bytes:
    return (into / "v1" / "lora.safetensors").read_bytes()


VARIANT = Variant(dataset="tiny", batch=2, rank=4, lr_unet=1e-3, lr_text=5e-4)
NEAR = 0.01
"""How far losses may be from those without it, of their own size."""


def test_it_learns_what_it_learns_without(random_base_folder: Path, tiny_dataset: Dataset, tmp_path: Path) -> None:
    found = []
    for how in ("none", "int8"):
        base = bases.load(str(random_base_folder), quantize=how)
        events = list(_train(base, tiny_dataset, tmp_path / how, steps=12, validate_every=12))
        found.append([e.loss for e in events if isinstance(e, Step | Validated)])
    assert found[1] == pytest.approx(found[0], rel=NEAR)
    assert found[0] != found[1]
    states = [load_kohya(tmp_path / how / "v1" / "lora.safetensors")[0] for how in ("none", "int8")]
    assert states[0].keys() == states[1].keys()
    ups = [torch.cat([state[key].up.flatten() for key in states[0]]) for state in states]
    assert float(torch.cosine_similarity(*ups, dim=0)) > 0.9


def test_it_is_another_run_and_a_cut_one_ends_in_the_same_bits(
    random_base_folder: Path, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    base, plain = (bases.load(str(random_base_folder), quantize=how) for how in ("int8", "none"))
    done = list(_train(base, tiny_dataset, tmp_path / "whole"))[-1]
    assert isinstance(done, Done)
    events = _train(base, tiny_dataset, tmp_path / "cut", checkpoint_seconds=0)
    for event in events:
        if isinstance(event, Step) and event.step == 3:
            break
    events.close()  # type: ignore[attr-defined]
    again = list(_train(base, tiny_dataset, tmp_path / "cut", checkpoint_seconds=0))
    assert next(e.step for e in again if isinstance(e, Step)) > 1
    assert _lora(tmp_path / "cut") == _lora(tmp_path / "whole")
    artifact = open_artifact(tmp_path / "whole" / "v1")
    assert artifact.config["quantize"] == "int8"
    assert artifact.parents["base"] == plain.sha256, "its identity is the base's that it is drawn with"
    other = list(_train(plain, tiny_dataset, tmp_path / "none"))[-1]
    assert isinstance(other, Done) and other.id != done.id
    assert "quantize" not in open_artifact(tmp_path / "none" / "v1").config
    assert "int8" in base.described and "int8" not in plain.described
