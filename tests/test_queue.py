"""A step is queued whole: nothing of it is read back before its end, so that a device never waits for the processor.

It runs on the meta device, which has shapes and no numbers: whatever asks for a number there, fails.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vez.base import Base, computing
from vez.config import Precision, Variant
from vez.dataset import Dataset
from vez.denoise import Words
from vez.dropout import Dropout
from vez.events import EventLog
from vez.learner import Learner, rates_of
from vez.lora import attach
from vez.passes import Pass, Run, _queue
from vez.preserve import Preserved
from vez.samples import Samples
from vez.shape import spec_of
from vez.tape import record
from vez.train import _DTYPES

NOWHERE = torch.device("meta")
STEPS = 3


def variant(**values: Any) -> Variant:
    return Variant(**{"dataset": "d", "batch": 2, "rank": 4, **values})


SETTINGS: dict[str, list[dict[str, Any]]] = {
    "plain": [{}],
    "several, no two alike": [
        {"rank": 2, "ema": 0.9, "flip": True, "min_snr": 5, "masked": True, "clip_grad": 0.0},
        {"noise_offset": 0.1, "scale_weight_norms": 1.0, "loss": "huber", "huber_schedule": "snr", "conv_rank": 2},
        {"lr_text": 0, "input_perturbation": 0.1, "debiased": True, "blocks": {"mid": {"rank": 0}}, "lora_plus": 8},
    ],
    "dropout": [{"dropout": 0.1, "rank_dropout": 0.1, "module_dropout": 0.1, "caption_dropout": 0.5}],
    "wording": [{"shuffle_caption": True, "tag_dropout": 0.2}],
    "preserve": [{"preserve": 1.0, "accumulate": 2}],
}


@contextmanager
def on_meta(base: Base, dataset: Dataset, variants: list[Variant], precision: Precision, log: Path) -> Iterator[Pass]:
    """A pass over a base whose networks are moved to the meta device, and back again in the end."""
    numbers = {n: {k: v.clone() for k, v in n.state_dict().items()} for n in (base.unet, *base.text_encoders)}
    there = replace(base, device=NOWHERE, schedule=base.schedule.on(NOWHERE))
    try:
        for network in numbers:
            network.to(NOWHERE)
        with EventLog(log) as events, computing(there, _DTYPES[precision], pixels=64), ExitStack() as undo:
            rows = dataset.train
            tape = record(len(rows), seed=0, steps=STEPS, batch=variants[0].per_step)
            moments, masks = ([torch.zeros(*shape, device=NOWHERE) for _ in rows] for shape in ((8, 8, 8), (1, 8, 8)))
            trained = any(one.trains_text for one in variants)
            words = Words.of(there, [row.caption for row in rows], frozen=not trained)
            beside = Samples(there, rows, variants, tape, words, moments, masks, moments)
            told = [one for one in variants if one.preserve]
            held = Preserved.of(there, rows, variants, trigger="zolka", noun="costume") if told else None
            lora = attach(there, [spec_of(one) for one in variants], seed=0)
            undo.callback(lora.detach)
            runs = [Run(str(v), one, log.parent, events, {}) for v, one in enumerate(variants)]
            learner, dropout = Learner(lora, variants), Dropout(lora, variants)
            yield Pass(there, dataset, runs, lora, learner, dropout, beside, beside, held, STEPS, {}, {})
    finally:
        for network, state in numbers.items():
            network.to_empty(device=base.device)
            network.load_state_dict(state)


def queued(work: Pass, step: int) -> torch.Tensor:
    rates = [rates_of(run.variant, step - 1, steps=STEPS) for run in work.runs]
    found, _ = _queue(work, step, rates)
    work.learner.clear()
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_step_reads_nothing_back_before_its_end(
    name: str, precision: Precision, random_base: Base, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    variants = [variant(**values) for values in SETTINGS[name]]
    with on_meta(random_base, tiny_dataset, variants, precision, tmp_path / "events.jsonl") as work:
        for step in (1, 2):
            found = queued(work, step)
            assert found.shape == (3, len(variants)) and found.device == NOWHERE
        with pytest.raises(NotImplementedError, match="meta"):
            found.tolist()


def test_a_foreign_optimizer_waits(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    """It is code of others: it gets its clipping as a number, and its weights are looked at."""
    variants = [variant(optimizer="torch.optim.SGD")]
    with (
        pytest.raises(RuntimeError, match="meta"),
        on_meta(random_base, tiny_dataset, variants, "fp32", tmp_path / "events.jsonl") as work,
    ):
        queued(work, 1)


def test_the_next_steps_samples_are_drawn_meanwhile(
    random_base: Base, tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once each, in the order of the steps; none after the last."""
    asked: list[int] = []
    draws = Samples._batches
    monkeypatch.setattr(Samples, "_batches", lambda self, step: (asked.append(step), draws(self, step))[1])
    with on_meta(random_base, tiny_dataset, [variant()], "fp32", tmp_path / "events.jsonl") as work:
        work = replace(work, beside=None)
        for step in range(1, STEPS + 1):
            queued(work, step)
            assert asked == list(range(1, min(step + 1, STEPS) + 1))
