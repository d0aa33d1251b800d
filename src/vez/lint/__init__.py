"""Lint: what is wrong with a dataset's words, with how they fit its pictures, and with the set as a whole.

`stage.lint` makes the artifact; `load` reads it and loads no model library.
"""

from vez.lint.artifact import KIND, VERSION, Diversity, Lint, load

__all__ = ["KIND", "VERSION", "Diversity", "Lint", "load"]
