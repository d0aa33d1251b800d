"""Single files: found out by their names, read into the same networks, and as diffusers' own converter reads them."""

import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as theirs
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTokenizer

from full_size import empty, write_random
from ldm_files import KINDS, Kind, Small, ldm_tensors, make_small, write_single
from small_words import make_tokenizer
from vez import base as bases
from vez import ldm
from vez.denoise import Batch, variant_losses
from vez.errors import BaseModelError
from vez.family import FAMILIES, family_of, layout_of
from vez.lora import LoraSpec, attach


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    make_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def words(tokenizer: Path) -> int:
    return len(CLIPTokenizer.from_pretrained(tokenizer))


@pytest.fixture(scope="module", params=KINDS)
def small(request: pytest.FixtureRequest, words: int) -> Small:
    return make_small(request.param, words=words)


def equal(network: nn.Module, other: nn.Module) -> None:
    own, expected = network.state_dict(), other.state_dict()
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[name], expected[name]) for name in expected)


def test_a_single_file_gives_the_same_networks(small: Small, tokenizer: Path, tmp_path: Path) -> None:
    file = write_single(small, tmp_path / "model.safetensors", metadata={"modelspec.prediction_type": "epsilon"})
    base = bases.load(str(file), tokenizer=str(tokenizer))
    assert base.family is FAMILIES["tiny-xl" if small.kind == "sdxl" else "tiny"]
    assert base.latent_scale == (0.13025 if small.kind == "sdxl" else 0.18215)
    equal(base.unet, small.unet)
    equal(base.vae, small.vae)
    for own, expected in zip(base.text_encoders, small.texts, strict=True):
        equal(own, expected)
    for own, expected in zip((base.unet, *base.text_encoders), (small.unet, *small.texts), strict=True):
        ours, wanted = vars(own.config), expected.config
        for key in ("hidden_act", "num_attention_heads", "attention_head_dim", "addition_time_embed_dim"):
            if key in ours:
                one = getattr(wanted, key)
                each = isinstance(ours[key], tuple)
                assert ours[key] == (tuple(one) if isinstance(one, list) else (one,) * len(ours[key]) if each else one)


def test_the_conversion_is_diffusers_own(small: Small) -> None:
    """Their converter's tensors, for the same file and configurations."""
    tensors = ldm_tensors(small)
    found = ldm.contents_of({name: tuple(value.shape) for name, value in tensors.items()}, name="it")
    config = dict(small.unet.config) | {"class_embed_type": None}
    unet = theirs.convert_ldm_unet_checkpoint(dict(tensors), config)
    for name, value in tensors.items():
        if name.startswith(ldm.UNET):
            other = ldm.unet_name(name.removeprefix(ldm.UNET), layers=found.unet["layers_per_block"])
            assert other is not None and torch.equal(unet.pop(other), value), name
    assert not unet
    assert found.vae is not None
    vae = theirs.convert_ldm_vae_checkpoint(dict(tensors), dict(small.vae.config))
    for name, value in tensors.items():
        if name.startswith(ldm.VAE):
            other = ldm.vae_name(name.removeprefix(ldm.VAE), levels=len(found.vae["block_out_channels"]))
            assert other is not None and torch.equal(vae.pop(other).flatten(), value.flatten()), name
    assert not vae
    for encoder, (prefix, _) in zip(small.texts, found.texts, strict=True):
        if prefix in (ldm.OPEN_CLIP, ldm.OPEN_CLIP_XL):
            expected = theirs.convert_open_clip_checkpoint(encoder, dict(tensors), prefix=prefix)
        else:
            expected = theirs.convert_ldm_clip_checkpoint(dict(tensors))
        check_text(tensors, prefix, {name.removeprefix("text_model."): value for name, value in expected.items()})


def check_text(tensors: dict[str, Tensor], prefix: str, expected: dict[str, Tensor]) -> None:
    for name, value in tensors.items():
        if not name.startswith(prefix):
            continue
        short = name.removeprefix(prefix)
        others = ldm.open_clip_names(short) if "model." in prefix[-6:] else (ldm.clip_name(short),)
        if short == "logit_scale":
            assert not others
            continue
        turned = value.T if short == "text_projection" else value
        for other, piece in zip(others, turned.chunk(max(1, len(others))), strict=False):
            assert other is not None and torch.equal(expected[other], piece), name


@pytest.mark.parametrize("kind", ["sd1"])
def test_half_precision_is_read_and_the_vae_stays_whole(kind: Any, words: int, tokenizer: Path, tmp_path: Path) -> None:
    small = make_small(kind, words=words)
    base = bases.load(str(write_single(small, tmp_path / "m.safetensors", half=True)), tokenizer=str(tokenizer))
    assert {p.dtype for p in base.unet.parameters()} == {torch.float32} == {p.dtype for p in base.vae.parameters()}
    torch.testing.assert_close(
        base.unet.state_dict()["conv_in.weight"], small.unet.conv_in.weight, rtol=1e-3, atol=1e-4
    )
    half = bases.load(str(tmp_path / "m.safetensors"), tokenizer=str(tokenizer), dtype=torch.bfloat16)
    assert {p.dtype for p in half.unet.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in half.vae.parameters()} == {torch.float32}


def test_old_clip_names_without_their_level(words: int, tokenizer: Path, tmp_path: Path) -> None:
    small = make_small("sd1", words=words)
    tensors = {name.replace("transformer.text_model.", "transformer."): t for name, t in ldm_tensors(small).items()}
    tensors["cond_stage_model.transformer.embeddings.position_ids"] = torch.arange(77)[None]
    save_file({name: t.contiguous() for name, t in tensors.items()}, tmp_path / "old.safetensors")
    equal(bases.load(str(tmp_path / "old.safetensors"), tokenizer=str(tokenizer)).text_encoder, small.texts[0])


@pytest.mark.parametrize(
    ("name", "metadata", "asked", "expected"),
    [
        ("x", {"modelspec.prediction_type": "v"}, None, "v_prediction"),
        ("x", {"modelspec.prediction_type": "epsilon"}, None, "epsilon"),
        ("x", {"modelspec.prediction_type": "epsilon"}, "v_prediction", "v_prediction"),
        ("v2-1_768-ema", {}, None, "v_prediction"),
        ("512-base-ema", {}, None, "epsilon"),
        ("x", {}, "epsilon", "epsilon"),
    ],
)
def test_what_an_sd2_file_predicts_is_read_or_guessed_and_said(
    name: str, metadata: dict[str, str], asked: Any, expected: str, words: int, tokenizer: Path, tmp_path: Path
) -> None:
    file = write_single(make_small("sd2", words=words), tmp_path / f"{name}.safetensors", metadata=metadata)
    base = bases.load(str(file), tokenizer=str(tokenizer), prediction=asked)
    assert base.schedule.prediction_type == expected
    sign = "prediction says" if asked else "metadata" if metadata else "guessed from"
    assert sign in base.described


def test_an_sd2_file_that_gives_no_sign_is_refused(words: int, tokenizer: Path, tmp_path: Path) -> None:
    file = write_single(make_small("sd2", words=words), tmp_path / "x.safetensors")
    with pytest.raises(BaseModelError, match='set prediction = "epsilon" or prediction = "v"'):
        bases.load(str(file), tokenizer=str(tokenizer))


def test_marks_of_v_prediction_and_zero_terminal_snr(words: int, tokenizer: Path, tmp_path: Path) -> None:
    tensors = {name: t.contiguous() for name, t in ldm_tensors(make_small("sdxl", words=words)).items()}
    save_file(tensors | {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}, tmp_path / "x.safetensors")
    base = bases.load(str(tmp_path / "x.safetensors"), tokenizer=str(tokenizer))
    assert base.schedule.prediction_type == "v_prediction" and float(base.schedule.alphas_cumprod[-1]) == 0
    assert "zero terminal SNR" in base.described


def test_a_ckpt_of_weights_is_read_and_one_with_code_is_not(words: int, tokenizer: Path, tmp_path: Path) -> None:
    small = make_small("sd1", words=words)
    torch.save({"state_dict": ldm_tensors(small), "global_step": 1}, tmp_path / "m.ckpt")
    equal(bases.load(str(tmp_path / "m.ckpt"), tokenizer=str(tokenizer)).unet, small.unet)

    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": {}, "callback": Code()}, tmp_path / "bad.ckpt")
    with pytest.raises(BaseModelError, match=r"would run its code; take the \.safetensors"):
        bases.load(str(tmp_path / "bad.ckpt"), tokenizer=str(tokenizer))
    (tmp_path / "torn.ckpt").write_bytes(pickle.dumps([1])[:4])
    with pytest.raises(BaseModelError, match=r"torn\.ckpt"):
        bases.load(str(tmp_path / "torn.ckpt"), tokenizer=str(tokenizer))
    assert not (tmp_path / "ran").exists()


def test_what_is_no_checkpoint_is_named(tmp_path: Path, words: int, tokenizer: Path) -> None:
    whole = {name: t.contiguous() for name, t in ldm_tensors(make_small("sd1", words=words)).items()}
    unet = {name: t for name, t in whole.items() if name.startswith(ldm.UNET)}
    for tensors, said in (
        ({"lora_unet_x.alpha": torch.ones(1)}, "is a LoRA, not a base"),
        ({"x": torch.ones(1)}, "no Stable Diffusion checkpoint"),
        ({"down_blocks.0.weight": torch.ones(1)}, "one network alone"),
        (unet, "no text encoder"),
        (
            {name: t for name, t in whole.items() if "input_blocks.1.0.norm" not in name and "out.2" not in name},
            "lacks",
        ),
        ({name: t for name, t in whole.items() if "middle_block" not in name}, "lacks"),
        ({name: t for name, t in whole.items() if not name.startswith(ldm.VAE)}, "holds no VAE; name one as vae"),
        (whole | {ldm.UNET + "input_blocks.0.0.weight": torch.ones(64, 9, 3, 3)}, "9 channels"),
    ):
        save_file(tensors, tmp_path / "x.safetensors")
        with pytest.raises(BaseModelError, match=said) as raised:
            bases.load(str(tmp_path / "x.safetensors"), tokenizer=str(tokenizer))
        assert "\n" not in str(raised.value)
    for data in (b"", b"\xff" * 64, (2).to_bytes(8, "little") + b"[]", (40000).to_bytes(8, "little") + b"[" * 40000):
        (tmp_path / "y.safetensors").write_bytes(data)
        with pytest.raises(BaseModelError, match="cannot be loaded"):
            bases.load(str(tmp_path / "y.safetensors"))


def test_the_way_out_where_no_tokenizer_is_to_be_had(words: int, tmp_path: Path) -> None:
    file = write_single(make_small("sd1", words=words), tmp_path / "m.safetensors")
    with pytest.raises(BaseModelError, match=r"set tokenizer in \[project\] to a folder"):
        bases.load(str(file))
    with pytest.raises(BaseModelError, match="has a tokenizer of its own"):
        bases.load("tiny", tokenizer="somewhere")


def test_another_vae(words: int, tokenizer: Path, tmp_path: Path) -> None:
    small, xl = deepcopy(make_small("sd1", words=words)), make_small("sdxl", words=words)
    file = write_single(small, tmp_path / "m.safetensors")
    with torch.no_grad():
        small.vae.encoder.conv_in.weight.add_(1.0)
    small.vae.save_pretrained(tmp_path / "folder" / "vae")
    xl.vae.save_pretrained(tmp_path / "xl")
    vae = {n.removeprefix(ldm.VAE): t.contiguous() for n, t in ldm_tensors(small).items() if n.startswith(ldm.VAE)}
    save_file(vae, tmp_path / "vae.safetensors")
    plain = bases.load(str(file), tokenizer=str(tokenizer))
    ids = {plain.sha256}
    for source in ("folder", "folder/vae", "vae.safetensors"):
        base = bases.load(str(file), tokenizer=str(tokenizer), vae=str(tmp_path / source))
        equal(base.vae, small.vae)
        assert base.vae_sha256 != plain.vae_sha256 and source in base.described
        ids.add(base.sha256)
    assert len(ids) == 3  # the two folders are one VAE
    with pytest.raises(BaseModelError, match=r"0\.13025.*Stable Diffusion|small base of SD 1\.x"):
        bases.load(str(file), tokenizer=str(tokenizer), vae=str(tmp_path / "xl"))
    save_file(load_file(tmp_path / "xl" / "diffusion_pytorch_model.safetensors"), tmp_path / "theirs.safetensors")
    with pytest.raises(BaseModelError, match="name the folder"):
        bases.load(str(file), tokenizer=str(tokenizer), vae=str(tmp_path / "theirs.safetensors"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_published_sizes_are_told_by_names_and_shapes_alone(kind: Kind) -> None:
    full = empty(kind)
    tensors = ldm_tensors(full)
    found = ldm.contents_of({name: tuple(value.shape) for name, value in tensors.items()}, name="it")
    texts = [config for _, config in found.texts]
    family = family_of(found.unet, texts, layout_of(found.unet, texts))
    assert family is FAMILIES[kind]
    assert found.vae is not None
    for config, network in ((found.unet, full.unet), (found.vae, full.vae)):
        for key, value in config.items():
            wanted = getattr(network.config, key)
            one_for_all = isinstance(value, list) and isinstance(wanted, int)
            assert value == (
                [wanted] * len(value) if one_for_all else list(wanted) if isinstance(value, list) else wanted
            )
    with init_empty_weights():
        again = Small(kind, UNet2DConditionModel(**found.unet), AutoencoderKL(**found.vae), full.texts)
    for one, other in ((again.unet, full.unet), (again.vae, full.vae)):
        assert {n: p.shape for n, p in one.state_dict().items()} == {n: p.shape for n, p in other.state_dict().items()}
    for config, encoder in zip(texts, full.texts, strict=True):
        assert all(getattr(encoder.config, key) == value for key, value in config.items() if key != "projection_dim")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_checkpoint_trains(kind: Kind, tokenizer: Path, tmp_path: Path) -> None:
    """Shape-true random numbers in half precision, from one file (2 to 7 GB): load, one step, its LoRA's modules."""
    said = {"modelspec.prediction_type": "epsilon"}
    write_random(tmp_path / "m.safetensors", ldm_tensors(empty(kind)), metadata=said)
    base = bases.load(str(tmp_path / "m.safetensors"), tokenizer=str(tokenizer), dtype=torch.bfloat16)
    (tmp_path / "m.safetensors").unlink()  # gigabytes, which pytest would keep
    assert base.family is FAMILIES[kind]
    lora = attach(base, [LoraSpec(1, 1.0)], seed=0)
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    sizes = torch.tensor([[64.0, 64, 0, 0, 64, 64]]) if kind == "sdxl" else None
    batch = Batch(latents, noise, torch.tensor([500]), bases.tokenize(base, ["zolka"]), sizes=sizes)
    loss = variant_losses(base, batch, variants=1)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss).all() and len(lora.state(0)) == {"sd1": 264, "sd2": 330, "sdxl": 986}[kind]
