"""The networks against diffusers' and transformers': the same weights, so the same values and the same gradients."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from full_size import empty
from ldm_files import KINDS, Kind
from vez.bench.weights import TEXTS, UNETS, VAE
from vez.nets.clip import ProjectedTextEncoder, TextConfig, TextEncoder
from vez.nets.unet import UNet, UNetConfig
from vez.nets.vae import Vae, VaeConfig

CROSS, DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
UP_CROSS, UP = "CrossAttnUpBlock2D", "UpBlock2D"
_XL: dict[str, Any] = {
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 12 + 6 * 8,
}
SMALL_UNETS: dict[str, dict[str, Any]] = {
    "sd1": {"block_out_channels": (32, 64, 64), "attention_head_dim": 4, "layers_per_block": 2},
    "sd2": {
        "block_out_channels": (32, 64, 64),
        "attention_head_dim": (2, 4, 8),
        "use_linear_projection": True,
        "upcast_attention": True,
        "layers_per_block": 2,
    },
    "sdxl": {
        "block_out_channels": (32, 64, 96),
        "attention_head_dim": (1, 2, 3),
        "transformer_layers_per_block": (1, 2, 3),
        "down_block_types": (DOWN, CROSS, CROSS),
        "up_block_types": (UP_CROSS, UP_CROSS, UP),
        "layers_per_block": 2,
        **_XL,
    },
    "tiny": {"block_out_channels": (32, 64), "attention_head_dim": 4, "layers_per_block": 1, "norm_eps": 1e-4},
    "one level": {
        "block_out_channels": (32,),
        "down_block_types": (CROSS,),
        "up_block_types": (UP_CROSS,),
        "attention_head_dim": 2,
        "layers_per_block": 3,
    },
}


def filled(network: nn.Module, *, seed: int = 0) -> nn.Module:
    """Weights that leave nothing at its beginning: norms and biases too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            spread = 0.3 if parameter.dim() < 2 else parameter[0].numel() ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
            if parameter.dim() < 2:
                parameter.add_(1.0)
    return network.eval().requires_grad_(False)


def unets(given: Mapping[str, Any]) -> tuple[UNet, Any]:
    levels = len(given["block_out_channels"])
    blocks = {
        "down_block_types": (CROSS,) * (levels - 1) + (DOWN,),
        "up_block_types": (UP,) + (UP_CROSS,) * (levels - 1),
    }
    config = {"norm_num_groups": 8, "cross_attention_dim": 24, "sample_size": 8} | blocks | dict(given)
    theirs = filled(UNet2DConditionModel(**config))
    ours = UNet(UNetConfig.of(dict(theirs.config)))  # type: ignore[call-overload]
    ours.load_state_dict(theirs.state_dict())
    return ours.eval().requires_grad_(False), theirs


def close(ours: Tensor, theirs: Tensor, *, within: float = 1e-5) -> None:
    ours, theirs = ours.detach(), theirs.detach()
    assert float((ours - theirs).abs().max()) <= within * float(theirs.abs().max())


@pytest.mark.parametrize("name", SMALL_UNETS)
@pytest.mark.parametrize("size", [(8, 8), (8, 12), (5, 7), (9, 6)])
def test_a_unets_values_and_gradients_are_diffusers(name: str, size: tuple[int, int]) -> None:
    """Sizes that do not halve evenly too."""
    ours, theirs = unets(SMALL_UNETS[name])
    generator = torch.Generator().manual_seed(1)
    x, text = torch.randn(3, 4, *size, generator=generator), torch.randn(3, 11, 24, generator=generator)
    times = torch.tensor([0, 17, 999])
    pooled, sizes = torch.randn(3, 12, generator=generator), torch.rand(3, 6, generator=generator) * 1024
    xl = name == "sdxl"
    inputs = (x, text, pooled)
    mine, other = ([one.clone().requires_grad_() for one in inputs] for _ in range(2))
    a = ours(mine[0], times, mine[1], **({"pooled": mine[2], "sizes": sizes} if xl else {}))
    added = {"text_embeds": other[2], "time_ids": sizes} if xl else None
    b = theirs(other[0], times, other[1], added_cond_kwargs=added).sample
    close(a, b)
    dy = torch.randn(a.shape, generator=generator)
    count = 3 if xl else 2
    grads = zip(torch.autograd.grad(a, mine[:count], dy), torch.autograd.grad(b, other[:count], dy), strict=True)
    for one, expected in grads:
        assert float(expected.abs().max()) > 0
        close(one, expected)


def test_one_timestep_for_all_is_that_timestep_for_each() -> None:
    ours, _ = unets(SMALL_UNETS["tiny"])
    x, text = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 24)
    for one in (7, torch.tensor(7)):
        assert torch.equal(ours(x, one, text), ours(x, torch.tensor([7, 7]), text))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"mid_block_add_attention": False},
        {"use_quant_conv": False, "use_post_quant_conv": False},
        {"block_out_channels": (16,), "layers_per_block": 3},
        {"norm_num_groups": 4, "latent_channels": 8, "layers_per_block": 2},
    ],
)
def test_a_vaes_moments_pictures_and_gradients_are_diffusers(given: dict[str, Any]) -> None:
    widths = given.get("block_out_channels", (16, 24, 32))
    types = {
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
    }
    theirs: Any = filled(AutoencoderKL(**{"block_out_channels": widths, "norm_num_groups": 8, **types, **given}))
    ours = Vae(VaeConfig.of(dict(theirs.config)))
    ours.load_state_dict(theirs.state_dict())
    ours.requires_grad_(False)
    pixels, other = (
        torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(2)).requires_grad_() for _ in "ab"
    )
    mean, deviation = ours.encode(pixels)
    expected = theirs.encode(other).latent_dist
    close(mean, expected.mean)
    close(deviation, expected.std)
    a, b = ours.decode(mean), theirs.decode(expected.mean).sample
    close(a, b)
    dy = torch.randn(a.shape, generator=torch.Generator().manual_seed(3))
    close(torch.autograd.grad(a, pixels, dy)[0], torch.autograd.grad(b, other, dy)[0])


def texts(act: str, *, projected: bool, end: int) -> tuple[Any, Any]:
    config = CLIPTextConfig(
        vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=20, hidden_act=act, bos_token_id=98, eos_token_id=end, projection_dim=24,
        layer_norm_eps=1e-4,
    )  # fmt: skip
    theirs = filled((CLIPTextModelWithProjection if projected else CLIPTextModel)(config))
    ours = (ProjectedTextEncoder if projected else TextEncoder)(TextConfig.of(config.to_dict()))
    ours.load_state_dict(theirs.state_dict())
    return ours.requires_grad_(False), theirs


IDS = torch.tensor([[98, 5, 99, 99, 99, 99], [98, 7, 8, 9, 50, 99], [98, 99, 0, 0, 0, 0], [98, 1, 1, 1, 1, 1]])


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("end", [99, 2])
def test_a_text_encoders_states_and_pooled_text_are_transformers(act: str, projected: bool, end: int) -> None:
    """``end`` 2 is what published configurations say by mistake: the highest number of a text is meant."""
    ours, theirs = texts(act, projected=projected, end=end)
    out = theirs(input_ids=IDS, output_hidden_states=True)
    expected = out.text_embeds if projected else out.pooler_output
    for skip in (1, 2, 4):
        hidden = out.hidden_states[-skip]
        norm = (theirs.text_model if projected else theirs).final_layer_norm
        for normed in (False, True):
            states, none = ours(IDS, skip=skip, norm=normed)
            close(states, norm(hidden) if normed else hidden)
            assert none is None
            states, pooled = ours(IDS, skip=skip, norm=normed, pooled=True)
            close(states, norm(hidden) if normed else hidden)
            close(pooled, expected)
    close(ours(IDS)[0], out.last_hidden_state)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_a_text_encoders_gradients_are_transformers(act: str) -> None:
    """Of its token vectors, by which every layer is passed."""
    ours, theirs = texts(act, projected=False, end=99)
    for network in (ours, theirs):
        network.embeddings.token_embedding.weight.requires_grad_()
    a, b = ours(IDS)[0], theirs(input_ids=IDS).last_hidden_state
    dy = torch.randn(a.shape, generator=torch.Generator().manual_seed(4))
    one, expected = (
        torch.autograd.grad(y, network.embeddings.token_embedding.weight, dy)[0]
        for y, network in ((a, ours), (b, theirs))
    )
    close(one, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_shapes_of_the_published_sizes_are_theirs(kind: Kind) -> None:
    """On the meta device: U-Net, VAE and text encoders of SD 1.x, 2.x and XL in full."""
    full = empty(kind)
    with torch.device("meta"):
        unet, vae = UNet(UNetConfig.of(UNETS[kind])), Vae(VaeConfig.of(VAE))
        encoders = [TextEncoder(TextConfig.of(TEXTS[kind][0]))]
        encoders += [ProjectedTextEncoder(TextConfig.of(config)) for config in TEXTS[kind][1:]]  # type: ignore[misc]
    for ours, theirs in ((unet, full.unet), (vae, full.vae), *zip(encoders, full.texts, strict=True)):
        shapes = [{name: tuple(value.shape) for name, value in n.state_dict().items()} for n in (ours, theirs)]
        assert shapes[0] == shapes[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_full_sizes_compute_what_diffusers_does(kind: Kind) -> None:
    """One pass and its gradient in fp32 on random numbers, 64-pixel pictures: 4 to 11 GB."""
    with torch.device("meta"):
        ours = UNet(UNetConfig.of(UNETS[kind]))
        theirs: Any = UNet2DConditionModel(**UNETS[kind])
    filled(ours.to_empty(device="cpu"))
    theirs.load_state_dict(ours.state_dict(), assign=True)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 4, 8, 8, generator=generator)
    text = torch.randn(1, 77, ours.config.cross_attention_dim, generator=generator)
    pooled, sizes = torch.randn(1, 1280, generator=generator), torch.tensor([[1024.0, 768, 0, 64, 1024, 768]])
    xl = kind == "sdxl"
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    a = ours(mine, 500, text, **({"pooled": pooled, "sizes": sizes} if xl else {}))
    added = {"text_embeds": pooled, "time_ids": sizes} if xl else None
    b = theirs.eval().requires_grad_(False)(other, 500, text, added_cond_kwargs=added).sample
    close(a, b)
    close(torch.autograd.grad(a.sum(), mine)[0], torch.autograd.grad(b.sum(), other)[0])
