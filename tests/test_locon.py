"""LoRAs of convolutions (LoCon): kohya's modules, the formula, its gradients, side by side; in diffusers' hands."""

import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from full_size import empty
from ldm_files import Kind, ldm_tensors, make_small
from test_lora import attached, batch, difference, steps
from theirs import parts_of, unet_of
from vez import base as bases
from vez.base import Base
from vez.base.checkpointing import checkpointed
from vez.base.lean import lean
from vez.denoise import variant_losses
from vez.errors import LoraFileError
from vez.family import FAMILIES, kohya_keys
from vez.interop import LoraState, base_keys, load_kohya, merge, parent_of, save_kohya
from vez.layers import LoraConvLayer, LoraConvolution, Pair
from vez.lora import LoraSpec, attach
from vez.optim import Rates
from vez.shape import Part

LOCON = LoraSpec(4, 2.0, conv=Part(2, 1.0), resnets=True)


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def family(request: pytest.FixtureRequest, family_folders: dict[str, Path]) -> Base:
    return bases.load(str(family_folders[request.param]))


def made(base: Base, spec: LoraSpec, *, seed: int = 1) -> LoraState:
    """A LoRA that does something."""
    lora = attach(base, [spec], seed=0)
    lora.detach()
    generator = torch.Generator().manual_seed(seed)
    return {key: w._replace(up=torch.randn(w.up.shape, generator=generator) * 0.2) for key, w in lora.state(0).items()}


@pytest.mark.parametrize(("kind", "resnets"), [("sd1", 86), ("sd2", 86), ("sdxl", 66)])
def test_modules_of_the_published_sizes(random_base: Base, kind: Kind, resnets: int) -> None:
    """kohya logs 278 U-Net modules with a conv_dim for SD 1.x, 788 for SDXL."""
    full, family = empty(kind), FAMILIES[kind]
    assert family.layout is not None
    base = replace(random_base, family=family, layout=family.layout, unet=full.unet, text_encoders=full.texts)
    keys = base_keys(base, resnets=True)
    assert sum(target.resnet for target in keys.values()) == resnets
    for target in keys.values():
        parent, name = parent_of(base, target)
        module: Any = parent.get_submodule(name)
        assert getattr(module, "kernel_size", (1, 1)) == (target.kernel, target.kernel), target


def test_the_table_names_what_kohya_adapts_with_a_conv_dim(family: Base) -> None:
    """kohya walks the live modules by class; the table must come to the same ones without walking."""
    live = {
        f"{path}.{inner}" if inner else path
        for path, module in unet_of(family).named_modules()
        if isinstance(module, Transformer2DModel | ResnetBlock2D | Downsample2D | Upsample2D)
        for inner, child in module.named_modules()
        if isinstance(child, nn.Linear | nn.Conv2d)
    }
    keys = base_keys(family, resnets=True)
    assert live == {target.path for target in keys.values() if target.network == "unet"}
    assert base_keys(family).items() <= keys.items()


def test_sdxl_names_are_those_of_a_single_file(family_folders: dict[str, Path]) -> None:
    xl = bases.load(str(family_folders["sdxl"]))
    tensors = ldm_tensors(make_small("sdxl", words=len(xl.tokenizer)))
    layout = FAMILIES["sdxl"].layout
    assert layout is not None
    assert {
        "lora_unet_input_blocks_1_0_in_layers_2",
        "lora_unet_input_blocks_3_0_op",
        "lora_unet_middle_block_2_emb_layers_1",
        "lora_unet_output_blocks_2_2_conv",
        "lora_unet_output_blocks_8_0_skip_connection",
    } <= kohya_keys(layout, resnets=True).keys()
    for target in base_keys(xl, resnets=True).values():
        if target.resnet:
            parent, name = parent_of(xl, target)
            assert torch.equal(tensors[f"model.diffusion_model.{target.ldm}.weight"], parent.get_submodule(name).weight)


def pair_of(conv: nn.Conv2d, *, ranks: tuple[int, ...], scales: tuple[float, ...] | None) -> Pair:
    most, inputs = max(ranks), conv.weight[0].numel()
    down, up = torch.zeros(len(ranks), most, inputs), torch.zeros(len(ranks), len(conv.weight), most)
    for v, rank in enumerate(ranks):
        down[v, :rank], up[v, :, :rank] = torch.randn(rank, inputs), torch.randn(len(conv.weight), rank)
    down, up = down.to(conv.weight.dtype), up.to(conv.weight.dtype)
    scale = None if scales is None else torch.tensor(scales).view(-1, 1, 1)
    return Pair(down.requires_grad_(), up.requires_grad_(), torch.zeros_like(down), torch.zeros_like(up), scale,
                ranks=ranks)  # fmt: skip


def plain(x: Tensor, conv: nn.Conv2d, pair: Pair, masks: Tensor | None = None) -> Tensor:
    """Each variant by itself, with torch's own convolutions."""
    out = []
    for v, part in enumerate(x.chunk(len(pair.down))):
        down = pair.down[v].view(-1, *conv.weight.shape[1:])
        hidden = F.conv2d(part, down, None, conv.stride, conv.padding)
        if masks is not None:
            hidden = hidden * masks[v].view(len(part), *hidden.shape[2:], -1).permute(0, 3, 1, 2)
        scale = 1.0 if pair.scale is None else float(pair.scale[v])
        out.append(conv(part) + scale * F.conv2d(hidden, pair.up[v][..., None, None]))
    return torch.cat(out)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("scales", [None, (0.5, 2.0, 1.0)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_layer_is_the_formula_and_its_gradients_autograds(
    stride: int, scales: tuple[float, ...] | None, masked: bool, channels_last: bool
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 6, 3, stride=stride, padding=1).requires_grad_(False)
    pair = pair_of(conv, ranks=(2, 0, 3), scales=scales)
    x = torch.randn(6, 5, 6, 4)
    x = (x.contiguous(memory_format=torch.channels_last) if channels_last else x).requires_grad_()
    masks = torch.rand(3, 2 * 24 // stride**2, 3) * 2 if masked else None
    pair.drop = (
        (lambda positions: masks if masks is not None and positions == masks.shape[1] else 1 / 0) if masked else None
    )
    expected = plain(x, conv, pair, masks)
    towards = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * towards).sum(), [x, pair.down, pair.up])
    ours = LoraConvLayer(conv, pair)(x)
    (dx,) = torch.autograd.grad((ours * towards).sum(), [x])
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dx, wanted[0], rtol=1e-5, atol=1e-4)
    assert not pair.down_grad[1].any() and not pair.up_grad[1].any(), "a variant that does not adapt the module"
    for v, rank in enumerate((2, 0, 3)):
        torch.testing.assert_close(pair.down_grad[v, :rank], wanted[1][v, :rank], rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(pair.up_grad[v, :, :rank], wanted[2][v, :, :rank], rtol=1e-5, atol=1e-4)


def test_gradients_by_differences_in_double_precision() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1).double().requires_grad_(False)
    pair = pair_of(conv, ranks=(2, 1), scales=(0.5, 2.0))

    def output(x: Tensor) -> Tensor:
        made: Tensor = LoraConvolution.apply(x, conv, pair, pair.down, pair.up)  # type: ignore[no-untyped-call]
        return made

    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(output, [x])
    pair.down_grad.zero_(), pair.up_grad.zero_()
    output(x).square().sum().backward()
    for weight, grad in ((pair.down, pair.down_grad), (pair.up, pair.up_grad)):
        numbers = weight.detach().view(-1)
        for i in range(0, len(numbers), 3):
            kept = float(numbers[i])
            values = []
            for step in (1e-5, -1e-5):
                numbers[i] = kept + step
                values.append(float(output(x).detach().square().sum()))
            numbers[i] = kept
            assert float(grad.view(-1)[i]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-7) or (
                not weight.detach().view(-1)[i]
            ), "padding gets none"


def test_first_weights_are_kaimings(random_base: Base) -> None:
    """uniform in ±1/√(in·9) for a 3×3, as kaiming_uniform(a=√5) has it for a convolution's weight."""
    with attached(random_base, LOCON) as lora:
        state = lora.state(0)
    for key, target in base_keys(random_base, resnets=True).items():
        weights = state[key]
        assert not weights.up.any()
        bound = weights.down[0].numel() ** -0.5
        assert 0.75 * bound < weights.down.abs().max() <= bound
        if target.kernel == 3:
            assert weights.rank == 2 and weights.alpha == 1.0
            assert weights.down.shape[2:] == (3, 3) and weights.up.shape[2:] == (1, 1)
        else:
            assert weights.rank == 4 and weights.alpha == 2.0


def test_variants_with_and_without_share_a_pass(random_base: Base) -> None:
    specs = [
        LoraSpec(4, 4.0),
        LoraSpec(2, 1.0, conv=Part(3, 3.0), resnets=True),
        LoraSpec(4, 4.0, text=False, conv=Part(1, 2.0), resnets=True),
    ]
    rates = [Rates(1e-3, 5e-4), Rates(2e-3, 0.0, clip=0.05), Rates(1e-3, 5e-4, plus=4.0)]
    with attached(random_base, *specs) as lora:
        together = torch.stack(steps(random_base, lora, rates, count=3))  # (steps, V)
        states = [lora.state(v) for v in range(3)]
        used = torch.zeros_like(lora.params, dtype=torch.bool)
        for v in range(3):
            for pair in lora.rows(used, v).values():
                for part in pair:
                    part.fill_(True)
        assert not lora.params[~used].any(), "padding stays zero"
    for v, (spec, rate) in enumerate(zip(specs, rates, strict=True)):
        with attached(random_base, spec) as alone:
            apart = torch.cat(steps(random_base, alone, [rate], count=3))
            torch.testing.assert_close(together[:, v], apart, rtol=1e-5, atol=0)
            assert states[v].keys() == alone.state(0).keys()
            assert difference(states[v], alone.state(0), "down") < 1e-5
            assert difference(states[v], alone.state(0), "up") < 1e-4
    assert len(states[1]) > len(states[0])


def test_every_module_of_every_family_gets_a_gradient_like_a_merged_weights(family: Base) -> None:
    """dL/dup = s · dL/dW : down for W' = W + s up·down: torch's own gradient of the weight is the oracle."""
    one = batch_of(family)
    with attached(family, LOCON) as lora:
        state = made_from(lora.state(0))
        lora.load_state(0, state)
        variant_losses(family, one, variants=1).sum().backward()
        grads = {key: (down.clone(), up.clone()) for key, (down, up) in lora.rows(lora.grads, 0).items()}
    keys, undo = base_keys(family, resnets=True), merge(family, state)
    try:
        weights = {key: weight_of(family, key) for key in keys}
        for weight in weights.values():
            weight.requires_grad_()
        variant_losses(family, one, variants=1).sum().backward()
        for key, weights_of_lora in state.items():
            if weights[key].grad is None:  # a layer that SDXL never reads
                assert not any(part.any() for part in grads[key])
                continue
            full, scale = weights[key].grad.flatten(1), weights_of_lora.alpha / weights_of_lora.rank
            down, up = weights_of_lora.down.flatten(1), weights_of_lora.up.flatten(1)
            for ours, theirs in zip(grads[key], (scale * up.T @ full, scale * full @ down.T), strict=True):
                assert float((ours - theirs).norm()) <= 2e-3 * float(theirs.norm()) + 1e-7, key
    finally:
        for weight in weights.values():
            weight.requires_grad_(False).grad = None
        undo()


def batch_of(base: Base) -> Any:
    one = batch(base, 1, size=2)
    sizes = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2) if base.family.pooled else None
    return replace(one, tokens=bases.tokenize(base, ["zolka", "a girl"]), sizes=sizes)


def made_from(state: LoraState) -> LoraState:
    generator = torch.Generator().manual_seed(1)
    return {key: w._replace(up=torch.randn(w.up.shape, generator=generator) * 0.02) for key, w in state.items()}


def weight_of(base: Base, key: str) -> Any:
    parent, name = parent_of(base, base_keys(base, resnets=True)[key])
    return parent.get_submodule(name).weight


def test_a_pass_that_is_computed_twice_adds_its_gradients_once(random_base: Base) -> None:
    """Gradient checkpointing, not reentrant: the forward pass runs again inside the backward one."""
    found = []
    for twice in (False, True):
        with attached(random_base, LOCON) as lora:
            lora.load_state(0, made_from(lora.state(0)))
            block = random_base.unet.down_blocks[1].resnets[0]
            x = torch.randn(2, 32, 4, 4, generator=torch.Generator().manual_seed(3)).requires_grad_()
            time = torch.randn(2, 128, generator=torch.Generator().manual_seed(4))
            y = checkpoint(block, x, time, use_reentrant=False) if twice else block(x, time)
            y.square().sum().backward()
            found.append((lora.grads.clone(), x.grad))
            assert lora.grads.any()
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("how", ["lean", "selective", "whole"])
def test_a_step_that_keeps_less_has_the_same_gradients(
    how: Literal["lean", "selective", "whole"], family: Base
) -> None:
    found = []
    for context in (nullcontext(), lean(family) if how == "lean" else checkpointed(family, how)):
        with attached(family, LOCON, LoraSpec(2, 2.0)) as lora, context:
            lora.load_state(0, made_from(lora.state(0)))
            lora.load_state(1, made_from(lora.state(1)))
            one = batch_of(family)
            losses = variant_losses(family, replace(one, tokens=one.tokens.repeat(2, 1)), variants=2)
            losses.sum().backward()
            found.append((losses.detach(), lora.grads.clone()))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-7)


def test_what_is_saved_is_read_and_fits(family: Base, tmp_path: Path) -> None:
    state = made(family, LOCON)
    save_kohya(tmp_path / "lora.safetensors", state, metadata={}, dtype=torch.float32)
    read, _ = load_kohya(tmp_path / "lora.safetensors")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key].down, w.down) and read[key].alpha == w.alpha for key, w in state.items())
    merge(family, read)()
    key = next(key for key, w in read.items() if w.down.shape[2:] == (3, 3))
    flat = read | {key: read[key]._replace(down=read[key].down[..., :1, :1])}
    with pytest.raises(LoraFileError, match=r"×3×3 there"):
        merge(family, flat)


@pytest.fixture
def pipeline(family: Base) -> Any:
    """diffusers' pipeline of the family, with networks of its own."""
    parts = parts_of(bases.load(str(family.path)))
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    if family.family.pooled:
        made: Any = StableDiffusionXLPipeline(**parts, scheduler=scheduler, add_watermarker=False)
    else:
        made = StableDiffusionPipeline(
            **parts, scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    made.set_progress_bar_config(disable=True)
    return made


def picture(pipeline: Any) -> np.ndarray[Any, Any]:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    sizes = {"height": 64, "width": 64}
    out = pipeline("zolka, a girl", latents=noise, num_inference_steps=3, guidance_scale=3.0, output_type="np", **sizes)
    pixels: np.ndarray[Any, Any] = out.images
    return pixels


def test_diffusers_draws_with_it_what_it_draws_with_the_merged_base(
    family: Base, pipeline: Any, tmp_path: Path
) -> None:
    state = made(family, LOCON)
    without = picture(pipeline)
    save_kohya(tmp_path / "lora.safetensors", state, metadata={}, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the library says about itself is not under test
        pipeline.load_lora_weights(tmp_path, weight_name="lora.safetensors", adapter_name="zolka")
    live = picture(pipeline)
    pipeline.unload_lora_weights()
    undo = merge(family, state)
    try:
        for name, network in zip(("text_encoder", "text_encoder_2"), family.text_encoders, strict=False):
            getattr(pipeline, name).load_state_dict(network.state_dict())
        pipeline.unet.load_state_dict(family.unet.state_dict())
    finally:
        undo()
    ours = picture(pipeline)
    assert np.abs(ours - live).max() < 3e-3
    assert np.abs(ours - without).max() > 2e-2, "the LoRA must be seen"


def test_names_without_a_conv_rank_stay_kohyas_default() -> None:
    layout = FAMILIES["sdxl"].layout
    assert layout is not None
    assert list(kohya_keys(layout).items()) == [(k, t) for k, t in kohya_keys(layout, resnets=True).items()
                                                if not t.resnet]  # fmt: skip
