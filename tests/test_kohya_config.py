"""Coming from kohya: its files say the same in vez.toml, and what they say that vez cannot is listed."""

import json
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import Field, create_model
from typer.testing import CliRunner

from vez import config
from vez.cli import MISTAKE, app
from vez.config import Config, Study, Variant
from vez.errors import ConfigError, DataError, VezError
from vez.kohya_config import options
from vez.kohya_config.carried import Carried
from vez.kohya_config.carry import carry
from vez.kohya_config.options import BY_NAME, OPTIONS, TABLES
from vez.kohya_config.read import read
from vez.project import FromKohya, create_from_kohya

WORDS = {"trigger": "nosnjaoutfit", "noun": "folk costume"}
NEAR = Path("config.toml")


def toml(values: dict[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def written(path: Path, values: dict[str, Any]) -> Path:
    text = json.dumps(values) if path.suffix == ".json" else toml(values)
    path.write_text(text, encoding="utf-8")
    return path


def pictures(folder: Path, count: int, caption: str | None = "nosnjaoutfit, a woman", suffix: str = ".txt") -> Path:
    folder.mkdir(parents=True)
    draw = np.random.default_rng(count)
    for i in range(count):
        Image.fromarray(draw.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        if caption is not None:
            (folder / f"{i}{suffix}").write_text(f"{caption} {i}", encoding="utf-8")
    return folder


def lora(path: Path, metadata: dict[str, str]) -> Path:
    """A LoRA of whose file only the header matters."""
    header = json.dumps(
        {"__metadata__": metadata, "x": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}}
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    return path


def made(folder: Path, file: Path, **words: Any) -> tuple[FromKohya, Config, Variant]:
    """The project, what its vez.toml says, and its only variant."""
    project = create_from_kohya(folder, file, **{**WORDS, **words})
    loaded = config.load(project.path)
    (variant,) = loaded.study["first"].variant.values()
    return project, loaded, variant


# ---- the reference study -------------------------------------------------------------------------------------------

STUDY = {
    "v1": {"train_batch_size": 1, "network_dim": 32, "network_alpha": 32},
    "v2": {"train_batch_size": 8, "network_dim": 32, "network_alpha": 32},
    "v3": {"train_batch_size": 8, "network_dim": 64, "network_alpha": 64},
    "v4": {"train_batch_size": 8, "network_dim": 64, "network_alpha": 32},
}


@pytest.mark.parametrize("name", STUDY)
def test_the_reference_study(tmp_path: Path, name: str) -> None:
    pictures(tmp_path / "train" / "10_nosnjaoutfit folk costume", 34)
    common = {
        "pretrained_model_name_or_path": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "train_data_dir": "train",
        "caption_extension": ".txt",
        "resolution": "512,512",
        "network_module": "networks.lora",
        "unet_lr": 1e-4,
        "text_encoder_lr": 5e-5,
        "max_train_epochs": 10,
        "seed": 7,
        "mixed_precision": "bf16",
        "output_name": f"nosnja_{name}",
    }
    file = written(tmp_path / f"{name}.toml", {**common, **STUDY[name]})
    project = create_from_kohya(tmp_path / "new", file)  # trigger word and noun are the class tokens
    loaded = config.load(project.path)
    wanted = {"batch": STUDY[name]["train_batch_size"], "rank": STUDY[name]["network_dim"],
              "alpha": STUDY[name]["network_alpha"], "lr_unet": 1e-4, "lr_text": 5e-5}  # fmt: skip
    assert loaded.study["first"].variant == {f"nosnja_{name}": Variant(dataset="v1", **wanted)}
    study = loaded.study["first"]
    assert (study.images_seen, study.seeds, study.precision) == (3400, (7,), "bf16")
    assert study.steps_of(study.variant[f"nosnja_{name}"], 34) == 3400 // STUDY[name]["train_batch_size"]
    assert loaded.project.trigger == "nosnjaoutfit"
    assert loaded.project.noun == "folk costume"
    assert loaded.dataset["v1"].images == Path("images/v1")
    assert loaded.dataset["v1"].held_out == 0
    assert len(list((tmp_path / "new" / "images" / "v1").iterdir())) == 34
    assert (tmp_path / "new" / "captions" / "v1" / "3.txt").read_text(
        encoding="utf-8"
    ).strip() == "nosnjaoutfit, a woman 3"
    assert project.listed == ("All that the file says was carried over.",)
    kohyas = 3400 if name == "v1" else 430
    text = project.path.read_text(encoding="utf-8").replace("\n# ", " ")
    assert f"34 × 10 = 340 an epoch; × 10 epochs ÷ batch {wanted['batch']}" in text
    assert f"what is left of a batch: {kohyas} steps" in text


def test_what_is_drawn_for_a_sample_is_carried() -> None:
    values = {
        "noise_offset": 0.1,
        "noise_offset_random_strength": True,
        "ip_noise_gamma": 0.05,
        "ip_noise_gamma_random_strength": True,
        "loss_type": "huber",
        "huber_scale": 2.0,
        "enable_wildcard": True,
    }
    found = carried(values)
    made = Variant(dataset="v1", **found.tables["variant"])
    assert made.noise_offset_random and made.input_perturbation_random and made.wildcards
    assert (made.noise_offset, made.input_perturbation, made.huber_scale) == (0.1, 0.05, 2.0)
    assert not {left.option for left in found.left} & values.keys()


@pytest.mark.parametrize(
    ("said", "log"), [("tensorboard", ("tensorboard",)), ("wandb", ("wandb",)), ("all", ("tensorboard", "wandb"))]
)
def test_what_is_shown_while_it_runs_is_carried(said: str, log: tuple[str, ...]) -> None:
    found = carried({"sample_every_n_steps": 50, "log_with": said, "max_train_steps": 9})
    made = Study(**found.tables["study"], variant={"v": Variant(dataset="v1")})
    assert (made.sample_every, made.log) == (50, log)
    assert not {left.option for left in found.left} & {"sample_every_n_steps", "log_with"}


# ---- the table -----------------------------------------------------------------------------------------------------


def test_every_option_is_named_once_and_its_keys_have_a_table() -> None:
    assert len(BY_NAME) == len(OPTIONS)
    for option in OPTIONS:
        assert option.does
        assert all(key.partition(".")[0] in TABLES for key in option.keys), option.name
        assert not (option.idle and option.keys), option.name


class Grown(Variant):
    """A variant that has learned more."""

    noise_offset: float = Field(default=0.0, ge=0, le=1)
    loss: Literal["l2", "huber"] = "l2"


def carried(values: dict[str, Any], **more: Any) -> Carried:
    return carry(values, near=NEAR, **more)


def test_an_option_is_carried_from_the_day_its_field_exists() -> None:
    values = {"noise_offset": "0.05", "loss_type": "huber"}
    grown = carried(values, models={**TABLES, "variant": Grown})
    variant = grown.tables["variant"]
    assert (variant["noise_offset"], variant["loss"]) == (0.05, "huber")
    assert not {left.option for left in grown.left} & set(values)


def test_an_option_whose_field_is_gone_is_listed_with_its_value_and_effect() -> None:
    lacking = type("Lacking", (config.table.Table,), {"__annotations__": {"rank": int, "alpha": float, "batch": int,
        "lr_unet": float, "lr_text": float, "schedule": str, "warmup": int}})  # fmt: skip
    values = {"min_snr_gamma": 5, "unet_lr": 1e-4}
    (line,) = [left.text for left in carried(values, models={**TABLES, "variant": lacking}).left
               if left.option == "min_snr_gamma"]  # fmt: skip
    assert line == "min_snr_gamma = 5.0: vez has no field for this; Min-SNR: weighs the easy timesteps less"
    assert carried(values).tables["variant"]["min_snr"] == 5.0


@pytest.mark.parametrize(
    ("every", "samples", "pictures", "reason"),
    [
        (10, 34, 34, ""),
        (1, 340, 34, ""),  # every epoch is every pass, however long either is
        (10, 340, 34, "several times (34 × 10)"),
        (10, None, None, "not known here"),
    ],
)
def test_epochs_without_captions_are_carried_only_where_they_are_passes(
    every: int, samples: int | None, pictures: int | None, reason: str
) -> None:
    values = {"caption_dropout_every_n_epochs": every}
    work = carry(values, near=Path("a.toml"), samples=samples, counted="34 × 10", pictures=pictures)
    left = [left.why for left in work.left if left.option == "caption_dropout_every_n_epochs"]
    assert work.tables["variant"].get("caption_dropout_every") == (None if reason else every)
    assert len(left) == bool(reason)
    assert all(reason in why for why in left)


def test_a_field_that_does_not_take_the_value_leaves_it_with_the_reason() -> None:
    grown = carried({"noise_offset": 3.0}, models={**TABLES, "variant": Grown})
    assert "noise_offset" not in grown.tables["variant"]
    (left,) = [left for left in grown.left if left.option == "noise_offset"]
    assert "does not take it" in left.why
    assert "1" in left.why


def test_what_is_not_said_is_what_kohya_takes_and_not_what_vez_takes() -> None:
    variant = carried({"network_module": "networks.lora"}).tables["variant"]
    assert variant == {"rank": 4, "alpha": 1.0, "batch": 1, "lr_unet": 2e-6, "lr_text": 2e-6, "schedule": "constant"}
    work = carried({"network_module": "networks.lora"})
    assert work.tables["study"] == {"steps": 1600}
    assert "where its file says nothing" in work.comments["variant.alpha"]
    assert "seed = not said" in "\n".join(left.text for left in work.left)
    assert "variant" in TABLES
    assert Variant.model_fields["rank"].default != 4


def test_a_dataset_config_says_nothing_of_what_it_does_not_say() -> None:
    work = carried({"keep_tokens": 1}, whole=False)
    assert not {"rank", "alpha", "lr_unet", "batch"} & set(work.tables["variant"])
    assert not work.tables["study"]


@pytest.mark.parametrize(
    ("values", "unet", "text"),
    [
        ({"learning_rate": 3e-4}, 3e-4, 3e-4),
        ({"learning_rate": 3e-4, "unet_lr": 1e-4}, 1e-4, 3e-4),
        ({"learning_rate": "3e-4", "text_encoder_lr": [5e-5]}, 3e-4, 5e-5),
        ({"unet_lr": 1e-4, "text_encoder_lr": "[5e-05, 5e-05]"}, 1e-4, 5e-5),
        ({"unet_lr": 1e-4, "network_train_unet_only": True}, 1e-4, 0.0),
        ({"unet_lr": 1e-4, "network_train_text_encoder_only": "True"}, 0.0, 2e-6),
        ({"unet_lr": 1e-4, "text_encoder_lr": 0}, 1e-4, 0.0),
        ({"learning_rate": 1e-4, "optimizer_type": "PagedAdamW8bit"}, 1e-4, 1e-4),
    ],
)
def test_learning_rates(values: dict[str, Any], unet: float, text: float) -> None:
    variant = carried(values).tables["variant"]
    assert (variant["lr_unet"], variant["lr_text"]) == (unet, text)


def test_a_rate_for_an_optimizer_that_vez_lacks_is_not_carried() -> None:
    """Prodigy's learning rate is 1; with AdamW it would burn the LoRA."""
    values = {"optimizer_type": "DAdaptation", "unet_lr": 1.0, "learning_rate": 1.0, "optimizer_args.d0": "1e-5"}
    for models in (TABLES, {**TABLES, "variant": _without("optimizer", "optimizer_args")}):
        work = carried(values, models=models)
        assert not {"lr_unet", "lr_text", "optimizer", "optimizer_args"} & set(work.tables["variant"])
        lines = [left.text for left in work.left]
        assert "unet_lr = 1.0: a learning rate for another optimizer" in lines
        assert "optimizer_args.d0 = 1e-5: an argument of another optimizer" in lines
        assert any(line.startswith("optimizer_type = DAdaptation: vez trains with AdamW") for line in lines)


def test_an_optimizer_is_carried_with_its_rates_and_arguments() -> None:
    values = {"optimizer_type": "Prodigy", "learning_rate": 1, "optimizer_args.weight_decay": "0.1",
              "optimizer_args.betas": "0.9,0.99", "optimizer_args.decouple": "True"}  # fmt: skip
    work = carried(values)
    wanted = {"optimizer": "prodigy", "lr_unet": 1.0, "lr_text": 1.0, "weight_decay": 0.1,
              "optimizer_args": {"betas": [0.9, 0.99], "decouple": True}}  # fmt: skip
    assert {key: work.tables["variant"][key] for key in wanted} == wanted
    assert Variant(dataset="v1", **work.tables["variant"]).optimizer == "prodigy"
    assert not any(left.option in values for left in work.left)
    assert carried({"use_8bit_adam": True}).tables["variant"]["optimizer"] == "adamw8bit"
    dotted = carried({"optimizer_type": "bitsandbytes.optim.AdEMAMix8bit"}).tables["variant"]
    assert dotted["optimizer"] == "bitsandbytes.optim.AdEMAMix8bit"


def test_an_optimizer_that_vez_cannot_have_so_is_taken_back_with_its_rates() -> None:
    work = carried({"optimizer_type": "Prodigy", "unet_lr": 1.0, "text_encoder_lr": 0.5})
    assert not {"optimizer", "lr_unet", "lr_text"} & set(work.tables["variant"])
    (left,) = [left for left in work.left if left.option == "optimizer_type"]
    assert "one learning rate for all" in left.why
    assert "unet_lr" in {left.option for left in work.left}


def test_an_argument_that_adamw_does_not_take_is_left() -> None:
    work = carried({"optimizer_args.betas": "(0.9, 0.98)", "optimizer_args.amsgrad": "True"})
    assert work.tables["variant"]["optimizer_args"] == {"betas": [0.9, 0.98]}
    assert [left.option for left in work.left if left.option.startswith("optimizer_args")] == ["optimizer_args.amsgrad"]


def _without(*names: str) -> type[config.table.Table]:
    fields = {name: (info.annotation, info) for name, info in Variant.model_fields.items() if name not in names}
    return create_model("Lacking", __base__=config.table.Table, **fields)


def test_two_text_encoders_of_different_rates() -> None:
    work = carried({"text_encoder_lr": [5e-5, 1e-5]})
    assert (work.tables["variant"]["lr_text"], work.tables["variant"]["lr_text2"]) == (5e-5, 1e-5)
    assert "lr_text2" not in carried({"text_encoder_lr": [5e-5, 5e-5]}).tables["variant"]
    three = carried({"text_encoder_lr": [5e-5, 1e-5, 0]})
    assert any("two text encoders at most" in left.why for left in three.left if left.option == "text_encoder_lr")
    only = carried({"text_encoder_lr": [5e-5, 1e-5], "network_train_unet_only": True}).tables["variant"]
    assert only["lr_text"] == 0 and "lr_text2" not in only


@pytest.mark.parametrize(
    ("values", "schedule", "warmup", "left"),
    [
        ({"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 100}, "constant", 100, None),
        ({"lr_scheduler": "cosine", "lr_warmup_steps": 0.1, "max_train_steps": 500}, "cosine", 0.1, None),
        ({"lr_scheduler": "cosine", "lr_warmup_steps": "10%"}, "cosine", 0.1, None),
        ({"lr_scheduler": "cosine_with_restarts", "lr_scheduler_num_cycles": 3}, "cosine_with_restarts", None, None),
        ({"lr_scheduler": "polynomial", "lr_scheduler_power": 2}, "polynomial", None, None),
        ({"lr_scheduler": "inverse_sqrt"}, None, None, "lr_scheduler"),
        ({"lr_scheduler": "cosine", "lr_warmup_steps": 0.1, "max_train_epochs": 3}, "cosine", 0.1, None),
    ],
)
def test_schedules(values: dict[str, Any], schedule: str | None, warmup: int | None, left: str | None) -> None:
    work = carried(values)
    assert work.tables["variant"].get("schedule") == schedule
    assert work.tables["variant"].get("warmup") == warmup
    assert left is None or left in {line.option for line in work.left}
    cycles, power = values.get("lr_scheduler_num_cycles"), values.get("lr_scheduler_power")
    assert (work.tables["variant"].get("cycles"), work.tables["variant"].get("power")) == (cycles, power)


def test_steps_epochs_and_intervals() -> None:
    assert carried({"max_train_steps": "500"}).tables["study"] == {"steps": 500}
    assert carried({"max_train_epochs": 4}).tables["study"] == {"epochs": 4}  # the pictures are not known
    work = carried({"max_train_epochs": 4, "train_batch_size": 8, "save_every_n_epochs": 2}, samples=340)
    assert work.tables["study"] == {"images_seen": 1360, "save_every": 86}  # ⌈340 ÷ 8⌉ = 43
    assert "save_every_n_epochs" in {left.option for left in carried({"save_every_n_epochs": 2}).left}
    work = carried({"train_batch_size": 4, "gradient_accumulation_steps": 2, "save_every_n_steps": 50})
    assert (work.tables["variant"]["batch"], work.tables["variant"]["accumulate"]) == (4, 2)
    assert work.tables["study"]["save_every"] == 50
    values = {"max_train_epochs": 4, "train_batch_size": 4, "gradient_accumulation_steps": 2}
    work = carried({**values, "save_every_n_epochs": 1, "save_last_n_epochs": 2}, samples=340)
    assert work.tables["study"] == {"images_seen": 1360, "save_every": 43, "keep": 2}
    assert "÷ batch 8 = 170 steps" in work.comments["study.images_seen"]


@pytest.mark.parametrize(
    ("said", "side"),
    [("512", 512), ("512,768", 624), (768, 768), ([640, 640], 640), ("(512, 512)", 512), ("500", None)],
)
def test_resolution(said: Any, side: int | None) -> None:
    work = carried({"resolution": said})
    assert work.tables["dataset"].get("resolution") == side
    assert (side is None) == ("resolution" in {left.option for left in work.left})


def test_alpha_zero_is_the_rank_and_a_share_of_the_pictures_a_number() -> None:
    assert carried({"network_dim": 16, "network_alpha": 0}).tables["variant"]["alpha"] == 16.0
    work = carried({"validation_split": 0.2}, pictures=34)
    assert work.tables["dataset"]["held_out"] == 7
    assert "vez's never does" in work.comments["dataset.held_out"]
    assert "validation_split" in {left.option for left in carried({"validation_split": 0.2}).left}


def test_random_crops_become_frozen_places() -> None:
    for said in (True, "True", 1):  # in a config, in a saved LoRA's metadata, in the GUI's file
        work = carried({"random_crop": said})
        assert work.tables["dataset"]["random_crops"] == 4
        assert "one of so many frozen places" in work.comments["dataset.random_crops"]
        assert "random_crop" not in {left.option for left in work.left}
    assert "random_crops" not in carried({"random_crop": False}).tables["dataset"]


def test_another_kind_of_network_is_said_and_another_family_refused() -> None:
    work = carried({"network_module": "lycoris.kohya", "network_dim": 8})
    (left,) = [left for left in work.left if left.option == "network_module"]
    assert "another kind of network" in left.why
    assert work.tables["variant"]["rank"] == 8
    work = carried({"network_module": "LyCORIS/LoKr", "network_dim": 100000})  # there: no low rank at all
    assert "rank" not in work.tables["variant"]
    assert "network_dim" in {left.option for left in work.left}
    assert "network_module = not said" in "\n".join(left.text for left in carried({"learning_rate": 1e-5}).left)
    for module in ("networks.lora_flux", "Flux1", "networks.oft_flux"):
        with pytest.raises(ConfigError, match="a family that vez does not train"):
            carried({"network_module": module})


@pytest.mark.parametrize(
    "values",
    [
        {"network_dim": "abc"},
        {"network_dim": 4.5},
        {"network_dim": 0},
        {"network_dim": True},
        {"network_alpha": -1},
        {"unet_lr": [[1]]},
        {"unet_lr": float("nan")},
        {"train_batch_size": 0},
        {"max_train_steps": 0},
        {"max_train_steps": "1e999"},
        {"resolution": "wide"},
        {"lr_warmup_steps": {}},
        {"flip_aug": "perhaps"},
        {"min_snr_gamma": "five"},
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_it(values: dict[str, Any]) -> None:
    (name,) = values
    with pytest.raises(ConfigError, match=rf"^{name} is .*config\.toml") as error:
        carried(values)
    assert "\n" not in str(error.value)


def test_what_the_base_is_read_with(tmp_path: Path) -> None:
    (tmp_path / "vae.safetensors").write_bytes(b"")
    values = {"vae": "vae.safetensors", "clip_skip": "2", "max_token_length": 225, "v_parameterization": True}
    work = carry(values, near=tmp_path / "a.toml")
    here = (tmp_path / "vae.safetensors").resolve().as_posix()
    assert work.tables["project"] == {"vae": here, "clip_skip": 2, "tokens": 225, "prediction": "v"}
    assert carried({"v_parameterization": False, "clip_skip": 1, "max_token_length": 75}).tables["project"] == {}
    elsewhere = carried({"vae": "D:\\vae.pt"})
    assert "vae = D:\\vae.pt: it is not on this machine; mend [project] vae" in [left.text for left in elsewhere.left]
    moved = carried({"pretrained_model_name_or_path": "runwayml/stable-diffusion-v1-5"})
    assert moved.tables["project"]["base"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert "gone from the hub" in moved.comments["project.base"]


# ---- the files -----------------------------------------------------------------------------------------------------


def test_sections_and_lists_of_arguments(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(
        '[one]\nnetwork_dim = 8\nnetwork_args = ["conv_dim=4", "algo = locon"]\n[two]\n'
        'optimizer_args = ["weight_decay=0.1"]\nunknown_thing = "?"\n',
        encoding="utf-8",
    )
    said = read(file)
    assert said.values == {
        "network_dim": 8,
        "network_args.conv_dim": "4",
        "network_args.algo": "locon",
        "optimizer_args.weight_decay": "0.1",
        "unknown_thing": "?",
    }
    work = carried(dict(said.values))
    assert work.tables["variant"]["weight_decay"] == 0.1
    assert "unknown_thing" in {left.option for left in work.left}


GUI = {
    "LoRA_type": "Standard",
    "pretrained_model_name_or_path": "C:\\models\\sd15.safetensors",
    "train_data_dir": "C:\\train\\zolka",
    "output_name": "zolka",
    "max_resolution": "512,512",
    "learning_rate": 0.0001,
    "unet_lr": 0.0001,
    "text_encoder_lr": 5e-05,
    "lr_scheduler": "cosine",
    "lr_warmup": 10,
    "lr_scheduler_num_cycles": "",
    "max_train_steps": "400",
    "epoch": 10,
    "train_batch_size": 2,
    "network_dim": 64,
    "network_alpha": 32,
    "conv_dim": 8,
    "rank_dropout": 0,
    "optimizer": "AdamW8bit",
    "optimizer_args": '"weight_decay=0.2"',
    "mixed_precision": "bf16",
    "clip_skip": "1",
    "keep_tokens": "0",
    "seed": "1234",
    "noise_offset_type": "Multires",
    "noise_offset": 0.1,
    "min_snr_gamma": 5,
    "max_token_length": "75",
    "xformers": "xformers",
    "sdxl": False,
    "wandb_api_key": "SECRET-KEY",
    "caption_extension": ".txt",
    "additional_parameters": '--max_grad_norm 0.5 --network_args "module_dropout=0.1"',
}


def test_the_gui(tmp_path: Path) -> None:
    project, loaded, variant = made(tmp_path / "new", written(tmp_path / "gui.json", GUI))
    assert (variant.batch, variant.rank, variant.alpha) == (2, 64, 32)
    assert (variant.lr_unet, variant.lr_text, variant.weight_decay) == (1e-4, 5e-5, 0.2)
    assert (variant.schedule, variant.warmup, variant.min_snr, variant.clip_grad) == ("cosine", 0.1, 5.0, 0.5)
    study = loaded.study["first"]
    assert (study.steps, study.seeds, study.precision) == (400, (1234,), "bf16")
    assert list(study.variant) == ["zolka"]
    text = "\n".join(project.listed)
    assert "epoch = 10: where max_train_steps or dataset_config is given the GUI does not count epochs" in text
    assert "(a path of Windows) is not on this machine" in text
    assert "mend [project] base" in text
    assert "conv_dim" not in text  # of another tab: the GUI sends it with LoCon only
    assert "noise_offset" not in text
    everything = text + project.path.read_text(encoding="utf-8")
    assert "SECRET-KEY" not in everything
    assert loaded.project.base == "C:\\models\\sd15.safetensors"
    assert (tmp_path / "new" / "images" / "v1").is_dir()


def test_the_guis_zero_is_nothing_and_epochs_count_without_steps(tmp_path: Path) -> None:
    pictures(tmp_path / "train" / "5_zolka hat", 4)
    values = {
        **GUI,
        "train_data_dir": "train",
        "max_train_steps": 0,
        "text_encoder_lr": 0,
        "seed": 0,
        "max_grad_norm": 0,
    }
    del values["additional_parameters"]
    _, loaded, variant = made(tmp_path / "new", written(tmp_path / "gui.json", values))
    assert loaded.study["first"].images_seen == 4 * 5 * 10
    assert (variant.lr_text, variant.clip_grad) == (0.0, 1.0)
    assert loaded.study["first"].seeds == (0,)


def test_locons_of_the_gui_keep_their_convolutions(tmp_path: Path) -> None:
    said = read(written(tmp_path / "gui.json", {**GUI, "LoRA_type": "Kohya LoCon", "additional_parameters": ""}))
    assert said.values["network_args.conv_dim"] == "8"
    assert said.values["network_module"] == "networks.lora"
    assert read(written(tmp_path / "gui.json", {**GUI, "LoRA_type": "LyCORIS/LoKr"})).values["network_module"] == (
        "LyCORIS/LoKr"
    )


DATASET = """
[general]
caption_extension = ".txt"
shuffle_caption = true
[[datasets]]
resolution = 512
batch_size = 4
enable_bucket = true
[[datasets.subsets]]
image_dir = "{one}"
class_tokens = "zolka hat"
num_repeats = 3
keep_tokens = 1
[[datasets.subsets]]
image_dir = "{two}"
class_tokens = "zolka hat"
keep_tokens = 2
"""


def test_a_dataset_config_alone(tmp_path: Path) -> None:
    pictures(tmp_path / "a", 3)
    pictures(tmp_path / "b", 2)
    file = tmp_path / "data.toml"
    file.write_text(DATASET.format(one="a", two="b"), encoding="utf-8")
    project = create_from_kohya(tmp_path / "new", file)
    loaded = config.load(project.path)
    assert (loaded.project.trigger, loaded.project.noun) == ("zolka", "hat")
    assert (loaded.dataset["v1"].resolution, loaded.dataset["v1"].buckets) == (512, "kohya")
    (variant,) = loaded.study["first"].variant.values()
    assert variant.batch == 4
    assert (variant.rank, variant.lr_unet) == (Variant(dataset="v1").rank, Variant(dataset="v1").lr_unet)
    assert loaded.study["first"].images_seen == 2000
    assert any("keep_tokens differs between subsets (1, 2)" in line for line in project.listed)
    assert len(list((tmp_path / "new" / "images" / "v1").glob("*.png"))) == 5


def test_a_training_config_that_names_a_dataset_config(tmp_path: Path) -> None:
    pictures(tmp_path / "a", 3)
    pictures(tmp_path / "b", 2)
    (tmp_path / "data.toml").write_text(DATASET.format(one="a", two="b"), encoding="utf-8")
    values = {"dataset_config": "data.toml", "network_dim": 8, "max_train_epochs": 2, "train_batch_size": 1}
    project, loaded, variant = made(tmp_path / "new", written(tmp_path / "a.toml", values))
    assert (variant.rank, variant.batch) == (8, 4)  # the dataset config goes before the command line
    assert loaded.study["first"].images_seen == (3 * 3 + 2) * 2
    assert "3 × 3 + 2 × 1 = 11 an epoch" in project.path.read_text(encoding="utf-8").replace("\n# ", " ")


def test_pictures_that_are_elsewhere_are_said(tmp_path: Path) -> None:
    (tmp_path / "data.toml").write_text(DATASET.format(one="/nowhere/a", two="b"), encoding="utf-8")
    project = create_from_kohya(tmp_path / "new", tmp_path / "data.toml")
    text = "\n".join(project.listed)
    assert "none of the folders that data.toml names is on this machine" in text
    written_text = project.path.read_text(encoding="utf-8")
    assert "# In the file: a: repeats 3, class tokens zolka hat" in written_text
    assert config.load(project.path).dataset["v1"].images == Path("images/v1")
    (tmp_path / "two").mkdir()
    half = written(tmp_path / "two" / "a.toml", {"dataset_config": "no.toml", "network_dim": 8})
    project, *_ = made(tmp_path / "half", half)
    assert "dataset_config = no.toml is not on this machine" in "\n".join(project.listed)


def test_class_pictures_become_a_dataset_of_their_own(tmp_path: Path) -> None:
    pictures(tmp_path / "train" / "2_zolka hat", 3)
    pictures(tmp_path / "reg" / "1_hat", 4, caption=None)
    values = {"train_data_dir": "train", "reg_data_dir": "reg", "network_dim": 8, "max_train_epochs": 2,
              "caption_extension": ".txt", "resolution": "256", "prior_loss_weight": 0.5}  # fmt: skip
    project, loaded, _ = made(tmp_path / "new", written(tmp_path / "a.toml", values))
    assert loaded.dataset["v1-class"].role == "class"
    assert loaded.dataset["v1-class"].resolution == 256
    assert len(list((tmp_path / "new" / "images" / "v1-class").glob("*.png"))) == 4
    assert "twice as many" in project.path.read_text(encoding="utf-8")
    assert loaded.study["first"].images_seen == 12


METADATA = {
    "ss_network_dim": "32",
    "ss_network_alpha": "16.0",
    "ss_network_module": "networks.lora",
    "ss_network_args": '{"conv_dim": "4"}',
    "ss_unet_lr": "0.0001",
    "ss_text_encoder_lr": "5e-05",
    "ss_learning_rate": "1e-06",
    "ss_optimizer": "torch.optim.adamw.AdamW(weight_decay=0.1,betas=(0.9, 0.99))",
    "ss_total_batch_size": "16",
    "ss_gradient_accumulation_steps": "2",
    "ss_batch_size_per_device": "8",
    "ss_max_train_steps": "430",
    "ss_steps": "86",
    "ss_lr_scheduler": "cosine",
    "ss_lr_warmup_steps": "0",
    "ss_mixed_precision": "bf16",
    "ss_clip_skip": "None",
    "ss_noise_offset": "None",
    "ss_min_snr_gamma": "5.0",
    "ss_seed": "42",
    "ss_resolution": "(512, 512)",
    "ss_enable_bucket": "True",
    "ss_sd_model_name": "v1-5-pruned.safetensors",
    "ss_output_name": "nosnja",
    "ss_cache_latents": "True",
    "ss_dataset_dirs": '{"10_nosnjaoutfit folk costume": {"n_repeats": 10, "img_count": 34}}',
    "ss_tag_frequency": "{}",
    "ss_session_id": "1",
}


def test_a_saved_lora(tmp_path: Path) -> None:
    project = create_from_kohya(tmp_path / "new", lora(tmp_path / "nosnja.safetensors", METADATA))
    loaded = config.load(project.path)
    (variant,) = loaded.study["first"].variant.values()
    assert (variant.rank, variant.alpha, variant.batch, variant.accumulate) == (32, 16.0, 8, 2)
    assert (variant.lr_unet, variant.lr_text, variant.weight_decay, variant.min_snr) == (1e-4, 5e-5, 0.1, 5.0)
    assert (variant.optimizer, variant.optimizer_args) == ("adamw", {"betas": [0.9, 0.99]})
    assert (loaded.study["first"].steps, loaded.study["first"].seeds) == (430, (42,))
    assert list(loaded.study["first"].variant) == ["nosnja"]
    assert (loaded.project.trigger, loaded.project.noun) == ("nosnjaoutfit", "folk costume")
    assert (loaded.dataset["v1"].resolution, loaded.dataset["v1"].buckets) == (512, "kohya")
    text = project.path.read_text(encoding="utf-8")
    assert "# In the file: 10_nosnjaoutfit folk costume: 34 pictures, repeats 10" in text
    assert "one epoch of kohya's is 22 steps" in text
    listed = "\n".join(project.listed)
    assert "this file was saved at step 86" in listed
    assert "v1-5-pruned.safetensors: it is not on this machine" in listed


def test_a_lora_of_a_dataset_config_tells_its_settings_in_json(tmp_path: Path) -> None:
    inside = [{"batch_size_per_device": 6, "resolution": [640, 640], "enable_bucket": True, "tag_frequency": {},
               "subsets": [{"shuffle_caption": True, "keep_tokens": 1, "num_repeats": 2}]}]  # fmt: skip
    metadata = {"ss_network_dim": "8", "ss_network_alpha": "8", "ss_datasets": json.dumps(inside)}
    values = read(lora(tmp_path / "a.safetensors", metadata)).values
    assert (values["train_batch_size"], values["resolution"], values["keep_tokens"]) == (6, [640, 640], 1)
    assert values["shuffle_caption"] is True


def test_what_is_given_goes_before_what_the_file_says(tmp_path: Path) -> None:
    mine = pictures(tmp_path / "mine", 2)
    pictures(tmp_path / "train" / "2_zolka hat", 2)
    file = written(tmp_path / "a.toml", {"train_data_dir": "train", "network_dim": 8, "resolution": "512"})
    project, loaded, _ = made(tmp_path / "new", file, images=mine, base="tiny", resolution=64, describes="a red hat")
    assert (loaded.project.base, loaded.dataset["v1"].resolution) == ("tiny", 64)
    assert loaded.project.describes == "a red hat"
    assert loaded.dataset["v1"].images == mine.resolve()
    assert not (project.path.parent / "images").exists()


def test_words_that_no_file_tells_are_asked_for_and_nothing_is_left(tmp_path: Path) -> None:
    pictures(tmp_path / "train" / "2_zolka", 2)
    file = written(tmp_path / "a.toml", {"train_data_dir": "train", "network_dim": 8})
    with pytest.raises(ConfigError, match="does not tell the noun; say it with --noun"):
        create_from_kohya(tmp_path / "new", file)
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError):
        create_from_kohya(tmp_path / "old", file)
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["mine.txt"]
    assert create_from_kohya(tmp_path / "new", file, noun="hat").path.is_file()


def test_class_pictures_that_cannot_be_read_leave_nothing(tmp_path: Path) -> None:
    pictures(tmp_path / "train" / "2_zolka hat", 2)
    (tmp_path / "reg").mkdir()
    file = written(tmp_path / "a.toml", {"train_data_dir": "train", "reg_data_dir": "reg", "network_dim": 8})
    with pytest.raises(DataError, match="reg"):
        create_from_kohya(tmp_path / "new", file)
    assert not (tmp_path / "new" / "images").exists()
    assert not (tmp_path / "new" / "vez.toml").exists()


# ---- hostile files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.toml", b"not [ toml"),
        ("a.toml", b"\xff\xfe\x00"),
        ("a.toml", b"#" * (4 * 2**20 + 1)),
        ("a.toml", b"a = " + b"[" * 5000),
        ("a.toml", b""),
        ("a.toml", b"[project]\nbase = 'x'\n"),
        ("a.toml", b"datasets = 3\n"),
        ("a.toml", b"datasets = [1]\n"),
        ("a.toml", b"[[datasets]]\nsubsets = 'x'\n"),
        ("a.toml", b"network_args = 3\n"),
        ("a.toml", b"network_args = ['conv_dim']\n"),
        ("a.toml", b"network_dim = 4\ncaption_extension = 3\n"),
        ("a.toml", b"network_dim = 4\ntrain_data_dir = 3\n"),
        ("a.json", b"[1, 2]"),
        ("a.json", b"{" * 20000),
        ("a.json", b'{"network_dim": 4, "unet_lr": "x"}'),
        ("a.json", b'{"network_dim": 4, "additional_parameters": "--x \\"y"}'),
        ("a.json", b'{"network_dim": ' + b"9" * 6000 + b"}"),
        ("a.json", b'{"network_dim": 4, "epoch": NaN}'),
        ("a.json", b'{"picture.png": {"caption": "of fine-tuning"}}'),
        ("a.safetensors", b"\x00"),
        ("a.safetensors", b"\xff" * 16),
        ("a.safetensors", (50).to_bytes(8, "little") + b"{}"),
        ("a.safetensors", (2).to_bytes(8, "little") + b"[]"),
        ("a.safetensors", (2).to_bytes(8, "little") + b"{}"),
        ("a.safetensors", (20).to_bytes(8, "little") + b'{"__metadata__":"xx"}'[:20]),
        ("a.ckpt", b""),
        ("missing.toml", None),
    ],
    ids=str,
)
def test_a_file_that_is_none_is_one_sentence_and_nothing_is_made(tmp_path: Path, name: str, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError) as error:
        create_from_kohya(tmp_path / "new", tmp_path / name, **WORDS)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    assert not (tmp_path / "new").exists()


def test_a_vez_toml_is_told_from_kohyas(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[project]\nbase = "x"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"it is a vez\.toml"):
        read(tmp_path / "a.toml")


def test_only_the_header_of_a_lora_is_read(tmp_path: Path) -> None:
    """The weights that the header promises are not there, and nobody misses them."""
    file = lora(tmp_path / "a.safetensors", METADATA)
    file.write_bytes(file.read_bytes()[:-2])
    assert read(file).values["network_dim"] == "32"


def test_a_terminal_obeys_nothing_that_a_file_says(tmp_path: Path) -> None:
    evil = "\x1b[2J\n[project]\nbase = 'evil' \u202e"
    values = {"network_dim": 4, "optimizer_args.betas": "half \ud800", "output_name": evil, "training_comment": evil,
              "unknown": {evil: [evil]}, evil: 1, "pretrained_model_name_or_path": evil,
              "train_data_dir": evil}  # fmt: skip
    project, loaded, _ = made(tmp_path / "new", written(tmp_path / "a.json", values))
    assert loaded.project.base == evil.strip()
    everything = project.as_text() + project.path.read_text(encoding="utf-8")
    assert not set(everything) & {"\x1b", "\u202e"}
    assert loaded.project.trigger == WORDS["trigger"]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["1e-4", "10%", "0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
NAMES = st.sampled_from([*BY_NAME, "network_args", "optimizer_args", "lr_warmup", "epoch", "LoRA_type"]) | st.text(
    max_size=5
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=8))
def test_any_json_is_a_vez_toml_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    file = folder / "a.json"
    file.write_text(json.dumps({"network_dim": 8, **table}), encoding="utf-8")
    try:
        project = create_from_kohya(folder / "new", file, **WORDS)
    except VezError as error:
        assert "\n" not in str(error)
        assert not (folder / "new" / "vez.toml").exists()
    else:
        config.load(project.path)


# ---- the page ------------------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[1] / "docs" / "coming-from-kohya.md"


def test_the_page_has_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert options.on_page(text) == text, "write it anew: see vez.kohya_config.options.on_page"


def test_the_page_shows_a_study_that_vez_reads(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "vez.toml").write_text(block, encoding="utf-8")
    study: Study = config.load(tmp_path / "vez.toml").study["thesis"]
    assert [(v.batch, v.rank, v.scale_alpha) for v in study.variant.values()] == [
        tuple(of.values()) for of in STUDY.values()
    ]


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_command_prints_the_list_and_asks_for_what_is_missing(tmp_path: Path) -> None:
    run = CliRunner()
    file = written(tmp_path / "a.toml", {"network_dim": 8, "color_aug": True})
    words = ["--trigger", "x", "--noun", "hat"]
    result = run.invoke(app, ["init", str(tmp_path / "new"), "--from-kohya", str(file), *words])
    assert result.exit_code == 0, result.output
    assert "- color_aug = true: vez has no field for this" in result.stdout
    assert f"Wrote {tmp_path / 'new' / 'vez.toml'}" in result.stdout
    asked = run.invoke(app, ["init", str(tmp_path / "other"), "--from-kohya", str(file)])
    assert asked.exit_code == MISTAKE
    assert "say it with --trigger" in asked.stderr
    assert len(asked.stderr.splitlines()) == 1
    without = run.invoke(app, ["init", str(tmp_path / "other"), "--noun", "hat"])
    assert without.exit_code == MISTAKE
    assert "--trigger" in without.stderr
    assert not (tmp_path / "other").exists()


def test_gradient_checkpointing_is_the_whole_kind() -> None:
    assert carry({"gradient_checkpointing": True}, near=Path("c.toml")).tables["study"]["checkpointing"] == "whole"
    assert "checkpointing" not in carry({"gradient_checkpointing": False}, near=Path("c.toml")).tables["study"]


def test_a_base_in_eight_bits_stays_one() -> None:
    assert carry({"fp8_base": True}, near=Path("c.toml")).tables["study"]["quantize"] == "int8"
    assert "quantize" not in carry({"fp8_base": False}, near=Path("c.toml")).tables["study"]


def test_mixed_precision_is_carried_as_it_is() -> None:
    for name, precision in (("fp16", "fp16"), ("bf16", "bf16")):
        assert carry({"mixed_precision": name}, near=Path("c.toml")).tables["study"]["precision"] == precision
