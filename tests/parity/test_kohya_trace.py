"""Five AdamW steps of kohya's own LoRA network, recorded elsewhere: the same losses and weights must come out."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vez import base as bases
from vez import interop, lora
from vez.base import Base
from vez.denoise import Batch, variant_losses
from vez.optim import AdamW, Rates

SHARED = Path(os.environ.get("VEZ_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data")) / "kohya"
TRACE = SHARED / "dim8-alpha8"
pytestmark = pytest.mark.skipif(not TRACE.is_dir(), reason="the kohya trace is not here (VEZ_SHARED_DATA)")


@pytest.fixture(scope="module")
def sd1_small() -> Base:
    return bases.load(str(SHARED / "sd1-small"))


@pytest.fixture
def attached(sd1_small: Base) -> Iterator[lora.LoraSet]:
    state, _ = interop.load_kohya(TRACE / "lora_step0.safetensors")
    loras = lora.attach(sd1_small, [lora.LoraSpec(8, 8.0)], seed=0)
    loras.load_state(0, state)
    yield loras
    loras.detach()


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm().clamp(min=1e-12))


def batch(step: int) -> Batch:
    inputs = load_file(TRACE / "inputs.safetensors")
    return Batch(inputs["latents"][step], inputs["noise"][step], inputs["timesteps"][step], inputs["input_ids"])


def test_prediction_before_training(sd1_small: Base, attached: lora.LoraSet) -> None:
    inputs = load_file(TRACE / "inputs.safetensors")
    state, _ = interop.load_kohya(TRACE / "lora_step5.safetensors")
    attached.load_state(0, state)
    with torch.no_grad():
        assert difference(bases.condition(sd1_small, inputs["input_ids"]).states, inputs["text_after"]) < 1e-5


def test_first_gradient(sd1_small: Base, attached: lora.LoraSet) -> None:
    variant_losses(sd1_small, batch(0), variants=1).sum().backward()
    theirs = load_file(TRACE / "grad_step1.safetensors")
    for key, (down, up) in attached.rows(attached.grads, 0).items():
        assert difference(up, theirs[f"{key}.lora_up.weight"].flatten(1)) < 1e-4, key
        assert torch.equal(down, theirs[f"{key}.lora_down.weight"].flatten(1)), key  # zero: up starts at zero


def test_five_steps(sd1_small: Base, attached: lora.LoraSet) -> None:
    trace = json.loads((TRACE / "trace.json").read_text())
    optimizer = AdamW(attached)
    losses, norms = [], []
    for step in range(5):
        loss = variant_losses(sd1_small, batch(step), variants=1)
        loss.sum().backward()
        norm = optimizer.norms()
        optimizer.step([Rates(unet=trace["lr_unet"], text=trace["lr_te"])], norm)
        losses.append(loss.item())
        norms.append(norm.item())
    assert losses == pytest.approx(trace["loss"], rel=1e-5)
    assert norms == pytest.approx(trace["grad_norm"], rel=1e-5)
    theirs, _ = interop.load_kohya(TRACE / "lora_step5.safetensors")
    ours = attached.state(0)
    assert ours.keys() == theirs.keys()
    down, up = ((_flat(ours, part), _flat(theirs, part)) for part in ("down", "up"))
    assert difference(*down) < 1e-5
    # Adam divides a gradient by its own size, so where it is nearly zero (1 % of these) its rounding becomes a step:
    # kohya's own formula, run with torch's modules on another processor than the trace's, comes to 8e-5 as well.
    assert difference(*up) < 2e-4
    off = (up[0] - up[1]).abs() / up[1].abs().clamp(min=1e-12)
    assert off.median() < 1e-5 and (off < 1e-4).float().mean() > 0.95


def _flat(state: interop.LoraState, part: str) -> torch.Tensor:
    return torch.cat([getattr(state[key], part).flatten() for key in sorted(state)])
