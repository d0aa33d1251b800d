"""Configurations come with a file from somewhere: what they may say, and what is refused in one sentence."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vez.bench.weights import TEXTS, UNETS, VAE
from vez.errors import BaseModelError
from vez.nets.clip import TextConfig
from vez.nets.unet import UNetConfig
from vez.nets.vae import VaeConfig

KINDS: dict[str, tuple[Callable[[Mapping[str, Any]], Any], dict[str, Any]]] = {
    "unet": (UNetConfig.of, UNETS["sdxl"]),
    "vae": (VaeConfig.of, VAE),
    "text": (TextConfig.of, TEXTS["sd2"][0]),
}


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("unet", "mid_block_type", "UNetMidBlock2DSimpleCrossAttn"),
        ("unet", "down_block_types", ["AttnDownBlock2D", "DownBlock2D", "DownBlock2D"]),
        ("unet", "up_block_types", ["UpBlock2D"]),
        ("unet", "act_fn", "gelu"),
        ("unet", "class_embed_type", "timestep"),
        ("unet", "time_cond_proj_dim", 256),
        ("unet", "encoder_hid_dim_type", "text_proj"),
        ("unet", "addition_embed_type", "image"),
        ("unet", "resnet_time_scale_shift", "scale_shift"),
        ("unet", "dual_cross_attention", True),
        ("unet", "only_cross_attention", [True, False, False]),
        ("unet", "conv_in_kernel", 1),
        ("unet", "out_channels", 8),
        ("unet", "num_attention_heads", 8),
        ("unet", "attention_head_dim", [5, 10]),
        ("unet", "attention_head_dim", 7),
        ("unet", "layers_per_block", [2, 2, 2]),
        ("unet", "layers_per_block", True),
        ("unet", "layers_per_block", 10**9),
        ("unet", "block_out_channels", [320, "640", 1280]),
        ("unet", "block_out_channels", []),
        ("unet", "block_out_channels", [10**12] * 3),
        ("unet", "norm_num_groups", 7),
        ("unet", "norm_eps", float("nan")),
        ("unet", "norm_eps", -1.0),
        ("unet", "cross_attention_dim", [1024, 1024, 1024]),
        ("unet", "cross_attention_dim", None),
        ("unet", "use_linear_projection", "yes"),
        ("unet", "addition_time_embed_dim", None),
        ("unet", "projection_class_embeddings_input_dim", 6),
        ("vae", "latents_mean", [0.0] * 4),
        ("vae", "shift_factor", 0.1),
        ("vae", "in_channels", 4),
        ("vae", "down_block_types", ["DownEncoderBlock2D"]),
        ("vae", "norm_num_groups", 7),
        ("vae", "scaling_factor", "0.18"),
        ("text", "model_type", "t5"),
        ("text", "hidden_act", "relu"),
        ("text", "num_attention_heads", 7),
        ("text", "vocab_size", -1),
        ("text", "eos_token_id", None),
        ("text", "num_hidden_layers", 10**6),
    ],
)
def test_what_is_not_built_is_refused_by_name_and_value(kind: str, key: str, value: object) -> None:
    read, known = KINDS[kind]
    read(known)
    with pytest.raises(BaseModelError) as raised:
        read(known | {key: value})
    said = str(raised.value)
    assert key in said and repr(value)[:20] in said and "\n" not in said and len(said) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_value_is_taken_or_refused_and_nothing_else_happens(kind: str, data: st.DataObject) -> None:
    read, known = KINDS[kind]
    keys = sorted(vars(read(known)))
    odd = data.draw(st.dictionaries(st.sampled_from(keys) | st.text(max_size=6), JSON, max_size=3))
    try:
        read(known | odd)
    except BaseModelError as error:
        assert "\n" not in str(error)


def test_what_others_write_besides_is_left_alone() -> None:
    read, known = KINDS["unet"]
    assert read(known | {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6", "new": 1}) == read(known)
