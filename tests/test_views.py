"""Rows that are cut at several places: which of them a sample shows, and that nothing else moves."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from small import SIZE, make_dataset
from vez.base import Base
from vez.config import Variant
from vez.dataset import Dataset
from vez.dataset.rows import Moved
from vez.denoise import Words, sizes_of
from vez.events import Step, Validated
from vez.header import header
from vez.images.pixels import pixels_sha256
from vez.preflight import one_step
from vez.samples import Samples, masks_of, mirrored_of, views_of
from vez.tape import record
from vez.train import train

PLAIN = {"dataset": "tiny", "batch": 2, "rank": 4, "lr_unet": 1e-3, "lr_text": 0.0}
WHERE = (3, 0, 1, 2, 3, 1)  # other places of each training row


def variant(**values: Any) -> Variant:
    return Variant(**{**PLAIN, **values})


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("views") / "dataset")


@pytest.fixture(scope="module")
def moved(plain: Dataset) -> Dataset:
    """The dataset with other places, each of noise of its own, masked at its own height."""
    dice, rows = np.random.default_rng(1), []
    (plain.path / "moved").mkdir()
    for i, row in enumerate(plain.rows):
        places = []
        for n in range(1, 1 + (WHERE[i] if row.split == "train" else 0)):
            image, mask = (
                Image.fromarray(dice.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)),
                np.zeros((SIZE, SIZE)),
            )
            mask[: 8 * n, :32] = 255
            image.save(plain.path / "moved" / f"{i:02d}-{n}.png")
            Image.fromarray(mask.astype(np.uint8)).save(plain.path / "moved" / f"{i:02d}-{n}.mask.png")
            box = (8 * n, 0, 8 * n + SIZE, SIZE)
            name = f"moved/{i:02d}-{n}"
            places.append(Moved(f"{name}.png", pixels_sha256(image), box, f"{name}.mask.png"))
        rows.append(replace(row, moved=tuple(places)))
    return replace(plain, rows=tuple(rows))


def samples(base: Base, dataset: Dataset, *, variants: list[Variant], steps: int, batch: int) -> Samples:
    """Each view's moments say which one it is, and their mirrored ones 100 more."""
    rows = dataset.train
    views = views_of(rows)
    tape = record(len(rows), seed=0, steps=steps, batch=batch)
    marked = [torch.cat([torch.full((4, 8, 8), float(i)), torch.zeros(4, 8, 8)]) for i in range(len(views))]
    turned = [torch.cat([moments[:4] + 100, moments[4:]]) for moments in marked]
    words = Words.of(base, [row.caption for row in rows], frozen=True)
    return Samples(base, rows, variants, tape, words, marked, masks_of(base, dataset), turned)


def shown(found: Samples, steps: int) -> list[int]:
    """The view of each sample, in the order of the tape."""
    every = []
    for step in range(1, steps + 1):
        for _, batch, _ in found.batches(step):
            every += [int(latents[0, 0, 0]) for latents in batch.latents[: len(batch.rows)]]
    return every


def test_the_tape_says_the_row_and_the_sample_draws_its_place(random_base: Base, moved: Dataset) -> None:
    found = samples(random_base, moved, variants=[variant(batch=1)], steps=600, batch=1)
    every = shown(found, 600)
    row_of = [i for i, count in enumerate(WHERE) for _ in range(count + 1)]
    assert [row_of[view] for view in every] == found.tape.image[:, 0].tolist(), "an epoch shows each picture once"
    times = Counter(every)
    for view, row in enumerate(row_of):  # 100 samples of each row, its places alike
        each = 100 / (WHERE[row] + 1)
        assert abs(times[view] - each) <= 4 * each**0.5, (view, times)
    assert every == shown(samples(random_base, moved, variants=[variant(batch=6)], steps=100, batch=6), 100)


def test_masks_mirror_images_and_sizes_are_the_places_own(random_base: Base, moved: Dataset) -> None:
    variants = [variant(batch=4, masked=True, flip=True), variant(batch=4)]
    found = samples(random_base, moved, variants=variants, steps=30, batch=4)
    xl = replace(random_base, family=replace(random_base.family, pooled=True))
    told = sizes_of(xl, found.views)
    assert found.masks is not None and len(found.masks) == len(found.views) == len(found.moments) and told is not None
    assert told[:4, 2:4].tolist() == [[0, 0], [0, 8], [0, 16], [0, 24]], "of the first row: where it was cut"
    mirrored = 0
    for step in range(1, 31):
        for _, batch, _ in found.batches(step):
            assert batch.mask is not None
            for latents, mask, own in zip(batch.latents[:4], batch.mask[:4], batch.latents[4:], strict=True):
                view, turned = int(own[0, 0, 0]), bool(latents[0, 0, 0] >= 100)
                mirrored += turned
                expected = found.masks[view]
                assert torch.equal(mask, expected.flip(-1) if turned else expected)
                assert int(latents[0, 0, 0]) == view + 100 * turned
    assert 40 <= mirrored <= 80
    assert len(mirrored_of(random_base, moved, cache=None)) == len(found.views)


def run(base: Base, dataset: Dataset, into: Path, *, steps: int = 4, **values: Any) -> tuple[bytes, list[Any]]:
    prior = values.pop("class_pictures", None)
    events = list(
        train(
            base,
            dataset,
            {"v": variant(**values)},
            seed=0,
            steps=steps,
            into={"v": into},
            prior=prior,
            validate_every=2,
        )
    )
    return (into / "lora.safetensors").read_bytes(), events


def losses(events: list[Any]) -> list[float]:
    return [event.loss for event in events if isinstance(event, Step)]


def test_only_training_sees_other_places(random_base: Base, plain: Dataset, moved: Dataset, tmp_path: Path) -> None:
    one, without = run(random_base, plain, tmp_path / "plain")
    other, there = run(random_base, moved, tmp_path / "moved")
    assert one != other and losses(without) != losses(there)
    first = [next(e for e in events if isinstance(e, Validated)) for events in (without, there)]
    assert first[0] == first[1], "before the first step the validated pictures are the rows' own"
    alone = replace(moved, rows=tuple(replace(row, moved=()) for row in moved.rows))
    assert run(random_base, alone, tmp_path / "alone")[0] == one


def test_a_larger_batch_sees_the_same_places(random_base: Base, moved: Dataset, tmp_path: Path) -> None:
    how = {"lr_unet": 1e-12, "masked": True, "flip": True}
    ones = losses(run(random_base, moved, tmp_path / "1", steps=4, batch=1, **how)[1])
    assert losses(run(random_base, moved, tmp_path / "4", steps=1, batch=4, **how)[1]) == [
        pytest.approx(sum(ones) / 4, rel=1e-5)
    ]


def test_a_cut_run_goes_on_with_the_same_places(random_base: Base, moved: Dataset, tmp_path: Path) -> None:
    whole, _ = run(random_base, moved, tmp_path / "whole", steps=5)
    cut = train(
        random_base,
        moved,
        {"v": variant()},
        seed=0,
        steps=5,
        into={"v": tmp_path / "cut"},
        checkpoint_seconds=0.0,
        validate_every=2,
    )
    for event in cut:
        if isinstance(event, Step) and event.step == 3:
            cut.close()
            break
    assert run(random_base, moved, tmp_path / "cut", steps=5)[0] == whole


def test_class_pictures_have_places_too(random_base: Base, plain: Dataset, moved: Dataset, tmp_path: Path) -> None:
    rows = [tuple(replace(row, split="train") for row in data.rows[:4]) for data in (plain, moved)]
    classes = [replace(plain, rows=of) for of in rows]
    made = [
        run(random_base, plain, tmp_path / str(i), prior="c", class_pictures=data)[0] for i, data in enumerate(classes)
    ]
    assert made[0] != made[1]


def test_the_trial_step_and_the_header(random_base: Base, plain: Dataset, moved: Dataset) -> None:
    assert one_step(random_base, moved, {"v": variant()}, precision="fp32")[1] == []
    config = {"seed": 0, "precision": "fp32", "steps": 1, "name": "v", "trigger": "zolka"}
    said = [header(random_base, data, variant(), config, run_id="ab12cd34") for data in (plain, moved)]
    assert [one["ss_random_crop"] for one in said] == ["False", "True"]
