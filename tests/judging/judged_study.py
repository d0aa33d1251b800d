"""A small study on disk, made through the real store, and judges who look at it by a rule."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, PngImagePlugin

from vez.config import Project
from vez.judging import material
from vez.judging.material import Material
from vez.judging.plan import Pair, Question, plan
from vez.judging.votes import FOLDER, Answer, Ballots
from vez.store import making

PROJECT = Project(
    base="tiny", trigger="nosnjaoutfit", noun="folk costume", describes="traditional Serbian folk costume"
)
ARMS = ("v1", "v2", "v4", "base")
COLOURS = {"v1": (60, 90, 160), "v2": (150, 20, 30), "v4": (120, 60, 60), "base": (90, 130, 90)}
SCENES = ("snow", "beach", "field", "night")
Rule = Callable[[Pair, random.Random], Answer]


def draw(arm: str, scene: int, seed: int, size: int) -> Image.Image:
    """A doll whose vest has the arm's colour; the more an arm learned, the busier it is."""
    image = Image.new("RGB", (size, size), (200 - 30 * scene, 210, 170 + 20 * scene))
    pen, u = ImageDraw.Draw(image), size / 100
    x = 40 + 10 * seed
    pen.ellipse(((x - 8) * u, 18 * u, (x + 8) * u, 36 * u), fill=(224, 186, 150))
    pen.polygon(
        [(p * u, q * u) for p, q in ((x - 10, 38), (x + 10, 38), (x + 18, 90), (x - 18, 90))], fill=COLOURS[arm]
    )
    for row in range(6 if arm == "v2" else 1):
        pen.line(((x - 12) * u, (50 + 6 * row) * u, (x + 12) * u, (50 + 6 * row) * u), fill=(250, 240, 220))
    return image


def build(
    root: Path, *, arms: Sequence[str] = ARMS, scenes: Sequence[str] = SCENES, seeds: int = 2, size: int = 48
) -> Path:
    """`root/studies/thesis` with samples; returns its folder."""
    study = root / "studies" / "thesis"
    config = {"arms": {arm: None if arm == "base" else {"lora": "a" * 64} for arm in arms}}
    with making(study / "samples", kind="samples", parents={}, config=config, version=1) as m:
        rows = []
        for arm in arms:
            (m.path / arm).mkdir(exist_ok=True)
            for i, scene in enumerate(scenes):
                for role, text in (
                    ("trigger", f"nosnjaoutfit, a girl wearing traditional nosnjaoutfit, {scene}"),
                    ("none", f"a girl, {scene}"),
                ):
                    for seed in range(seeds):
                        file = f"{arm}/{scene}-{role}-{seed}.png"
                        told = PngImagePlugin.PngInfo()
                        told.add_text("parameters", f"{text} <lora:{arm}:1>")
                        draw(arm, i, seed, size).save(m.path / file, pnginfo=told)
                        row = {"arm": arm, "prompt": f"{scene}-{role}", "role": role, "text": text, "seed": seed}
                        rows.append(row | {"file": file, "group": scene, "context": "", "noise_seed": seed})
        (m.path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return study


def score(study: Path, values: Mapping[str, float], *, higher_is_better: bool = True) -> None:
    """Scores in which every picture of an arm has the arm's value, of a metric called "liking"."""
    judged = material.read(study)
    with making(study / "scores", kind="scores", parents={"samples": judged.samples}, config={}, version=1) as m:
        rows = [
            {"arm": c.arm, "prompt": c.prompt, "seed": c.seed, "metric": "liking", "value": values[c.arm]}
            for c in judged.files
        ]
        (m.path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        summary = {"metrics": {"liking": {"definition": "-", "higher_is_better": higher_is_better}}}
        (m.path / "summary.json").write_text(json.dumps(summary))


def prefers(order: Sequence[str]) -> Rule:
    """Always the arm that stands first in the order; an arm with itself is a tie."""

    def rule(pair: Pair, dice: random.Random) -> Answer:
        left, right = order.index(pair.left.arm), order.index(pair.right.arm)
        return "tie" if left == right else "left" if left < right else "right"

    return rule


def judge(
    study: Path, name: str, rule: Rule, *, votes: int = 60, question: Question = "concept", seconds: float = 5
) -> Material:
    """A judge who answers a whole plan by a rule."""
    judged, dice = material.read(study, PROJECT), random.Random(name)
    with Ballots(study / FOLDER, name) as ballots:
        for pair in plan(judged, judge=name, question=question, votes=votes):
            ballots.vote(pair, rule(pair, dice), question=question, seconds=seconds, material=judged)
    return judged
