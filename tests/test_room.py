"""Sizes against published counts and real modules; the predicted memory against peaks that were measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from graphs import kept_by
from vez.base import Base, computing
from vez.base.compute import PLAIN_ATTENTION_PIXELS
from vez.bench.weights import random_base as shaped
from vez.config import Variant
from vez.denoise import Batch, variant_losses
from vez.errors import BaseModelError, ConfigError
from vez.lora import LoraSpec, attach
from vez.nets.kernels import scores
from vez.room import (
    SHARES,
    SHARES_PIXELS,
    Sizes,
    kept_numbers,
    largest_batch,
    lora_parameters,
    memory,
    shares,
    sizes_of,
    text_parameters,
    unet_parameters,
    vae_parameters,
)
from vez.shape import spec_of


def test_parameters_are_those_of_stable_diffusion_1_5() -> None:
    """As its model card and kohya's log have them."""
    sd1 = sizes_of(None)
    assert (unet_parameters(sd1), text_parameters(sd1)) == (859_520_964, 123_060_480)
    assert vae_parameters(sd1) == pytest.approx(83_653_863, rel=1e-3)
    assert 32 * sum(lora_parameters(sd1)) == 18_874_368


@pytest.mark.parametrize("shape", ["sd1", "sd2", "sdxl"])
def test_parameters_are_those_of_modules_of_every_family(shape: str) -> None:
    base = shaped(shape, device=torch.device("meta"), dtype=torch.bfloat16)
    texts: list[Any] = [vars(encoder.config) for encoder in base.text_encoders]
    unet: Any = vars(base.unet.config)
    sizes = Sizes(unet, tuple(texts), {"block_out_channels": [128, 256, 512, 512]})
    assert unet_parameters(sizes) == sum(p.numel() for p in base.unet.parameters())
    assert text_parameters(sizes) == sum(p.numel() for e in base.text_encoders for p in e.parameters())


def test_parameters_are_those_of_real_modules(random_base: Base, random_base_folder: Path) -> None:
    sizes = sizes_of(random_base_folder)
    counted = [sum(p.numel() for p in m.parameters()) for m in (random_base.unet, random_base.text_encoder)]
    assert [unet_parameters(sizes), text_parameters(sizes)] == counted
    lora = attach(random_base, [LoraSpec(3, 3)], seed=0)
    assert lora.params.numel() == 3 * sum(lora_parameters(sizes))
    lora.detach()


def test_what_a_step_keeps_is_about_what_autograd_keeps(random_base: Base, random_base_folder: Path) -> None:
    """The counts behind the formula, on a base that they were not read off."""
    base = random_base
    side = 16
    dice = torch.Generator().manual_seed(0)
    latents, field = torch.randn(2, 1, 4, side, side, generator=dice)
    batch = Batch(latents, field, torch.tensor([500]), tokens=torch.randint(0, 300, (1, 77), generator=dice))
    lora = attach(base, [LoraSpec(4, 4)], seed=0)
    weights = {p.untyped_storage().data_ptr() for n in (base.unet, base.text_encoder) for p in n.parameters()}
    weights.add(lora.params.untyped_storage().data_ptr())
    with computing(base, torch.float32, pixels=8 * side, checkpointing="none"):
        loss = variant_losses(base, batch, variants=1).sum()
    real = kept_by(loss.grad_fn, weights)
    lora.detach()
    sizes = sizes_of(random_base_folder)
    predicted = 4 * kept_numbers(sizes, side=8 * side, rank=4, text=True)
    predicted += shares(sizes, side=8 * side, rows=1, number_bytes=4, text=True)
    assert predicted == pytest.approx(real, rel=0.25)


def test_attention_keeps_what_the_formula_counts() -> None:
    assert (SHARES, SHARES_PIXELS) == (scores._KEPT, PLAIN_ATTENTION_PIXELS)
    sizes = sizes_of(None)
    small = shares(sizes, side=256, rows=1, number_bytes=2, text=True)
    assert shares(sizes, side=256, rows=1, number_bytes=2, text=False) == small - 12 * 2 * 12 * 77**2
    assert shares(sizes, side=256, rows=1, number_bytes=2, text=True, checkpointing="whole") < small / 4
    for fused in ({"side": 320, "number_bytes": 2}, {"side": 256, "number_bytes": 4}):
        assert shares(sizes, rows=1, text=True, **fused) == 0, "PyTorch's fused attention keeps none"


def test_what_blocks_give_their_convolutions_and_transformers_counts() -> None:
    sizes = sizes_of(None)

    def kept(**values: Any) -> float:
        variants = [Variant(dataset="v", rank=16, **{**values, **more}) for more in also]
        return kept_numbers(sizes, side=512, rank=16, text=False, specs=[spec_of(v) for v in variants])

    also: list[dict[str, Any]] = [{}]
    plain = kept()
    assert plain == kept_numbers(sizes, side=512, rank=16, text=False)
    whole, here = kept(conv_rank=8), kept(blocks={"down.0.0": {"conv_rank": 8}})
    area, c = 64**2, 320
    assert here - plain == area * (2 * c + 2 * 8), "the inputs of two convolutions, and what lies between down and up"
    assert here < kept(blocks={"down": {"conv_rank": 8}}) < whole
    assert kept(conv_rank=8, blocks={"mid": {"conv_rank": 0}}) == whole - 2 * 8**2 * (2 * 1280 + 2 * 8)
    assert kept(blocks={"down.0.0": {"rank": 48}}) - plain == area * 12 * (48 - 16)
    assert kept(blocks={"down.0.0": {"lr": 0}}) - plain == -area * 12 * 16
    also = [{}, {"conv_rank": 8}]
    assert kept() == whole, "side by side a place has the largest rank"


MEASURED = json.loads((Path(__file__).parent / "golden" / "peaks.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "row",
    [*MEASURED["fit"], *MEASURED["check"]],
    ids=lambda r: "-".join(str(value) for key, value in r.items() if key != "peak_bytes"),
)
def test_predicted_peaks_are_near_the_measured_ones(row: dict[str, Any]) -> None:
    """Peaks of `vez bench` (no VAE in it but tiny's), measured on a 2-core CPU; golden/peaks.json has the command.

    The rows of "check" were never used to fit the constants. Of SD 1.5's shape at 512 px too much is predicted: there a
    CPU makes the wide values between two layers again, and a GPU, for which the same is predicted, does not.
    """
    tiny = row["base"] == "tiny"
    sizes = sizes_of(Path(__file__).parents[1] / "src" / "vez" / "demo" / "base") if tiny else sizes_of(None)
    predicted = memory(
        sizes,
        side=row["size"],
        batch=row["batch"],
        ranks=row["ranks"],
        number_bytes=4 if row["dtype"] == "fp32" else 2,
        vae=tiny,
        checkpointing=row.get("checkpointing", "none"),
        quantize=row.get("quantize", "none"),
    )
    over = 0.12 if (row["base"], row["size"]) == ("sd1", 512) else 0.1
    assert 0.9 * row["peak_bytes"] <= predicted.peak <= (1 + over) * row["peak_bytes"]


@pytest.mark.parametrize("checkpointing", ["none", "selective", "whole"])
@pytest.mark.parametrize("gigabytes", [6, 8, 12, 24])
def test_the_largest_batch_fits_and_the_next_does_not(gigabytes: int, checkpointing: Any) -> None:
    sizes, how = sizes_of(None), {"side": 512, "ranks": (32,), "number_bytes": 2, "checkpointing": checkpointing}
    most = largest_batch(sizes, bytes_free=gigabytes * 1e9, **how)
    peaks = [memory(sizes, batch=n, on_cpu=False, **how).peak for n in (most, most + 1)]
    assert most >= 1
    assert peaks[0] <= gigabytes * 1e9 < peaks[1]


def test_no_picture_fits_where_the_weights_do_not() -> None:
    assert largest_batch(sizes_of(None), side=512, ranks=(32,), bytes_free=1e9) == 0


def test_a_folder_that_is_no_base_is_one_sentence(tmp_path: Path) -> None:
    for part in ("unet", "vae", "text_encoder"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match="not a Stable Diffusion base"):
        sizes_of(tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 64, (2).to_bytes(8, "little") + b"[]", (9).to_bytes(8, "little") + b"{"]
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "base.safetensors").write_bytes(data)
    with pytest.raises(BaseModelError, match=r"base\.safetensors"):
        sizes_of(tmp_path / "base.safetensors")


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "base.ckpt").write_bytes(b"anything")
    assert sizes_of(tmp_path / "base.ckpt").assumed
