"""Pictures drawn while a run trains: they change nothing, and show what would be saved."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vez import preview as previews
from vez.base import Base
from vez.config import Config, Project, Sampling, Study, Variant
from vez.dataset import Dataset
from vez.draw import Brush
from vez.events import Event, Note, Previewed, Saved, Step, read
from vez.interop import load_kohya, merge
from vez.preview import Preview, preview_of
from vez.store import open_artifact
from vez.train import train

SAMPLING = Sampling(steps=2, size=64, cfg=3.0)
PREVIEW = Preview(2, ("a photo of zolka", "zolka in the snow"), SAMPLING)
VARIANTS = {
    "v1": Variant(dataset="tiny", rank=4, lr_unet=2e-3, lr_text=1e-3, ema=0.5, dropout=0.2),
    "v2": Variant(dataset="tiny", rank=8, lr_unet=2e-3, lr_text=0.0),
}


def run(base: Base, dataset: Dataset, into: Path, **rest: Any) -> list[Event]:
    rest = {"variants": VARIANTS, "preview": PREVIEW, "steps": 3, "save_every": 2, **rest}
    variants = rest.pop("variants")
    return list(train(base, dataset, variants, seed=0, into={name: into / name for name in variants}, **rest))


def pictures(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((folder / "samples").iterdir())}


def pixels(file: Path) -> Any:
    with Image.open(file) as image:
        return np.array(image)


def test_they_change_no_bit_of_the_run(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    run(random_base, tiny_dataset, tmp_path / "with")
    run(random_base, tiny_dataset, tmp_path / "without", preview=None)
    for name in VARIANTS:
        made, plain = (open_artifact(tmp_path / part / name) for part in ("with", "without"))
        assert made.id == plain.id, "pictures are no part of what makes a run"
        loras = {file: sha256 for file, sha256 in plain.files.items() if file.startswith("lora")}
        assert len(loras) == 2 and loras.items() <= made.files.items()
        names = {f"samples/step-{step:06d}-{i}.png" for step in (0, 2, 3) for i in (1, 2)}
        assert made.files.keys() - plain.files.keys() == names
        events = [event for event in read(tmp_path / "with" / name / "events.jsonl") if isinstance(event, Previewed)]
        assert [event.step for event in events] == [0, 0, 2, 2, 3, 3]
        assert {event.path.as_posix() for event in events} == names


def test_a_picture_is_what_the_saved_weights_draw(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    """In company, with EMA and dropout, in the same noise as all others; before the first step as the base."""
    run(random_base, tiny_dataset, tmp_path)
    brush = Brush(random_base, SAMPLING)
    prompts = [previews.Prompt(text=text, id=str(i)) for i, text in enumerate(PREVIEW.texts)]
    plain = brush.draw([(prompts[0], 0)], brush.encode(prompts), arm="base", steps=2)[0]
    for name in VARIANTS:
        folder = tmp_path / name
        before = pixels(folder / "samples" / "step-000000-1.png")
        assert np.abs(before.astype(int) - plain).max() <= 1, "drawn by other sums than training's networks"
        state, _ = load_kohya(folder / "lora.safetensors")
        undo = merge(random_base, state)
        try:
            drawn = brush.draw([(prompts[0], 0)], brush.encode(prompts), arm=name, steps=2)[0]
        finally:
            undo()
        found = pixels(folder / "samples" / "step-000003-1.png")
        assert np.abs(found.astype(int) - drawn).max() <= 2, "fp16 in the file is all that differs"
        assert np.abs(found.astype(int) - plain).max() > 2
        with Image.open(folder / "samples" / "step-000003-1.png") as image:
            assert image.info["parameters"].startswith("a photo of zolka\n")
            assert image.info["parameters"].endswith(f"Trained: {name}-0 step 3")


@pytest.mark.parametrize("at", [2, 3])
def test_a_cut_run_keeps_and_draws_the_same(
    at: int, random_base: Base, tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(random_base, tiny_dataset, tmp_path / "whole")
    into = {name: tmp_path / "cut" / name for name in VARIANTS}
    seconds = 0.0 if at == 3 else 1e9  # a state of every step, or none: then all steps are taken again
    cut = train(random_base, tiny_dataset, VARIANTS, seed=0, steps=3, into=into, preview=PREVIEW, save_every=2,
                checkpoint_seconds=seconds)  # fmt: skip
    for event in cut:
        if isinstance(event, Step) and event.step == at and event.run == "v2-0":
            next(cut)  # in the midst of its pictures, if it has any
            cut.close()
            break
    there = {file: file.stat().st_mtime_ns for file in (tmp_path / "cut").glob(".*.partial/samples/*.png")}
    assert len(there) >= 4
    drawn: list[int] = []
    draw = Brush.draw
    monkeypatch.setattr(Brush, "draw", lambda *args, **named: drawn.append(1) or draw(*args, **named))
    run(random_base, tiny_dataset, tmp_path / "cut")
    for name in VARIANTS:
        assert pictures(tmp_path / "cut" / name) == pictures(tmp_path / "whole" / name)
        assert open_artifact(into[name]).files["lora.safetensors"] == open_artifact(tmp_path / "whole" / name).files[
            "lora.safetensors"
        ]  # fmt: skip
        steps = [e.step for e in read(into[name] / "events.jsonl") if isinstance(e, Previewed)]
        assert steps == [0, 0, 2, 2, 3, 3], "each is told once"
    assert len(drawn) == 12 - len(there), "what was there is not drawn again"


def test_another_prompt_is_drawn_again(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    """Pictures are no part of a run's id, so one that goes on looks at what its pictures say."""
    into = {"v2": tmp_path / "v2"}
    first = train(random_base, tiny_dataset, {"v2": VARIANTS["v2"]}, seed=0, steps=3, into=into, preview=PREVIEW)
    next(event for event in first if isinstance(event, Step))
    first.close()
    partial = tmp_path / ".v2.partial"
    (partial / "samples" / "step-000000-2.png").write_bytes(b"\x89PNG torn")
    other = Preview(2, ("a doll", PREVIEW.texts[1]), SAMPLING)
    run(random_base, tiny_dataset, tmp_path, variants={"v2": VARIANTS["v2"]}, preview=other)
    with Image.open(tmp_path / "v2" / "samples" / "step-000000-1.png") as image:
        assert image.info["parameters"].startswith("a doll\n")
    assert pixels(tmp_path / "v2" / "samples" / "step-000000-2.png").shape == (64, 64, 3)


def test_what_cannot_be_drawn_is_noted_and_the_run_goes_on(
    random_base: Base, tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Brush, "draw", full)
    events = run(random_base, tiny_dataset, tmp_path)
    assert sum(isinstance(event, Saved) for event in events) == 4
    notes = [event.text for event in events if isinstance(event, Note)]
    assert "v1-0 has no pictures of step 2: the memory is too small" in notes


def test_half_precision_draws(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    events = run(random_base, tiny_dataset, tmp_path, precision="bf16", steps=2)
    assert sum(isinstance(event, Previewed) for event in events) == 8


def study(**values: Any) -> tuple[Study, Project]:
    loaded = Config.model_validate(
        {
            "project": {"trigger": "zolka", "noun": "hat", "base": "tiny", "describes": "a hat"},
            "dataset": {"tiny": {"images": "images"}},
            "study": {"s": {"steps": 3, "variant": {"v": {"dataset": "tiny"}}, **values}},
        }
    )
    return loaded.study["s"], loaded.project


def test_a_study_names_what_is_drawn_or_its_first_prompts() -> None:
    assert preview_of(*study()) is None
    usual = preview_of(*study(sample_every=5))
    assert usual is not None and usual.every == 5 and len(usual.texts) == 3
    assert all("zolka" in text and "{" not in text for text in usual.texts)
    own = preview_of(*study(sample_every=5, sample_prompts=["{trigger} {noun} in snow"], sampling={"steps": 7}))
    assert own == Preview(5, ("zolka hat in snow",), Sampling(steps=7))
    assert [step for step in range(13) if own.is_due(step, of=12)] == [0, 5, 10, 12]
