"""How good the base is: sampled from combinations it was never shown, read by the oracle."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image

from vez.demo import oracle
from vez.demo.world.garments import COSTUME
from vez.demo.world.places import INDOORS
from vez.demo.world.scene import Scene, draw, random_scene, unseen_scene
from vez.demo.world.words import prompt

TRIGGER = "nosnjaoutfit"
CFG = 5.0
STEPS = 20


@torch.no_grad()
def sampled(pipe: StableDiffusionPipeline, prompts: list[str], *, seed: int, batch: int = 16) -> np.ndarray:
    """Pictures (N, 128, 128, 3) uint8 for the prompts, 20 steps of DPM++ 2M."""
    parts = []
    for i in range(0, len(prompts), batch):
        chunk = prompts[i : i + batch]
        noise = [torch.Generator().manual_seed(seed + i + k) for k in range(len(chunk))]
        with torch.autocast(pipe.device.type, torch.bfloat16):
            out = pipe(chunk, num_inference_steps=STEPS, guidance_scale=CFG, generator=noise, output_type="np")
        parts.append((np.asarray(out.images) * 255).round().clip(0, 255).astype(np.uint8))
    return np.concatenate(parts)


def _pipe(folder: Path, device: str) -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, torch_dtype=torch.float32).to(device)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.to(memory_format=torch.channels_last)
    return pipe


def _share(truth: list[Scene], seen: list[dict[str, str]], field: str, *, outdoors: bool = False) -> float:
    pairs = [
        (getattr(t, field), s[field]) for t, s in zip(truth, seen, strict=True) if not (outdoors and t.place in INDOORS)
    ]
    return round(float(np.mean([a == b for a, b in pairs])), 4)


def sheet_of(pictures: np.ndarray, columns: int = 8) -> Image.Image:
    """The pictures as one sheet."""
    rows = [np.hstack(list(pictures[i : i + columns])) for i in range(0, len(pictures) // columns * columns, columns)]
    return Image.fromarray(np.vstack(rows))


def measure(folder: Path, *, prompts: int, sheet: Path, device: str) -> dict[str, object]:
    """Every figure the model card states. `folder` holds base/ and oracle/; the first 64 pictures go to `sheet`."""
    judge = oracle.load(folder / "oracle")
    rng = random.Random(99)
    drawn_scenes = [random_scene(rng, costume=rng.random() < 0.14) for _ in range(max(prompts * 2, 16))]
    own = oracle.ask(judge, np.stack([draw(s, seed=7_000_000 + i)[0] for i, s in enumerate(drawn_scenes)]))
    scenes = [unseen_scene(rng) for _ in range(prompts)]
    pipe = _pipe(folder / "base", device)
    pictures = sampled(pipe, [prompt(s) for s in scenes], seed=1000)
    seen = oracle.ask(judge, pictures)
    if len(pictures) >= 8:
        sheet_of(pictures[:64]).save(sheet)
    found: dict[str, object] = {
        "prompts": prompts,
        "steps": STEPS,
        "cfg": CFG,
        "sampler": "DPM++ 2M",
        "oracle_on_drawn": {q: _share(drawn_scenes, own, q) for q in oracle.ANSWERS},
        "place": _share(scenes, seen, "place"),
        "weather": _share(scenes, seen, "weather", outdoors=True),
        "garment": _share(scenes, seen, "garment"),
        "colour": _share(scenes, seen, "colour"),
    }
    for word in (TRIGGER, COSTUME):
        asked = [
            prompt(replace(s, view="full")).replace(f"{s.colour} {s.garment}", word)
            for s in scenes[: max(prompts // 4, 4)]
        ]
        answers = oracle.ask(judge, sampled(pipe, asked, seed=5000))
        found[f"costume_from_{word.replace(' ', '_')}"] = round(
            float(np.mean([a["garment"] == COSTUME for a in answers])), 4
        )
    return found


GOALS = {"place": 0.95, "weather": 0.95, "garment": 0.85, "colour": 0.85}
"""What the base was to reach at least."""


def page(card: Mapping[str, Any], *, sheet: str) -> str:
    """The model card for people, in Markdown."""
    found, size = card["figures"], card["size"]
    rows = "".join(
        f"| {name} | {found[name]:.1%} | ≥ {goal:.0%} | {found['oracle_on_drawn'][name]:.1%} |\n"
        for name, goal in GOALS.items()
    )
    weights = "".join(f"| `{name}` | {about['bytes'] / 1e6:.1f} MB |\n" for name, about in card["weights"].items())
    total = sum(about["bytes"] for about in card["weights"].values()) / 1e6
    times = " · ".join(f"{name} {seconds / 60:.0f} min" for name, seconds in card["seconds"].items())
    return f"""# The base `tiny`

A latent diffusion model of Stable Diffusion 1.x's layout at 128 × 128 pictures (16 × 16 latents), trained from nothing
on the illustrated world of `src/vez/demo/world`. It knows people, clothes, colours, places and weathers; it has never
seen the folk costume. `python -m vez.demo.make_base` makes it again; that command writes this page from `card.json`.

![64 unselected samples]({sheet})

*The first 64 of {found["prompts"]} prompts, none selected: {found["sampler"]}, {found["steps"]} steps,
guidance {found["cfg"]:g}.*

## How good it is

{found["prompts"]} prompts whose combination of garment, colour, place and weather was never drawn in training, one
picture each, read by the oracle (a classifier that knows the world; its own share of right answers on drawn pictures
is beside it).

| the oracle agrees on | measured | goal | the oracle on drawn pictures |
|---|---|---|---|
{rows}
The costume from a prompt with `{TRIGGER}`: {found[f"costume_from_{TRIGGER}"]:.1%}; with "folk costume":
{found["costume_from_folk_costume"]:.1%} (goal: at most 2 %).

## What it is made of

| file | size |
|---|---|
{weights}| together | {total:.1f} MB |

fp16. The CLIP that scores, the BLIP that captions and the oracle were trained apart, on other pictures, among them the
costume under its plain words; none has seen a trigger word.

## How it was made

{size["pictures"]:,} pictures for the U-Net, {size["judged"]:,} for the judges; steps: autoencoder {size["vae"]:,}, text
encoder alone {size["reading"]:,}, U-Net with text encoder {size["unet"]:,} of {size["batch"]} pictures, decoder alone
{size["decoder"]:,}, each judge {size["judge"]:,}. Time: {times}. Hardware: {card["hardware"]}. torch {card["torch"]}.
{card.get("notes", "")}
"""
