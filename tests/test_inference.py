"""The frozen networks that draw: the modules' numbers, whatever the shape, and nothing left behind."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from theirs import unet_of, vae_of
from vez import base as bases
from vez.base import Base, decode_latents, encode_text, predict
from vez.config import Sampling
from vez.draw import Brush
from vez.nets.inference import FrozenDecoder, FrozenUNet
from vez.nets.packed import Convolution, Dense, Doubling, How

NEAR = 2e-4  # of values of about 1
FP32 = How(torch.float32, 4)


@pytest.fixture(scope="module")
def tiny() -> Base:
    return bases.load("tiny")


def _noisy(count: int, height: int, width: int, *, seed: int = 0) -> Tensor:
    return torch.randn(count, 4, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 24), (12, 20)])
def test_the_frozen_unet_says_what_diffusers_says(tiny: Base, count: int, height: int, width: int) -> None:
    text = encode_text(tiny, [f"a girl in a forest {i}" for i in range(count)])
    x, frozen = _noisy(count, height, width), FrozenUNet(tiny.unet, FP32)
    told = frozen.told(text.states)
    reference = unet_of(tiny)
    with torch.inference_mode():
        for timestep in (999, 500, 1):
            wanted = reference(x, timestep, encoder_hidden_states=text.states).sample
            torch.testing.assert_close(frozen(x, timestep, told), wanted, atol=NEAR, rtol=NEAR)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (5, 7)])
def test_the_frozen_decoder_shows_what_diffusers_shows(tiny: Base, height: int, width: int) -> None:
    latents = _noisy(3, height, width)
    with torch.inference_mode():
        wanted = vae_of(tiny).decode(latents).sample
        torch.testing.assert_close(FrozenDecoder(tiny.vae, FP32)(latents), wanted, atol=NEAR, rtol=NEAR)


def test_a_family_that_is_told_sizes(sdxl: Base) -> None:
    text = encode_text(sdxl, ["a cat", "a dog"])
    x, frozen = _noisy(2, 8, 8), FrozenUNet(sdxl.unet, FP32)
    sizes = torch.tensor([[64, 64, 0, 0, 64, 64], [64, 32, 8, 0, 64, 64]], dtype=torch.float32)
    with torch.inference_mode():
        wanted = predict(sdxl, x, 300, text=text, sizes=sizes)
        told = frozen.told(text.states, pooled=text.pooled, sizes=sizes)
        torch.testing.assert_close(frozen(x, 300, told), wanted, atol=NEAR, rtol=NEAR)


@pytest.fixture(scope="module")
def sdxl(family_folders: dict[str, Path]) -> Base:
    return bases.load(str(family_folders["sdxl"]))


@pytest.mark.parametrize("family", ["tiny", "sdxl"])
def test_latents_are_asked_once_for_several_captions(tiny: Base, sdxl: Base, family: str) -> None:
    base = {"tiny": tiny, "sdxl": sdxl}[family]
    text = encode_text(base, ["", "", "a cat", "a dog"])
    x, frozen = _noisy(2, 8, 8), FrozenUNet(base.unet, FP32)
    sizes = torch.tensor([[64, 64, 0, 0, 64, 64]] * 4, dtype=torch.float32)
    with torch.inference_mode():
        told = frozen.told(text.states, pooled=text.pooled, sizes=sizes)
        wanted = frozen(torch.cat([x, x]), 300, told)
        torch.testing.assert_close(frozen(x, 300, told), wanted, atol=2e-5, rtol=2e-5)
        assert not torch.allclose(wanted[:2], wanted[2:], atol=1e-3)


def test_the_weights_are_those_of_the_moment_and_stay_as_they_are(tiny: Base) -> None:
    before = {name: value.clone() for name, value in tiny.unet.state_dict().items()}
    text, x = encode_text(tiny, ["a cat"]), _noisy(1, 16, 16)
    first = FrozenUNet(tiny.unet, FP32)
    with torch.inference_mode():
        seen = first(x, 500, first.told(text.states))
    weight = tiny.unet.get_submodule("conv_out").weight
    assert isinstance(weight, Tensor)
    try:
        weight.data.mul_(2)
        second = FrozenUNet(tiny.unet, FP32)
        with torch.inference_mode():
            assert torch.equal(first(x, 500, first.told(text.states)), seen), "frozen means frozen"
            assert (second(x, 500, second.told(text.states)) - seen).abs().max() > 0.1
    finally:
        weight.data.copy_(before["conv_out.weight"])
    after = tiny.unet.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(module._forward_hooks or "forward" in vars(module) for module in tiny.unet.modules())


def test_a_batch_says_the_same_whatever_was_asked_before(tiny: Base) -> None:
    text = encode_text(tiny, ["a cat", "a dog", "a cow"])
    whole, cut = FrozenUNet(tiny.unet, FP32), FrozenUNet(tiny.unet, FP32)
    x = _noisy(3, 16, 16)
    with torch.inference_mode():
        whole(_noisy(3, 8, 8), 1, whole.told(text.states))  # packed for another size, and back again
        assert torch.equal(whole(x, 7, whole.told(text.states)), cut(x, 7, cut.told(text.states)))


def test_doubling_takes_sums_of_the_weights() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, 3, padding=1).requires_grad_(False)
    x = torch.randn(2, 6, 5, 3)
    doubling = Doubling(conv, FP32)
    for size in ((10, 6), (9, 6)):
        wanted = conv(nn.functional.interpolate(x, size=size, mode="nearest"))
        torch.testing.assert_close(doubling(x.contiguous(memory_format=torch.channels_last), size), wanted)


def test_layers_without_packing_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    conv, linear = nn.Conv2d(4, 8, 3, padding=1).requires_grad_(False), nn.Linear(4, 8).requires_grad_(False)
    x = torch.randn(2, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    other, rows, more = torch.randn(2, 8, 6, 6), torch.randn(2, 5, 4), torch.randn(2, 5, 8)
    packed = Convolution(conv, FP32), Dense([linear], FP32)
    monkeypatch.setattr("vez.nets.packed.packs", lambda device, dtype: False)
    plain = Convolution(conv, FP32), Dense([linear], FP32)
    assert packed[0].packs and not plain[0].packs
    for a, b in ((packed, plain),):
        torch.testing.assert_close(a[0](x), b[0](x))
        torch.testing.assert_close(a[0].plus(x, other), b[0].plus(x, other))
        torch.testing.assert_close(a[1](rows), b[1](rows))
        torch.testing.assert_close(a[1].plus(rows, more), b[1].plus(rows, more))


def test_pictures_are_the_plain_networks_to_a_level(tiny: Base) -> None:
    brush = Brush(tiny, Sampling(steps=4, batch=2))
    latents = _noisy(5, 16, 16) * 0.5
    plain = decode_latents(tiny, latents).astype(int)
    ours = decode_latents(tiny, latents, batch=2, decoder=brush.decoder).astype(int)
    assert abs(ours - plain).max() <= 1
