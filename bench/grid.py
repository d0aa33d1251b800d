"""The README's picture from a finished demo: `python bench/grid.py FOLDER docs/grid.png`.

One row an arm, one column a prompt with the trigger word, the first seed; nothing is picked.
"""

import argparse
import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIDE, LABEL, GAP = 128, 76, 3
NAMES = {"base": "no LoRA"}


def draw(samples: Path) -> Image.Image:
    """The sheet, with the arms' names at the left."""
    rows = [json.loads(line) for line in (samples / "samples.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["role"] == "trigger" and row["seed"] == 0]
    arms = sorted({row["arm"] for row in rows}, key=lambda arm: (arm != "base", arm))
    groups = list(dict.fromkeys(row["group"] for row in rows))
    sheet = Image.new("RGB", (LABEL + len(groups) * (SIDE + GAP), len(arms) * (SIDE + GAP) - GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for row in rows:
        at = LABEL + groups.index(row["group"]) * (SIDE + GAP), arms.index(row["arm"]) * (SIDE + GAP)
        sheet.paste(Image.open(samples / row["file"]).convert("RGB").resize((SIDE, SIDE)), at)
    for i, arm in enumerate(arms):
        pen.text((6, i * (SIDE + GAP) + SIDE // 2), NAMES.get(arm, arm), "black", font, anchor="lm")
    return sheet


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("to", type=Path)
    options = parser.parse_args()
    draw(options.folder / "studies" / "nosnja" / "samples").save(options.to, optimize=True)


if __name__ == "__main__":
    main()
