"""What is written: sizes and names as kohya's, diffusers' header with every alpha, metadata, and nothing half."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from loras import CONV, PROJ_IN, TO_K, TO_Q, header_size, same, small, zeros
from safetensors.torch import load_file, save

from vez.errors import LoraFileError
from vez.files.reading import read
from vez.files.writing import minimum, write
from vez.interop import LoraWeights

# modules and parameters per rank of U-Net and text encoders: networks/lora.py of kohya-ss/sd-scripts on published bases
SIZES = {"sd1": (264, 423_936 + 165_888), "sd2": (330, 432_128 + 423_936), "sdxl": (986, 2_659_840 + 165_888 + 737_280)}
MIB = {("sd1", 32): 36.0, ("sd1", 64): 72.0, ("sd2", 32): 52.3, ("sdxl", 32): 217.5}


@pytest.mark.parametrize("family", SIZES)
def test_modules_and_sizes_are_kohyas(family: Any, tmp_path: Path) -> None:
    modules, parameters = SIZES[family]
    lora = zeros(family, 1, 1.0)
    size = write(tmp_path / "x.safetensors", lora, layout="kohya", dtype=torch.float16)
    assert len(lora.modules) == modules
    assert size == header_size(tmp_path / "x.safetensors") + 2 * parameters + 2 * modules
    for (name, rank), mebibytes in MIB.items():
        if name == family:
            assert 2 * parameters * rank / 2**20 == pytest.approx(mebibytes, abs=0.051)


def test_dim_64_of_both_networks_in_half_precision(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    size = write(path, zeros("sd1", 64, 64.0), layout="kohya", dtype=torch.float16)
    tensors = load_file(path)
    weights = {name: t for name, t in tensors.items() if not name.endswith(".alpha")}
    assert sum(t.nbytes for t in weights.values()) == 75_497_472 == 72 * 2**20
    alphas = [t for name, t in tensors.items() if name.endswith(".alpha")]
    assert len(alphas) == 264 and all(t.shape == () and t == 64 and t.dtype == torch.float16 for t in alphas)
    assert size == header_size(path) + 75_497_472 + 2 * 264
    golden = (Path(__file__).parents[1] / "golden" / "kohya_sd1_modules.txt").read_text().split()
    assert {name.partition(".")[0] for name in tensors} == set(golden)


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_is_written_is_read(layout: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    lora = small(ranks={TO_Q: 2, CONV: 3}, alpha=5.0)
    write(tmp_path / "x.safetensors", lora, layout=layout, dtype=dtype)
    found = read(tmp_path / "x.safetensors")
    assert found.layout == layout and found.dtype == dtype
    assert {place: (w.rank, w.alpha) for place, w in found.modules.items()} == {
        place: (w.rank, w.alpha) for place, w in lora.modules.items()
    }
    same(found, lora, rtol=1e-2, atol=1e-2)
    assert lora.metadata.items() <= found.metadata.items()


def test_there_and_back_again_changes_no_bit(tmp_path: Path) -> None:
    lora = small(ranks={TO_Q: 2}, alpha=5.0)
    first, middle, last = (tmp_path / f"{name}.safetensors" for name in "abc")
    write(first, lora, layout="kohya", dtype=torch.float16)
    write(middle, read(first), layout="diffusers", dtype=torch.float16)
    write(last, read(middle), layout="kohya", dtype=torch.float16)
    assert first.read_bytes() == last.read_bytes()


def test_diffusers_header_holds_ranks_and_alphas_that_differ(tmp_path: Path) -> None:
    lora = small(ranks={TO_Q: 2})
    modules = lora.modules | {TO_K: lora.modules[TO_K]._replace(alpha=9.0)}
    write(tmp_path / "x.safetensors", replace(lora, modules=modules), layout="diffusers", dtype=torch.float32)
    config = json.loads(read(tmp_path / "x.safetensors").metadata["lora_adapter_metadata"])
    assert config["unet.r"] == 4 and config["unet.rank_pattern"] == {TO_Q.path: 2}
    assert config["unet.lora_alpha"] == 2.0 and config["unet.alpha_pattern"] == {TO_K.path: 9.0}
    assert set(config["unet.target_modules"]) == {p.path for p in modules if p.network == "unet"}
    names = load_file(tmp_path / "x.safetensors")
    assert "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight" in names


@pytest.mark.parametrize(("family", "dimensions"), [("sd1", 4), ("sd2", 2), ("sdxl", 2), ("tiny", 4)])
def test_proj_in_has_the_shape_of_diffusers_module(family: Any, dimensions: int, tmp_path: Path) -> None:
    """kohya's file of an SD 2.x checkpoint holds 1×1 convolutions, where diffusers has linear layers."""
    lora = replace(small(), family=family)
    write(tmp_path / "x.safetensors", lora, layout="diffusers", dtype=torch.float32)
    tensors = load_file(tmp_path / "x.safetensors")
    assert tensors[f"unet.{PROJ_IN.path}.lora_A.weight"].dim() == dimensions
    assert tensors[f"unet.{CONV.path}.lora_A.weight"].shape == (4, 8, 3, 3)
    same(read(tmp_path / "x.safetensors"), lora)


def test_kohyas_hashes_are_over_this_file(tmp_path: Path) -> None:
    lora = replace(small(), metadata=small().metadata | {"sshs_model_hash": "of another file", "format": "pt"})
    write(tmp_path / "x.safetensors", lora, layout="kohya", dtype=torch.float16)
    data, metadata = (tmp_path / "x.safetensors").read_bytes(), read(tmp_path / "x.safetensors").metadata
    assert metadata["sshs_model_hash"] == hashlib.sha256(data[header_size(tmp_path / "x.safetensors") :]).hexdigest()
    write(tmp_path / "y.safetensors", lora, layout="diffusers", dtype=torch.float16)
    assert not [key for key in read(tmp_path / "y.safetensors").metadata if key.startswith("sshs_")]


def test_kohyas_hashes_by_its_own_recipe(tmp_path: Path) -> None:
    """As kohya computes them (train_util.precalculate_safetensors_hashes): over what safetensors' own writer makes of
    the tensors with their ss_ metadata alone, which a reader of the file has before it."""
    empty, generator = zeros("sd1", 1, 1.0), torch.Generator().manual_seed(0)
    drawn = {p: w._replace(up=torch.randn(w.up.shape, generator=generator)) for p, w in empty.modules.items()}
    one = replace(empty, modules=drawn, metadata={"ss_network_dim": "1", "modelspec.title": "x"})
    write(tmp_path / "x.safetensors", one, layout="kohya", dtype=torch.float16)
    data = save(load_file(tmp_path / "x.safetensors"), {"ss_network_dim": "1"})
    metadata = read(tmp_path / "x.safetensors").metadata
    assert len(data) > 0x110000, "long enough for the second to have what to read"
    assert metadata["sshs_model_hash"] == hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    assert metadata["sshs_legacy_hash"] == hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]


def test_an_alpha_that_half_precision_cannot_hold_is_not_rounded(tmp_path: Path) -> None:
    lora = small(alpha=0.1)
    write(tmp_path / "x.safetensors", lora, layout="kohya", dtype=torch.float16)
    assert all(w.alpha == pytest.approx(0.1, rel=1e-7) for w in read(tmp_path / "x.safetensors").modules.values())


def test_a_module_of_scale_0_adds_nothing_for_kohya_too(tmp_path: Path) -> None:
    """There alpha 0 means alpha = rank."""
    write(tmp_path / "x.safetensors", small(alpha=0.0), layout="kohya", dtype=torch.float32)
    assert all(not w.delta().any() and w.alpha == 4 for w in read(tmp_path / "x.safetensors").modules.values())


def test_what_does_not_fit_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    lora = small()
    large = {TO_Q: LoraWeights(torch.full((1, 8), 1e6), torch.ones(8, 1), 1.0)}
    with pytest.raises(LoraFileError, match=r"too large for float16.*--dtype"):
        write(tmp_path / "x.safetensors", replace(lora, modules=large), layout="kohya", dtype=torch.float16)
    with pytest.raises(LoraFileError, match="nothing left"):
        write(tmp_path / "x.safetensors", replace(lora, modules={}), layout="kohya", dtype=torch.float16)
    with pytest.raises(LoraFileError, match=r"must end in \.safetensors"):
        write(tmp_path / "x.pt", lora, layout="kohya", dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(LoraFileError, match="exists"):
        write(path, small(), layout="kohya", dtype=torch.float16)
    assert path.read_bytes() == b"mine"
    write(path, small(), layout="kohya", dtype=torch.float16, force=True)
    assert read(path).modules
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(LoraFileError, match="exists"):
        write(tmp_path / "folder.safetensors", small(), layout="kohya", dtype=torch.float16, force=True)


def test_metadata_are_never_paths(tmp_path: Path) -> None:
    names = {"ss_output_name": "../../escaped", "ss_sd_model_name": "/etc/passwd", "modelspec.title": "..\\up"}
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "x.safetensors", replace(small(), metadata=names), layout="kohya", dtype=torch.float16)
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "x.safetensors"]


def test_the_minimum_of_the_header() -> None:
    full = {"ss_network_dim": "4", "ss_v2": "False", "ss_tag_frequency": "{}", "modelspec.title": "x"}
    assert minimum(full) == {"ss_network_dim": "4", "ss_v2": "False"}
