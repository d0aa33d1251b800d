"""Lint: what is wrong with a dataset's words, with how they fit its pictures, and with the set as a whole.

`stage.lint` makes the artifact; `artifact.load` reads it and loads no model library.
"""
