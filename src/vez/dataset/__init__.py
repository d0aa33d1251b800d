"""Pictures and captions, frozen under an id: building, comparing, importing, exporting."""

from vez.dataset.build import build, inspect, read_sources, recipe_of
from vez.dataset.rows import KIND, VERSION, Dataset, Dropped, Row, load

__all__ = ["KIND", "VERSION", "Dataset", "Dropped", "Row", "build", "inspect", "load", "read_sources", "recipe_of"]
