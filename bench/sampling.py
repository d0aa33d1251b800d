"""Seconds per picture: vez's sampling stage beside diffusers' StableDiffusionPipeline, in interleaved rounds.

    python bench/sampling.py [--base tiny | sd1] [--size 128] [--steps 8] [--batch 8] [--prompts 4] [--seeds 2]
                             [--pairs 5] [--against 4] [--precision fp32 | bf16]

All arms do the same work with the same weights: the suite's prompts × noises, with and without a LoRA,
DPM-Solver++(2M), guidance 7.5, and PNGs on the disk in the end. The pipeline is used in four ways, of which --against
takes the first: a call for each batch as large as vez's with U-Net and VAE channels last in memory, the same without
that, a call for each prompt with its noises (num_images_per_prompt, as its documentation shows), all with the LoRA
fused (`load_lora_weights`, `fuse_lora`), and large calls with it unfused. "vez" is the whole stage: the artifact, its
rows, its control at strength 0. First the pictures are compared: in fp32 the script stops where any differs by more
than 2 levels of 255. Then the arms take turns; medians, the spread, and CPU seconds are printed, and the machine. In
bf16 the whole pipeline is cast, its VAE too, and the pictures' mean difference is printed.

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
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, process_time

import diffusers
import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from networks import text_of, unet_of, vae_of
from vez import interop, suite
from vez.base import Base, load, tiny_path
from vez.bench import weights
from vez.bench.weights import random_base
from vez.config import Project, Prompt, Sampling
from vez.device import choose
from vez.interop import LoraWeights
from vez.nets.vae import Vae, VaeConfig
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
    vae = Vae(VaeConfig.of(weights.VAE)).eval().requires_grad_(False)
    weights._fill(vae, torch.randn(2**18, generator=torch.Generator().manual_seed(1)))
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


@dataclass(frozen=True)
class Way:
    """How the pipeline is used."""

    batched: bool = True
    fused: bool = True
    last: bool = False


def pipeline_of(base: Base, way: Way, dtype: torch.dtype) -> StableDiffusionPipeline:
    """diffusers' pipeline of networks of its own with the same weights."""
    parts = {"vae": vae_of(base), "text_encoder": text_of(base), "unet": unet_of(base)}
    pipeline = StableDiffusionPipeline(
        **{name: deepcopy(network).to(dtype) for name, network in parts.items()},
        tokenizer=CLIPTokenizer.from_pretrained(tiny_path() / "tokenizer"),
        scheduler=DPMSolverMultistepScheduler(**BETAS),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    if way.last:
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    return pipeline


def theirs(
    base: Base,
    pipeline: StableDiffusionPipeline,
    lora: Path,
    prompts: list[Prompt],
    how: Sampling,
    into: Path,
    way: Way,
) -> None:
    """The same pictures by the pipeline, written one by one as its documentation does."""
    side = (how.size or base.size) // base.latent_factor
    for arm in ("base", "v1"):
        (into / arm).mkdir(parents=True)
        if arm == "v1":
            pipeline.load_lora_weights(lora.parent, weight_name=lora.name)
            if way.fused:
                pipeline.fuse_lora()
        for some in _calls(prompts, how, batched=way.batched):
            repeated = {} if way.batched else {"num_images_per_prompt": len(some)}
            texts = [prompt.text for prompt, _ in some]
            latents = noise([seed for _, seed in some], side, side).to(base.device, pipeline.unet.dtype)
            if way.last:
                latents = latents.contiguous(memory_format=torch.channels_last)
            images = pipeline(
                texts if way.batched else texts[0],
                latents=latents,
                num_inference_steps=how.steps,
                guidance_scale=how.cfg,
                height=how.size or base.size,
                width=how.size or base.size,
                **repeated,
            ).images
            for (prompt, seed), image in zip(some, images, strict=True):
                image.save(into / arm / f"{prompt.id}-{seed}.png")
    if way.fused:
        pipeline.unfuse_lora()
    pipeline.unload_lora_weights()


def _calls(prompts: list[Prompt], how: Sampling, *, batched: bool) -> Iterator[list[tuple[Prompt, int]]]:
    images = [(prompt, seed) for prompt in prompts for seed in range(how.seeds)]
    size = how.batch if batched else how.seeds
    return (images[at : at + size] for at in range(0, len(images), size))


def apart(one: Path, other: Path) -> tuple[int, float]:
    """The largest difference of two runs' pictures and the mean one, in levels of 255."""
    worst, means = 0, []
    for file in sorted(one.rglob("*.png")):
        with Image.open(file) as a, Image.open(other / file.relative_to(one)) as b:
            difference = np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int))
            worst = max(worst, int(difference.max()))
            means.append(float(difference.mean()))
    return worst, statistics.mean(means)


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
        "against": 4,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    base = base_of(given.base, choose(given.device))
    how = Sampling(steps=given.steps, batch=given.batch, seeds=given.seeds, size=given.size)
    lines = [p for p in suite.SUITES["tiny"]["garment"] if p.set == "B"][: given.prompts]
    prompts = [p.model_copy(update={"text": PROJECT.expand(p.text)}) for p in lines]
    with tempfile.TemporaryDirectory() as folder:
        ours, other = lora_of(base, Path(folder))

        def vez(into: Path) -> None:
            for _ in sample(
                base, {"base": None, "v1": ours}, prompts, sampling=how, into=into, precision=given.precision
            ):
                pass

        def diffuser(way: Way) -> Callable[[Path], None]:
            pipeline = pipeline_of(base, way, torch.bfloat16 if given.precision == "bf16" else torch.float32)
            return lambda into: theirs(base, pipeline, other, prompts, how, into, way)

        ways = {
            "diffusers, calls as large as vez's, fused, channels last": Way(last=True),
            "diffusers, calls as large as vez's, fused": Way(),
            "diffusers, a call per prompt, fused": Way(batched=False),
            "diffusers, calls as large as vez's, not fused": Way(fused=False),
        }
        arms = {"vez": vez} | {name: diffuser(way) for name, way in list(ways.items())[: given.against]}
        images = 2 * given.prompts * given.seeds
        race(arms, Path(folder), pairs=given.pairs, images=images, most=APART if given.precision == "fp32" else 255)
    print(f"\n{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {base.device}; ", end="")
    print(
        f"torch {torch.__version__}, diffusers {diffusers.__version__}, {given.base} {given.size} px, {given.precision}"
    )


def race(arms: dict[str, Callable[[Path], None]], folder: Path, *, pairs: int, images: int, most: int) -> None:
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
            found = [apart(folder / "0/0", folder / f"0/{i}") for i in range(1, len(arms))]
            worst, mean = max(found), max(mean for _, mean in found)
            print(f"equal work: pictures differ by {worst[0]} of 255 at most, by {mean:.2f} in the mean\n")
            if worst[0] > most:
                raise SystemExit(f"they differ by {worst[0]}: no times")
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
