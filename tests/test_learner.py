"""Optimizers by name, LoRA+, held norms, averages: each does what it says, and a cut run ends in the same bits."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from test_train import lora, losses, run, variant
from vez.base import Base
from vez.config import Variant
from vez.dataset import Dataset
from vez.dropout import Dropout
from vez.errors import ConfigError, MissingExtra, RunStopped, TrainError
from vez.events import Event, Note, Step
from vez.interop import load_kohya
from vez.learner import Learner, rates_of
from vez.lora import LoraSet, LoraSpec, attach
from vez.shape import spec_of
from vez.train import train

ADAFACTOR = {"optimizer": "torch.optim.Adafactor", "optimizer_args": {"d": 2.0}}
MOMENTUM = {"optimizer": "torch.optim.SGD", "optimizer_args": {"momentum": 0.9}, "lr_unet": 0.1, "lr_text": 0.1}
needs_prodigy = pytest.mark.skipif(not find_spec("prodigyopt"), reason="prodigyopt is not installed")
needs_schedulefree = pytest.mark.skipif(not find_spec("schedulefree"), reason="schedulefree is not installed")
needs_bitsandbytes = pytest.mark.skipif(not find_spec("bitsandbytes"), reason="bitsandbytes is not installed")
EIGHT_BITS = {"optimizer": "adamw8bit", "optimizer_args": {"min_8bit_size": 16}}  # else small tensors stay fp32
PRODIGY = {"optimizer": "prodigy", "lr_unet": 1.0, "lr_text": 1.0, "optimizer_args": {"d_coef": 2.0, "slice_p": 1}}


def cut_after(step: int, base: Base, dataset: Dataset, into: Path, variants: dict[str, Variant], **rest: Any) -> None:
    folders = {name: into / name for name in variants}
    running = train(base, dataset, variants, seed=0, into=folders, checkpoint_seconds=0.0, **rest)
    for event in running:
        if isinstance(event, Step) and event.step == step + 1:
            running.close()
            return
    raise AssertionError("the run ended before it was cut")


def a_set(base: Base, *variants: Variant) -> tuple[LoraSet, Learner]:
    """The variants' LoRAs with weights of their own, detached, and what learns them."""
    specs = [spec_of(v) for v in variants]
    made = attach(base, specs, seed=0)
    made.detach()
    generator = torch.Generator().manual_seed(2)
    for v in range(len(variants)):
        for _, up in made.rows(made.params.detach(), v).values():
            up.copy_(torch.randn(up.shape, generator=generator) * 0.01)
    return made, Learner(made, variants)


def take_steps(made: LoraSet, learner: Learner, *, steps: int) -> list[torch.Tensor]:
    """The weights, (V, P), after each of some steps with random gradients, the same for every row of equal shape."""
    generator, found = torch.Generator().manual_seed(1), []
    for step in range(steps):
        made.grads.copy_(torch.randn(made.grads.shape[1], generator=generator).expand_as(made.grads))
        learner.step([rates_of(v, step, steps=steps) for v in learner.variants], learner.norms(), stopped=())
        found.append(made.params.detach().clone())
    return found


def test_torch_s_adamw_by_name_is_ours(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    args = {"betas": [0.8, 0.95], "eps": 1e-6}
    variants = {
        "ours": variant(optimizer_args=args, warmup=2),
        "theirs": variant(optimizer="torch.optim.AdamW", optimizer_args=args, warmup=2),
        "plain": variant(warmup=2),
    }
    events = run(random_base, tiny_dataset, tmp_path, steps=5, variants=variants)
    assert losses(events, "ours-0") == pytest.approx(losses(events, "theirs-0"), rel=1e-6)
    assert losses(events, "ours-0")[-1] != losses(events, "plain-0")[-1]


def test_a_foreign_optimizer_of_a_smaller_rank_beside_a_larger(random_base: Base) -> None:
    """Its parameters are then views with gaps, copied in and out."""
    small, large = variant(rank=2, optimizer="torch.optim.AdamW", clip_grad=0.5), variant(rank=5)
    made, learner = a_set(random_base, small, large)
    alone, one = a_set(random_base, variant(rank=2, clip_grad=0.5))
    assert not learner.foreign[0].leaves[1].is_view
    for v, (set_, learns) in enumerate([(made, learner), (alone, one)]):
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            for pair in set_.rows(set_.grads, 0).values():
                for grad in pair:
                    grad.copy_(torch.randn(grad.shape, generator=generator))
            learns.step([rates_of(x, step, steps=3) for x in learns.variants], learns.norms(), stopped=())
            learns.clear()
        assert not set_.grads.any(), v
    for key, (down, up) in made.rows(made.params.detach(), 0).items():
        other = alone.rows(alone.params.detach(), 0)[key]
        # the two sets' ups began apart: compare what the steps added
        torch.testing.assert_close(down, other[0], rtol=1e-6, atol=1e-7)
        assert up.any()


OPTIONS: dict[str, dict[str, Any]] = {
    "adafactor": ADAFACTOR,
    "momentum": MOMENTUM,
    "plus": {"lora_plus": 16.0},
    "ema": {"ema": 0.6},
    "averaged-momentum": MOMENTUM | {"ema": 0.6},
    "norms": {"scale_weight_norms": 0.004},
    "root": {"rslora": True},
    "polynomial": {"schedule": "polynomial", "power": 2.0, "warmup": 0.2},
    "restarts": {"schedule": "cosine_with_restarts", "cycles": 2},
    "eight": {"rank": 8},
    "dropout": {"dropout": 0.3},
    "ranks": {"rank_dropout": 0.4, "rank": 3},
    "modules": {"module_dropout": 0.5},
}


@pytest.mark.parametrize("cut", [1, 4])
def test_cut_runs_of_every_option_end_in_the_same_bits(
    cut: int, random_base: Base, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    extra = {"prodigy": PRODIGY} if find_spec("prodigyopt") else {}
    extra |= {"bits": EIGHT_BITS} if find_spec("bitsandbytes") else {}
    extra |= {"free": {"optimizer": "schedulefree"}} if find_spec("schedulefree") else {}
    variants = {name: variant(accumulate=2, **({"rank": 2} | option)) for name, option in (OPTIONS | extra).items()}
    rest = {"steps": 5, "save_every": 2, "validate_every": 3}
    run(random_base, tiny_dataset, tmp_path / "whole", variants=variants, **rest)
    cut_after(cut, random_base, tiny_dataset, tmp_path / "cut", variants, **rest)
    events = run(random_base, tiny_dataset, tmp_path / "cut", variants=variants, **rest)
    assert Note(f"goes on after step {cut}") in events
    for name in variants:
        assert lora(tmp_path / "cut", name) == lora(tmp_path / "whole", name), name
    plain = run(random_base, tiny_dataset, tmp_path / "plain", variants={"v1": variant(accumulate=2, rank=2)}, **rest)
    assert losses(plain)
    state, _ = load_kohya(tmp_path / "plain" / "v1" / "lora.safetensors")
    for name in variants:
        other, _ = load_kohya(tmp_path / "whole" / name / "lora.safetensors")
        assert any(not torch.equal(state[key].delta(), other[key].delta()) for key in state), f"{name} changes nothing"


@needs_schedulefree
def test_schedule_free_is_averaged_where_it_is_saved_and_only_there(
    random_base: Base, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    """Its own numbers, and looking does not disturb: with saving and validation at every step, the end is the same."""
    free = {"v1": variant(optimizer="schedulefree", rank=3)}
    run(random_base, tiny_dataset, tmp_path / "seldom", steps=4, variants=free)
    run(random_base, tiny_dataset, tmp_path / "often", steps=4, variants=free, save_every=1, validate_every=1)
    (one, _), (other, _) = (load_kohya(tmp_path / part / "v1" / "lora.safetensors") for part in ("seldom", "often"))
    assert all(torch.equal(one[key].up, other[key].up) and torch.equal(one[key].down, other[key].down) for key in one)

    import schedulefree

    made, learner = a_set(random_base, variant(optimizer="schedulefree", lr_unet=1e-2, lr_text=1e-2, clip_grad=0.0))
    mine = made.params.detach()[0].clone().requires_grad_()
    theirs = schedulefree.AdamWScheduleFree([mine], lr=1e-2, weight_decay=0.01)
    theirs.train()
    generator = torch.Generator().manual_seed(1)
    for step in range(4):
        gradient = torch.randn(made.grads.shape[1], generator=generator)
        made.grads[0].copy_(gradient)
        mine.grad = gradient.clone()
        learner.step([rates_of(learner.variants[0], step, steps=4)], learner.norms(), stopped=())
        theirs.step()
    trained = made.params.detach().clone()
    theirs.eval()
    with learner.as_saved():
        torch.testing.assert_close(made.params.detach()[0], mine.detach(), rtol=1e-5, atol=1e-6)
        assert not torch.equal(made.params.detach(), trained)
    assert torch.equal(made.params.detach(), trained)


@needs_bitsandbytes
def test_adamw_in_eight_bits_goes_where_adamw_goes(random_base: Base) -> None:
    """Its moments are kept in 8 bits, with a scale for each block; the way is AdamW's but for their rounding."""
    ways = {}
    for name, how in (("bits", EIGHT_BITS), ("plain", {"optimizer_args": {"min_8bit_size": 10**9}}), ("ours", {})):
        made, learner = a_set(random_base, variant(**({"optimizer": "adamw8bit"} | how if name != "ours" else {})))
        start = made.params.detach()[0].clone()
        ways[name] = take_steps(made, learner, steps=8)[-1][0] - start
        if name == "bits":
            states = [
                row
                for leaf in learner.foreign[0].leaves
                for row in [learner.foreign[0].optimizer.state[leaf.parameter]]
            ]
            assert all(row["state1"].dtype == row["state2"].dtype == torch.uint8 for row in states)
    away = {name: float((way - ways["ours"]).norm() / ways["ours"].norm()) for name, way in ways.items()}
    assert away["plain"] < 1e-4 and 1e-4 < away["bits"] < 0.1, away


@needs_prodigy
def test_prodigy_finds_its_own_rate(random_base: Base) -> None:
    made, learner = a_set(random_base, Variant(dataset="d", rank=2, **PRODIGY))
    before = made.params.detach().clone()
    for step in range(12):
        made.grads.copy_(
            torch.randn(made.grads.shape, generator=torch.Generator().manual_seed(3))
        )  # downhill is one way
        learner.step([rates_of(learner.variants[0], step, steps=12)], learner.norms(), stopped=())
    (group, *_) = learner.foreign[0].optimizer.param_groups
    assert group["d"] > group["d0"] and not torch.equal(made.params.detach(), before)


def test_ema_is_the_average_by_its_rule(random_base: Base) -> None:
    made, learner = a_set(random_base, variant(ema=0.5, lr_unet=1e-2))
    average = made.params.detach().clone()
    trained = take_steps(made, learner, steps=9)
    for n, weights in enumerate(trained):
        decay = min(0.5, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * weights
    with learner.as_saved():
        torch.testing.assert_close(made.params.detach(), average, rtol=1e-5, atol=1e-7)
    assert torch.equal(made.params.detach(), trained[-1])


def test_lora_plus_is_the_ratio_of_rates(random_base: Base) -> None:
    """Adam's first step moves a weight by the rate, whatever its gradient."""
    made, learner = a_set(random_base, variant(lora_plus=8.0, lr_unet=1e-3, lr_text=1e-4, weight_decay=0.0))
    before = made.params.detach().clone()
    take_steps(made, learner, steps=1)
    moved = made.rows((made.params.detach() - before).abs(), 0)
    networks = {segment.key: segment.network for segment in made.segments}
    for key, (down, up) in moved.items():
        rate = 1e-3 if networks[key] == "unet" else 1e-4
        assert float(down.median()) == pytest.approx(rate, rel=1e-2), key
        assert float(up.median()) == pytest.approx(8 * rate, rel=1e-2), key


def test_norms_are_held_as_kohya_holds_them(random_base: Base) -> None:
    held, free = variant(scale_weight_norms=0.05, alpha=8.0), variant(alpha=8.0)
    made, learner = a_set(random_base, held)
    other, unheld = a_set(random_base, free)
    take_steps(made, learner, steps=1)
    take_steps(other, unheld, steps=1)
    scaled = 0
    for key, weights in made.state(0).items():
        theirs = other.state(0)[key]
        norm = float(theirs.delta().norm())
        if norm <= 0.05:
            assert torch.equal(weights.up, theirs.up) and torch.equal(weights.down, theirs.down)
            continue
        scaled += 1
        ratio = (0.05 / norm) ** 0.5
        torch.testing.assert_close(weights.up, theirs.up * ratio, rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(weights.down, theirs.down * ratio, rtol=1e-5, atol=1e-8)
    assert scaled > 0


@pytest.mark.parametrize(("rank", "alpha"), [(2, None), (7, 3.0), (32, 16.0), (64, None), (100, 0.3)])
def test_rslora_s_scale_is_the_same_for_every_reader(rank: int, alpha: float | None) -> None:
    made = Variant(dataset="d", rank=rank, alpha=alpha, rslora=True)
    scale = made.scale_alpha / rank
    assert scale == pytest.approx((alpha or rank) / rank**0.5, rel=2**-8)
    for dtype in (torch.float16, torch.bfloat16):
        assert float(torch.tensor(made.scale_alpha).to(dtype)) == made.scale_alpha


def test_rslora_s_scale_is_that_of_the_training(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    run(random_base, tiny_dataset, tmp_path, steps=1, variants={"v1": variant(rank=9, alpha=6.0, rslora=True)})
    state, metadata = load_kohya(tmp_path / "v1" / "lora.safetensors")
    assert {weights.alpha for weights in state.values()} == {18.0} and float(metadata["ss_network_alpha"]) == 18.0


@pytest.mark.parametrize("shapes", [1, 2])
def test_accumulated_batches_are_one_larger(shapes: int, random_base: Base, tmp_path: Path) -> None:
    from small import make_dataset

    dataset = make_dataset(tmp_path / "dataset", shapes=((64, 64), (96, 64))[:shapes])
    whole = run(random_base, dataset, tmp_path / "4", steps=3, variants={"v1": variant(batch=4)})
    parts = run(random_base, dataset, tmp_path / "2x2", steps=3, variants={"v1": variant(batch=2, accumulate=2)})
    ones = run(random_base, dataset, tmp_path / "1x4", steps=3, variants={"v1": variant(batch=1, accumulate=4)})
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-5)
    assert losses(ones) == pytest.approx(losses(whole), rel=1e-5)
    _, metadata = load_kohya(tmp_path / "2x2" / "v1" / "lora.safetensors")
    assert (metadata["ss_gradient_accumulation_steps"], metadata["ss_total_batch_size"]) == ("2", "4")


def test_an_optimizer_whose_weights_are_not_finite_stops_with_those_it_had(
    random_base: Base, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    wild = variant(optimizer="torch.optim.SGD", lr_unet=3e38, lr_text=3e38, clip_grad=0.0, alpha=4e6)
    seen: list[Event] = []
    with pytest.raises(RunStopped, match=r"wild-0 stopped at step 1: an update of torch\.optim\.SGD is not finite"):
        seen += run(random_base, tiny_dataset, tmp_path, steps=3, variants={"good": variant(), "wild": wild})
    assert (tmp_path / "good" / "lora.safetensors").exists()
    state, _ = load_kohya(tmp_path / ".wild.partial" / "lora-000000.safetensors")
    assert all(torch.isfinite(w.down).all() and not w.up.any() for w in state.values())


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"optimizer": "nowhere.Such"}, ConfigError, "there is no module 'nowhere'"),
        ({"optimizer": "torch.optim.Nothing"}, ConfigError, "cannot be imported"),
        ({"optimizer": "torch.nn.Linear"}, ConfigError, "is not a torch.optim.Optimizer"),
        ({"optimizer": "torch.optim.SGD", "optimizer_args": {"speed": 3}}, ConfigError, "does not take .*speed"),
        ({"optimizer": "torch.optim.LBFGS"}, ConfigError, "does not take"),
    ],
)
def test_mistakes_about_optimizers(
    options: dict[str, Any], error: type[Exception], says: str, random_base: Base
) -> None:
    made = attach(random_base, [LoraSpec(2, 2.0)], seed=0)
    made.detach()
    with pytest.raises(error, match=says):
        Learner(made, [variant(**options)])


@pytest.mark.parametrize("name", ["adamw8bit", "prodigy", "schedulefree"])
def test_an_optimizer_that_is_not_installed(name: str, random_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    made = attach(random_base, [LoraSpec(2, 2.0)], seed=0)
    made.detach()
    for package in ("bitsandbytes", "bitsandbytes.optim", "prodigyopt", "schedulefree"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf'optimizer = "{name}" needs .*vez\[optim\]'):
        Learner(made, [variant(optimizer=name, lr_unet=1.0, lr_text=1.0)])


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer_args": {"lr": 1.0}},
        {"optimizer_args": {"weight_decay": 1.0}},
        {"optimizer_args": {"momentum": 1.0}},
        {"optimizer_args": {"betas": [0.9]}},
        {"optimizer_args": {"betas": [0.9, 1.0]}},
        {"optimizer": "adam w"},
        {"optimizer": "prodigy", "lr_unet": 1.0, "lr_text": 0.5},
        {"optimizer": "prodigy", "lr_unet": 1.0, "lr_text": 1.0, "lora_plus": 2.0},
        {"optimizer": "schedulefree", "ema": 0.9},
        {"warmup": 1.5},
        {"ema": 1.0},
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        variant(**options)


def test_a_state_of_another_optimizer_is_refused(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    variants = {"v1": variant(optimizer="torch.optim.Adam")}
    cut_after(2, random_base, tiny_dataset, tmp_path, variants, steps=4)
    (state,) = (tmp_path / ".v1.partial").glob("state-*")
    save_file(load_file(state), state, metadata={"stopped": "", "optimizer": "{}"})
    with pytest.raises(TrainError, match="cannot be gone on from"):
        run(random_base, tiny_dataset, tmp_path, steps=4, variants=variants)


def masks(*variants: Variant, base: Base, samples: list[int], positions: int = 6) -> dict[str, torch.Tensor]:
    made = attach(base, [LoraSpec(v.rank, v.scale_alpha) for v in variants], seed=0)
    asked: dict[str, Any] = {}
    made.drop = lambda key, mask: asked.update({key: mask})  # type: ignore[method-assign]
    dropout = Dropout(made, variants)
    made.detach()
    assert all(mask(positions) is None for mask in asked.values()), "outside of a training step nothing is dropped"
    with dropout.of(np.array(samples, dtype=np.uint64)):
        return {key: mask(positions) for key, mask in asked.items()}


def test_what_is_dropped_belongs_to_sample_and_module(random_base: Base) -> None:
    """Not to the batch, nor to the company: so a cut run and a variant alone drop the same."""
    one = variant(rank=4, dropout=0.3, rank_dropout=0.2, module_dropout=0.2)
    together = masks(one, variant(rank=9), base=random_base, samples=[11, 12])
    first, second = (masks(one, base=random_base, samples=[n], positions=3) for n in (11, 12))
    for key, mask in together.items():
        assert torch.equal(mask[0, :3, :4], first[key][0]) and torch.equal(mask[0, 3:, :4], second[key][0])
        assert (mask[1] == 1).all(), "another variant that drops nothing"
    assert any(not torch.equal(first[key], second[key]) for key in first)
    assert len({mask.numpy().tobytes() for mask in first.values()}) > len(first) // 2, "each module drops its own"


@pytest.mark.parametrize(
    ("options", "kept"),
    [({"dropout": 0.25}, 0.75), ({"rank_dropout": 0.25}, 0.75), ({"module_dropout": 0.25}, 0.75)],
    ids=str,
)
def test_as_much_is_dropped_as_was_asked_for(options: dict[str, float], kept: float, random_base: Base) -> None:
    found = masks(variant(rank=16, **options), base=random_base, samples=list(range(40)), positions=80)
    every = torch.stack(list(found.values()))  # (modules, 1, 80, 16): two positions of each sample
    assert float((every > 0).float().mean()) == pytest.approx(kept, abs=0.03)
    pairs = every.view(len(found), 40, 2, 16)
    if "dropout" not in options:
        assert torch.equal(pairs[:, :, 0], pairs[:, :, 1]), "a rank or a module goes for the whole sample"
    if "module_dropout" in options:
        assert every.max() == 1 and torch.equal(pairs.amax(3), pairs.amin(3))
    else:
        assert float(every.mean()) == pytest.approx(1, abs=0.03), "what stays grows, so that the mean does"


def test_gradients_through_a_mask_are_autograd_s(random_base: Base) -> None:
    made = attach(random_base, [LoraSpec(3, 3.0), LoraSpec(2, 1.0)], seed=0)
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    layer = random_base.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q
    try:
        generator = torch.Generator().manual_seed(0)
        made.params.detach().copy_(torch.randn(made.params.shape, generator=generator))
        mask = torch.rand(2, 5, 3, generator=generator) * 2
        x = torch.randn(2, 5, layer.base.in_features, generator=generator).requires_grad_()
        made.drop(key, lambda positions: mask if positions == 5 else None)
        pair = layer.pair
        down, up = (leaf.detach().clone().requires_grad_() for leaf in (pair.down, pair.up))
        scale = torch.tensor([1.0, 0.5]).view(2, 1, 1)
        expected = x @ layer.base.weight.T + ((x @ down.mT) * mask) @ (up * scale).mT
        wanted = torch.autograd.grad(expected.square().sum(), [x, down, up])
        y = layer(x)
        (dx,) = torch.autograd.grad(y.square().sum(), [x])
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(dx, wanted[0], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(pair.down_grad, wanted[1], rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(pair.up_grad, wanted[2], rtol=1e-4, atol=1e-2)
    finally:
        made.detach()
