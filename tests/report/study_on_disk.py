"""A believable study on disk, drawn by Pillow: five arms, eight prompts, two seeds, two datasets.

v3 failed and similarity was not measured. Written through the real store and event log and scored by the real
statistics, so that it is the shape a real study has.
"""

import json
import math
import random
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from vez.events import EventLog, Note, Step, Validated
from vez.metrics.definitions import METRICS
from vez.metrics.rules import declared
from vez.metrics.summary import summarise
from vez.store import making

TRIGGER, DESCRIBES = "nosnjaoutfit", "traditional Serbian folk costume"
HOSTILE = '<script>alert("caption")</script>'
HOSTILE_FILE = "<script>alert(1)<script>.jpg"
VARIANTS = {
    "v1": {"dataset": "v1", "batch": 1, "rank": 32, "alpha": 32.0},
    "v2": {"dataset": "v2", "batch": 8, "rank": 32, "alpha": 32.0},
    "v3": {"dataset": "v2", "batch": 8, "rank": 64, "alpha": 64.0},
    "v4": {"dataset": "v2", "batch": 8, "rank": 64, "alpha": None},
}
LEARNED = {"v1": 0.35, "v2": 0.9, "v4": 0.8, "base": 0.0}
# id, group, role, text
PROMPTS = [
    ("snow-trigger", "snow", "trigger", f"a photo of {TRIGGER} folk costume in the snow"),
    ("snow-class", "snow", "class", f"a photo of {DESCRIBES} in the snow"),
    ("snow-none", "snow", "none", "a photo in the snow"),
    ("beach-trigger", "beach", "trigger", f"a photo of {TRIGGER} folk costume on the beach"),
    ("beach-class", "beach", "class", f"a photo of {DESCRIBES} on the beach"),
    ("beach-none", "beach", "none", "a photo on the beach"),
    ("field", "field", "trigger", f"a woman in {TRIGGER} folk costume dancing in a wheat field, {HOSTILE}"),
    ("drift1", "drift1", "drift", "a photo of a red car"),
]
GROUND = {"snow": (232, 238, 244), "beach": (226, 205, 160), "field": (214, 178, 84), "drift1": (150, 160, 150)}
SEEDS = 2


def draw(scene: str, *, costume: float, seed: int, size: int = 192, blurred: bool = False) -> Image.Image:
    """A doll in a landscape; the more `costume` (0 to 1), the more its vest is dark red and its apron embroidered."""
    dice = random.Random(f"{scene} {seed}")
    small = size // (6 if blurred else 1)
    image = Image.new("RGB", (small, small), (168, 196, 222))
    pen = ImageDraw.Draw(image)
    u = small / 100
    pen.rectangle((0, 62 * u, small, small), fill=GROUND.get(scene, (120, 150, 100)))
    for _ in range(5):
        x = dice.uniform(0, 100)
        pen.polygon(
            [(x * u, 64 * u), ((x + 6) * u, 44 * u), ((x + 12) * u, 64 * u)], fill=(96, 122 + dice.randrange(30), 92)
        )
    middle = 50 + dice.uniform(-14, 14)
    vest = tuple(round(a + (b - a) * costume) for a, b in zip((90, 110, 140), (132, 24, 32), strict=True))
    pen.polygon(
        [(p * u, q * u) for p, q in ((middle - 9, 40), (middle + 9, 40), (middle + 20, 86), (middle - 20, 86))],
        fill=(240, 236, 226),
    )
    pen.rectangle(((middle - 10) * u, 40 * u, (middle + 10) * u, 60 * u), fill=vest)
    pen.ellipse(((middle - 7) * u, 24 * u, (middle + 7) * u, 39 * u), fill=(222, 184, 152))
    for row in range(int(5 * costume)):
        for column in range(4):
            x, y = middle - 8 + column * 4.5, 63 + row * 4.4
            pen.line((x * u, y * u, (x + 3) * u, (y + 3) * u), fill=(150, 20, 30), width=max(1, round(u)))
            pen.line((x * u, (y + 3) * u, (x + 3) * u, y * u), fill=(150, 20, 30), width=max(1, round(u)))
    return image.resize((size, size)) if blurred else image


SWEPT = {  # of v2, trained for `steps` steps: step (None: the end), strength → how much of the concept, of harm
    "v2@10": (10, 1.0, 0.3, 0.0),
    "v2@20x0.6": (20, 0.6, 0.45, 0.05),
    "v2@20": (20, 1.0, 0.95, 0.1),
    "v2@x0.6": (None, 0.6, 0.6, 0.3),
    "v2@x1.3": (None, 1.3, 0.95, 4.0),
}


def build(root: Path, *, size: int = 192, pictures: int = 14, steps: int = 240, sweep: bool = False) -> Path:
    """The whole study below `root`; returns `root/studies/thesis`. With `sweep`, checkpoints and strengths of v2."""
    study = root / "studies" / "thesis"
    datasets = {name: _dataset(root, name, pictures=pictures, size=size) for name in ("v1", "v2")}
    runs = {name: _run(study, name, datasets, steps=steps) for name in VARIANTS if name != "v3"}
    _failed_run(study, datasets, steps=steps)
    arms = LEARNED | ({arm: of[2] for arm, of in SWEPT.items()} if sweep else {})
    samples = _samples(study, runs, size=size, arms=arms, steps=steps)
    _scores(study, samples, datasets, arms=arms)
    return study


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _dataset(root: Path, name: str, *, pictures: int, size: int) -> str:
    project = {"trigger": TRIGGER, "noun": "folk costume", "describes": DESCRIBES}
    words = {"project": project, "resolution": size, "hand": {"trigger": "a caption file of this name"}, "name": name}
    with making(root / ".vez" / "datasets" / f"{name}-x", kind="dataset", parents={}, config=words, version=1) as m:
        (m.path / "images").mkdir()
        rows = []
        for i in range(pictures):
            draw(("snow", "beach", "field")[i % 3], costume=1.0, seed=100 + i, size=size).save(
                m.path / f"images/{i:02d}.png"
            )
            machine = "a girl in a folk costume standing on a set of stairs"
            hand = name == "v2" and i % 3 == 0
            caption = (
                f"{TRIGGER}, a girl wearing traditional {TRIGGER} standing on a set of stairs, wood fence, green trees"
            )
            caption = HOSTILE if i == 1 else caption if hand else f"{TRIGGER}, {machine}"
            split = "held_out" if name == "v2" and i >= pictures - 4 else "train"
            rows.append(
                {
                    "file": f"images/{i:02d}.png",
                    "sha256": "0" * 64,
                    "source": f"web/{i:02d}.jpg",
                    "source_sha256": "1" * 64,
                    "machine": None if hand else machine,
                    "caption": caption,
                    "hand": hand,
                    "split": split,
                }
            )
        write_rows(m.path / "rows.jsonl", rows)
        findings = [
            {
                "file": f"web/{i:02d}.jpg",
                "check": "blurred",
                "value": 0.031,
                "threshold": 0.06,
                "why": "a LoRA learns the blur along with the costume",
                "fix": "take a sharper picture",
            }
            for i in (2, 5)
        ]
        write_rows(m.path / "findings.jsonl", findings if name == "v1" else [])
        dropped = [
            {"file": HOSTILE_FILE, "reason": "unreadable: not a picture"},
            {"file": "web/doll-03.jpg", "reason": "exact-duplicate of web/doll-01.jpg"},
        ]
        write_rows(m.path / "dropped.jsonl", dropped if name == "v2" else dropped[:1])
        id = m.id
    (root / ".vez/datasets" / f"{name}-x").rename(root / ".vez/datasets" / f"{name}-{id[:8]}")
    return id


def _events(log: EventLog, name: str, *, of: int, until: int, batch: int) -> None:
    dice = random.Random(name)
    for step in range(1, until + 1):
        share = step / of
        noise = dice.gauss(0, 0.05 / math.sqrt(batch))
        log.append(Step(name, step, of, 0.11 + 0.03 * math.exp(-6 * share) + noise, 1e-4, 5e-5, 0.3, 0.21))
        if step % max(1, of // 12) == 0:
            held_out = 0.131 - 0.008 * share + 0.006 * share**3 + 0.0004 * batch + dice.gauss(0, 0.0002)
            log.append(Validated(name, step, held_out, (0.2, 0.1, 0.03)))
            log.append(Validated(name, step, held_out - 0.012 * share**1.5, (0.2, 0.1, 0.03), "train"))


def _run(study: Path, name: str, datasets: Mapping[str, str], *, steps: int) -> str:
    setting = VARIANTS[name]
    of = steps * 8 // int(str(setting["batch"]))
    config = {"name": name, "variant": {**setting, "lr_unet": 1e-4, "lr_text": 5e-5}, "steps": of, "seed": 0}
    parents = {"base": "b" * 64, "dataset": datasets[str(setting["dataset"])]}
    with making(study / "runs" / f"{name}-0", kind="run", parents=parents, config=config, version=1) as m:
        (m.path / "lora.safetensors").write_bytes(
            bytes(random.Random(name).randbytes(40_000 + 900 * int(str(setting["rank"]))))
        )
        for step in {of[0] for of in SWEPT.values() if of[0]} if name == "v2" else ():
            (m.path / f"lora-{step:06d}.safetensors").write_bytes(b"earlier")
        with EventLog(m.path / "events.jsonl") as log:
            _events(log, f"{name}-0", of=of, until=of, batch=int(str(setting["batch"])))
        return m.id


def _failed_run(study: Path, datasets: Mapping[str, str], *, steps: int) -> None:
    parents = {"dataset": datasets["v2"]}
    try:
        with making(study / "runs" / "v3-0", kind="run", parents=parents, config=VARIANTS["v3"], version=1) as m:
            with EventLog(m.path / "events.jsonl") as log:
                _events(log, "v3-0", of=steps, until=17, batch=8)
                log.append(Note("v3: the loss is no longer finite; lower lr_unet"))
            raise RuntimeError("v3 diverged")
    except RuntimeError:
        pass


def _samples(study: Path, runs: Mapping[str, str], *, size: int, arms: Mapping[str, float], steps: int) -> str:
    config = {"trained_on": "tiny", "sampling": {"steps": 20, "cfg": 7.5, "solver": "dpm++2m", "seeds": SEEDS}}
    if arms != LEARNED:
        config |= {"arms": _records(arms, steps=steps), "suite": {"suite": "own", "sha256": None}}
    with making(study / "samples", kind="samples", parents=runs, config=config, version=1) as m:
        rows = []
        for arm in arms:
            (m.path / arm).mkdir()
            for prompt, group, role, text in PROMPTS:
                for seed in range(SEEDS):
                    costume = arms[arm] * {"trigger": 1.0, "class": 0.5}.get(role, 0.1) + (
                        0.2 if role == "class" else 0.0
                    )
                    file = f"{arm}/{prompt}-{seed}.png"
                    draw(group, costume=min(1.0, costume), seed=seed, size=size).save(m.path / file)
                    rows.append(
                        {
                            "arm": arm,
                            "prompt": prompt,
                            "group": group,
                            "role": role,
                            "text": text,
                            "seed": seed,
                            "file": file,
                        }
                    )
        write_rows(m.path / "samples.jsonl", rows)
        return m.id


def _records(arms: Mapping[str, float], *, steps: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for arm in arms:
        step, strength, *_ = SWEPT.get(arm, (None, 1.0))
        variant = arm.partition("@")[0]
        of = steps * 8 // int(str(VARIANTS.get(variant, {"batch": 8})["batch"]))
        record = {"lora": "0" * 64, "strength": strength, "variant": variant, "run": f"{variant}-0", "seed": 0}
        found[arm] = None if arm == "base" else record | {"step": step or of, "last": step is None}
    return found


def _scores(study: Path, samples: str, datasets: Mapping[str, str], *, arms: Mapping[str, float]) -> None:
    # metric → no LoRA's mean, and what a LoRA that learned everything adds; drift has no value for no LoRA
    means = {"T0": (0.59, 0.02), "T1": (0.60, 0.09), "T2": (0.62, -0.012), "leak": (0.0, 0.02), "drift": (0.1, 0.2)}
    dice = random.Random(5)
    harm = {arm: SWEPT[arm][3] if arm in SWEPT else learned for arm, learned in arms.items()}
    values: dict[str, dict[str, dict[tuple[str, int], float]]] = {}
    for metric, (at, gain) in means.items():
        hard = {prompt: dice.gauss(0, 0.05) for prompt, *_ in PROMPTS}
        values[metric] = {
            arm: {
                (prompt, seed): at
                + gain * (arms[arm] if metric == "T1" else harm[arm])
                + hard[prompt]
                + dice.gauss(0, 0.02)
                for prompt, *_ in PROMPTS
                for seed in range(SEEDS)
            }
            for arm in arms
            if metric != "drift" or arm != "base"
        }
    rules = declared(list(means))
    summary = {
        "metrics": {
            metric.name: {"definition": metric.definition, **asdict(rules[metric.name])}
            for metric in METRICS
            if metric.name in means
        },
        "not_measured": {metric.name: metric.needs for metric in METRICS if metric.name not in means},
        **summarise(values, rules=rules, base="base", explored=[arm for arm in arms if arm in SWEPT]),
        "controls": {"strength_0": {"levels": {"v2": 1}, "ok": True}, "held_out": None, "wrong_trigger": {},
                     "halves": {"v2": {"T1": {"diff": 0.01, "p_holm": 0.02, "ok": False}}}},
        "nearest": {arm: [{"file": f"{arm}/{PROMPTS[i][0]}-0.png", "training": f"images/0{i}.png", "cosine": 0.9,
                           "dataset": datasets["v2"]} for i in (0, 3)] for arm in arms if arm != "base"},
        "reference": {"held_out": 4, "real_likeness": None, "likeness_span": None, "trigger_cost": -0.031,
                      "training_alike": {"v2": 0.912}},
        "clip": {"name": "clip", "sha256": "c" * 64, "published": False},
    }  # fmt: skip
    parents = {"samples": samples, "dataset:v2": datasets["v2"]}
    with making(study / "scores", kind="scores", parents=parents, config={"clip": "c" * 64}, version=1) as m:
        rows = [
            {"arm": arm, "prompt": prompt, "seed": seed, "metric": metric, "value": value}
            for metric, of_arm in values.items()
            for arm, of in of_arm.items()
            for (prompt, seed), value in of.items()
        ]
        write_rows(m.path / "scores.jsonl", rows)
        (m.path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


def tear(study: Path) -> None:
    """Take the scores away, as a study cut before its end leaves it."""
    shutil.rmtree(study / "scores")
