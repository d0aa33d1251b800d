"""Parts of a U-Net treated otherwise, and a rate for each text encoder: what is adapted, how, at which rates."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from test_learner import a_set, cut_after, take_steps
from test_train import run, variant
from vez import base as bases
from vez.base import Base
from vez.config import Variant
from vez.dataset import Dataset
from vez.errors import ConfigError
from vez.family import FAMILIES
from vez.files.reading import read
from vez.header import network_args
from vez.interop import base_keys, load_kohya
from vez.kohya_config.carry import carry
from vez.lora import LoraSpec, attach
from vez.plan import cost_of
from vez.room import lora_numbers, memory, module_sizes, sizes_of
from vez.shape import Part, modules_of, spec_of

BLOCKS = {
    "down": {"rank": 2},
    "down.1": {"rank": 0},
    "mid": {"lr": 0.0},
    "up.1.0": {"rank": 6, "alpha": 3.0, "lr": 0.5},
}


def shapes(base: Base, **values: Any) -> dict[str, Part]:
    return {key: part for key, (_, part) in modules_of(base.layout, spec_of(variant(**values))).items()}


def test_the_narrower_name_wins_key_by_key() -> None:
    layout = FAMILIES["sd1"].layout
    assert layout is not None
    blocks = {"down": {"rank": 2, "lr": 0.5}, "down.1": {"alpha": 8.0}, "down.1.0": {"lr": 2.0}}
    made = modules_of(layout, spec_of(variant(rank=8, alpha=4.0, blocks=blocks)))
    at = {target.block: part for target, part in made.values()}
    assert at["down.0.0"] == Part(2, 1.0, 0.5), "its scale stays the variant's"
    assert at["down.1.1"] == Part(2, 8.0, 0.5)
    assert at["down.1.0"] == Part(2, 8.0, 2.0)
    assert at["up.1.0"] == at["mid.1"] == at[""] == Part(8, 4.0)


def test_convolutions_have_a_rank_and_alpha_of_their_own() -> None:
    layout = FAMILIES["sd1"].layout
    assert layout is not None
    blocks = {"mid": {"conv_rank": 0}, "up.0": {"conv_rank": 8}, "up.1": {"rank": 0}}
    made = modules_of(layout, spec_of(variant(rank=16, alpha=8.0, conv_rank=4, blocks=blocks)))
    assert made["lora_unet_down_blocks_0_resnets_0_conv1"][1] == Part(4, 2.0)
    assert made["lora_unet_down_blocks_0_resnets_0_time_emb_proj"][1] == Part(16, 8.0)
    assert made["lora_unet_up_blocks_0_upsamplers_0_conv"][1] == Part(8, 4.0)
    assert "lora_unet_mid_block_resnets_0_conv1" not in made
    assert "lora_unet_mid_block_resnets_0_time_emb_proj" in made, "as in kohya"
    assert "lora_unet_up_blocks_1_resnets_0_conv1" in made
    assert "lora_unet_up_blocks_1_resnets_0_conv_shortcut" not in made
    only = modules_of(layout, spec_of(variant(rank=16, blocks={"mid": {"conv_rank": 2}})))
    assert [key for key, (t, _) in only.items() if t.kernel == 3] == [
        f"lora_unet_mid_block_resnets_{i}_conv{n}" for i in (0, 1) for n in (1, 2)
    ]
    assert sum(target.resnet for target, _ in made.values()) < 86 < sum(True for _ in made)


def test_resnets_without_their_convolutions() -> None:
    """kohya's conv_dim = 0: what of the ResNets is no 3×3 convolution, at the LoRA's own rank; nothing else."""
    layout = FAMILIES["sd1"].layout
    assert layout is not None
    plain = modules_of(layout, spec_of(variant(rank=16, alpha=8.0)))
    made = modules_of(layout, spec_of(variant(rank=16, alpha=8.0, resnets=True)))
    more = {key: made[key] for key in made.keys() - plain.keys()}
    assert more and all(
        target.resnet and target.kernel == 1 and part == Part(16, 8.0) for target, part in more.values()
    )
    assert "lora_unet_down_blocks_0_resnets_0_time_emb_proj" in more
    assert "lora_unet_down_blocks_1_resnets_0_conv_shortcut" in more
    assert plain.items() <= made.items()
    with pytest.raises(ValueError, match="conv_alpha goes with conv_rank"):
        variant(resnets=True, conv_alpha=2.0)


@pytest.mark.parametrize("rank", [3, 8, 31])
def test_rslora_of_a_block(rank: int) -> None:
    layout = FAMILIES["sd1"].layout
    assert layout is not None
    made = modules_of(layout, spec_of(variant(rank=4, alpha=2.0, rslora=True, blocks={"mid": {"rank": rank}})))
    part = made["lora_unet_mid_block_attentions_0_proj_in"][1]
    assert part.scale == pytest.approx(0.5 * rank / rank**0.5, rel=2**-8)


def test_what_the_base_lacks_is_an_error_that_says_what_it_has(random_base: Base) -> None:
    with pytest.raises(
        ConfigError, match=r"has no block 'down\.3'; it has down, mid, up, down\.0, down\.1, up\.0, up\.1"
    ):
        attach(random_base, [spec_of(variant(blocks={"down.3": {"rank": 2}}))], seed=0)
    with pytest.raises(ConfigError, match=r"lr_text2 is for SDXL's second"):
        attach(random_base, [spec_of(variant(lr_text2=1e-4))], seed=0)
    nothing = variant(lr_text=0, blocks={name: {"rank": 0} for name in ("down", "mid", "up")})
    with pytest.raises(ConfigError, match="no module would be adapted"):
        attach(random_base, [spec_of(nothing)], seed=0)


@pytest.mark.parametrize(
    "values",
    [
        {"blocks": {"left": {"rank": 2}}},
        {"blocks": {"down.x": {"rank": 2}}},
        {"blocks": {"mid.0.1": {"rank": 2}}},
        {"blocks": {"down": {"rank": -1}}},
        {"blocks": {"down": {"ranks": 1}}},
        {"conv_alpha": 2.0},
        {"optimizer": "prodigy", "lr_unet": 1.0, "lr_text": 1.0, "blocks": {"mid": {"lr": 0.5}}},
        {"optimizer": "prodigy", "lr_unet": 1.0, "lr_text": 1.0, "lr_text2": 0.5},
        {"lr_unet": 0, "lr_text": 0, "lr_text2": 0},
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        variant(**values)


def test_the_file_holds_what_is_adapted_and_each_variant_is_as_alone(
    random_base: Base, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    variants = {
        "parts": variant(blocks=BLOCKS, conv_rank=2, conv_alpha=1.0, scale_weight_norms=0.01),
        "plain": variant(),
        "dropped": variant(blocks={"up": {"rank": 6}}, conv_rank=3, rank_dropout=0.3, dropout=0.2, lora_plus=4.0),
        "foreign": variant(blocks={"up": {"lr": 0.5}}, conv_rank=1, optimizer="torch.optim.AdamW", ema=0.9),
    }
    run(random_base, tiny_dataset, tmp_path / "all", steps=3, variants=variants)
    for name, one in variants.items():
        run(random_base, tiny_dataset, tmp_path / name, steps=3, variants={name: one})
        together, alone = (load_kohya(tmp_path / at / name / "lora.safetensors")[0] for at in ("all", name))
        assert together.keys() == alone.keys() == shapes(random_base, **one.model_dump()).keys()
        for key, part in shapes(random_base, **one.model_dump()).items():
            assert (together[key].rank, together[key].alpha) == (part.rank, part.alpha)
            assert float((together[key].down - alone[key].down).norm()) <= 2e-3 * float(alone[key].down.norm()), key
    file = tmp_path / "all" / "parts" / "lora.safetensors"
    found = read(file).modules  # as vez show and vez convert read it
    assert len(found) == len(load_kohya(file)[0])
    assert not [at for at in found if "mid_block" in at.path]
    assert {at.path.rpartition(".")[2] for at in found if "down_blocks.1" in at.path} == {"conv1", "conv2"}


def test_a_cut_run_ends_in_the_same_bits(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    variants = {
        "parts": variant(blocks=BLOCKS, conv_rank=2, ema=0.9, rank_dropout=0.2),
        "foreign": variant(blocks=BLOCKS, conv_rank=1, optimizer="torch.optim.Adafactor"),
    }
    run(random_base, tiny_dataset, tmp_path / "whole", steps=4, variants=variants)
    cut_after(2, random_base, tiny_dataset, tmp_path / "cut", variants, steps=4)
    run(random_base, tiny_dataset, tmp_path / "cut", steps=4, variants=variants)
    for name in variants:
        whole, cut = (tmp_path / at / name / "lora.safetensors" for at in ("whole", "cut"))
        assert whole.read_bytes() == cut.read_bytes()


def test_rates_of_blocks_are_torch_s_with_a_group_for_each(random_base: Base) -> None:
    """Ours in stretches of the flat buffer, and a foreign AdamW with groups of its own: the same weights."""
    shape = {"blocks": BLOCKS, "conv_rank": 2, "lora_plus": 3.0, "clip_grad": 0.0}
    sets = [a_set(random_base, variant(**shape, **more)) for more in ({}, {"optimizer": "torch.optim.AdamW"})]
    ours, theirs = (take_steps(*one, steps=3)[-1] for one in sets)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
    made, _ = sets[0]
    assert len(made.stretches[0]) < len(made.segments) / 2, "not one piece for each module"
    kinds = {stretch.kind.lr for stretch in made.stretches[0]}
    assert kinds == {1.0, 0.5}
    before, _ = a_set(random_base, variant(**shape))
    moved = {
        key: float((after[0] - first[0]).abs().median())
        for (key, after), first in zip(
            made.rows(ours, 0).items(), before.rows(before.params.detach(), 0).values(), strict=True
        )
    }
    keys = base_keys(random_base, resnets=True)
    half = [move for key, move in moved.items() if keys[key].block == "up.1.0"]
    full = [move for key, move in moved.items() if keys[key].block == "up.1.1"]
    assert sum(half) / len(half) == pytest.approx(sum(full) / len(full) / 2, rel=0.05)


def test_a_rate_for_each_text_encoder(family_folders: dict[str, Path]) -> None:
    xl = bases.load(str(family_folders["sdxl"]))
    both, second, neither = (
        variant(**v) for v in ({"lr_text2": 1e-4}, {"lr_text": 0, "lr_text2": 1e-4}, {"lr_text2": 0})
    )
    for one, encoders in ((both, {"te1", "te2", "unet"}), (second, {"te2", "unet"}), (neither, {"te1", "unet"})):
        assert {key.split("_")[1] for key in shapes(xl, **one.model_dump())} == encoders
    made, learner = a_set(xl, both, variant())
    before = made.params.detach().clone()
    after = take_steps(made, learner, steps=1)[-1]
    text = made.columns["text"]
    steps_of = {}
    for stretch in made.stretches[0]:
        steps_of[stretch.kind.network, stretch.kind.encoder] = float(
            (after - before)[0, stretch.columns].abs().median()
        )
    assert steps_of["text", 0] == pytest.approx(5e-4, rel=0.01)
    assert steps_of["text", 1] == pytest.approx(1e-4, rel=0.01)
    assert steps_of["unet", 0] == pytest.approx(1e-3, rel=0.01)
    assert float((after - before)[1, text].abs().median()) == pytest.approx(5e-4, rel=0.01), "absent: the first's"


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_numbers_are_those_of_real_modules(kind: str, family_folders: dict[str, Path]) -> None:
    base, sizes = bases.load(str(family_folders[kind])), sizes_of(family_folders[kind])
    specs = [LoraSpec(3, 3.0), spec_of(variant(rank=2, conv_rank=4, blocks={"up.0": {"rank": 5}, "mid": {"rank": 0}}))]
    made = attach(base, specs, seed=0)
    made.detach()
    assert made.params.shape[1] == lora_numbers(sizes, *specs)
    for v, spec in enumerate(specs):
        own = sum(down.numel() + up.numel() for down, up in made.rows(made.params, v).values())
        assert own == lora_numbers(sizes, spec)
    assert module_sizes(sizes).keys() == base_keys(base, resnets=True).keys()


def test_a_locon_of_sd1_has_kohyas_size() -> None:
    """Rank 32 with conv rank 32: the parameters of 192 + 86 + 72 modules."""
    sizes, spec = sizes_of(None), spec_of(variant(rank=32, conv_rank=32))
    assert len(modules_of(sizes.layout, spec)) == 192 + 86 + 72
    plain, more = (lora_numbers(sizes, one) for one in (spec_of(variant(rank=32)), spec))
    widths = module_sizes(sizes)
    assert plain == 18_874_368 and more - plain == 32 * sum(
        sum(widths[key]) for key, (target, _) in modules_of(sizes.layout, spec).items() if target.resnet
    )


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_the_header_says_it_as_kohya_does_and_is_read_back(kind: str, random_base: Base) -> None:
    family = FAMILIES[kind]
    assert family.layout is not None
    base = replace(random_base, family=family, layout=family.layout)
    blocks = {"down.1": {"rank": 4, "alpha": 2.0}, "mid": {"conv_rank": 0}, "up": {"lr": 0.5}, "up.0.1": {"rank": 0}}
    one = variant(rank=8, alpha=8.0, conv_rank=2, conv_alpha=2.0, blocks=blocks, lora_plus=4.0, rank_dropout=0.1)
    said = network_args(base, one)
    assert said["conv_dim"] == "2" and said["loraplus_lr_ratio"] == "4" and said["rank_dropout"] == "0.1"
    assert len(said["block_dims"].split(",")) == (23 if kind == "sdxl" else 25)
    values = {"network_dim": 8, "network_alpha": 8, **{f"network_args.{key}": value for key, value in said.items()}}
    back = carry(values, near=Path("lora.safetensors")).tables["variant"]
    again = Variant(dataset="v", **{key: back[key] for key in ("rank", "alpha", "conv_rank", "conv_alpha", "blocks")})
    assert modules_of(family.layout, spec_of(again)) == modules_of(family.layout, spec_of(one))
    assert json.loads(json.dumps(network_args(base, variant()))) == {}


def test_the_plan_counts_what_is_trained() -> None:
    one = variant(rank=16, conv_rank=8, blocks={"mid": {"rank": 0, "conv_rank": 0}})
    cost, numbers = cost_of(None), lora_numbers(sizes_of(None), spec_of(one))
    assert cost.file_bytes(one) == 2 * numbers
    assert cost.parameters(variant(rank=16)) < numbers < cost.parameters(variant(rank=16, conv_rank=8))
    how: dict[str, Any] = {"side": 512, "batch": 1, "ranks": [16], "number_bytes": 2}
    plain, locon = (memory(sizes_of(None), specs=[spec_of(v)], **how) for v in (variant(rank=16), one))
    assert plain.loras == memory(sizes_of(None), **how).loras == 16 * cost.parameters(variant(rank=16))
    assert locon.loras == 16 * numbers and locon.step > plain.step
