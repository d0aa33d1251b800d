"""Training in fp16: the loss's scale, what an overflow does, and that a cut run goes on from it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from small import fingerprint
from test_train import losses, run, variant
from vez import scaling
from vez.base import Base
from vez.config import Sampling
from vez.dataset import Dataset
from vez.errors import RunStopped, TrainError
from vez.events import Event, Note, Step
from vez.interop import load_kohya
from vez.preflight import preflight
from vez.scaling import LossScale
from vez.train import train


def notes(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note)]


def norms(events: list[Event], name: str = "v1-0") -> list[float]:
    return [event.grad_norm for event in events if isinstance(event, Step) and event.run == name]


def test_losses_are_near_those_of_fp32(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    before = fingerprint(random_base)
    full = run(random_base, tiny_dataset, tmp_path / "fp32")
    half = run(random_base, tiny_dataset, tmp_path / "fp16", precision="fp16")
    assert losses(half) != losses(full) and losses(half) == pytest.approx(losses(full), rel=2e-3)
    assert norms(half) == pytest.approx(norms(full), rel=2e-2) and not notes(half)
    assert random_base.dtype == torch.float32 and fingerprint(random_base) == before
    with safe_open(tmp_path / "fp16" / "v1" / "lora.safetensors", framework="pt") as opened:
        assert opened.metadata()["ss_mixed_precision"] == "fp16"


def test_a_gradient_too_small_for_fp16_is_kept(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    """Without a scale most numbers of the backward pass are below fp16's smallest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling, "FIRST", 2.0**-20)
        lost = run(random_base, tiny_dataset, tmp_path / "lost", steps=1, precision="fp16")
    kept = run(random_base, tiny_dataset, tmp_path / "kept", steps=1, precision="fp16")
    assert norms(lost)[0] < 0.9 * norms(kept)[0]


def test_an_overflow_leaves_out_an_update_and_goes_on(
    random_base: Base, tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "FIRST", 2.0**23)
    events = run(random_base, tiny_dataset, tmp_path / "planted", steps=6, precision="fp16")
    missed = [text for text in notes(events) if "overflowed fp16" in text]
    assert 0 < len(missed) < 6 and len(losses(events)) == 6
    state, _ = load_kohya(tmp_path / "planted" / "v1" / "lora.safetensors")
    assert all(bool(weights.up.isfinite().all()) for weights in state.values())
    assert any(bool(weights.up.any()) for weights in state.values()), "it learned afterwards"


def test_one_variants_overflow_leaves_the_others_bits(
    random_base: Base, tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = {"v1": variant(), "v2": variant(rank=8)}
    calm = run(random_base, tiny_dataset, tmp_path / "calm", variants=variants, precision="fp16")
    assert not notes(calm)

    def planted(count: int) -> LossScale:
        made = LossScale(count)
        made.scales[1] = 2.0**22
        return made

    monkeypatch.setattr("vez.learner.LossScale", planted)
    together = run(random_base, tiny_dataset, tmp_path / "both", variants=variants, precision="fp16")
    assert notes(together) and all(text.startswith("v2-0") for text in notes(together))
    assert losses(together) == losses(calm) and losses(together, "v2-0") != losses(calm, "v2-0")
    files = [(tmp_path / name / "v1" / "lora.safetensors") for name in ("both", "calm")]
    one, other = (load_kohya(file)[0] for file in files)
    assert all(torch.equal(one[key].up, other[key].up) for key in one)


def test_what_overflows_unscaled_stops(
    random_base: Base, tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "FIRST", 2.0**40)
    monkeypatch.setattr(scaling, "SMALLEST", 2.0**38)
    with pytest.raises(RunStopped, match="stopped at step 3: the norm of the gradient is not finite"):
        run(random_base, tiny_dataset, tmp_path, precision="fp16")


def _cut(base: Base, dataset: Dataset, into: Path, *, after: int, **rest: Any) -> None:
    running = train(
        base,
        dataset,
        {"v1": variant(ema=0.9)},
        seed=0,
        steps=6,
        into={"v1": into / "v1"},
        checkpoint_seconds=0.0,
        **rest,
    )
    for event in running:
        if isinstance(event, Step) and event.step == after + 1:
            running.close()
            break


@pytest.mark.parametrize("after", [1, 4])
def test_a_cut_run_ends_in_the_same_bytes(
    after: int, random_base: Base, tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "FIRST", 2.0**23)  # the first updates are missed: scale and count must be gone on from
    monkeypatch.setattr(scaling, "GROW_AFTER", 2)
    variants = {"v1": variant(ema=0.9)}
    whole = run(random_base, tiny_dataset, tmp_path / "whole", steps=6, variants=variants, precision="fp16")
    _cut(random_base, tiny_dataset, tmp_path / "cut", after=after, precision="fp16")
    rest = run(random_base, tiny_dataset, tmp_path / "cut", steps=6, variants=variants, precision="fp16")
    assert f"goes on after step {after}" in notes(rest) and "overflowed" in "".join(notes(whole))
    one, other = ((tmp_path / name / "v1" / "lora.safetensors").read_bytes() for name in ("whole", "cut"))
    assert one == other


def test_preflight_finds_the_scale(random_base: Base, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "FIRST", 2.0**22)
    events = list(
        preflight(random_base, tiny_dataset, {"v1": variant()}, precision="fp16", sampling=Sampling(steps=2, size=64))
    )
    assert "all is well" in notes(events)[-1]


def test_a_scale_halves_grows_and_reads_back() -> None:
    scale = LossScale(2)
    assert scale.scales == [65536.0, 65536.0]
    assert scale.overflowed(0) and scale.scales == [32768.0, 65536.0]
    for _ in range(scaling.GROW_AFTER):
        scale.updated(1)
    assert scale.scales[1] == 131072.0 and scale.since == [0, 0]
    other = LossScale(2)
    other.load(1, scale.text(1))
    assert (other.scales[1], other.since[1]) == (131072.0, 0)
    for _ in range(15):
        assert scale.overflowed(0)
    assert scale.scales[0] == 1.0 and not scale.overflowed(0)
    with pytest.raises(TrainError, match="does not read back"):
        other.load(0, "many")
