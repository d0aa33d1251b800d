"""Why pooled pictures mislead, for docs/evaluate.md: `python bench/pooled.py docs/pooled.svg` draws it.

Fifty simulated studies of two *equal* LoRAs, 8 prompts × 8 seeds, with the spreads of bench/truth_a.py; the first of
them in full.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from scipy import stats as theirs

from truth_a import BETWEEN, WITHIN
from vez.metrics.stats import t_interval

STUDIES, PROMPTS, SEEDS = 50, 8, 8
WIDEST_PICTURE, WIDEST_INTERVAL = 0.2, 0.06
INK, MUTED, RIGHT, WRONG = "#1f2933", "#6b7785", "#5b7fa6", "#c2410c"
WIDTH, HEIGHT, LEFT = 760, 470, 60


def studies() -> np.ndarray:
    """Differences (studies, prompts, seeds) of two equal LoRAs."""
    rng = np.random.default_rng(0)
    return rng.normal(0, BETWEEN, (STUDIES, PROMPTS, 1)) + rng.normal(0, WITHIN, (STUDIES, PROMPTS, SEEDS))


def intervals(d: np.ndarray) -> dict[str, list[tuple[float, float]]]:
    """95 % intervals of each study, made in both ways."""
    pooled, by_prompt = [], []
    for study in d:
        flat = study.ravel()
        half = float(theirs.t.ppf(0.975, flat.size - 1)) * float(flat.std(ddof=1)) / math.sqrt(flat.size)
        pooled.append((float(flat.mean()) - half, float(flat.mean()) + half))
        found = t_interval(study.mean(axis=1))
        by_prompt.append((found.low or 0.0, found.high or 0.0))
    return {"every picture counted for itself": pooled, "prompts counted, as vez does": by_prompt}


def text(x: float, y: float, words: str, *, size: int = 13, ink: str = INK, anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{ink}" text-anchor="{anchor}">{words}</text>'


def line(x1: float, y1: float, x2: float, y2: float, *, ink: str, width: float = 1.5) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{ink}" stroke-width="{width}"/>'


def one_study(d: np.ndarray, top: float) -> list[str]:
    """Each prompt's pictures in a row of its own."""
    right, parts = (
        WIDTH - 20,
        [text(20, top, "One study of two equal LoRAs: what each of the 64 pairs of pictures says")],
    )
    scale = (right - LEFT - 60) / (2 * WIDEST_PICTURE)
    zero = (LEFT + 60 + right) / 2
    parts.append(line(zero, top + 12, zero, top + 20 + 15 * PROMPTS, ink=MUTED, width=1))
    for i, row in enumerate(d):
        y = top + 24 + 15 * i
        parts.append(text(20, y + 4, f"prompt {i + 1}", size=11, ink=MUTED))
        parts += [
            f'<circle cx="{zero + scale * v:.1f}" cy="{y}" r="3" fill="{RIGHT}" fill-opacity="0.45"/>' for v in row
        ]
        mean = zero + scale * float(row.mean())
        parts.append(line(mean, y - 6, mean, y + 6, ink=INK, width=2.5))
    words = "Pictures of a prompt (dots) lie around the prompt's own mean (bars): they repeat each other."
    return [*parts, text(20, top + 36 + 15 * PROMPTS, words, size=12, ink=MUTED)]


def many_studies(found: list[tuple[float, float]], title: str, left: float, top: float) -> list[str]:
    """Fifty intervals side by side, those that miss the truth in another colour and thicker."""
    width, height = 330.0, 150.0
    middle, scale = top + 30 + height / 2, height / 2 / WIDEST_INTERVAL
    missed = sum(not low <= 0 <= high for low, high in found)
    parts = [text(left, top, title), line(left, middle, left + width, middle, ink=MUTED, width=1)]
    parts.append(text(left + width, middle - 4, "truth", size=11, ink=MUTED, anchor="end"))
    for i, (low, high) in enumerate(found):
        x, miss = left + 4 + i * (width - 40) / STUDIES, not low <= 0 <= high
        ink, thick = (WRONG, 3.5) if miss else (RIGHT, 1.6)
        parts.append(line(x, middle - scale * low, x, middle - scale * high, ink=ink, width=thick))
    told = f"{missed} of {STUDIES} intervals miss the truth (5 % would be 2 or 3)"
    return [*parts, text(left, top + height + 52, told, size=12, ink=WRONG if missed > 5 else MUTED)]


def picture() -> str:
    """The whole SVG."""
    d = studies()
    (first, pooled), (second, by_prompt) = intervals(d).items()
    parts = [*one_study(d[0], 28), text(20, 232, "Fifty such studies, the 95 % interval of each:")]
    parts += many_studies(pooled, first, 20, 258) + many_studies(by_prompt, second, 400, 258)
    label = (
        "Two equal LoRAs: intervals over pooled pictures miss the truth far too often, intervals over prompts do not"
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="system-ui, sans-serif" role="img" aria-label="{label}">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>', *parts, "</svg>\n"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("to", type=Path)
    parser.parse_args().to.write_text(picture(), encoding="utf-8")
