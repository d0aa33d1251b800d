"""How good the base is: sampled from combinations it was never shown, read by the oracle."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

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
