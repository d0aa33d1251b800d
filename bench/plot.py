"""The ladder as a picture: `python bench/plot.py docs/ladder.svg bench/results/…-ladder-sd1.json …` draws it.

One panel for each file, a bar for each rung: how many times as fast as the lowest rung, with the rounds' range. Light
and dark: the colours follow what the reader's browser asks for.
"""

import argparse
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

WIDTH, LEFT, RIGHT, ROW, TOP = 860, 330, 150, 26, 44
STYLE = """
.ground { fill: #ffffff } .ink { fill: #1f2933 } .muted { fill: #5c6773 } .bar { fill: #5b7fa6 } .own { fill: #0f766e }
.range { stroke: #1f2933; stroke-width: 1.2 } .one { stroke: #98a2ad; stroke-width: 1; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) {
 .ground { fill: #14181d } .ink { fill: #e6eaee } .muted { fill: #9aa5b1 } .bar { fill: #7ba3cf } .own { fill: #2fb3a6 }
 .range { stroke: #e6eaee } .one { stroke: #6b7785 }
}
"""


def text(x: float, y: float, words: str, *, kind: str = "ink", size: int = 13, anchor: str = "start") -> str:
    place = f'x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {place} class="{kind}">{escape(words)}</text>'


def panel(found: dict[str, Any], top: float) -> tuple[list[str], float]:
    """One file's bars and how far down they reach."""
    rows = found["rungs"]
    scale = (WIDTH - LEFT - RIGHT) / max(row["faster_high"] for row in rows)
    parts = [text(20, top + 18, found["title"], size=14)]
    bottom = top + TOP + ROW * len(rows)
    parts.append(f'<line x1="{LEFT + scale:.1f}" y1="{top + 30}" x2="{LEFT + scale:.1f}" y2="{bottom}" class="one"/>')
    for i, row in enumerate(rows):
        y = top + TOP + ROW * i
        own = "own" if row["rung"].startswith("vez") else "bar"
        parts.append(text(LEFT - 10, y + 12, row["rung"], size=12, anchor="end"))
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{scale * row["faster"]:.1f}" height="16" rx="2" class="{own}"/>')
        low, high = (LEFT + scale * row[key] for key in ("faster_low", "faster_high"))
        parts.append(f'<line x1="{low:.1f}" y1="{y + 8}" x2="{high:.1f}" y2="{y + 8}" class="range"/>')
        told = f"{row['faster']:.2f} ×, {row['ms']:.0f} ms, {row['peak_bytes'] / 1e9:.2f} GB"
        parts.append(text(high + 8, y + 12, told, size=12, kind="muted"))
    return parts, bottom + 18


def picture(files: Sequence[dict[str, Any]]) -> str:
    """The whole SVG."""
    parts: list[str] = []
    down = 10.0
    for found in files:
        more, down = panel(found, down)
        parts += more
    label = "How many times as fast a training step is on each rung of the ladder as on the lowest: " + "; ".join(
        f"{found['title']}: " + ", ".join(f"{r['rung']} {r['faster']:.2f}" for r in found["rungs"]) for found in files
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {down:.0f}" width="{WIDTH}" '
        f'height="{down:.0f}" font-family="system-ui, sans-serif" role="img" aria-label="{escape(label, quote=True)}">'
    )
    ground = f'<rect width="{WIDTH}" height="{down:.0f}" class="ground"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", ground, *parts, "</svg>\n"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("to", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    given = parser.parse_args()
    given.to.write_text(picture([json.loads(file.read_bytes()) for file in given.files]), encoding="utf-8")
