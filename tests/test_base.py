"""The base: what is loaded, what is refused and in which words, text and pictures in and out."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file, save_file

from theirs import vae_of
from vez import base as bases
from vez.base import Base
from vez.base.attention import plain
from vez.errors import BaseModelError, DataError
from vez.family import FAMILIES, Layout, family_of, layout_of
from vez.nets.attention import fused as fused_mix


@pytest.fixture
def copy(random_base_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_base_folder, tmp_path / "copy"))


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_a_base_says_of_itself(random_base: Base) -> None:
    assert random_base.family is FAMILIES["tiny"]
    assert random_base.layout == Layout((1, 0), 1, (0, 2), text_layers=(2,), depth=(1, 1))
    assert (random_base.size, random_base.latent_factor) == (64, 8)
    assert len(random_base.sha256) == 64
    networks = (random_base.unet, random_base.vae, random_base.text_encoder)
    assert not any(p.requires_grad or m.training for m in networks for p in m.parameters())


@pytest.mark.parametrize(("name", "unet", "text"), [("sd1", 192, 72), ("sd2", 192, 138)])
def test_families_are_told_by_layout_and_width(name: str, unet: int, text: int) -> None:
    family = FAMILIES[name]
    assert family.text_widths
    (width,) = family.text_widths
    config = {
        "in_channels": 4,
        "cross_attention_dim": width,
        "layers_per_block": 2,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    }
    words = {"hidden_size": width, "num_hidden_layers": text // 6}
    layout = layout_of(config, [words])
    assert family_of(config, [words], layout) is family
    assert (layout.unet_modules, layout.text_modules) == (unet, (text,)) == (family.unet_modules, family.text_modules)
    narrow, narrow_words = config | {"cross_attention_dim": 32}, words | {"hidden_size": 32}
    assert family_of(narrow, [narrow_words], layout) is FAMILIES["tiny"]


@pytest.mark.parametrize("kind", ["scaled_linear", "linear"])
def test_schedule_is_that_of_diffusers(copy: Path, kind: str) -> None:
    edit(copy / "scheduler" / "scheduler_config.json", beta_schedule=kind)
    schedule = bases.load(str(copy)).schedule
    theirs = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule=kind)
    assert torch.equal(schedule.alphas_cumprod, theirs.alphas_cumprod)


def test_a_zero_terminal_snr_is_read_as_diffusers_reads_it(copy: Path) -> None:
    edit(copy / "scheduler" / "scheduler_config.json", rescale_betas_zero_snr=True, prediction_type="v_prediction")
    base = bases.load(str(copy))
    settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    theirs = DDPMScheduler(**settings, rescale_betas_zero_snr=True, prediction_type="v_prediction")
    assert torch.equal(base.schedule.alphas_cumprod, theirs.alphas_cumprod)
    assert base.schedule.alphas_cumprod[-1] == 0 and "zero terminal SNR" in base.described


def test_text(random_base: Base) -> None:
    captions = ["a girl wearing zolka", "", "zolka " * 200]
    tokens = bases.tokenize(random_base, captions)
    assert tokens.shape == (3, 77) and tokens.dtype == torch.int64
    states = bases.encode_text(random_base, captions).states
    assert states.shape == (3, 77, 32)
    assert not torch.equal(states[0], states[1])


def test_pictures_in_and_out(random_base: Base) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    moments = bases.encode_images(random_base, pixels)
    assert moments.shape == (3, 8, 8, 8)
    posterior: Any = vae_of(random_base).encode(torch.from_numpy(pixels[:1]).permute(0, 3, 1, 2) / 127.5 - 1)
    posterior = posterior.latent_dist
    assert torch.allclose(moments[:1, :4], posterior.mean * 0.18215, atol=1e-6)
    assert torch.allclose(moments[:1, 4:], posterior.std * 0.18215, atol=1e-6)
    assert torch.equal(moments[1], bases.encode_images(random_base, pixels[1:2])[0]), "company must not matter"
    decoded = bases.decode_latents(random_base, moments[:, :4], batch=2)
    assert decoded.shape == (3, 64, 64, 3) and decoded.dtype == np.uint8


def test_pictures_that_do_not_divide_are_refused(random_base: Base) -> None:
    with pytest.raises(DataError, match="62×64"):
        bases.encode_images(random_base, np.zeros((1, 64, 62, 3), np.uint8))


def test_moments_are_kept_by_pixels(random_base: Base, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    fresh = bases.cached_moments(random_base, pixels, sha256="a" * 64, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    assert torch.equal(bases.cached_moments(random_base, pixels, sha256="a" * 64, cache=tmp_path), fresh)
    save_file({"moments": fresh + 1}, file)
    assert torch.equal(bases.cached_moments(random_base, pixels, sha256="a" * 64, cache=tmp_path), fresh + 1), "unread"
    file.write_bytes(b"torn")
    assert torch.equal(bases.cached_moments(random_base, pixels, sha256="a" * 64, cache=tmp_path), fresh)
    bases.cached_moments(random_base, 255 - pixels, sha256="b" * 64, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_computing_in_another_type_gives_the_weights_back(random_base: Base) -> None:
    before = bases.encode_text(random_base, ["zolka"]).states
    with pytest.raises(KeyError), bases.computing_in(random_base, torch.bfloat16):
        assert bases.encode_text(random_base, ["zolka"]).states.dtype == random_base.dtype == torch.bfloat16
        raise KeyError("an error inside changes nothing")
    assert torch.equal(bases.encode_text(random_base, ["zolka"]).states, before)


def test_plain_attention_is_the_same_attention(random_base: Base) -> None:
    def outputs() -> tuple[torch.Tensor, torch.Tensor]:
        states = bases.encode_text(random_base, ["zolka", "a girl"]).states
        x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            return states, random_base.unet(x, torch.tensor([5, 500]), states)

    networks = (random_base.unet, random_base.text_encoder)
    fused = outputs()
    with bases.plain_attention(random_base):
        assert {m.mix for n in networks for m in n.modules() if hasattr(m, "mix")} == {plain}
        for openly, before in zip(outputs(), fused, strict=True):
            torch.testing.assert_close(openly, before, rtol=1e-4, atol=1e-5)
    assert {m.mix for n in networks for m in n.modules() if hasattr(m, "mix")} == {fused_mix}
    assert all(torch.equal(after, before) for after, before in zip(outputs(), fused, strict=True))


def test_the_hash_follows_the_weights(copy: Path, random_base: Base) -> None:
    assert bases.load(str(copy)).sha256 == random_base.sha256
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["conv_in.bias"][0] += 1
    save_file(weights, file, metadata={"format": "pt"})
    assert bases.load(str(copy)).sha256 != random_base.sha256


def test_half_precision_file_names(copy: Path, random_base: Base) -> None:
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        (copy / part / f"{name}.safetensors").rename(copy / part / f"{name}.fp16.safetensors")
    assert bases.load(str(copy)).sha256 == random_base.sha256


UNET, SCHEDULER = "unet/config.json", "scheduler/scheduler_config.json"


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        (UNET, {"in_channels": 9}, "9 channels, not 4"),
        (UNET, {"addition_embed_type": "text_time"}, "SDXL"),
        (UNET, {"cross_attention_dim": 768}, "width 768"),
        (UNET, {"down_block_types": ["AttnDownBlock2D", "DownBlock2D"]}, "AttnDownBlock2D"),
        (UNET, {"block_out_channels": [64, 64]}, "cannot be loaded|lacks"),
        (SCHEDULER, {"prediction_type": "sample"}, "predicts 'sample'"),
        (SCHEDULER, {"beta_schedule": "squaredcos_cap_v2"}, "squaredcos_cap_v2"),
        (SCHEDULER, {"rescale_betas_zero_snr": True}, "zero terminal SNR"),
    ],
)
def test_bases_that_cannot_be_trained(copy: Path, file: str, values: dict[str, Any], words: str) -> None:
    edit(copy / file, **values)
    with pytest.raises(BaseModelError, match=words):
        bases.load(str(copy))


def test_a_missing_part_is_named(copy: Path) -> None:
    shutil.rmtree(copy / "vae")
    with pytest.raises(BaseModelError, match="lacks vae"):
        bases.load(str(copy))


def test_pickled_weights_are_refused(copy: Path) -> None:
    (copy / "unet" / "diffusion_pytorch_model.safetensors").rename(copy / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(BaseModelError, match="safetensors only"):
        bases.load(str(copy))


def test_a_missing_weight_is_not_made_up(copy: Path) -> None:
    file = copy / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    del weights[next(key for key in weights if key.endswith("layers.1.mlp.fc1.weight"))]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match="lacks"):
        bases.load(str(copy))


def test_a_damaged_file_is_named(copy: Path) -> None:
    (copy / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(BaseModelError, match=r"vae.*cannot be loaded"):
        bases.load(str(copy))


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(BaseModelError, match="cut short"):
        bases.load(str(tmp_path / "model.safetensors"))
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(BaseModelError, match="pickle"):
        bases.load(str(tmp_path / "model.pt"))
    for name in ("nowhere", "models/nowhere.safetensors"):
        with pytest.raises(BaseModelError, match="no folder or file"):
            bases.load(name)
    with pytest.raises(BaseModelError, match="hub"):
        bases.load("nobody/no-such-base")
