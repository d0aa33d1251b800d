"""What a variant's own samples are: in company as alone, and the same after a cut."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from small import SIZE, make_dataset
from vez.base import Base, encode_images
from vez.config import Variant
from vez.dataset import Dataset
from vez.denoise import Words
from vez.errors import ConfigError, StoreError
from vez.events import Event, Step, Validated
from vez.interop import load_kohya
from vez.rewording import first_wording, reworded
from vez.samples import Samples, masks_of, mirrored_of
from vez.tape import record
from vez.train import train

PLAIN = {"dataset": "tiny", "batch": 2, "rank": 4, "lr_unet": 1e-3, "lr_text": 5e-4}
RICH = {
    "noise_offset": 0.1,
    "noise_offset_random": True,
    "multires_noise": 4,
    "input_perturbation": 0.1,
    "input_perturbation_random": True,
    "loss": "huber",
    "debiased": True,
    "masked": True,
    "shuffle_caption": True,
    "keep_tokens": 1,
    "tag_dropout": 0.2,
    "wildcards": True,
    "flip": True,
}
ONE = [
    {"noise_offset": 0.1},
    {"multires_noise": 3},
    {"input_perturbation": 0.2},
    {"loss": "smooth_l1", "huber_schedule": "constant"},
    {"masked": True},
    {"shuffle_caption": True},
    {"wildcards": True},
    {"noise_offset": 0.1, "noise_offset_random": True},
    {"flip": True, "masked": True},
]


@pytest.fixture(scope="module")
def masked_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Rows of which the first has no mask, and the others a white corner; captions with alternatives and lines."""
    dataset = make_dataset(tmp_path_factory.mktemp("masked") / "dataset")
    rows = [replace(row, caption=f"{row.caption}, {{snow|rain|a {{green| red}} sun}}\na doll") for row in dataset.rows]
    dataset = replace(dataset, rows=tuple(rows))
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:28, :40] = 255
    return with_masks(dataset, [None, *[mask] * (len(dataset.rows) - 1)])


def with_masks(dataset: Dataset, masks: Sequence[NDArray[np.uint8] | None]) -> Dataset:
    rows = []
    for row, mask in zip(dataset.rows, masks, strict=True):
        name = "" if mask is None else f"mask-{int(mask.sum())}.png"
        if mask is not None:
            Image.fromarray(mask).save(dataset.path / name)
        rows.append(replace(row, mask=name))
    return replace(dataset, rows=tuple(rows))


def variant(**values: Any) -> Variant:
    return Variant(**{**PLAIN, **values})


def run(
    base: Base, dataset: Dataset, into: Path, *, steps: int = 3, variants: dict[str, Variant], **rest: Any
) -> list[Event]:
    folders = {name: into / name for name in variants}
    return list(train(base, dataset, variants, seed=0, steps=steps, into=folders, **rest))


def losses(events: list[Event], name: str) -> list[float]:
    return [event.loss for event in events if isinstance(event, Step) and event.run == name]


def test_rich_variants_in_company_are_those_alone(random_base: Base, masked_dataset: Dataset, tmp_path: Path) -> None:
    variants = {"plain": variant(), "rich": variant(**RICH), **{f"v{i}": variant(**one) for i, one in enumerate(ONE)}}
    together = run(random_base, masked_dataset, tmp_path / "all", variants=variants)
    for name, alone in variants.items():
        apart = run(random_base, masked_dataset, tmp_path / "one", variants={name: alone})
        assert losses(together, f"{name}-0") == pytest.approx(losses(apart, f"{name}-0"), rel=1e-5), name
        (one, _), (other, _) = (load_kohya(tmp_path / f / name / "lora.safetensors") for f in ("all", "one"))
        for key in one:  # by norm: Adam's first updates are signs, whose rounding shows in single numbers
            difference = torch.linalg.norm(one[key].delta() - other[key].delta())
            assert difference <= 1e-2 * torch.linalg.norm(one[key].delta()), (name, key)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_cut_rich_run_ends_in_the_same_bits(
    frozen: bool, random_base: Base, masked_dataset: Dataset, tmp_path: Path
) -> None:
    variants = {"v1": variant(**RICH, **({"lr_text": 0.0} if frozen else {}))}
    run(random_base, masked_dataset, tmp_path / "whole", steps=5, variants=variants)
    into = {"v1": tmp_path / "cut" / "v1"}
    cut = train(random_base, masked_dataset, variants, seed=0, steps=5, into=into, checkpoint_seconds=0.0)
    for event in cut:
        if isinstance(event, Step) and event.step == 3:
            cut.close()
            break
    run(random_base, masked_dataset, tmp_path / "cut", steps=5, variants=variants)
    whole, again = (tmp_path / part / "v1" / "lora.safetensors" for part in ("whole", "cut"))
    assert whole.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("setting", [{}, *ONE, RICH], ids=str)
def test_a_larger_batch_sees_the_same_rich_samples(
    setting: dict[str, Any], random_base: Base, masked_dataset: Dataset, tmp_path: Path
) -> None:
    small = {"lr_unet": 1e-12, "lr_text": 0.0, **setting}
    ones = run(random_base, masked_dataset, tmp_path / "1", steps=4, variants={"v": variant(batch=1, **small)})
    four = run(random_base, masked_dataset, tmp_path / "4", steps=1, variants={"v": variant(batch=4, **small)})
    assert losses(four, "v-0")[0] == pytest.approx(sum(losses(ones, "v-0")) / 4, rel=1e-5)


def test_masks_are_the_mean_of_each_cell(random_base: Base, masked_dataset: Dataset) -> None:
    whole, corner = masks_of(random_base, masked_dataset)[:2]
    assert torch.equal(whole, torch.ones(1, SIZE // 8, SIZE // 8))
    pixels = masked_dataset.mask(masked_dataset.train[1])
    assert pixels is not None
    cells = pixels.reshape(SIZE // 8, 8, SIZE // 8, 8).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(corner[0].numpy(), cells, atol=1e-6)
    assert 0 < corner[0, 3, 0] < 1, "a cell on the edge counts in part"


def test_an_empty_mask_gives_no_loss_and_moves_nothing(
    random_base: Base, masked_dataset: Dataset, tmp_path: Path
) -> None:
    empty = with_masks(masked_dataset, [np.zeros((SIZE, SIZE), np.uint8)] * len(masked_dataset.rows))
    variants = {"v": variant(masked=True), "plain": variant()}
    events = run(random_base, empty, tmp_path, variants=variants)
    assert losses(events, "v-0") == [0.0] * 3 and all(loss > 0 for loss in losses(events, "plain-0"))
    state, _ = load_kohya(tmp_path / "v" / "lora.safetensors")
    assert all(not weights.up.any() for weights in state.values())


def test_a_mask_multiplies_the_error_and_is_not_made_up_for(
    random_base: Base, masked_dataset: Dataset, tmp_path: Path
) -> None:
    """A mask that is one grey everywhere is that much of the loss, as in kohya's trainer."""
    grey = with_masks(masked_dataset, [np.full((SIZE, SIZE), 51, np.uint8)] * len(masked_dataset.rows))
    events = run(random_base, grey, tmp_path, steps=1, variants={"v": variant(masked=True), "plain": variant()})
    assert losses(events, "v-0")[0] == pytest.approx(0.2 * losses(events, "plain-0")[0], rel=1e-5)


def test_a_damaged_mask_is_said(random_base: Base, masked_dataset: Dataset, tmp_path: Path) -> None:
    bad = replace(masked_dataset, rows=tuple(replace(row, mask="bad.png") for row in masked_dataset.rows))
    (masked_dataset.path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(StoreError, match=r"the mask bad\.png .* is damaged"):
        run(random_base, bad, tmp_path, variants={"v": variant(masked=True)})


CAPTION = "zolka, a girl, snow , trees,night"


def test_parts_of_a_caption_change_places_and_the_first_stay() -> None:
    setting = variant(shuffle_caption=True, keep_tokens=1)
    found = {reworded(CAPTION, setting, seed=seed) for seed in range(300)}
    assert len(found) == 24 and all(text.startswith("zolka, ") for text in found)
    assert all(sorted(text.split(", ")) == sorted(["zolka", "a girl", "snow", "trees", "night"]) for text in found)
    assert reworded(CAPTION, setting, seed=7) == reworded(CAPTION, setting, seed=7)
    assert reworded(CAPTION, variant(keep_tokens=1), seed=7) == CAPTION, "without a change, to the letter"


def test_parts_are_left_out_at_their_rate_and_in_their_order() -> None:
    setting = variant(tag_dropout=0.25, keep_tokens=1)
    lengths = []
    for seed in range(2000):
        parts = reworded(CAPTION, setting, seed=seed).split(", ")
        assert parts == [p for p in ["zolka", "a girl", "snow", "trees", "night"] if p in parts] and parts[0] == "zolka"
        both = reworded(CAPTION, variant(tag_dropout=0.25, keep_tokens=1, shuffle_caption=True), seed=seed)
        assert sorted(both.split(", ")) == sorted(parts), "the order moves nothing that is left out"
        lengths.append(len(parts) - 1)
    assert np.mean(lengths) == pytest.approx(4 * 0.75, abs=0.06)
    assert reworded(CAPTION, variant(tag_dropout=1.0), seed=0) == ""


@pytest.mark.parametrize("frozen", [True, False])
def test_a_sample_is_trained_with_its_own_wording(
    frozen: bool, random_base: Base, masked_dataset: Dataset, tmp_path: Path
) -> None:
    """Of a rate of 1 nothing is left of a caption: the same as leaving all captions out. Also with three pieces."""
    rest = {"lr_text": 0.0} if frozen else {}
    variants = {"empty": variant(caption_dropout=1.0, **rest), "none": variant(tag_dropout=1.0, **rest)}
    for base in (random_base, replace_chunks(random_base)):
        events = run(base, masked_dataset, tmp_path / str(base.chunks), variants=variants)
        assert losses(events, "none-0") == pytest.approx(losses(events, "empty-0"), rel=1e-5)


def test_every_so_many_passes_are_without_captions(random_base: Base, masked_dataset: Dataset) -> None:
    """Passes count from 1, whatever the batch; another variant of the same run keeps its captions."""
    rows = masked_dataset.train
    steps = 4 * len(rows) // 2
    tape = record(len(rows), seed=0, steps=steps, batch=2)
    plain = [torch.zeros(8, 8, 8) for _ in rows]
    words = Words.of(random_base, [row.caption for row in rows], frozen=True)
    variants = [variant(batch=2, caption_dropout_every=2), variant(batch=2)]
    samples = Samples(random_base, rows, variants, tape, words, plain)
    seen = []
    for step in range(1, steps + 1):
        gone = samples._without(step, np.arange(2), variants[0])
        assert not samples._without(step, np.arange(2), variants[1]).any()
        seen += gone.tolist()
        for _, batch, _ in samples.batches(step):
            assert batch.text is not None
            empty = samples.words.batch(torch.tensor([-1]), *[torch.zeros(1, 4, 8, 8)] * 2, torch.zeros(1)).text
            same = [torch.equal(one, empty.states[0]) for one in batch.text.states[:2]]
            assert same == gone.tolist()
    assert seen == [n // len(rows) % 2 == 1 for n in range(2 * steps)]


def replace_chunks(base: Base) -> Base:
    return replace(base, chunks=3, settings=("tokens=225",))


def test_the_other_orientation_is_the_mirrored_pictures(random_base: Base, masked_dataset: Dataset) -> None:
    turned = mirrored_of(random_base, masked_dataset, cache=None)
    pixels = np.stack([masked_dataset.pixels(row)[:, ::-1] for row in masked_dataset.train])
    torch.testing.assert_close(torch.stack(turned), encode_images(random_base, pixels), rtol=1e-4, atol=1e-5)


def test_half_the_samples_are_mirrored_with_their_masks(random_base: Base, masked_dataset: Dataset) -> None:
    """Each flipped sample's latent is drawn of the mirrored moments, and its mask is mirrored along."""
    rows, tape = masked_dataset.train, record(len(masked_dataset.train), seed=0, steps=30, batch=4)
    plain = [torch.cat([torch.full((4, 8, 8), float(i)), torch.zeros(4, 8, 8)]) for i in range(len(rows))]
    turned = [torch.cat([moments[:4] + 100, moments[4:]]) for moments in plain]
    masks = masks_of(random_base, masked_dataset)
    variants = [variant(batch=4, flip=True, masked=True), variant(batch=4)]
    words = Words.of(random_base, [row.caption for row in rows], frozen=True)
    samples = Samples(random_base, rows, variants, tape, words, plain, masks, turned)
    count = 0
    for step in range(1, 31):
        for _, batch, _ in samples.batches(step):
            assert batch.mask is not None and torch.equal(batch.latents[4:] < 50, torch.ones(4, 4, 8, 8, dtype=bool))
            for latents, mask, own in zip(batch.latents[:4], batch.mask[:4], batch.latents[4:], strict=True):
                flipped = bool(latents[0, 0, 0] > 50)
                expected = masks[int(own[0, 0, 0])]
                assert torch.equal(mask, expected.flip(-1) if flipped else expected)
                count += flipped
    assert 40 <= count <= 80


@pytest.fixture(scope="module")
def class_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("class") / "dataset", pictures=3, held_out=0, shapes=((96, 64),))


def test_class_pictures_add_their_weighed_loss(
    random_base: Base, masked_dataset: Dataset, class_dataset: Dataset, tmp_path: Path
) -> None:
    """Mean of the concept's plus prior_weight times the mean of the class's (Ruiz et al. 2023, eq. 2)."""
    variants = {f"w{w}": variant(prior="class", prior_weight=w / 2) for w in (0, 1, 2)}
    found = run(random_base, masked_dataset, tmp_path / "prior", variants=variants, prior=class_dataset)
    first = [losses(found, f"w{w}-0")[0] for w in (0, 1, 2)]
    plain = run(random_base, masked_dataset, tmp_path / "plain", variants={"v": variant()})
    assert first[0] == pytest.approx(losses(plain, "v-0")[0], rel=1e-5), "the concept's tape is what it was"
    assert losses(found, "w0-0") == pytest.approx(losses(plain, "v-0"), rel=1e-4)
    assert first[1] - first[0] == pytest.approx((first[2] - first[0]) / 2, rel=1e-4) and first[1] > first[0]
    weights = [load_kohya(tmp_path / "prior" / name / "lora.safetensors")[0] for name in ("w0", "w2")]
    assert any(not torch.equal(weights[0][key].delta(), weights[1][key].delta()) for key in weights[0])


def test_a_cut_run_with_class_pictures_ends_in_the_same_bits(
    random_base: Base, masked_dataset: Dataset, class_dataset: Dataset, tmp_path: Path
) -> None:
    variants = {"v": variant(prior="class", **RICH)}
    run(random_base, masked_dataset, tmp_path / "whole", steps=4, variants=variants, prior=class_dataset)
    rest = {"into": {"v": tmp_path / "cut" / "v"}, "prior": class_dataset, "checkpoint_seconds": 0.0}
    cut = train(random_base, masked_dataset, variants, seed=0, steps=4, **rest)  # type: ignore[arg-type]
    for event in cut:
        if isinstance(event, Step) and event.step == 3:
            cut.close()
            break
    run(random_base, masked_dataset, tmp_path / "cut", steps=4, variants=variants, prior=class_dataset)
    whole, again = (tmp_path / part / "v" / "lora.safetensors" for part in ("whole", "cut"))
    assert whole.read_bytes() == again.read_bytes()


def test_a_prior_without_its_pictures_is_refused(
    random_base: Base, masked_dataset: Dataset, class_dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="one prior"):
        run(random_base, masked_dataset, tmp_path, variants={"v": variant(prior="class")})
    with pytest.raises(ConfigError, match="one prior"):
        run(random_base, masked_dataset, tmp_path, variants={"v": variant()}, prior=class_dataset)


def test_class_pictures_have_a_tape_of_their_own() -> None:
    one, other = record(5, seed=0, steps=20, batch=4), record(5, seed=0, steps=20, batch=4, beside=True)
    assert not set(one.noise_seed.ravel().tolist()) & set(other.noise_seed.ravel().tolist())
    assert not np.array_equal(one.image, other.image) and not np.array_equal(one.timestep, other.timestep)


def test_validation_is_of_one_wording(random_base: Base, masked_dataset: Dataset, tmp_path: Path) -> None:
    """The first of all alternatives, whatever the samples were trained with."""
    variants = {"v": variant(wildcards=True)}
    found = run(random_base, masked_dataset, tmp_path / "a", variants=variants, validate_every=3, steps=1)
    rows = [replace(row, caption=first_wording(row.caption)) for row in masked_dataset.rows]
    plain = replace(masked_dataset, rows=tuple(rows))
    again = run(random_base, plain, tmp_path / "b", variants={"v": variant()}, validate_every=3, steps=1)
    first, second = ([e for e in events if isinstance(e, Validated) and e.step == 0] for events in (found, again))
    assert len(first) == 2 and first == second
