"""The metrics, all of them, in the order of the tables: each a name, a sentence that defines it, and a function.

The families are modules of their own (`texts`, `likeness`, `drift`, `copying`, `diversity`, `artefacts`); `rules` says
how each is judged. Pure: pictures become `Material` in `gather`.
"""

from typing import Final

from vez.metrics.artefacts import ARTEFACTS
from vez.metrics.copying import COPYING
from vez.metrics.diversity import DIVERSITY
from vez.metrics.drift import DRIFT
from vez.metrics.likeness import LIKENESS
from vez.metrics.material import Drawn, Material, Metric, Pixels, Vectors, View
from vez.metrics.summary import Values
from vez.metrics.texts import TEXT, describing

__all__ = ["METRICS", "Drawn", "Material", "Metric", "Pixels", "Vectors", "View", "describing", "measure"]

METRICS: Final[tuple[Metric, ...]] = (*TEXT, *LIKENESS, *DRIFT, *COPYING, *DIVERSITY, *ARTEFACTS)
"""Every metric."""


def measure(material: Material) -> dict[str, Values]:
    """Metric → arm → (prompt, seed) → value; an empty table for what could not be measured."""
    return {metric.name: metric.measure(material) for metric in METRICS}
