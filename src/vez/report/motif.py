"""A small cross-stitch band as inline SVG: the report's one ornament, worked in the accent colour."""

from __future__ import annotations

STITCH = 4  # drawing units per stitch

# One repeat of a stepped rhombus with hooks, the commonest figure of Serbian counted-thread borders; drawn for vez.
REPEAT = (
    "......x......",
    ".....x.x.....",
    "x...x.x.x...x",
    ".x.x.xxx.x.x.",
    "..x.xx.xx.x..",
    ".x.xx.x.xx.x.",
    "..x.xx.xx.x..",
    ".x.x.xxx.x.x.",
    "x...x.x.x...x",
    ".....x.x.....",
    "......x......",
)


def band(pattern: tuple[str, ...] = REPEAT, *, repeats: int = 60) -> str:
    """A border of `repeats` repeats; each "x" of the pattern is one cross of two threads. Hidden from listeners."""
    width, height = len(pattern[0]) * STITCH, len(pattern) * STITCH
    threads = "".join(
        f"M{x * STITCH + 0.6:g} {y * STITCH + 0.6:g}l2.8 2.8m0-2.8l-2.8 2.8"
        for y, row in enumerate(pattern)
        for x, stitch in enumerate(row)
        if stitch == "x"
    )
    return (
        f'<svg class="stitches" width="{width * repeats}" height="{height}" aria-hidden="true" focusable="false" '
        f'xmlns="http://www.w3.org/2000/svg"><defs><pattern id="stitches" width="{width}" height="{height}" '
        f'patternUnits="userSpaceOnUse"><path d="{threads}"/></pattern></defs>'
        f'<rect width="100%" height="{height}" fill="url(#stitches)"/></svg>'
    )
