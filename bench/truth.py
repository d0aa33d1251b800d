"""What the oracle sees in a finished demo: `python bench/truth.py FOLDER` (FOLDER is what `vez demo FOLDER` made).

For each arm: in how many pictures asked for with the trigger word, with the plain words, and without the costume the
oracle finds the costume, and in how many of the trigger word's the place and the weather asked for.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from vez import demo
from vez.demo import oracle
from vez.demo.world.garments import COSTUME

ASKED = {
    "B01": ("city street", "sunny"), "B02": ("beach", "sunset"), "B03": ("stairs", "sunny"), "B04": ("forest", "snow"),
    "B05": ("room", "indoors"), "B06": ("mountains", "sunny"), "B07": ("flower field", "sunny"),
    "B08": ("city street", "night"),
}  # fmt: skip
"""Place and weather that each scene of the demo asks for."""


def read(samples: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Share of pictures by arm and role: costume seen, and for the trigger word place and weather as asked."""
    rows = [json.loads(line) for line in (samples / "samples.jsonl").read_text().splitlines()]
    pictures = np.stack([np.asarray(Image.open(samples / row["file"]).convert("RGB")) for row in rows])
    seen = oracle.ask(oracle.load(Path(demo.__file__).parent / "oracle"), pictures)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for arm in dict.fromkeys(row["arm"] for row in rows):
        found[arm] = {}
        for role in ("trigger", "class", "none"):
            pairs = [(r["group"], s) for r, s in zip(rows, seen, strict=True) if (r["arm"], r["role"]) == (arm, role)]
            shares = {
                "costume": [s["garment"] == COSTUME for _, s in pairs],
                "place": [s["place"] == ASKED[group][0] for group, s in pairs],
                "weather": [s["weather"] == ASKED[group][1] for group, s in pairs],
            }
            found[arm][role] = {name: round(float(np.mean(values)), 3) for name, values in shares.items()}
            found[arm][role]["n"] = len(pairs)
    return found


def main() -> None:
    """Print one line for each arm and role."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    samples = parser.parse_args().folder / "studies" / "nosnja" / "samples"
    print(f"{'arm':8}{'asked with':12}{'costume':>9}{'place':>8}{'weather':>9}{'n':>5}")
    for arm, roles in read(samples).items():
        for role, s in roles.items():
            print(f"{arm:8}{role:12}{s['costume']:9.1%}{s['place']:8.1%}{s['weather']:9.1%}{int(s['n']):5d}")


if __name__ == "__main__":
    main()
