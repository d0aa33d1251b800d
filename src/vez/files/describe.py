"""What a LoRA file is, for a person and for a program: kind, sizes, strengths and metadata."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from vez.files.convert import NAMES
from vez.files.names import PREFIXES
from vez.files.operations import norm
from vez.files.reading import ADAPTER_METADATA, LoraFile
from vez.images.wording import visible

_WIDTH = 160  # characters of one metadata value in the text form
_STRONGEST = 5


def as_json(path: Path, lora: LoraFile) -> str:
    """Everything, as JSON in ASCII: file, kind, every module with shape, rank, alpha and norm, all metadata."""
    return json.dumps(_facts(path, lora), indent=1, allow_nan=False)


def as_text(path: Path, lora: LoraFile) -> str:
    """A page for a terminal; whatever the file says is shown with control characters escaped, and long texts cut."""
    facts = _facts(path, lora)
    lines = [
        f"{path}: {NAMES[lora.family]}, {lora.layout} layout, {facts['dtype']}, {facts['bytes'] / 2**20:.1f} MiB",
    ]
    for network, prefix in PREFIXES.items():
        modules = {place: weights for place, weights in lora.modules.items() if place.network == network}
        if not modules:
            continue
        norms = {place: norm(weights) for place, weights in modules.items()}
        zeros = sum(value == 0 for value in norms.values())
        total = sum(value**2 for value in norms.values()) ** 0.5
        lines.append(
            f"{prefix}: {len(modules)} modules, rank {_counted(w.rank for w in modules.values())}, "
            f"alpha {_counted(w.alpha for w in modules.values())}, norm of what it adds {total:.4g}"
            + (f"; {zeros} modules add nothing" if zeros else "")
        )
        for place in sorted(norms, key=lambda p: -norms[p])[:_STRONGEST]:
            lines.append(f"  {norms[place]:<10.4g} {place.path}")
    lines.append(f"metadata: {len(lora.metadata)} entries" if lora.metadata else "metadata: none")
    for key, value in sorted(lora.metadata.items()):
        if key != ADAPTER_METADATA:
            lines.append(f"  {_cut(key)}: {_cut(value)}")
    return "\n".join(lines)


def _facts(path: Path, lora: LoraFile) -> dict[str, Any]:
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "family": lora.family,
        "layout": lora.layout,
        "dtype": str(lora.dtype)[6:],
        "modules": [
            {
                "network": place.network,
                "path": place.path,
                "rank": weights.rank,
                "alpha": weights.alpha,
                "shape": [weights.up.shape[0], *weights.down.shape[1:]],
                "norm": norm(weights),
            }
            for place, weights in lora.modules.items()
        ],
        "metadata": dict(sorted(lora.metadata.items())),
    }


def _counted(values: Any) -> str:
    """ "8" where all are 8; "4 (×10), 8 (×62)" where not."""
    counts = sorted(Counter(values).items())
    if len(counts) == 1:
        return f"{counts[0][0]:g}"
    if len(counts) > 6:
        return f"{counts[0][0]:g} to {counts[-1][0]:g}"
    return ", ".join(f"{value:g} (×{count})" for value, count in counts)


def _cut(text: str) -> str:
    shown = visible(text[: _WIDTH + 1])
    return (
        shown if len(text) <= _WIDTH else f"{visible(text[:_WIDTH])}… ({len(text)} characters; all of it with --json)"
    )
