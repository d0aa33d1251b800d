"""docs/reference.md, made of the config models and the command line, so that it cannot lag behind them.

`python -m vez.reference --write docs/reference.md` writes it; `--check` says whether the file is as it would be.
"""

import sys
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer.main
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from vez import config
from vez.cli import app
from vez.store import write_atomic

# heading of each table, where it stands in vez.toml, and its model
TABLES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("[project]", config.Project),
    ("[collect]", config.Collect),
    ("[dataset.NAME]", config.Dataset),
    ("[[dataset.NAME.rules]]", config.Rule),
    ("[dataset.NAME.override.FILE]", config.Override),
    ("[[dataset.NAME.exclude]]", config.Exclusion),
    ("[[dataset.NAME.waive]]", config.Waiver),
    ("[dataset.NAME.checks]", config.Checks),
    ("[study.NAME]", config.Study),
    ("[study.NAME.variant.NAME]", config.Variant),
    ("[study.NAME.variant.NAME.blocks.BLOCK]", config.Block),
    ("[[study.NAME.prompts]]", config.Prompt),
    ("[study.NAME.sampling]", config.Sampling),
)
SKIP = {"help", "install_completion", "show_completion"}


def text() -> str:
    """The whole page, as Markdown."""
    parts = [
        "# Reference\n\nMade by `make reference` from the code; change the docstrings there, not this page.\n",
        "## vez.toml\n\nPaths are relative to the file. An unknown key is refused.\n",
        *(_table(heading, model) for heading, model in TABLES),
        "## Commands\n\nA mistake ends with one line and exit code 2; Ctrl-C with 130, and the same command goes on.\n",
        *(_command(name, command) for name, command in sorted(commands().items())),
    ]
    return "\n".join(parts)


def commands() -> dict[str, Any]:
    """The commands of `vez` by name, as typer made them."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def options(command: Any) -> dict[str, str]:
    """What a command can be given: "--option" or "ARGUMENT" -> its help."""
    found = {}
    for parameter in command.params:
        if parameter.name not in SKIP:
            longest = max(parameter.opts, key=len)
            name = longest if longest.startswith("-") else (parameter.metavar or parameter.name).upper()
            found[name] = parameter.help or ""
    return found


def main(arguments: list[str]) -> int:
    """Write or check the page; returns the exit code."""
    mode, path = arguments[0], Path(arguments[1])
    if mode == "--write":
        write_atomic(path, text().encode())
        return 0
    if path.is_file() and path.read_text(encoding="utf-8") == text():
        return 0
    sys.stderr.write(f"{path} is not what the code says; run: make reference\n")
    return 1


def _table(heading: str, model: type[BaseModel]) -> str:
    about = str(model.__doc__).strip()
    lines = [f"### `{heading}`", "", about, "", "| key | what may stand there | default | |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else _default(field.default, field.default_factory is not None)
        kind = _kind(field.annotation) + _bounds(field.metadata)
        lines.append(f"| `{name}` | {kind} | {default} | {_cell(field.description)} |")
    return "\n".join(lines) + "\n"


def _command(name: str, command: Any) -> str:
    lines = [f"### `vez {name}`", "", " ".join(str(command.help).split()), ""]
    lines += [f"- `{option}`: {said}" for option, said in options(command).items()]
    return "\n".join(lines) + "\n"


def _kind(annotation: Any) -> str:
    """A type in a reader's words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(part) for part in inner if part is not type(None))
    if origin is Literal:
        return " · ".join(f'`"{value}"`' for value in inner)
    if origin is tuple:
        return f"list of {_kind(inner[0])}"
    if origin is dict:
        return f"tables of {_kind(inner[1])}"
    if hasattr(annotation, "__metadata__"):
        return _kind(inner[0])
    words = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}
    return words.get(annotation) or str(getattr(annotation, "__name__", annotation))


def _bounds(metadata: list[Any]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "multiple of"}
    said = [
        f"{sign} {getattr(item, key):g}" for item in metadata for key, sign in signs.items() if _is_number(item, key)
    ]
    return f" {', '.join(said)}" if said else ""


def _is_number(item: Any, key: str) -> bool:
    return isinstance(getattr(item, key, None), int | float)


def _default(value: Any, made: bool) -> str:
    if made or value is PydanticUndefined:
        return "vez's own"
    if value is None:
        return "absent"
    if isinstance(value, BaseModel):
        return "as there"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{v}"' if isinstance(v, str) else str(v) for v in value) + "]`"
    return f"`{value:g}`" if isinstance(value, float) else f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
