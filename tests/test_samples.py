"""What a variant's own samples are: in company as alone, and the same after a cut."""

from pathlib import Path
from typing import Any

import pytest
import torch

from vez.base import Base
from vez.config import Variant
from vez.dataset import Dataset
from vez.events import Event, Step
from vez.interop import load_kohya
from vez.train import train

PLAIN = {"dataset": "tiny", "batch": 2, "rank": 4, "lr_unet": 1e-3, "lr_text": 5e-4}
RICH = {"noise_offset": 0.1, "multires_noise": 4, "input_perturbation": 0.1}
ONE = [{"noise_offset": 0.1}, {"multires_noise": 3}, {"input_perturbation": 0.2}]


def variant(**values: Any) -> Variant:
    return Variant(**{**PLAIN, **values})


def run(
    base: Base, dataset: Dataset, into: Path, *, steps: int = 3, variants: dict[str, Variant], **rest: Any
) -> list[Event]:
    folders = {name: into / name for name in variants}
    return list(train(base, dataset, variants, seed=0, steps=steps, into=folders, **rest))


def losses(events: list[Event], name: str) -> list[float]:
    return [event.loss for event in events if isinstance(event, Step) and event.run == name]


def test_rich_variants_in_company_are_those_alone(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    variants = {"plain": variant(), "rich": variant(**RICH), **{f"v{i}": variant(**one) for i, one in enumerate(ONE)}}
    together = run(random_base, tiny_dataset, tmp_path / "all", variants=variants)
    for name, alone in variants.items():
        apart = run(random_base, tiny_dataset, tmp_path / "one", variants={name: alone})
        assert losses(together, f"{name}-0") == pytest.approx(losses(apart, f"{name}-0"), rel=1e-5), name
        (one, _), (other, _) = (load_kohya(tmp_path / f / name / "lora.safetensors") for f in ("all", "one"))
        for key in one:  # by norm: Adam's first updates are signs, whose rounding shows in single numbers
            difference = torch.linalg.norm(one[key].delta() - other[key].delta())
            assert difference <= 1e-2 * torch.linalg.norm(one[key].delta()), (name, key)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_cut_rich_run_ends_in_the_same_bits(
    frozen: bool, random_base: Base, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    variants = {"v1": variant(**RICH, **({"lr_text": 0.0} if frozen else {}))}
    run(random_base, tiny_dataset, tmp_path / "whole", steps=5, variants=variants)
    into = {"v1": tmp_path / "cut" / "v1"}
    cut = train(random_base, tiny_dataset, variants, seed=0, steps=5, into=into, checkpoint_seconds=0.0)
    for event in cut:
        if isinstance(event, Step) and event.step == 3:
            cut.close()
            break
    run(random_base, tiny_dataset, tmp_path / "cut", steps=5, variants=variants)
    whole, again = (tmp_path / part / "v1" / "lora.safetensors" for part in ("whole", "cut"))
    assert whole.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("setting", [{}, *ONE, RICH], ids=str)
def test_a_larger_batch_sees_the_same_rich_samples(
    setting: dict[str, Any], random_base: Base, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    small = {"lr_unet": 1e-12, "lr_text": 0.0, **setting}
    ones = run(random_base, tiny_dataset, tmp_path / "1", steps=4, variants={"v": variant(batch=1, **small)})
    four = run(random_base, tiny_dataset, tmp_path / "4", steps=1, variants={"v": variant(batch=4, **small)})
    assert losses(four, "v-0")[0] == pytest.approx(sum(losses(ones, "v-0")) / 4, rel=1e-5)
