"""One grammar of names for three families: kohya's, LDM's and diffusers' mean the same modules."""

from pathlib import Path

import pytest

from vez.family import FAMILIES, kohya_keys
from vez.files.names import Place, from_kohya, known, to_diffusers, to_kohya

GOLDEN = Path(__file__).parents[1] / "golden" / "kohya_sd1_modules.txt"
CONVOLUTIONS = {  # diffusers' path: LDM's in SD 1.x; SDXL's only differs in where an upsampler stands
    "down_blocks.0.resnets.0.conv1": "input_blocks_1_0_in_layers_2",
    "down_blocks.1.resnets.1.conv2": "input_blocks_5_0_out_layers_3",
    "down_blocks.1.resnets.0.conv_shortcut": "input_blocks_4_0_skip_connection",
    "down_blocks.2.resnets.0.time_emb_proj": "input_blocks_7_0_emb_layers_1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks_3_0_op",
    "mid_block.resnets.0.conv1": "middle_block_0_in_layers_2",
    "mid_block.resnets.1.conv2": "middle_block_2_out_layers_3",
    "up_blocks.1.resnets.2.conv1": "output_blocks_5_0_in_layers_2",
    "up_blocks.1.upsamplers.0.conv": "output_blocks_5_2_conv",
    "conv_in": "input_blocks_0_0",
    "conv_out": "out_2",
    "time_embedding.linear_2": "time_embed_2",
    "add_embedding.linear_1": "label_emb_0_0",
}


def test_kohyas_own_names_are_read_and_written_back() -> None:
    names = GOLDEN.read_text().split()
    assert len(names) == 264
    for name in names:
        found = from_kohya(name)
        assert found is not None and found[1] == "diffusers", name
        assert to_kohya(found[0], sdxl=False) == name


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_the_grammar_agrees_with_the_tables_of_training(family: str) -> None:
    layout = FAMILIES[family].layout
    assert layout is not None
    for name, target in kohya_keys(layout).items():
        found = from_kohya(name)
        assert found is not None, name
        network = "unet" if target.network == "unet" else ("text", "text2")[target.encoder]
        assert found[0] == Place(network, target.path)  # type: ignore[arg-type]
        assert to_kohya(found[0], sdxl=family == "sdxl") == name


def test_the_names_of_kohyas_sdxl_files() -> None:
    to_q = Place("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q")
    assert to_kohya(to_q, sdxl=True) == "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    assert to_kohya(Place("unet", "mid_block.attentions.0.proj_in"), sdxl=True) == "lora_unet_middle_block_1_proj_in"
    last = Place("unet", "up_blocks.1.attentions.2.proj_out")
    assert to_kohya(last, sdxl=True) == "lora_unet_output_blocks_5_1_proj_out"
    fc1 = Place("text2", "encoder.layers.31.mlp.fc1")
    assert to_kohya(fc1, sdxl=True) == "lora_te2_text_model_encoder_layers_31_mlp_fc1"
    # kohya's own loader takes diffusers' U-Net names for SDXL too
    assert from_kohya("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q") == (to_q, "diffusers")


@pytest.mark.parametrize("path", CONVOLUTIONS)
def test_locon_names_both_ways(path: str) -> None:
    place = known("unet", path)
    assert place is not None
    assert to_kohya(place, sdxl=True) == f"lora_unet_{CONVOLUTIONS[path]}"
    assert from_kohya(f"lora_unet_{CONVOLUTIONS[path]}") == (place, "ldm")
    assert from_kohya(to_kohya(place, sdxl=False)) == (place, "diffusers")


def test_an_upsampler_without_attention_before_it() -> None:
    assert from_kohya("lora_unet_output_blocks_2_1_conv") == (Place("unet", "up_blocks.0.upsamplers.0.conv"), "ldm")


@pytest.mark.parametrize(
    "name",
    [
        "lora_te_text_model_encoder_layers_3_mlp_fc2",
        "lora_te1_text_model_encoder_layers_3_mlp_fc2",
        "lora_te_encoder_layers_3_mlp_fc2",
        "lora_te1_encoder_layers_3_mlp_fc2",
    ],
)
def test_spellings_of_the_first_text_encoder(name: str) -> None:
    place = Place("text", "encoder.layers.3.mlp.fc2")
    assert from_kohya(name) == (place, "diffusers")
    assert to_diffusers(place) == "text_encoder.text_model.encoder.layers.3.mlp.fc2"
    assert known("text", "text_model.encoder.layers.3.mlp.fc2") == place


@pytest.mark.parametrize(
    "name",
    [
        "lora_unet_",
        "lora_te3_text_model_encoder_layers_0_mlp_fc1",
        "lora_unet_double_blocks_0_img_attn_proj",
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn3_to_q",
        "lora_unet_input_blocks_3_1_proj_in",
        "lora_unet_down_blocks_0_attentions_0_../../etc_passwd",
        "lycoris_unet_conv_in",
        "",
    ],
)
def test_what_no_family_has_is_not_guessed(name: str) -> None:
    assert from_kohya(name) is None
