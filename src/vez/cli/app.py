"""What all commands share: where errors become one line, and how events are shown."""

import os
import shlex
import sys
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

import vez
from vez.errors import VezError

if TYPE_CHECKING:
    from vez.config import Config
    from vez.events import Done, Event

MISTAKE, STOPPED = 2, 130  # exit codes: a VezError; Ctrl-C (128 + SIGINT)
VEZ_TOML = Path("vez.toml")
ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The project's file.")]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1, mps.")]
Made = TypeVar("Made")


class _Edge(TyperGroup):
    """Where errors become one line, and Ctrl-C a word on how to go on."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except VezError as error:
            typer.echo(f"vez: {error}", err=True)
            raise typer.Exit(MISTAKE) from error
        except KeyboardInterrupt as interrupt:
            command = shlex.join(["vez", *sys.argv[1:]])
            typer.echo(f"\nStopped. What was made is kept; go on with: {command}", err=True)
            raise typer.Exit(STOPPED) from interrupt


app = typer.Typer(
    cls=_Edge,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"vez {vez.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Say which vez.")
    ] = False,
) -> None:
    """Teach Stable Diffusion one new concept from about thirty pictures, and prove that it learned it."""
    if not sys.stderr.isatty():  # a log file: the libraries' bars would fill it; read when they are first imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def load(path: Path) -> "Config":
    """The project's file. Raises ConfigError."""
    from vez import config

    return config.load(path)


def show(events: "Iterable[Event]", *, err: bool = False) -> "Done | None":
    """Iterate a stage to its end, showing it; on stderr where the command's own output is for a machine."""
    from rich.console import Console

    from vez.progress import show

    return show(events, console=Console(stderr=err))


def shown(stage: "Generator[Event, None, Made]", *, err: bool = False) -> Made:
    """Iterate a stage to its end, showing it, and return what it returns."""
    result: list[Made] = []

    def passing() -> "Iterator[Event]":
        result.append((yield from stage))

    show(passing(), err=err)
    return result[0]
