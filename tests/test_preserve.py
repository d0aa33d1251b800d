"""Regularisation without pictures: without the trigger a LoRA says what its base says, and learns its concept still."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from small import TRIGGER, make_dataset
from test_samples import RICH, losses, with_masks
from vez import base as bases
from vez.base import Base, encode_images
from vez.config import Variant
from vez.dataset import Dataset
from vez.denoise import Batch, FixedNoise, predictions
from vez.errors import ConfigError
from vez.events import Event, Step
from vez.interop import load_kohya
from vez.lora import LoraSpec, attach
from vez.preserve import EMPTY, Preserved, uncalled
from vez.rewording import drawn_wording
from vez.tape import dice
from vez.train import train

NOUN = "costume"


def variant(**values: Any) -> Variant:
    return Variant(**{"dataset": "d", "batch": 2, "rank": 4, "lr_unet": 1e-3, "lr_text": 5e-4, **values})


def run(
    base: Base, dataset: Dataset, into: Path, *, steps: int = 3, variants: dict[str, Variant], **rest: Any
) -> list[Event]:
    folders = {name: into / name for name in variants}
    words = {"trigger": TRIGGER, "noun": NOUN}
    return list(train(base, dataset, variants, seed=0, steps=steps, into=folders, **{**words, **rest}))


def drifts(events: list[Event], name: str) -> list[float | None]:
    return [event.drift for event in events if isinstance(event, Step) and event.run == name]


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("zolka, a girl wearing traditional zolka", "costume, a girl wearing traditional costume"),
        ("a photo of Zolka costume in the snow", "a photo of costume in the snow"),
        ("a photo of zolka  costumes", "a photo of costume  costumes"),
        ("zolkas on a zolka-like doll", "zolkas on a costume-like doll"),
        ("a girl in the snow", "costume"),
        ("", "costume"),
    ],
)
def test_the_noun_stands_where_the_trigger_stood(caption: str, said: str) -> None:
    assert uncalled(caption, trigger="zolka", noun="costume") == said


def test_words_of_a_pattern_are_meant_as_they_are() -> None:
    assert uncalled(r"a c.1 b, cx1", trigger="c.1", noun=r"\1 x") == r"a \1 x b, cx1"
    assert uncalled("my  own thing here", trigger="my own", noun="thing") == "thing here"


@pytest.mark.parametrize("rest", [{}, {"lr_text": 0.0}, RICH], ids=["both", "frozen", "rich"])
def test_variants_of_different_weights_in_company_are_those_alone(
    rest: dict[str, Any], random_base: Base, tmp_path: Path
) -> None:
    dataset = make_dataset(tmp_path / "d")
    dataset = with_masks(dataset, [np.full((64, 64), 200, np.uint8)] * len(dataset.rows))
    variants = {"none": variant(), "half": variant(preserve=0.5, **rest), "two": variant(preserve=2.0, rank=2, **rest)}
    together = run(random_base, dataset, tmp_path / "all", variants=variants)
    for name, one in variants.items():
        alone = run(random_base, dataset, tmp_path / "one", variants={name: one})
        assert losses(together, f"{name}-0") == pytest.approx(losses(alone, f"{name}-0"), rel=1e-5)
        if one.preserve:
            assert drifts(together, f"{name}-0") == pytest.approx(drifts(alone, f"{name}-0"), rel=1e-4, abs=1e-9)
        else:
            assert drifts(together, f"{name}-0") == drifts(alone, f"{name}-0") == [None] * 3
        (many, _), (single, _) = (load_kohya(tmp_path / f / name / "lora.safetensors") for f in ("all", "one"))
        for key in many:
            gap = torch.linalg.norm(many[key].delta() - single[key].delta())
            assert gap <= 1e-2 * torch.linalg.norm(many[key].delta()), (name, key)


def test_the_loss_told_is_the_concepts_and_the_drift_begins_at_nothing(
    random_base: Base, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    variants = {"plain": variant(), "held": variant(preserve=1.0)}
    events = run(random_base, tiny_dataset, tmp_path, variants=variants, steps=4)
    assert losses(events, "held-0")[:2] == pytest.approx(losses(events, "plain-0")[:2], rel=1e-5)
    first, *later = drifts(events, "held-0")
    assert first == pytest.approx(0, abs=1e-9)
    assert all(drift is not None and drift > 1e-8 for drift in later)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cut_run_ends_in_the_same_bits(
    precision: str, random_base: Base, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    variants = {"v1": variant(preserve=1.0, accumulate=2, dropout=0.1, flip=True), "v2": variant(accumulate=2)}
    run(random_base, tiny_dataset, tmp_path / "whole", steps=5, variants=variants, precision=precision)
    into = {name: tmp_path / "cut" / name for name in variants}
    how = {"seed": 0, "steps": 5, "into": into, "trigger": TRIGGER, "noun": NOUN, "precision": precision}
    cut = train(random_base, tiny_dataset, variants, checkpoint_seconds=0.0, **how)  # type: ignore[arg-type]
    for event in cut:
        if isinstance(event, Step) and event.step == 3:
            cut.close()  # type: ignore[attr-defined]
            break
    run(random_base, tiny_dataset, tmp_path / "cut", steps=5, variants=variants, precision=precision)
    for name in variants:
        whole, again = (tmp_path / part / name / "lora.safetensors" for part in ("whole", "cut"))
        assert whole.read_bytes() == again.read_bytes()


def test_a_larger_batch_is_held_on_the_same_samples(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    """What is drawn for a sample belongs to it: with no rate to speak of, four steps of one are a step of four."""
    still = {"lr_unet": 1e-12, "lr_text": 0.0, "preserve": 1.0, "optimizer_args": {"eps": 1.0}}
    start = run(random_base, tiny_dataset, tmp_path / "a", variants={"v": variant(batch=1, **still)}, steps=4)
    four = run(random_base, tiny_dataset, tmp_path / "b", variants={"v": variant(batch=4, **still)}, steps=1)
    assert losses(four, "v-0")[0] == pytest.approx(sum(losses(start, "v-0")) / 4, rel=1e-5)


def apart(base: Base, dataset: Dataset, lora_file: Path, caption: str) -> float:
    """Mean squared distance of a LoRA from its base with a caption, on the held-out pictures at fixed noise."""
    state, _ = load_kohya(lora_file)
    weights = next(iter(state.values()))
    total = 0.0
    for row in dataset.held_out:
        moments = encode_images(base, dataset.pixels(row)[None])[0]
        fixed = FixedNoise.of(base, replace(row, caption=caption), moments)
        batch = bases.tokenize(base, [caption]).repeat(len(fixed.timesteps), 1)
        asked = _batch(fixed, batch)
        lora = attach(base, [LoraSpec(weights.rank, weights.alpha)], seed=0)
        try:
            lora.load_state(0, state)
            with torch.no_grad():
                said = predictions(base, asked, variants=1)
                with lora.without():
                    plain = predictions(base, asked, variants=1)
            total += float((said - plain).square().mean())
        finally:
            lora.detach()
    return total / len(dataset.held_out)


def _batch(fixed: FixedNoise, tokens: torch.Tensor) -> Batch:
    return Batch(fixed.latents, fixed.noise, fixed.timesteps, tokens)


def test_it_drifts_less_without_the_trigger_and_learns_with_it(random_base: Base, tmp_path: Path) -> None:
    """Captions that no step has asked for, on pictures that no step has seen."""
    dataset = make_dataset(tmp_path / "d", pictures=6, held_out=2)
    fast = {"lr_unet": 3e-3, "lr_text": 1e-3}
    variants = {"plain": variant(**fast), "held": variant(preserve=2.0, **fast)}
    events = run(random_base, dataset, tmp_path, variants=variants, steps=40)
    for name in variants:
        told = losses(events, f"{name}-0")
        assert np.mean(told[-8:]) < 0.95 * np.mean(told[:8]), name
    for caption in ("a woman wearing a costume, a bench", ""):
        plain, held = (apart(random_base, dataset, tmp_path / n / "lora.safetensors", caption) for n in variants)
        assert held < 0.5 * plain, caption


@pytest.mark.parametrize("kind", ["sd2", "sdxl"])
def test_every_family_preserves(kind: str, family_folders: dict[str, Path], tmp_path: Path) -> None:
    base = bases.load(str(family_folders[kind]))
    events = run(
        base, make_dataset(tmp_path / "d"), tmp_path, variants={"v": variant(preserve=1.0), "w": variant()}, steps=3
    )
    first, *later = drifts(events, "v-0")
    assert first == pytest.approx(0, abs=1e-8) and all(drift is not None and drift > 0 for drift in later)


CHOICE = "{zolka|a coat}, {snow|rain|a {red| green} hat}\nzolka, a doll"


@pytest.mark.parametrize("lr_text", [0.0, 5e-4], ids=["frozen", "trained"])
def test_the_drawn_wording_is_held(lr_text: float, random_base: Base, tiny_dataset: Dataset) -> None:
    """As if each sample's row had the caption that it drew."""
    by_wording = {drawn_wording(CHOICE, seed=seed): seed for seed in range(40)}
    told = list(by_wording)[:4]
    seeds = np.array([by_wording[text] for text in told], dtype=np.uint64)
    assert any(dice(int(seed), "preserve").random() >= EMPTY for seed in seeds)
    plain, draws = variant(preserve=1.0, lr_text=lr_text), variant(preserve=1.0, lr_text=lr_text, wildcards=True)
    rows = [
        [replace(row, caption=text) for row, text in zip(tiny_dataset.train, of, strict=False)]
        for of in (told, [CHOICE] * 4)
    ]
    words: dict[str, Any] = {"trigger": TRIGGER, "noun": NOUN}
    one = Preserved.of(random_base, rows[0], [plain], **words)
    other = Preserved.of(random_base, rows[1], [draws], **words)
    mixed = Preserved.of(random_base, rows[1], [draws, plain], **words)
    raw = Preserved.of(random_base, rows[1], [plain], **words)
    apart, plain_apart, raw_apart = (distances(random_base, held, seeds) for held in (other, one, raw))
    torch.testing.assert_close(apart, plain_apart, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(apart, raw_apart, rtol=1e-3)
    torch.testing.assert_close(
        distances(random_base, mixed, seeds), torch.cat([apart, raw_apart]), rtol=1e-4, atol=1e-7, msg="in company"
    )


def distances(base: Base, held: Preserved, seeds: NDArray[np.uint64]) -> torch.Tensor:
    """On four samples of the first four rows, for LoRAs of the same weights that do something."""
    latents, noise = torch.randn(2, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    tokens = bases.tokenize(base, ["x"] * 4 * len(held.variants))
    batch = Batch(latents, noise, torch.tensor([10, 300, 600, 900]), tokens, rows=(0, 1, 2, 3))
    lora = attach(base, [LoraSpec(4, 4.0)] * len(held.variants), seed=0)
    try:
        width = lora.params.shape[1]
        lora.params.data[:] = 0.2 * torch.randn(width, generator=torch.Generator().manual_seed(1))
        return held.distances(lora, batch, seeds).detach()
    finally:
        lora.detach()


def test_without_the_words_it_is_refused(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    for missing in ("trigger", "noun"):
        with pytest.raises(ConfigError, match="preserve needs the trigger word and the class noun"):
            run(random_base, tiny_dataset, tmp_path, variants={"v": variant(preserve=1.0)}, **{missing: ""})


def test_the_noun_is_part_of_a_run_only_where_it_is_used(
    random_base: Base, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    for noun in ("costume", "coat"):
        variants = {"held": variant(preserve=1.0), "plain": variant()}
        events = run(random_base, tiny_dataset, tmp_path / noun, variants=variants, steps=1, noun=noun)
        assert len([event for event in events if isinstance(event, Step)]) == 2
    ids = {
        name: {
            (tmp_path / noun / name / "manifest.json").read_text().split('"id"')[1][:40] for noun in ("costume", "coat")
        }
        for name in ("held", "plain")
    }
    assert len(ids["held"]) == 2 and len(ids["plain"]) == 1
