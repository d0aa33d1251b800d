"""SDXL through the same code: what its LoRA adapts and is called, what a step computes, pictures, files in and out."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from safetensors.torch import load_file
from torch import Tensor, nn

from full_size import empty
from ldm_files import Kind, ldm_tensors, make_small
from theirs import parts_of, unet_of
from vez import base as bases
from vez import interop
from vez.base import Base, predict
from vez.config import Prompt, Sampling, Variant
from vez.dataset import Dataset, Row
from vez.denoise import Batch, Words, predictions, sample_losses, sizes_of, variant_losses
from vez.errors import LoraFileError
from vez.events import Done, Step
from vez.family import FAMILIES, kohya_keys
from vez.interop import LoraState, base_keys, merge, parent_of, save_kohya, to_bytes, to_diffusers
from vez.lora import LoraSpec, attach
from vez.sample import sample
from vez.samples import Samples
from vez.solver import denoise, moves, noise
from vez.tape import record
from vez.train import train


@pytest.fixture(scope="module")
def _loaded(family_folders: dict[str, Path]) -> Base:
    return bases.load(str(family_folders["sdxl"]))


@pytest.fixture
def xl(_loaded: Base) -> Iterator[Base]:
    """A small SDXL base; a test must leave it as it was."""
    before = [p.clone() for network in (_loaded.unet, *_loaded.text_encoders) for p in network.parameters()]
    yield _loaded
    after = [p for network in (_loaded.unet, *_loaded.text_encoders) for p in network.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.fixture
def state(xl: Base) -> LoraState:
    lora = attach(xl, [LoraSpec(4, 2.0)], seed=0)
    lora.detach()
    generator = torch.Generator().manual_seed(1)
    return {key: w._replace(up=torch.randn(w.up.shape, generator=generator) * 0.1) for key, w in lora.state(0).items()}


@pytest.mark.parametrize(
    ("kind", "unet", "texts", "numbers"),
    [
        ("sd1", 192, [72], (423_936, 165_888)),
        ("sd2", 192, [138], (432_128, 423_936)),
        ("sdxl", 722, [72, 192], (2_659_840, 165_888 + 737_280)),
    ],
)
def test_modules_of_the_published_sizes(
    random_base: Base, kind: Kind, unet: int, texts: list[int], numbers: tuple[int, int]
) -> None:
    """On the meta device: the networks in full, without a number in them. Counts are kohya's own (peers' logs)."""
    full = empty(kind)
    family = FAMILIES[kind]
    assert family.layout is not None
    base = replace(random_base, family=family, layout=family.layout, unet=full.unet, text_encoders=full.texts)
    keys = base_keys(base)
    assert sum(t.network == "unet" for t in keys.values()) == unet
    assert [sum(t.network == "text" and t.encoder == n for t in keys.values()) for n in range(len(texts))] == texts
    per_rank = {"unet": 0, "text": 0}
    for target in keys.values():
        parent, name = parent_of(base, target)
        weight: Any = parent.get_submodule(name).weight
        per_rank[target.network] += int(weight.shape[0] + weight.shape[1])
    assert (per_rank["unet"], per_rank["text"]) == numbers


def test_names_are_kohyas() -> None:
    assert FAMILIES["sdxl"].layout is not None
    keys = kohya_keys(FAMILIES["sdxl"].layout)
    assert {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "lora_unet_input_blocks_8_1_transformer_blocks_9_ff_net_0_proj",
        "lora_unet_middle_block_1_proj_in",
        "lora_unet_output_blocks_5_1_transformer_blocks_1_attn2_to_out_0",
        "lora_te1_text_model_encoder_layers_11_mlp_fc1",
        "lora_te2_text_model_encoder_layers_31_self_attn_q_proj",
    } <= keys.keys()
    blocks = {key.split("_transformer")[0] for key in keys if "_transformer_blocks_0_attn1_to_q" in key}
    places = ["input_blocks_4", "input_blocks_5", "input_blocks_7", "input_blocks_8", "middle_block"]
    places += [f"output_blocks_{n}" for n in range(6)]
    assert blocks == {f"lora_unet_{place}_1" for place in places}


def test_ldm_paths_are_those_of_a_single_file(xl: Base) -> None:
    tensors = ldm_tensors(make_small("sdxl", words=len(xl.tokenizer)))
    for target in base_keys(xl).values():
        if target.network == "unet":
            parent, name = parent_of(xl, target)
            assert torch.equal(tensors[f"model.diffusion_model.{target.ldm}.weight"], parent.get_submodule(name).weight)


def test_a_forward_pass_is_diffusers_own(xl: Base) -> None:
    x, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([10, 900])
    text = bases.encode_text(xl, ["zolka", "a girl"])
    sizes = torch.tensor([[512.0, 640, 0, 8, 64, 64]] * 2)
    unet = unet_of(xl)
    with torch.no_grad():
        ours = predict(xl, x, t, text=text, sizes=sizes)
        added = {"text_embeds": text.pooled, "time_ids": sizes}
        assert torch.equal(ours, unet(x, t, text.states, added_cond_kwargs=added).sample)
        assert not torch.allclose(ours, predict(xl, x, t, text=text, sizes=sizes * 2), atol=1e-4)
    with pytest.raises(ValueError, match="sizes"):
        predict(xl, x, t, text=text, sizes=None)


def test_what_is_told_of_a_pictures_size(xl: Base, random_base: Base, tiny_dataset: Dataset) -> None:
    row = tiny_dataset.train[0]
    rows = [replace(row, box=(100, 200, 900, 600), width=400, height=200), replace(row, box=(0, 0, 0, 0))]
    told = sizes_of(xl, rows)
    assert told is not None
    assert told.tolist() == [[400, 800, 100, 50, 200, 400], [64, 64, 0, 0, 64, 64]]
    assert sizes_of(random_base, rows) is None


def test_a_mirrored_pictures_crop_begins_where_it_does_in_the_mirrored_picture(xl: Base, tiny_dataset: Dataset) -> None:
    """Of 1000 pixels across, 100 to 900 mirrored are 100 to 900, 0 to 800 are 200 to 1000; half that in training."""
    row = replace(tiny_dataset.train[0], width=400, height=200, upright=1000)
    rows = [replace(row, box=box) for box in ((100, 200, 900, 600), (0, 200, 800, 600), (0, 200, 800, 600))]
    told = sizes_of(xl, [*rows, replace(rows[1], upright=0)], turned=[True, True, False, True])
    assert told is not None
    assert told[:, 3].tolist() == [50, 100, 0, 0]  # the last one's picture is of unknown width
    assert told[:, 2].tolist() == [100] * 4


def test_only_a_variant_that_flips_is_told_of_mirrored_crops(xl: Base, tiny_dataset: Dataset) -> None:
    rows = [replace(row, box=(0, 0, 64, 64), upright=164) for row in tiny_dataset.train]
    variants = [Variant(dataset="d", batch=4, flip=flip) for flip in (True, False)]
    tape = record(len(rows), seed=0, steps=8, batch=4)
    moments = [torch.zeros(8, 8, 8) for _ in rows]
    mirrored = [torch.cat([torch.ones(4, 8, 8), torch.zeros(4, 8, 8)]) for _ in rows]
    words = Words.of(xl, [row.caption for row in rows], frozen=True)
    told = set()
    for step in range(1, 9):
        for _, found, _ in Samples(xl, rows, variants, tape, words, moments, mirrored=mirrored).batches(step):
            assert found.sizes is not None and found.sizes.shape == (8, 6)
            told |= set(zip(found.latents[:, 0, 0, 0].tolist(), found.sizes[:, 3].tolist(), strict=True))
            assert torch.equal(found.sizes[4:, 3], torch.zeros(4))
            assert predictions(xl, found, variants=2).shape == (8, 4, 8, 8)
    assert told == {(0.0, 0.0), (1.0, 100.0)}  # (latents are of the mirrored picture, where its crop begins)


def batch(base: Base, row: Row, *, variants: int) -> Batch:
    latents, fields = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    tokens = bases.tokenize(base, ["zolka", "a girl", ""] * variants)
    return Batch(latents, fields, torch.tensor([3, 500, 990]), tokens, sizes=sizes_of(base, [row] * 3))


def test_variants_side_by_side_are_each_one_alone(xl: Base, tiny_dataset: Dataset) -> None:
    specs = [LoraSpec(2, 2.0), LoraSpec(4, 4.0)]
    row = tiny_dataset.train[0]

    def gradients(some: list[LoraSpec], first: int) -> tuple[Tensor, list[dict[str, tuple[Tensor, Tensor]]]]:
        lora = attach(xl, some, seed=0)
        try:
            for v in range(len(some)):
                generator = torch.Generator().manual_seed(first + v)
                for _, up in lora.rows(lora.params.detach(), v).values():
                    up.copy_(torch.randn(up.shape, generator=generator) * 0.05)
            losses = variant_losses(xl, batch(xl, row, variants=len(some)), variants=len(some))
            losses.sum().backward()  # type: ignore[no-untyped-call]
            return losses.detach(), [lora.rows(lora.grads.clone(), v) for v in range(len(some))]
        finally:
            lora.detach()

    losses, together = gradients(specs, 0)
    for v, spec in enumerate(specs):
        alone, (grads,) = gradients([spec], v)
        torch.testing.assert_close(losses[v], alone[0], rtol=1e-5, atol=0)
        assert any(key.startswith("lora_te1_") for key in grads) and any(key.startswith("lora_te2_") for key in grads)
        for key, pair in grads.items():
            for a, b in zip(pair, together[v][key], strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)
        # What lies behind the layer that is read learns nothing; what lies before it does.
        assert grads["lora_te1_text_model_encoder_layers_0_mlp_fc1"][1].abs().sum() > 0
        assert grads["lora_te2_text_model_encoder_layers_0_mlp_fc1"][1].abs().sum() > 0
        assert grads["lora_te1_text_model_encoder_layers_2_mlp_fc1"][1].abs().sum() == 0
        assert grads["lora_te2_text_model_encoder_layers_3_mlp_fc1"][1].abs().sum() > 0, "the pooled text reads it"


def test_training_writes_kohyas_sdxl_file(xl: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    events = list(
        train(
            xl,
            tiny_dataset,
            {"a": Variant(dataset="d", rank=2), "b": Variant(dataset="d", rank=4, lr_text=0)},
            seed=0,
            steps=3,
            into={name: tmp_path / name for name in ("a", "b")},
            validate_every=3,
        )
    )
    assert sum(isinstance(event, Step) for event in events) == 6
    assert [event.artifact_path for event in events if isinstance(event, Done)] == [tmp_path / "a", tmp_path / "b"]
    tensors, (state, metadata) = (
        load_file(tmp_path / "a/lora.safetensors"),
        interop.load_kohya(tmp_path / "a/lora.safetensors"),
    )
    assert {name.partition(".")[0] for name in tensors} == state.keys() == base_keys(xl).keys()
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert any(weights.up.abs().sum() > 0 for key, weights in state.items() if key.startswith("lora_te2_"))
    only = interop.load_kohya(tmp_path / "b/lora.safetensors")[0]
    assert {key for key in only if key.startswith("lora_te")} == set()


def test_frozen_text_encoders_are_read_once_and_give_the_same_loss(xl: Base, tiny_dataset: Dataset) -> None:
    one = batch(xl, tiny_dataset.train[0], variants=1)
    with torch.no_grad():
        text = bases.encode_text(xl, ["zolka", "a girl", ""])
        cached = Batch(one.latents, one.noise, one.timesteps, text=text, sizes=one.sizes)
        torch.testing.assert_close(sample_losses(xl, cached, variants=1), sample_losses(xl, one, variants=1))


def pipeline_of(base: Base) -> Any:
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    made = StableDiffusionXLPipeline(
        **parts_of(base),
        scheduler=scheduler,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def test_pixels_of_diffusers_sdxl_pipeline(xl: Base) -> None:
    texts, negative = ["a red apron", "a woman in the snow"], "blurred"
    latents = noise([0, 1], 8, 8)
    expected = pipeline_of(xl)(
        texts,
        negative_prompt=[negative] * 2,
        latents=latents,
        num_inference_steps=5,
        guidance_scale=5.0,
        height=64,
        width=64,
        output_type="np",
    ).images
    ours = denoise(
        xl,
        latents,
        text=bases.encode_text(xl, texts),
        negative=bases.encode_text(xl, [negative] * 2),
        walk=moves(xl.schedule.alphas_cumprod.double().numpy(), 5, solver="ddim"),
        cfg=5.0,
    )
    pixels = bases.decode_latents(xl, ours)
    assert pixels.std() > 5, "a flat picture would make any sampler agree"
    assert np.abs(pixels.astype(int) - (expected * 255).round().astype(int)).max() <= 2


def test_sampling_with_and_without_a_lora(xl: Base, state: LoraState, tmp_path: Path) -> None:
    save_kohya(tmp_path / "lora.safetensors", state, metadata={})
    prompts = [Prompt(text="a girl", id="p", group="p")]
    arms = {"v1": tmp_path / "lora.safetensors", "base": None}
    list(sample(xl, arms, prompts, sampling=Sampling(steps=2, seeds=1, size=64), into=tmp_path / "out"))
    pictures = [(tmp_path / "out" / arm / "p-0.png").read_bytes() for arm in arms]
    assert pictures[0] != pictures[1]


def weights_of(base: Base, networks: Any) -> dict[str, Tensor]:
    """The weights that a LoRA adapts, by kohya's names, in a pipeline's networks."""
    found = {}
    for key, target in base_keys(base).items():
        root = (
            networks.unet
            if target.network == "unet"
            else (networks.text_encoder, networks.text_encoder_2)[target.encoder]
        )
        path = (
            target.path if target.network == "unet" or not hasattr(root, "text_model") else f"text_model.{target.path}"
        )
        module: nn.Module = root.get_submodule(path)
        weight: Any = getattr(module, "base_layer", module).weight
        found[key] = weight.detach().clone()
    return found


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_diffusers_reads_our_file_to_the_same_weights(
    family_folders: dict[str, Path], state: LoraState, layout: str, tmp_path: Path
) -> None:
    own = bases.load(str(family_folders["sdxl"]))
    pipeline = pipeline_of(bases.load(str(family_folders["sdxl"])))
    if layout == "kohya":
        save_kohya(tmp_path / "lora.safetensors", state, metadata={}, dtype=torch.float32)
    else:
        (tmp_path / "lora.safetensors").write_bytes(to_bytes(*to_diffusers(state, own.layout)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the library says about itself is not under test
        pipeline.load_lora_weights(tmp_path, weight_name="lora.safetensors", local_files_only=True)
        pipeline.fuse_lora()
    merge(own, state)
    theirs = weights_of(own, pipeline)
    for key, target in base_keys(own).items():
        parent, name = parent_of(own, target)
        torch.testing.assert_close(parent.get_submodule(name).weight, theirs[key], rtol=1e-4, atol=1e-5)


def test_diffusers_names_for_the_unet_are_read(xl: Base, state: LoraState) -> None:
    keys = base_keys(xl)
    theirs = {
        "lora_unet_" + keys[key].path.replace(".", "_") if keys[key].network == "unet" else key: weights
        for key, weights in state.items()
    }
    assert theirs.keys() != state.keys()
    assert interop.check_fit(xl, theirs).keys() == state.keys()


def test_a_lora_and_a_base_of_different_families_are_both_named(xl: Base, random_base: Base, state: LoraState) -> None:
    with pytest.raises(LoraFileError, match=r"small base of SD 1\.x layout\) lacks: it is for Stable Diffusion XL"):
        merge(random_base, state)
    sd1 = {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": interop.LoraWeights(
            torch.zeros(2, 768), torch.zeros(320, 2), 2.0
        )
    }
    with pytest.raises(LoraFileError, match=r"small base of SDXL layout\) lacks: it is for Stable Diffusion 1\.x"):
        merge(xl, sd1)
