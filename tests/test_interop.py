"""LoRA files: names, bytes, alpha, what is refused, and merging."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPMLP, CLIPAttention

from theirs import texts_of, unet_of
from vez import interop
from vez.base import Base, encode_text
from vez.errors import LoraFileError
from vez.family import FAMILIES
from vez.interop import LoraState, LoraWeights, base_keys, kohya_keys, load_kohya, merge, parent_of, save_kohya
from vez.lora import LoraSpec, attach

GOLDEN = Path(__file__).parent / "golden" / "kohya_sd1_modules.txt"


def random_state(base: Base, *, rank: int = 4, alpha: float = 2.0, seed: int = 0) -> LoraState:
    lora = attach(base, [LoraSpec(rank, alpha)], seed=seed)
    lora.detach()
    generator = torch.Generator().manual_seed(seed)
    return {key: w._replace(up=torch.randn(w.up.shape, generator=generator) * 0.1) for key, w in lora.state(0).items()}


@pytest.fixture
def state(random_base: Base) -> LoraState:
    return random_state(random_base)


@pytest.fixture
def file(state: LoraState, tmp_path: Path) -> Path:
    save_kohya(tmp_path / "lora.safetensors", state, metadata={"ss_output_name": "v1"}, dtype=torch.float32)
    return tmp_path / "lora.safetensors"


def test_names_are_those_that_kohya_wrote() -> None:
    layout = FAMILIES["sd1"].layout
    assert layout is not None
    assert sorted(kohya_keys(layout)) == GOLDEN.read_text().split()


def test_the_table_names_every_module_that_kohya_would_adapt(random_base: Base) -> None:
    """kohya walks the live modules by class; the table must come to the same ones without walking."""
    live = set()
    for network, root, kinds in (
        ("unet", unet_of(random_base), (Transformer2DModel,)),
        ("text", texts_of(random_base)[0], (CLIPAttention, CLIPMLP)),
    ):
        for path, module in root.named_modules():
            if isinstance(module, kinds):
                for inner, child in module.named_modules():
                    if isinstance(child, nn.Linear) or (isinstance(child, nn.Conv2d) and child.kernel_size == (1, 1)):
                        live.add((network, f"{path}.{inner}".removeprefix("text_model.")))
    assert live == {(target.network, target.path) for target in base_keys(random_base).values()}
    for target in base_keys(random_base).values():
        parent, name = parent_of(random_base, target)
        assert isinstance(parent.get_submodule(name), nn.Linear | nn.Conv2d)


def test_what_is_saved_is_read(state: LoraState, file: Path) -> None:
    read, metadata = load_kohya(file)
    assert read.keys() == state.keys()
    for key, weights in state.items():
        assert torch.equal(read[key].down, weights.down) and torch.equal(read[key].up, weights.up)
        assert read[key].alpha == 2.0 and read[key].rank == 4
    assert metadata["ss_output_name"] == "v1"


def test_half_precision_by_default_in_kohyas_shapes(state: LoraState, tmp_path: Path) -> None:
    save_kohya(tmp_path / "lora.safetensors", state, metadata={})
    tensors = load_file(tmp_path / "lora.safetensors")
    assert len(tensors) == 3 * len(state)
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    alphas = [t for name, t in tensors.items() if name.endswith(".alpha")]
    assert all(a.shape == () and a == 2 for a in alphas)
    conv = "lora_unet_mid_block_attentions_0_proj_in"
    assert tensors[f"{conv}.lora_down.weight"].shape == (4, 64, 1, 1)
    assert tensors[f"{conv}.lora_up.weight"].shape == (64, 4, 1, 1)


def test_equal_loras_are_equal_bytes(state: LoraState, tmp_path: Path) -> None:
    metadata = {f"ss_{i}": str(i) for i in range(30)}
    for name, fields in (("a", metadata), ("b", dict(reversed(metadata.items())))):
        save_kohya(tmp_path / f"{name}.safetensors", state, metadata=fields)
    data = (tmp_path / "a.safetensors").read_bytes()
    assert data == (tmp_path / "b.safetensors").read_bytes()
    with safe_open(tmp_path / "a.safetensors", "pt") as opened:  # the library that everyone reads with
        assert metadata.items() <= opened.metadata().items()


def test_kohyas_hashes(state: LoraState, tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    save_kohya(path, state, metadata={"ss_seed": "0", "modelspec.title": "v1"})
    data, (_, metadata) = path.read_bytes(), load_kohya(path)
    body = data[8 + int.from_bytes(data[:8], "little") :]
    assert metadata["sshs_model_hash"] == hashlib.sha256(body).hexdigest()
    assert len(metadata["sshs_legacy_hash"]) == 8


def test_a_file_without_alpha_has_alpha_rank(file: Path) -> None:
    tensors = {name: t for name, t in load_file(file).items() if not name.endswith(".alpha")}
    save_file(tensors, file)
    assert all(weights.alpha == weights.rank == 4 for weights in load_kohya(file)[0].values())


def test_the_sdxl_spelling_of_the_text_encoder_is_read(file: Path) -> None:
    save_file({name.replace("lora_te_", "lora_te1_"): t for name, t in load_file(file).items()}, file)
    assert "lora_te_text_model_encoder_layers_0_mlp_fc1" in load_kohya(file)[0]


def test_weights_too_large_for_the_type_are_refused(state: LoraState, tmp_path: Path) -> None:
    key = next(iter(state))
    broken = state | {key: state[key]._replace(up=state[key].up + 1e6)}
    with pytest.raises(LoraFileError, match=r"not finite as torch\.float16"):
        save_kohya(tmp_path / "lora.safetensors", broken, metadata={})
    assert not (tmp_path / "lora.safetensors").exists()


def tensors_of(rank: int = 2, *, up: int | None = None) -> dict[str, Tensor]:
    module = "lora_unet_mid_block_attentions_0_proj_in"
    up_rank = rank if up is None else up
    return {
        f"{module}.lora_down.weight": torch.ones(rank, 8),
        f"{module}.lora_up.weight": torch.ones(8, up_rank),
        f"{module}.alpha": torch.tensor(float(rank)),
    }


def only(part: str) -> dict[str, Tensor]:
    return {name: t for name, t in tensors_of().items() if name.endswith(part)}


def renamed(old: str, new: str) -> dict[str, Tensor]:
    return {name.replace(old, new): t for name, t in tensors_of().items()}


MODULE = "lora_unet_mid_block_attentions_0_proj_in"
WRONG: dict[str, tuple[dict[str, Tensor], str]] = {
    "no tensors": ({}, "no LoRA weights"),
    "up missing": (only("down.weight"), "lacks its lora_up"),
    "down missing": (only("up.weight"), "lacks its lora_down"),
    "alpha alone": (only("alpha"), "lacks its lora_down"),
    "ranks disagree": (tensors_of(2, up=3), "disagree"),
    "a vector": ({**tensors_of(), f"{MODULE}.lora_down.weight": torch.ones(2)}, "no LoRA has"),
    "empty": ({**tensors_of(), f"{MODULE}.lora_down.weight": torch.ones(0, 8)}, "no LoRA has"),
    "an up that is a 3×3 convolution": (
        {
            **tensors_of(),
            f"{MODULE}.lora_down.weight": torch.ones(2, 8, 3, 3),
            f"{MODULE}.lora_up.weight": torch.ones(8, 2, 3, 3),
        },
        "up part that is a convolution",
    ),
    "NaN": ({**tensors_of(), f"{MODULE}.lora_up.weight": torch.full((8, 2), float("nan"))}, "not numbers"),
    "infinite alpha": ({**tensors_of(), f"{MODULE}.alpha": torch.tensor(float("inf"))}, "not numbers"),
    "two alphas": ({**tensors_of(), f"{MODULE}.alpha": torch.ones(2)}, "not one number"),
    "integers": ({**tensors_of(), f"{MODULE}.lora_up.weight": torch.ones(8, 2, dtype=torch.int64)}, "not numbers"),
    "a LoHa": (renamed("lora_down.weight", "hada_w1_a"), "LoHa"),
    "a LoKr": (renamed("lora_down.weight", "lokr_w1"), "LoKr"),
    "a DoRA": ({**tensors_of(), f"{MODULE}.dora_scale": torch.ones(8)}, "DoRA"),
    "diffusers": ({"unet.mid_block.attentions.0.proj_in.lora_A.weight": torch.ones(2, 8)}, "diffusers"),
    "cloneofsimo": ({"unet:0:up": torch.ones(8, 2), "unet:0:down": torch.ones(2, 8)}, "cloneofsimo"),
    "a checkpoint": ({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(2)}, "whole checkpoint"),
    "something else": ({"weight": torch.ones(2)}, "not in kohya's"),
}


@pytest.mark.parametrize("what", WRONG)
def test_other_peoples_files_are_refused_in_a_sentence(what: str, tmp_path: Path) -> None:
    tensors, words = WRONG[what]
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(LoraFileError, match=words) as raised:
        load_kohya(tmp_path / "x.safetensors")
    assert "\n" not in str(raised.value) and "x.safetensors" in str(raised.value)


def header(fields: Any, body: bytes = b"") -> bytes:
    text = json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + body


HUGE = {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        b"\xff" * 64,
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 100 * 2**20) + b" " * 1000,
        header(HUGE),
        header([]),
        header({"__metadata__": {"a": 1}}),
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"\x00" * 8),
        header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\x00" * 4),
        struct.pack("<Q", 40000) + b"[" * 40000,
        b"PK\x03\x04" + b"\x00" * 100,
    ],
    ids=["empty", "short", "ones", "huge header", "large header", "huge tensor", "list", "numbers in metadata",
         "overlap", "negative", "deep", "zip"],
)  # fmt: skip
def test_hostile_bytes_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(LoraFileError):
        load_kohya(tmp_path / "x.safetensors")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_file_is_read_or_refused_but_never_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x.safetensors"
    whole = bytearray(interop.to_bytes(tensors_of(), {"ss_seed": "1"}))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    try:
        state, _ = load_kohya(path)
    except LoraFileError:
        return
    assert all(torch.isfinite(weights.delta()).all() for weights in state.values())


def test_pickles_and_absent_files(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(b"\x80\x04.")
    with pytest.raises(LoraFileError, match="pickle"):
        load_kohya(tmp_path / "x.ckpt")
    with pytest.raises(LoraFileError, match="cannot be read"):
        load_kohya(tmp_path / "nowhere.safetensors")


def weight_of(base: Base, key: str) -> Tensor:
    parent, name = parent_of(base, base_keys(base)[key])
    weight = parent.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight


@pytest.mark.parametrize("strength", [1.0, 0.5, -1.0])
def test_merging_adds_alpha_over_rank_and_undo_is_exact(random_base: Base, state: LoraState, strength: float) -> None:
    before = {key: weight_of(random_base, key).clone() for key in state}
    undo = merge(random_base, state, strength=strength)
    for key, weights in state.items():
        delta = (weights.up.flatten(1) @ weights.down.flatten(1)) * (2.0 / 4) * strength
        after = weight_of(random_base, key)
        torch.testing.assert_close(after, before[key] + delta.view(after.shape), rtol=1e-6, atol=1e-7)
    undo()
    assert all(torch.equal(weight_of(random_base, key), before[key]) for key in state)


def test_merged_and_attached_are_one_lora(random_base: Base, state: LoraState) -> None:
    x, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([10, 900])

    @torch.no_grad()
    def prediction() -> Tensor:
        eps: Tensor = random_base.unet(x, t, encode_text(random_base, ["zolka", "a girl"]).states)
        return eps

    alone = prediction()
    lora = attach(random_base, [LoraSpec(4, 2.0)], seed=0)
    lora.load_state(0, state)
    attached = prediction()
    lora.detach()
    undo = merge(random_base, state)
    merged = prediction()
    undo()
    torch.testing.assert_close(merged, attached, rtol=1e-4, atol=1e-5)
    assert (merged - alone).norm() > 1e-2 * alone.norm()


def test_a_lora_for_another_base_changes_nothing(random_base: Base, state: LoraState) -> None:
    key = list(state)[-1]
    wide = state | {key: LoraWeights(torch.ones(4, 99), torch.ones(99, 4), 4.0)}
    with pytest.raises(LoraFileError, match="for another base"):
        merge(random_base, wide)
    with pytest.raises(LoraFileError, match="for another family"):
        merge(random_base, state | {"lora_unet_down_blocks_9_attentions_0_proj_in": state[key]})


def test_the_header_says_what_a_reader_shows(random_base: Base) -> None:
    metadata = interop.lora_metadata(
        random_base,
        title="v1-0",
        rank=4,
        alpha=2.0,
        trigger="zolka",
        resolution=64,
        captions=["zolka, a girl", "zolka, a doll, A girl"],
        session="ab" * 32,
        settings={"seed": "3"},
    )
    assert all(isinstance(value, str) for value in metadata.values())
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"], metadata["ss_seed"]) == ("4", "2", "3")
    assert metadata["ss_network_module"] == "networks.lora" and metadata["ss_base_model_version"] == "sd_v1"
    assert json.loads(metadata["ss_tag_frequency"]) == {"1_zolka": {"a doll": 1, "a girl": 2, "zolka": 2}}
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert metadata["modelspec.trigger_phrase"] == "zolka"
    assert int(metadata["ss_session_id"]) == 0xABABABAB
