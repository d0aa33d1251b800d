"""SDXL: LDM's names in kohya's layout, two text encoders, diffusers as the one that must agree; single files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ldm_files import KINDS, Kind, make_small, save_folder, write_single
from small_words import make_tokenizer
from vez.errors import BaseModelError, LoraFileError
from vez.files.bases import extract, merge_into
from vez.files.names import PREFIXES, Place, known
from vez.files.operations import Keep
from vez.files.reading import LoraFile, read
from vez.files.writing import write
from vez.interop import LoraWeights

pytestmark = pytest.mark.filterwarnings("ignore")
STEMS = {"unet": "diffusion_pytorch_model", "text": "model", "text2": "model"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base of SDXL's layout (depths 1, 2, 10 cut to 1, 2, 3) with 32 channels."""
    path = tmp_path_factory.mktemp("xl")
    torch.manual_seed(0)
    tokenizer = make_tokenizer(path / "made")
    texts = []
    for number, kind in (("", CLIPTextModel), ("_2", CLIPTextModelWithProjection)):
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=16,
        )
        texts.append(kind(config))
        texts[-1].save_pretrained(path / f"text_encoder{number}")
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 3),
        attention_head_dim=(2, 2, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8,
        cross_attention_dim=32,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    scheduler = EulerDiscreteScheduler()
    StableDiffusionXLPipeline(vae, *texts, tokenizer, tokenizer, unet, scheduler).save_pretrained(path)
    return path


def lora_of(folder: Path) -> LoraFile:
    """A random LoRA of rank 2 on every attention, feed-forward and text module of a folder."""
    generator = torch.Generator().manual_seed(1)
    modules = {}
    for network, prefix in PREFIXES.items():
        file = folder / prefix / f"{STEMS[network]}.safetensors"
        for key, weight in (load_file(file) if file.is_file() else {}).items():
            place = known(network, key.removesuffix(".weight"))
            if place and key.endswith(".weight") and (".attentions." in key or "encoder.layers." in key):
                ones = (1, 1) if weight.dim() == 4 else ()
                down = torch.randn(2, weight.shape[1], *ones, generator=generator)
                modules[place] = LoraWeights(down, torch.randn(weight.shape[0], 2, *ones, generator=generator), 1.5)
    return LoraFile(dict(sorted(modules.items())), {}, "sdxl", "kohya", torch.float32)


@pytest.fixture(scope="module")
def lora(folder: Path) -> LoraFile:
    return lora_of(folder)


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_diffusers_fuses_what_we_merge(layout: Any, folder: Path, lora: LoraFile, tmp_path: Path) -> None:
    assert {place.network for place in lora.modules} == {"unet", "text", "text2"}
    write(tmp_path / "x.safetensors", lora, layout=layout, dtype=torch.float32)
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.load_lora_weights(tmp_path, weight_name="x.safetensors")
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    merge_into(str(folder), [lora], [1.0], tmp_path / "merged")
    for network, prefix in PREFIXES.items():
        theirs = {name.removeprefix("text_model."): t for name, t in getattr(pipeline, prefix).state_dict().items()}
        ours = load_file(tmp_path / "merged" / prefix / f"{STEMS[network]}.safetensors")
        for name, tensor in ours.items():
            torch.testing.assert_close(theirs[name.removeprefix("text_model.")], tensor, rtol=1e-4, atol=1e-5)


def test_kohyas_names_and_the_way_back(folder: Path, lora: LoraFile, tmp_path: Path) -> None:
    write(tmp_path / "k.safetensors", lora, layout="kohya", dtype=torch.float32)
    names = {name.partition(".")[0] for name in load_file(tmp_path / "k.safetensors")}
    assert "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q" in names
    assert "lora_te1_text_model_encoder_layers_0_mlp_fc1" in names
    assert "lora_te2_text_model_encoder_layers_1_mlp_fc2" in names
    found = read(tmp_path / "k.safetensors")
    assert found.family == "sdxl" and found.modules.keys() == lora.modules.keys()
    merge_into(str(folder), [lora], [1.0], tmp_path / "merged")
    taken, _ = extract(str(tmp_path / "merged"), str(folder), Keep(energy=0.99999))
    assert taken.family == "sdxl" and taken.metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert taken.modules.keys() == lora.modules.keys()
    place = Place("text2", "encoder.layers.1.mlp.fc2")
    torch.testing.assert_close(taken.modules[place].delta(), lora.modules[place].delta(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_file_and_a_folder_of_one_model_differ_by_what_was_merged(kind: Kind, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path / "made")
    small = make_small(kind, words=len(tokenizer))
    base = save_folder(small, tmp_path / "base", tokenizer)
    single = write_single(small, tmp_path / "base.safetensors")
    with pytest.raises(LoraFileError, match="do not differ"):
        extract(str(single), str(base), Keep(rank=2))
    meant = lora_of(base)
    merge_into(str(base), [meant], [1.0], tmp_path / "merged")
    found, report = extract(str(tmp_path / "merged"), str(single), Keep(energy=0.99999))
    assert found.modules.keys() == meant.modules.keys() and report.outside == 0
    for place, weights in meant.modules.items():
        torch.testing.assert_close(found.modules[place].delta(), weights.delta(), rtol=2e-2, atol=5e-3)
    with pytest.raises(BaseModelError, match="single file"):
        merge_into(str(single), [meant], [1.0], tmp_path / "out")
