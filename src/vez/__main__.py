"""`python -m vez`: the same as the `vez` command."""

from vez.cli import app

app(prog_name="vez")
