"""Forty-five LoRAs, two hundred pictures each: the page stays within its limit, and says what is not on it."""

import json
import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from study_on_disk import _dataset, write_rows

from vez.report.build import LIMIT, report
from vez.store import making

ARMS, SEEDS, DIFFERENT = 45, 4, 24
ROLES = [("trigger", 26), ("class", 6), ("wrong", 6), ("none", 6), ("drift", 6)]
METRICS = ("T0", "T1", "T2", "similarity", "leak", "drift", "diversity", "copies", "trigger_effect", "specificity")


def photographs(folder: Path, count: int, *, size: int = 512) -> list[Path]:
    """Pictures that pack as badly as photographs do: soft shapes with grain."""
    folder.mkdir(parents=True)
    made = []
    for i in range(count):
        dice = np.random.default_rng(i)
        coarse = Image.fromarray(dice.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((size, size))
        grain = Image.fromarray(dice.integers(0, 256, (size, size, 3), dtype=np.uint8))
        grain = grain.filter(ImageFilter.GaussianBlur(0.6))
        made.append(folder / f"{i}.png")
        Image.blend(coarse, grain, 0.6).save(made[-1], compress_level=1)
    return made


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs by name alone; samples whose files are links to a few pictures; a summary of scores with every pair."""
    root = tmp_path_factory.mktemp("large")
    study, dice = root / "studies" / "large", random.Random(0)
    dataset = _dataset(root, "v1", pictures=40, size=512)
    drawn = photographs(root / "drawn", DIFFERENT)
    arms = [f"v.rank-{2 ** (i % 9)}.lr_unet-{i // 9 + 1}e-4" for i in range(ARMS)]
    for arm in arms:
        config = {"name": arm, "variant": {"batch": 4, "rank": 8}, "steps": 100}
        with making(
            study / "runs" / f"{arm}-0", kind="run", parents={"dataset": dataset}, config=config, version=1
        ) as m:
            (m.path / "lora.safetensors").write_bytes(arm.encode())
            (m.path / "events.jsonl").write_bytes(b"")
    prompts = []
    for role, count in ROLES:
        for i in range(count):
            group = f"scene{i}" if role != "drift" else f"drift{i}"
            text = f"a photo of a woman in traditional costume walking along a street in the rain, {role}, number {i}"
            prompts.append({"prompt": f"{role}-{i:02d}", "group": group, "role": role, "text": text})
    with making(study / "samples", kind="samples", parents={}, config={"trained_on": "tiny"}, version=1) as m:
        rows = []
        for arm in [*arms, "base"]:
            (m.path / arm).mkdir()
            for prompt in prompts:
                for seed in range(SEEDS):
                    file = f"{arm}/{prompt['prompt']}-{seed}.png"
                    os.link(drawn[dice.randrange(DIFFERENT)], m.path / file)
                    rows.append({**prompt, "arm": arm, "seed": seed, "file": file})
        write_rows(m.path / "samples.jsonl", rows)
        samples = m.id
    _scores(study, samples, arms, [prompt["prompt"] for prompt in prompts], dice)
    return study


def _scores(study: Path, samples: str, arms: list[str], prompts: list[str], dice: random.Random) -> None:
    def difference() -> dict[str, object]:
        return {"diff": dice.gauss(0, 0.1), "low": -0.3, "high": 0.3, "p": 0.5, "p_holm": 1.0, "mde": 0.2,
                "needs_prompts": 90, "verdict": "not distinguishable"}  # fmt: skip

    names = [*arms, "base"]
    score = {"mean": 0.5, "low": 0.4, "high": 0.6, "n_prompts": len(prompts), "n_images": len(prompts) * SEEDS}
    summary = {
        "metrics": {
            metric: {"definition": "what it is, in a sentence.", "primary": metric == "T1"} for metric in METRICS
        },
        "arms": {arm: dict.fromkeys(METRICS, score) for arm in names},
        "against_base": {arm: {metric: difference() for metric in METRICS} for arm in arms},
        "pairs": {a: {b: {"T1": difference(), "T2": difference()} for b in arms[i + 1 :]} for i, a in enumerate(arms)},
    }
    with making(study / "scores", kind="scores", parents={"samples": samples}, config={}, version=1) as m:
        values = ((arm, p, s, metric) for arm in names for p in prompts for s in range(SEEDS) for metric in METRICS)
        write_rows(
            m.path / "scores.jsonl",
            ({"arm": a, "prompt": p, "seed": s, "metric": t, "value": 0.5} for a, p, s, t in values),
        )
        (m.path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


@pytest.mark.slow
def test_a_page_of_nine_thousand_pictures_stays_within_the_limit(large: Path, tmp_path: Path) -> None:
    page = report(large, tmp_path / "page.html")
    text = page.read_text(encoding="utf-8")
    assert 10_000_000 < page.stat().st_size <= LIMIT == 20_000_000
    shown = text.count("<img ")
    assert shown > 400
    assert re.search(r"\d+ more had no room", text)
    assert "There are 39 more arms than fit side by side" in text
    first = text[text.index('<h2 id="grid-title"') : text.index('id="seed-0-end"')]
    assert "left out" not in first and first.count("<img ") == 32 * 7, "the first seed of the seven arms is whole"
    assert re.search(r"the pictures of seeds? [\d, ]+ (are|is) not on it", text)
    assert "of the usual size to stay within the page's limit" in text.replace("&#39;", "'")
