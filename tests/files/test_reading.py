"""Every spelling of a LoRA that is about is read as the same LoRA; what is none is refused by its name."""

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loras import CONV, FC1, PROJ_IN, Q_PROJ, TO_K, TO_Q, same, small, zeros
from safetensors.torch import save_file
from torch import Tensor

from vez.errors import LoraFileError
from vez.files.names import PREFIXES, Place, to_diffusers, to_kohya
from vez.files.reading import LoraFile, read
from vez.interop import LoraWeights, to_bytes

Spelling = Callable[[Place], tuple[str, str, str]]  # the names of down, up and alpha


def dotted(down: str, up: str, *, prefix: bool = True, text_model: bool = True) -> Spelling:
    def spell(place: Place) -> tuple[str, str, str]:
        name = to_diffusers(place) if prefix else place.path
        name = name if text_model else name.replace("text_model.", "")
        return f"{name}.{down}.weight", f"{name}.{up}.weight", f"{name}.alpha"

    return spell


def underscored(down: str, up: str, *, sdxl: bool = False, te: str = "lora_te_text_model_") -> Spelling:
    def spell(place: Place) -> tuple[str, str, str]:
        name = to_kohya(place, sdxl=sdxl).replace("lora_te_text_model_", te)
        return f"{name}.{down}.weight", f"{name}.{up}.weight", f"{name}.alpha"

    return spell


def oldest(place: Place) -> tuple[str, str, str]:
    """diffusers 0.14 to 0.19: attention processors of the U-Net, to_q_lora in the text encoder."""
    if place.path.endswith(("to_q", "to_k")):
        module, _, name = place.path.rpartition(".")
        return tuple(f"unet.{module}.processor.{name}_lora.{part}" for part in ("down.weight", "up.weight", "alpha"))  # type: ignore[return-value]
    if place == Q_PROJ:
        name = "text_encoder.text_model.encoder.layers.0.self_attn.to_q"
        return f"{name}_lora.down.weight", f"{name}_lora.up.weight", f"{name}_lora.alpha"
    return dotted("lora.down", "lora.up")(place)


def exported(place: Place) -> tuple[str, str, str]:
    """What diffusers' own exporter to kohya's layout makes of its names."""
    name = to_kohya(place, sdxl=False).replace("lora_te_text_model_", "lora_te1_")
    return f"{name}_lora.down.weight", f"{name}_lora.up.weight", f"{name}_lora.alpha"


SPELLINGS: dict[str, tuple[Spelling, str]] = {
    "kohya": (underscored("lora_down", "lora_up"), "kohya"),
    "kohya, SDXL's text name": (underscored("lora_down", "lora_up", te="lora_te1_text_model_"), "kohya"),
    "kohya, no text_model": (underscored("lora_down", "lora_up", te="lora_te_"), "kohya"),
    "kohya, LDM's U-Net": (underscored("lora_down", "lora_up", sdxl=True), "kohya"),
    "kohya names, peft's parts": (underscored("lora_A", "lora_B"), "mixed"),
    "kohya names, diffusers' parts": (underscored("lora.down", "lora.up"), "mixed"),
    "dotted names, kohya's parts": (dotted("lora_down", "lora_up"), "mixed"),
    "diffusers": (dotted("lora_A", "lora_B"), "diffusers"),
    "diffusers, flat text encoder": (dotted("lora_A", "lora_B", text_model=False), "diffusers"),
    "diffusers, lora.down": (dotted("lora.down", "lora.up"), "diffusers"),
    "diffusers, lora_linear_layer": (dotted("lora_linear_layer.down", "lora_linear_layer.up"), "diffusers"),
    "peft, with the adapter's name": (dotted("lora_A.default", "lora_B.default"), "diffusers"),
    "peft, no prefix": (dotted("lora_A", "lora_B", prefix=False), "diffusers"),
}


def spelled(lora: LoraFile, spell: Spelling, *, alpha: bool = True) -> dict[str, Tensor]:
    tensors = {}
    for place, weights in lora.modules.items():
        down, up, scale = spell(place)
        tensors[down], tensors[up] = weights.down, weights.up
        if alpha:
            tensors[scale] = torch.tensor(weights.alpha)
    return tensors


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_the_same_lora(name: str, tmp_path: Path) -> None:
    spell, layout = SPELLINGS[name]
    lora = small(alpha=3.0)
    save_file(spelled(lora, spell), tmp_path / "x.safetensors")
    found = read(tmp_path / "x.safetensors")
    same(found, lora, rtol=0, atol=0)
    assert found.layout == layout
    assert found.family == "tiny"


@pytest.mark.parametrize("spell", [oldest, exported])
def test_the_spellings_of_other_times(spell: Spelling, tmp_path: Path) -> None:
    lora = small(alpha=4.0)  # alpha = rank, as these files mean it
    save_file(spelled(lora, spell, alpha=False), tmp_path / "x.safetensors")
    same(read(tmp_path / "x.safetensors"), lora, rtol=0, atol=0)


def test_convolutions_of_locon_are_kept(tmp_path: Path) -> None:
    lora = small()
    save_file(spelled(lora, SPELLINGS["kohya"][0]), tmp_path / "x.safetensors")
    found = read(tmp_path / "x.safetensors").modules[CONV]
    assert found.down.shape == (4, 8, 3, 3) and found.up.shape == (16, 4, 1, 1)


def with_config(config: dict[str, Any], path: Path) -> LoraFile:
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(config)}
    save_file(spelled(small(), SPELLINGS["diffusers"][0], alpha=False), path, metadata)
    return read(path)


def test_alpha_is_taken_from_diffusers_header(tmp_path: Path) -> None:
    config = {
        "unet.lora_alpha": 6,
        "unet.r": 4,
        "unet.alpha_pattern": {"attentions.0.proj_in": 7, "^" + TO_K.path: 8.5},
        "text_encoder.lora_alpha": 12,
        "text_encoder.use_rslora": True,
    }
    modules = with_config(config, tmp_path / "x.safetensors").modules
    assert modules[TO_Q].alpha == 6 and modules[PROJ_IN].alpha == 7 and modules[TO_K].alpha == 8.5
    assert modules[FC1].alpha / modules[FC1].rank == pytest.approx(12 / math.sqrt(4))


def test_without_any_alpha_it_is_the_rank(tmp_path: Path) -> None:
    assert {w.alpha for w in with_config({}, tmp_path / "x.safetensors").modules.values()} == {4.0}


def test_alpha_is_taken_from_the_config_beside_pefts_file(tmp_path: Path) -> None:
    lora = small()
    text = {place: w for place, w in lora.modules.items() if place.network == "text"}
    tensors = {}
    for place, weights in text.items():
        name = f"base_model.model.text_model.{place.path}"
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = weights.down, weights.up
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 2, "alpha_pattern": {}}))
    found = read(tmp_path / "adapter_model.safetensors").modules
    assert found.keys() == text.keys() and {w.alpha for w in found.values()} == {2.0}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"unet.use_dora": True}, "DoRA"),
        ({"unet.lora_bias": True}, "biases"),
        ({"unet.lora_alpha": "much"}, "no usable alpha"),
        ({"unet.lora_alpha": True}, "no usable alpha"),
        ({"unet.lora_alpha": 1e999}, "no usable alpha"),
        ({"unet.alpha_pattern": [1]}, "no table"),
        ({"unet.alpha_pattern": {"(a+)+$": 1}}, "expression"),
        ([1, 2], "no table"),
    ],
)
def test_a_header_that_says_no_alpha_is_refused(config: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(LoraFileError, match=words):
        with_config(config, tmp_path / "x.safetensors")


@pytest.mark.parametrize("text", ["{", "[" * 100_000])
def test_a_header_that_is_no_json_is_refused(text: str, tmp_path: Path) -> None:
    tensors = spelled(small(), SPELLINGS["diffusers"][0], alpha=False)
    save_file(tensors, tmp_path / "x.safetensors", {"lora_adapter_metadata": text})
    with pytest.raises(LoraFileError, match="not JSON"):
        read(tmp_path / "x.safetensors")


MODULE = to_kohya(TO_Q, sdxl=False)
PLAIN = {f"{MODULE}.lora_down.weight": torch.ones(2, 8), f"{MODULE}.lora_up.weight": torch.ones(8, 2)}
REFUSED: dict[str, tuple[dict[str, Tensor], str]] = {
    "DoRA of kohya": ({**PLAIN, f"{MODULE}.dora_scale": torch.ones(8, 1)}, "a DoRA.*--minus BASE"),
    "DoRA of peft": ({"unet.mid_block.attentions.0.proj_in.lora_magnitude_vector": torch.ones(8)}, "a DoRA"),
    "LoHa": ({f"{MODULE}.hada_w1_a": torch.ones(8, 2)}, "a LoHa.*--minus BASE"),
    "LoKr": ({f"{MODULE}.lokr_w1": torch.ones(8, 2)}, "a LoKr"),
    "OFT": ({f"{MODULE}.oft_blocks": torch.ones(8, 2, 2)}, "an OFT"),
    "OFT of peft": ({"unet.mid_block.attentions.0.proj_in.oft_R.weight": torch.ones(8, 2)}, "an OFT"),
    "CP": ({**PLAIN, f"{MODULE}.lora_mid.weight": torch.ones(2, 2, 3, 3)}, "middle part"),
    "IA3": ({f"{MODULE}.weight": torch.ones(8), f"{MODULE}.on_input": torch.ones(1)}, "IA"),
    "differences": ({f"{MODULE}.diff": torch.ones(8, 8)}, "whole weights"),
    "FLUX": ({"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": torch.ones(2, 8)}, "transformer"),
    "FLUX of kohya": ({"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": torch.ones(2, 8)}, "transformer"),
    "a checkpoint": ({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(2)}, "whole checkpoint"),
    "cloneofsimo": ({"unet:0:up": torch.ones(8, 2)}, "cloneofsimo"),
    "an embedding": ({"emb_params": torch.ones(2, 768)}, "no part of a LoRA"),
    "a bias": ({**PLAIN, f"{MODULE}.lora_up.bias": torch.ones(8)}, "no part of a LoRA"),
    "another model": ({"lora_unet_blocks_0_cross_attn_q.lora_down.weight": torch.ones(2, 8)}, "no part of a LoRA"),
    "twice": ({**PLAIN, "unet." + TO_Q.path + ".lora_A.weight": torch.ones(2, 8)}, "twice"),
    "half": ({f"{MODULE}.lora_down.weight": torch.ones(2, 8)}, "lacks its lora_up"),
    "nothing": ({}, "no LoRA weights"),
    "NaN": ({**PLAIN, f"{MODULE}.alpha": torch.tensor(math.nan)}, "not numbers"),
    "shapes": ({**PLAIN, f"{MODULE}.lora_up.weight": torch.ones(8, 3)}, "disagree"),
    "a wide up": (
        {f"{MODULE}.lora_down.weight": torch.ones(2, 8, 1, 1), f"{MODULE}.lora_up.weight": torch.ones(8, 2, 3, 3)},
        "up part",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_lora_is_refused_by_name(what: str, tmp_path: Path) -> None:
    tensors, words = REFUSED[what]
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(LoraFileError, match=words) as raised:
        read(tmp_path / "x.safetensors")
    assert "\n" not in str(raised.value) and "x.safetensors" in str(raised.value)


def test_names_that_a_terminal_would_obey_are_shown_as_escapes(tmp_path: Path) -> None:
    save_file({"\x1b[2J\u202eevil": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(LoraFileError) as raised:
        read(tmp_path / "x.safetensors")
    assert "\x1b" not in str(raised.value) and "\u202e" not in str(raised.value)


HUGE = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}


def raw(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        b"\xff" * 64,
        struct.pack("<Q", 2**62) + b"{}",
        raw(b"[" * 40_000),
        raw(b"[]"),
        raw(json.dumps({"a": HUGE}).encode()),
        raw(json.dumps({f"{MODULE}.lora_down.weight": HUGE}).encode()),
    ],
    ids=["empty", "short", "ones", "huge header", "deep", "list", "huge tensor", "huge tensor by a LoRA's name"],
)  # fmt: skip
def test_hostile_bytes_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(LoraFileError):
        read(tmp_path / "x.safetensors")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_file_is_read_or_refused_but_never_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x.safetensors"
    tensors = {name: t[:2] if t.dim() else t for name, t in PLAIN.items()} | {f"{MODULE}.alpha": torch.tensor(1.0)}
    whole = bytearray(to_bytes(tensors, {"lora_adapter_metadata": '{"unet.r": 2}'}))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    try:
        found = read(path)
    except LoraFileError:
        return
    assert all(torch.isfinite(weights.down).all() for weights in found.modules.values())


def test_pickles_folders_and_absent_files(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"\x80\x04.")
    for path, words in (
        (tmp_path / "x.pt", "pickle"),
        (tmp_path, "folder"),
        (tmp_path / "no.safetensors", "cannot be"),
    ):
        with pytest.raises(LoraFileError, match=words):
            read(path)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_the_family_is_by_shapes_and_names(family: Any, tmp_path: Path) -> None:
    lora = zeros(family, 1, 1.0)
    for unet_only in (False, True):
        modules = {p: w for p, w in lora.modules.items() if p.network == "unet" or not unet_only}
        tensors = {}
        for place, weights in modules.items():
            name = to_kohya(place, sdxl=family == "sdxl")
            tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = weights.down, weights.up
        save_file(tensors, tmp_path / "x.safetensors")
        assert read(tmp_path / "x.safetensors").family == family


@pytest.mark.parametrize(("width", "family"), [(768, "sd1"), (1024, "sd2"), (32, "tiny")])
def test_the_family_of_a_text_encoders_lora(width: int, family: str, tmp_path: Path) -> None:
    modules = {Q_PROJ: LoraWeights(torch.ones(1, width), torch.ones(width, 1), 1.0)}
    lora = LoraFile(modules, {}, "sd1", "kohya", torch.float32)
    save_file(spelled(lora, SPELLINGS["kohya"][0]), tmp_path / "x.safetensors")
    assert read(tmp_path / "x.safetensors").family == family


def test_every_network_has_a_prefix() -> None:
    assert set(PREFIXES) == {"unet", "text", "text2"}
