"""The recipe of the embedded base: a cut training goes on exactly; the whole recipe runs in small."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vez.demo import make_base, oracle
from vez.demo.recipe.loop import Plan, Trainer
from vez.demo.recipe.text import make_tokenizer, tokens
from vez.demo.world.garments import COSTUME


def _trainer(folder: Path, plan: Plan) -> tuple[nn.Module, Trainer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.Linear(8, 2))
    return model, Trainer("toy", model, plan=plan, folder=folder)


def _loss(model: nn.Module) -> object:
    def loss_of(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        x = torch.from_numpy(rng.normal(size=(5, 6)).astype(np.float32))
        return (model(x) + 0.1 * torch.randn(5, 2)).pow(2).mean(), {}

    return loss_of


class _Cut(Exception):
    pass


def test_a_cut_training_ends_in_the_same_bits(tmp_path: Path) -> None:
    plan = Plan(steps=40, lr=1e-2, warmup=5, save_seconds=0.0)
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole, uncut = _trainer(tmp_path / "whole", plan)
    uncut.run(_loss(whole), say=lambda line: None)

    model, trainer = _trainer(tmp_path / "cut", plan)

    def stop(line: str) -> None:
        if line.startswith("toy 20/"):
            raise _Cut

    with pytest.raises(_Cut):
        trainer.run(_loss(model), say=stop)
    model, trainer = _trainer(tmp_path / "cut", plan)
    assert 0 < trainer.step < 20
    trainer.run(_loss(model), say=lambda line: None)
    for a, b in zip(whole.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(trainer.average[k], p) for k, p in uncut.average.items())


def test_the_learning_rate_rises_then_falls() -> None:
    plan = Plan(steps=1000, lr=2.0, warmup=10)
    assert plan.rate(0) == pytest.approx(0.2)
    assert plan.rate(10) == pytest.approx(2.0, rel=1e-3)
    assert plan.rate(999) == pytest.approx(0.02, rel=1e-2)


def test_the_tokenizer_cuts_a_strange_word_into_pieces(tmp_path: Path) -> None:
    made = make_tokenizer(["a girl wearing a red hoodie, forest", "a girl in the snow"] * 3, tmp_path)
    pieces = made.tokenize("nosnjaoutfit, a girl")
    assert len(pieces) > 4 and pieces[-1] == "girl</w>"
    ids = tokens(made, [{"captions": ["a girl"]}], seed=0)
    assert ids.shape == (1, 1, 77)
    assert ids[0, 0, 0] == made.bos_token_id and ids[0, 0, 3] == made.eos_token_id == ids[0, 0, -1]


def test_the_oracle_answers_in_its_own_words() -> None:
    torch.manual_seed(0)
    found = oracle.ask(oracle.Oracle().eval(), np.zeros((3, 128, 128, 3), np.uint8))
    assert len(found) == 3
    assert all(answer[q] in values for answer in found for q, values in oracle.ANSWERS.items())
    assert COSTUME in oracle.ANSWERS["garment"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")
def test_the_whole_recipe_runs_in_small(tmp_path: Path) -> None:
    maker = make_base.Maker(
        tmp_path / "work", tmp_path / "out", make_base.SIZES["smoke"], "cpu", sheet=tmp_path / "s.png"
    )
    for name in make_base.STAGES:
        maker.stage(name, getattr(maker, name))
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert {"place", "weather", "garment", "colour"} <= card["figures"].keys()
    assert sum(w["bytes"] for w in card["weights"].values()) < 45e6
    assert (tmp_path / "out" / "base" / "model_index.json").is_file()
