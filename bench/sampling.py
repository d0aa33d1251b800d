"""Seconds per picture: vez's sampling stage beside diffusers' StableDiffusionPipeline, in interleaved pairs.

    python bench/sampling.py [--base tiny | sd1] [--size 128] [--steps 8] [--batch 8] [--prompts 4] [--seeds 2]
                             [--pairs 5] [--against 3]

All arms do the same work with the same networks: the suite's prompts × noises, with and without a LoRA,
DPM-Solver++(2M), guidance 7.5, and PNGs on the disk in the end. The pipeline is used in three ways, of which --against
takes the first: a call for each batch as large as vez's, a call for each prompt with its noises (num_images_per_prompt,
as its documentation shows), both with the LoRA fused (`load_lora_weights`, `fuse_lora`), and large calls with it
unfused. "vez" is the whole stage: the artifact, its rows, its control at strength 0. First the pictures are compared:
the script stops where any differs by more than 2 levels of 255. Then the arms take turns; medians, the spread, and CPU
seconds are printed, and the machine.

"sd1" are random numbers in SD 1.5's shapes, so nothing is downloaded; it takes 6 GB.
"""

import argparse
import platform
import shutil
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import save_file

from vez import interop, suite
from vez.base import Base, load
from vez.bench.weights import _fill, random_base
from vez.config import Project, Prompt, Sampling
from vez.device import choose
from vez.interop import LoraWeights
from vez.sample import sample
from vez.solver import noise

PROJECT = Project(base="tiny", trigger="nosnjaoutfit", noun="folk costume", describes="folk costume", kind="garment")
APART = 2  # levels of 255, as the parity test allows
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def base_of(name: str, device: torch.device) -> Base:
    """The embedded base, or random numbers in SD 1.5's shapes with a VAE and the embedded base's tokenizer."""
    tiny = load("tiny", device=device)
    if name == "tiny":
        return tiny
    base = random_base(name, device=device, dtype=torch.float32)
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )
    _fill(vae.eval().requires_grad_(False), torch.randn(2**18, generator=torch.Generator().manual_seed(1)))
    return replace(base, vae=vae.to(device), tokenizers=tiny.tokenizers, pads=tiny.pads)


def lora_of(base: Base, folder: Path) -> tuple[Path, Path]:
    """A LoRA of rank 16 on all modules, as kohya's file and as diffusers' own."""
    generator = torch.Generator().manual_seed(3)
    state = {}
    for key, target in interop.base_keys(base).items():
        parent, name = interop.parent_of(base, target)
        shape = parent.get_submodule(name).weight.shape
        ends = [1] * (len(shape) - 2)
        down = torch.randn(16, shape[1], *ends, generator=generator) / shape[1] ** 0.5
        state[key] = LoraWeights(down, torch.randn(shape[0], 16, *ends, generator=generator) * 0.01, 16.0)
    ours, theirs = folder / "lora.safetensors", folder / "pytorch_lora_weights.safetensors"
    interop.save_kohya(ours, state, metadata={})
    state, _ = interop.load_kohya(ours)  # what fp16 kept
    tensors, metadata = interop.to_diffusers(state, base.layout)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, theirs, metadata=metadata)
    return ours, theirs


def pipeline_of(base: Base) -> StableDiffusionPipeline:
    """diffusers' pipeline around the same networks."""
    pipeline = StableDiffusionPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        unet=base.unet,
        scheduler=DPMSolverMultistepScheduler(**BETAS),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def theirs(
    base: Base, lora: Path, prompts: list[Prompt], how: Sampling, into: Path, *, batched: bool, fused: bool
) -> None:
    """The same pictures by the pipeline, written one by one as its documentation does."""
    pipeline = pipeline_of(base)
    side = (how.size or base.size) // base.latent_factor
    for arm in ("base", "v1"):
        (into / arm).mkdir(parents=True)
        if arm == "v1":
            pipeline.load_lora_weights(lora.parent, weight_name=lora.name)
            if fused:
                pipeline.fuse_lora()
        for some in _calls(prompts, how, batched=batched):
            repeated = {} if batched else {"num_images_per_prompt": len(some)}
            texts = [prompt.text for prompt, _ in some]
            latents = noise([seed for _, seed in some], side, side).to(base.device)
            images = pipeline(
                texts if batched else texts[0],
                latents=latents,
                num_inference_steps=how.steps,
                guidance_scale=how.cfg,
                height=how.size or base.size,
                width=how.size or base.size,
                **repeated,
            ).images
            for (prompt, seed), image in zip(some, images, strict=True):
                image.save(into / arm / f"{prompt.id}-{seed}.png")
    if fused:
        pipeline.unfuse_lora()
    pipeline.unload_lora_weights()


def _calls(prompts: list[Prompt], how: Sampling, *, batched: bool) -> Iterator[list[tuple[Prompt, int]]]:
    images = [(prompt, seed) for prompt in prompts for seed in range(how.seeds)]
    size = how.batch if batched else how.seeds
    return (images[at : at + size] for at in range(0, len(images), size))


def apart(one: Path, other: Path) -> int:
    """The largest difference of two runs' pictures, in levels of 255."""
    worst = 0
    for file in sorted(one.rglob("*.png")):
        with Image.open(file) as a, Image.open(other / file.relative_to(one)) as b:
            worst = max(worst, int(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max()))
    return worst


def main() -> None:
    """Parse, compare, race, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", choices=("tiny", "sd1"), default="tiny")
    for name, default in {
        "steps": 8,
        "batch": 8,
        "prompts": 4,
        "seeds": 2,
        "pairs": 5,
        "size": 128,
        "against": 3,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    base = base_of(given.base, choose(given.device))
    how = Sampling(steps=given.steps, batch=given.batch, seeds=given.seeds, size=given.size)
    lines = [p for p in suite.SUITES["tiny"]["garment"] if p.set == "B"][: given.prompts]
    prompts = [p.model_copy(update={"text": PROJECT.expand(p.text)}) for p in lines]
    with tempfile.TemporaryDirectory() as folder:
        ours, other = lora_of(base, Path(folder))

        def vez(into: Path) -> None:
            for _ in sample(base, {"base": None, "v1": ours}, prompts, sampling=how, into=into):
                pass

        def diffuser(*, batched: bool, fused: bool) -> Callable[[Path], None]:
            return lambda into: theirs(base, other, prompts, how, into, batched=batched, fused=fused)

        arms = {
            "vez": vez,
            "diffusers, calls as large as vez's, fused": diffuser(batched=True, fused=True),
            "diffusers, a call per prompt, fused": diffuser(batched=False, fused=True),
            "diffusers, calls as large as vez's, not fused": diffuser(batched=True, fused=False),
        }
        arms = dict(list(arms.items())[: 1 + given.against])
        race(arms, Path(folder), pairs=given.pairs, images=2 * given.prompts * given.seeds)
    print(f"\n{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {base.device}; ", end="")
    print(f"torch {torch.__version__}, diffusers {diffusers.__version__}, {given.base} {given.size} px")


def race(arms: dict[str, Callable[[Path], None]], folder: Path, *, pairs: int, images: int) -> None:
    """One uncounted round, whose pictures are compared, then ``pairs`` rounds in turns; prints a table."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    used: dict[str, list[float]] = {name: [] for name in arms}
    for round in range(pairs + 1):
        order = list(arms) if round % 2 else list(reversed(arms))
        for name in order:
            began, before = perf_counter(), process_time()
            arms[name](folder / str(round) / str(list(arms).index(name)))
            if round:
                seconds[name].append(perf_counter() - began)
                used[name].append(process_time() - before)
        if round == 0:
            worst = max(apart(folder / "0" / "0", folder / "0" / str(i)) for i in range(1, len(arms)))
            print(f"equal work: pictures differ by {worst} of 255 at most\n")
            if worst > APART:
                raise SystemExit(f"they differ by {worst}: no times")
        else:
            told = ", ".join(f"{name}: {took[-1] / images:.3f} s" for name, took in seconds.items())
            print(f"round {round}: {told}", file=sys.stderr, flush=True)
        shutil.rmtree(folder / str(round))
    ours = next(iter(arms))
    print("| arm | s/picture, median | fastest | slowest | CPU s/picture, median | vez's time ÷ its (rounds' range) |")
    print("|---|---|---|---|---|---|")
    for name, took in seconds.items():
        ratios = [a / b for a, b in zip(seconds[ours], took, strict=True)]
        each = [t / images for t in took]
        print(
            f"| {name} | {statistics.median(each):.3f} | {min(each):.3f} | {max(each):.3f} | "
            f"{statistics.median(used[name]) / images:.3f} | "
            f"{statistics.median(seconds[ours]) / statistics.median(took):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) |"
        )


if __name__ == "__main__":
    main()
