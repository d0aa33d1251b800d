"""One picture, one step, one sample before a run: it finds what is broken, and leaves no trace in what comes after."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from small import fingerprint, make_dataset
from vez.base import Base
from vez.config import Sampling, Variant
from vez.dataset import Dataset
from vez.errors import ConfigError, StoreError, TrainError
from vez.events import Note, Saved, Step
from vez.preflight import captions, free_memory, largest, preflight
from vez.rewording import reworded
from vez.tape import record
from vez.train import train

VARIANTS = {
    "low": Variant(dataset="d", batch=2, rank=2),
    "high": Variant(dataset="d", batch=2, rank=4, lr_text=0),
}
SAMPLING = Sampling(steps=2)


def test_it_says_the_captions_and_that_all_is_well(random_base: Base, tiny_dataset: Dataset) -> None:
    notes = [e.text for e in preflight(random_base, tiny_dataset, VARIANTS, precision="fp32", sampling=SAMPLING)]  # type: ignore[union-attr]
    assert len(notes) == 4
    assert notes[0] == f"{tiny_dataset.train[0].file} is trained with: {tiny_dataset.train[0].caption}"
    assert notes[2].endswith(tiny_dataset.train[-1].caption)
    assert "all is well" in notes[3]


def test_it_takes_nothing_from_any_source_of_randomness(random_base: Base, tiny_dataset: Dataset) -> None:
    before = (torch.get_rng_state(), random.getstate(), str(np.random.get_state()))
    weights = fingerprint(random_base)
    list(preflight(random_base, tiny_dataset, VARIANTS, precision="bf16", sampling=SAMPLING))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), str(np.random.get_state())) == before[1:]
    assert fingerprint(random_base) == weights
    assert random_base.dtype == torch.float32
    assert not any(p.requires_grad for p in random_base.unet.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_after_it_is_the_run_without_it(
    random_base: Base, tiny_dataset: Dataset, tmp_path: Path, precision: str
) -> None:
    files, losses = [], []
    for name in ("without", "with"):
        if name == "with":
            list(preflight(random_base, tiny_dataset, VARIANTS, precision=precision, sampling=SAMPLING))  # type: ignore[arg-type]
        into = {variant: tmp_path / name / variant for variant in VARIANTS}
        events = list(
            train(random_base, tiny_dataset, VARIANTS, seed=0, steps=2, into=into, precision=precision)  # type: ignore[arg-type]
        )
        losses.append([event.loss for event in events if isinstance(event, Step)])
        assert sum(isinstance(event, Saved) for event in events) == 2
        files.append([(into[variant] / "lora.safetensors").read_bytes() for variant in VARIANTS])
    assert losses[0] == losses[1]
    assert files[0] == files[1]


def test_a_broken_base_is_found_before_the_run(random_base: Base, tiny_dataset: Dataset) -> None:
    weight = random_base.unet.get_submodule("conv_out").weight
    assert isinstance(weight, torch.Tensor)
    kept = weight[0, 0, 0, 0].clone()
    try:
        weight[0, 0, 0, 0] = float("nan")
        with pytest.raises(TrainError, match=r"the very first loss is not finite.*the base"):
            list(preflight(random_base, tiny_dataset, VARIANTS, precision="fp32", sampling=SAMPLING))
    finally:
        weight[0, 0, 0, 0] = kept


def test_a_variant_that_will_stop_is_said_and_the_others_go_on(random_base: Base, tiny_dataset: Dataset) -> None:
    variants = VARIANTS | {"wild": Variant(dataset="d", batch=2, rank=2, alpha=1e38)}
    notes = [e.text for e in preflight(random_base, tiny_dataset, variants, precision="fp32", sampling=SAMPLING)]  # type: ignore[union-attr]
    assert notes[-2].startswith("the gradient of wild is not finite")
    assert "all is well" not in notes[-1]


def test_a_broken_vae_is_found_too(random_base: Base, tiny_dataset: Dataset) -> None:
    bias = random_base.vae.get_submodule("quant_conv").bias
    assert isinstance(bias, torch.Tensor)
    kept = bias.clone()
    try:
        bias.fill_(float("inf"))
        with pytest.raises(TrainError, match=r"the VAE of .* not finite"):
            list(preflight(random_base, tiny_dataset, VARIANTS, precision="fp32", sampling=SAMPLING))
    finally:
        bias.copy_(kept)


def test_the_largest_picture_is_tried(tmp_path: Path) -> None:
    """What fits with it fits with every other."""
    dataset = make_dataset(tmp_path / "d", shapes=[(64, 64), (128, 64), (64, 32)])
    assert (largest(dataset).width, largest(dataset).height) == (128, 64)


def test_few_pictures_have_few_captions(random_base: Base, tmp_path: Path) -> None:
    notes = list(captions(random_base, make_dataset(tmp_path / "d", pictures=3, held_out=2), VARIANTS, seed=0))
    assert len(notes) == 1
    assert all(isinstance(note, Note) for note in notes)


def test_the_machine_has_memory() -> None:
    assert free_memory(torch.device("cpu")) > 2**20


def test_captions_are_shown_as_each_variant_will_see_them(random_base: Base, tmp_path: Path) -> None:
    """Worded anew as at the row's first time in the run; and as far as the base reads."""
    dataset = make_dataset(tmp_path / "d")
    variants = VARIANTS | {"mixed": Variant(dataset="d", batch=2, rank=2, shuffle_caption=True, keep_tokens=1)}
    notes = [note.text for note in captions(random_base, dataset, variants, seed=3)]
    assert [" by mixed" in text for text in notes] == [False, True] * 3
    tape = record(len(dataset.train), seed=3, steps=5, batch=2)
    for i, text in zip((0, 2, 5), notes[1::2], strict=True):
        first = int((tape.image.ravel() == i).argmax())
        seed = int(tape.noise_seed.ravel()[first])
        assert text.endswith(reworded(dataset.train[i].caption, variants["mixed"], seed=seed))
    long = replace(dataset, rows=tuple(replace(row, caption="zolka " * 200) for row in dataset.rows))
    told = next(captions(random_base, long, VARIANTS, seed=0)).text
    assert "and is cut there" in told and "the base reads 75" in told


def test_the_variants_own_optimizer_and_loss_are_tried(random_base: Base, tiny_dataset: Dataset) -> None:
    def tried(**setting: Any) -> list[str]:
        variants = {"v": Variant(dataset="d", batch=1, rank=2, **setting)}
        events = preflight(random_base, tiny_dataset, variants, precision="fp32", sampling=SAMPLING)
        return [event.text for event in events if isinstance(event, Note)]

    with pytest.raises(TrainError, match=r"the optimizer torch\.optim\.SparseAdam cannot take a step"):
        tried(optimizer="torch.optim.SparseAdam")
    with pytest.raises(ConfigError, match="does not take these optimizer_args"):
        tried(optimizer="torch.optim.LBFGS")
    plain, other = (tried(**setting)[-1].partition(" (loss ")[2][:6] for setting in ({}, {"loss": "l1"}))
    assert plain != other


def test_class_pictures_and_what_is_preserved_are_tried(
    random_base: Base, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    variants = {"v": Variant(dataset="d", batch=1, rank=2, prior="c", preserve=1.0)}
    how: dict[str, Any] = {"precision": "fp32", "sampling": SAMPLING, "trigger": "zolka", "noun": "costume"}
    prior = make_dataset(tmp_path / "c", pictures=2, held_out=0)
    notes = [e.text for e in preflight(random_base, tiny_dataset, variants, prior=prior, **how) if isinstance(e, Note)]
    assert "all is well" in notes[-1]
    gone = replace(prior, rows=tuple(replace(row, mask="gone.png") for row in prior.rows))
    masked = {"v": variants["v"].model_copy(update={"masked": True})}
    with pytest.raises(StoreError, match=r"gone\.png"):
        list(preflight(random_base, tiny_dataset, masked, prior=gone, **how))


def test_a_trigger_that_may_be_lost_is_said(random_base: Base, tiny_dataset: Dataset) -> None:
    dropping, moving, kept = (
        Variant(dataset="d", rank=2, **values)  # type: ignore[arg-type]
        for values in ({"tag_dropout": 0.1}, {"shuffle_caption": True}, {"tag_dropout": 0.1, "keep_tokens": 1})
    )
    variants = {"dropping": dropping, "moving": moving, "kept": kept}
    found = preflight(random_base, tiny_dataset, variants, precision="fp32", sampling=SAMPLING, trigger="zolka")
    notes = [event.text for event in found if isinstance(event, Note) and "the trigger" in event.text]
    assert len(notes) == 2
    assert notes[0].startswith("dropping may leave out the trigger 'zolka' in 6 of 6 captions: its keep_tokens is 0")
    assert notes[1].startswith("moving may move the trigger 'zolka' in 6 of 6 captions")
