"""Into a base and out of the difference of two: each undoes the other, and diffusers sees the same model."""

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from loras import same
from safetensors.torch import load_file, save_file

from vez.errors import BaseModelError, LoraFileError
from vez.files.bases import extract, merge_into
from vez.files.names import Place, known
from vez.files.operations import Keep, add
from vez.files.reading import LoraFile, read
from vez.files.writing import write
from vez.interop import LoraWeights

KOHYA = Path(__file__).parents[3] / "shared" / "data" / "kohya"
needs_kohya = pytest.mark.skipif(not KOHYA.is_dir(), reason="kohya's small pipeline and LoRA are not on this machine")
STEMS = {"unet": "diffusion_pytorch_model", "text_encoder": "model"}


def tensors_of(folder: Path, network: str) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(folder / network / f"{STEMS[network]}.safetensors")
    return {name.removeprefix("text_model."): tensor for name, tensor in loaded.items()}


def lora_for(folder: Path, *, rank: int = 3, alpha: float = 2.0, seed: int = 0, convolutions: bool = False) -> LoraFile:
    """A random LoRA of every module that kohya adapts in this base; of its 3×3 convolutions too if asked for."""
    generator = torch.Generator().manual_seed(seed)
    modules: dict[Place, LoraWeights] = {}
    for network, name in (("unet", "unet"), ("text", "text_encoder")):
        for key, weight in tensors_of(folder, name).items():
            place = known(network, key.removesuffix(".weight"))  # type: ignore[arg-type]
            if place is None or weight.dim() < 2 or not (convolutions or weight.shape[2:].numel() == 1):
                continue
            if not convolutions and not any(part in key for part in ("attentions", "encoder.layers")):
                continue
            down = torch.randn(rank, *weight.shape[1:], generator=generator) * 0.2
            up = torch.randn(weight.shape[0], rank, generator=generator) * 0.2
            up = up[..., None, None] if weight.dim() == 4 else up
            modules[place] = LoraWeights(down, up, alpha)
    return LoraFile(dict(sorted(modules.items())), {}, "tiny", "kohya", torch.float32)


@pytest.fixture
def lora(random_base_folder: Path) -> LoraFile:
    return lora_for(random_base_folder)


def test_a_merged_base_is_the_base_plus_what_the_lora_adds(
    random_base_folder: Path, lora: LoraFile, tmp_path: Path
) -> None:
    before = {p: p.read_bytes() for p in random_base_folder.rglob("*") if p.is_file()}
    other = lora_for(random_base_folder, seed=1)
    changed = merge_into(str(random_base_folder), [lora, other], [1.0, -0.5], tmp_path / "out")
    assert changed == len(lora.modules)
    both = add([lora, other], [1.0, -0.5], names=["a", "b"])
    for network, name in (("unet", "unet"), ("text", "text_encoder")):
        old, new = tensors_of(random_base_folder, name), tensors_of(tmp_path / "out", name)
        assert old.keys() == new.keys()
        for key, weight in old.items():
            place = known(network, key.removesuffix(".weight"))  # type: ignore[arg-type]
            if place in both.modules and key.endswith(".weight"):
                delta = both.modules[place].delta().view(weight.shape)
                torch.testing.assert_close(new[key], weight + delta, rtol=1e-6, atol=1e-6)
            else:
                assert torch.equal(new[key], weight), key
    for path, data in before.items():
        assert path.read_bytes() == data, "the base itself is never changed"
        if path.suffix != ".safetensors":
            assert (tmp_path / "out" / path.relative_to(random_base_folder)).read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_base_in_half_precision_stays_so_and_is_rounded_once(
    random_base_folder: Path, lora: LoraFile, tmp_path: Path
) -> None:
    half = tmp_path / "half"
    shutil.copytree(random_base_folder, half)
    file = half / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
    (half / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"the same weights in another form")
    (half / "v1.ckpt").write_bytes(b"and in yet another")
    merge_into(str(half), [lora], [1.0], tmp_path / "out")
    old, new = tensors_of(half, "unet"), tensors_of(tmp_path / "out", "unet")
    for place, weights in lora.modules.items():
        if place.network == "unet":
            key = f"{place.path}.weight"
            meant = (old[key].float() + weights.delta().view(old[key].shape)).half()
            assert new[key].dtype == torch.float16 and torch.equal(new[key], meant)
    assert not list((tmp_path / "out").rglob("*.bin")) and not list((tmp_path / "out").rglob("*.ckpt"))


def test_locon_is_merged_too(random_base_folder: Path, tmp_path: Path) -> None:
    lora = lora_for(random_base_folder, convolutions=True)
    place = Place("unet", "down_blocks.0.resnets.0.conv1")
    assert lora.modules[place].down.shape[2:] == (3, 3)
    merge_into(str(random_base_folder), [lora], [1.0], tmp_path / "out")
    key = f"{place.path}.weight"
    change = tensors_of(tmp_path / "out", "unet")[key] - tensors_of(random_base_folder, "unet")[key]
    weights = lora.modules[place]
    meant = torch.einsum("or,rikl->oikl", weights.up[..., 0, 0], weights.down) * weights.alpha / weights.rank
    torch.testing.assert_close(change, meant, rtol=1e-4, atol=1e-5)


@pytest.fixture
def pipeline(random_base_folder: Path) -> Iterator[Any]:
    yield loaded(random_base_folder)


def loaded(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the library says about itself is not under test
        pipe = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
        return pipe


def picture(pipeline: Any, side: int = 8) -> np.ndarray[Any, Any]:
    noise = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(3))
    out = pipeline("zolka, a girl", latents=noise, num_inference_steps=3, guidance_scale=3.0, output_type="np")
    pixels: np.ndarray[Any, Any] = out.images
    return pixels


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["kohya", "diffusers", "diffusers, ranks and alphas that differ", "diffusers, LoCon"])
def test_diffusers_draws_with_the_file_what_it_draws_with_the_merged_base(
    kind: str, random_base_folder: Path, pipeline: Any, tmp_path: Path
) -> None:
    lora = lora_for(random_base_folder, alpha=1.5, convolutions="LoCon" in kind)
    if "differ" in kind:
        some = sorted(lora.modules)[::3]
        smaller = lora_for(random_base_folder, rank=2, alpha=1.7, seed=5).modules
        lora = LoraFile(lora.modules | {p: smaller[p] for p in some}, {}, "tiny", "kohya", torch.float32)
    layout: Any = kind.partition(",")[0]
    before = picture(pipeline)
    write(tmp_path / "lora.safetensors", lora, layout=layout, dtype=torch.float32)
    pipeline.load_lora_weights(tmp_path, weight_name="lora.safetensors", adapter_name="zolka")
    live = picture(pipeline)
    merge_into(str(random_base_folder), [lora], [1.0], tmp_path / "merged")
    merged = picture(loaded(tmp_path / "merged"))
    assert np.abs(merged - live).max() < 2e-3
    assert np.abs(merged - before).max() > 2e-2, "the LoRA must be seen"


@pytest.mark.filterwarnings("ignore")
def test_what_diffusers_saves_is_read(random_base_folder: Path, pipeline: Any, tmp_path: Path) -> None:
    """Its own file, with alpha only in the header and the text encoder's names as this transformers has them."""
    lora = lora_for(random_base_folder, alpha=1.5)
    write(tmp_path / "ours.safetensors", lora, layout="diffusers", dtype=torch.float32)
    pipeline.load_lora_weights(tmp_path, weight_name="ours.safetensors", adapter_name="zolka")
    from peft.utils import get_peft_model_state_dict

    networks = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    layers = {name: get_peft_model_state_dict(network, adapter_name="zolka") for name, network in networks.items()}
    configs = {name: network.peft_config["zolka"].to_dict() for name, network in networks.items()}
    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "theirs",
        unet_lora_layers=layers["unet"],
        text_encoder_lora_layers=layers["text_encoder"],
        unet_lora_adapter_metadata=configs["unet"],
        text_encoder_lora_adapter_metadata=configs["text_encoder"],
    )
    found = read(tmp_path / "theirs" / "pytorch_lora_weights.safetensors")
    same(found, lora)


@needs_kohya
@pytest.mark.filterwarnings("ignore")
def test_kohyas_own_file_through_diffusers_layout(tmp_path: Path) -> None:
    lora = read(KOHYA / "sd1-small-lora.safetensors")
    assert (lora.layout, lora.family, len(lora.modules)) == ("kohya", "tiny", 264)
    assert {w.rank for w in lora.modules.values()} == {8} and {w.alpha for w in lora.modules.values()} == {4.0}
    write(tmp_path / "lora.safetensors", lora, layout="diffusers", dtype=torch.float32)
    pipe = loaded(KOHYA / "sd1-small")
    pipe.load_lora_weights(tmp_path, weight_name="lora.safetensors", adapter_name="k")
    live = picture(pipe)
    merge_into(str(KOHYA / "sd1-small"), [lora], [1.0], tmp_path / "merged")
    assert np.abs(picture(loaded(tmp_path / "merged")) - live).max() < 2e-3


def test_what_was_merged_in_is_taken_out_again(random_base_folder: Path, lora: LoraFile, tmp_path: Path) -> None:
    merge_into(str(random_base_folder), [lora], [1.0], tmp_path / "merged")
    found, report = extract(str(tmp_path / "merged"), str(random_base_folder), Keep(energy=0.999999))
    same(found, lora, rtol=1e-2, atol=1e-3)
    assert {w.rank for w in found.modules.values()} == {3} and report.kept.ranks == (3, 3)
    assert all(w.alpha == w.rank for w in found.modules.values())
    assert report.kept.energy > 0.999999 and report.outside == 0
    assert found.metadata["ss_network_dim"] == "3" and found.metadata["ss_base_model_version"] == "sd_v1"


def test_the_best_lora_of_a_rank_and_what_it_cannot_hold(random_base_folder: Path, tmp_path: Path) -> None:
    lora = lora_for(random_base_folder, rank=4, convolutions=True)
    merge_into(str(random_base_folder), [lora], [1.0], tmp_path / "merged")
    found, report = extract(str(tmp_path / "merged"), str(random_base_folder), Keep(rank=2))
    assert {w.rank for w in found.modules.values()} == {2}
    assert report.outside == len(lora.modules) - len(found.modules) > 0
    place = Place("text", "encoder.layers.0.mlp.fc1")
    values = torch.linalg.svdvals(lora.modules[place].delta())
    error = (found.modules[place].delta() - lora.modules[place].delta()).norm()
    assert float(error) == pytest.approx(float(values[2:].norm()), rel=1e-3)
    assert 0 < report.kept.energy < 1


def test_rounding_is_not_learned(random_base_folder: Path, lora: LoraFile, tmp_path: Path) -> None:
    """A base in half precision against the same in full: only the text encoder, which really differs, is kept."""
    text_only = LoraFile(
        {p: w for p, w in lora.modules.items() if p.network == "text"}, {}, "tiny", "kohya", torch.float32
    )
    merge_into(str(random_base_folder), [text_only], [1.0], tmp_path / "merged")
    file = tmp_path / "merged" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
    found, report = extract(str(tmp_path / "merged"), str(random_base_folder), Keep(rank=3))
    assert {place.network for place in found.modules} == {"text"} and report.outside == 0


def test_what_cannot_be_done_leaves_nothing(random_base_folder: Path, lora: LoraFile, tmp_path: Path) -> None:
    base, out = str(random_base_folder), tmp_path / "out"
    wrong = next(iter(lora.modules))
    wide = LoraFile({wrong: LoraWeights(torch.ones(2, 99), torch.ones(8, 2), 1.0)}, {}, "tiny", "kohya", torch.float32)
    with pytest.raises(LoraFileError, match="for another base"):
        merge_into(base, [wide], [1.0], out)
    deep = Place("unet", "down_blocks.3.attentions.0.proj_in")
    with pytest.raises(LoraFileError, match="another family"):
        merge_into(base, [LoraFile({deep: lora.modules[wrong]}, {}, "sd1", "kohya", torch.float32)], [1.0], out)
    two = Place("text2", "encoder.layers.0.mlp.fc1")
    with pytest.raises(LoraFileError, match=r"\(Stable Diffusion XL\) adapts text_encoder_2, .*small base of SD 1\.x"):
        merge_into(base, [LoraFile({two: lora.modules[wrong]}, {}, "sdxl", "kohya", torch.float32)], [1.0], out)
    with pytest.raises(LoraFileError, match="do not differ"):
        extract(base, base, Keep(rank=2))
    with pytest.raises(LoraFileError, match="--rank"):
        extract(base, base, Keep())
    with pytest.raises(BaseModelError, match="unet"):
        extract(str(tmp_path), base, Keep(rank=2))
    assert list(tmp_path.iterdir()) == []
    large = LoraFile({p: w._replace(alpha=1e38) for p, w in lora.modules.items()}, {}, "tiny", "kohya", torch.float32)
    with pytest.raises(LoraFileError, match="too large for the base's float32"):
        merge_into(base, [large], [100.0], out)
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    with pytest.raises(LoraFileError, match="new folder"):
        merge_into(base, [lora], [1.0], out)


def test_models_of_two_sizes_have_no_difference(random_base_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(random_base_folder, tmp_path / "other")
    file = tmp_path / "other" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.weight"] = torch.zeros(3, 4, 3, 3)
    save_file(tensors, file)
    with pytest.raises(LoraFileError, match=r"different sizes at conv_in\.weight"):
        extract(str(tmp_path / "other"), str(random_base_folder), Keep(rank=2))


@pytest.mark.parametrize("part", ["missing", "damaged"])
def test_a_base_that_cannot_be_read(part: str, random_base_folder: Path, lora: LoraFile, tmp_path: Path) -> None:
    shutil.copytree(random_base_folder, tmp_path / "base")
    file = tmp_path / "base" / "unet" / "diffusion_pytorch_model.safetensors"
    if part == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(BaseModelError, match="unet"):
        merge_into(str(tmp_path / "base"), [lora], [1.0], tmp_path / "out")
    assert not (tmp_path / "out").exists()
