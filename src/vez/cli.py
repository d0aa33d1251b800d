"""The command line: one command per stage. It parses, calls, prints.

Whatever it does can be done from Python by the same functions.

Nothing heavy is imported at the top, so that `vez --help` answers at once: each command imports the stage it runs.
"""

import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import vez
from vez.errors import VezError

if TYPE_CHECKING:
    from vez.config import Config
    from vez.events import Done, Event

MISTAKE, STOPPED = 2, 130  # exit codes: a VezError; Ctrl-C (128 + SIGINT)


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

ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The project's file.")]
StudyName = Annotated[
    str | None, typer.Argument(metavar="STUDY", help="Its name in vez.toml; may be left out where there is one.")
]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1, mps.")]
VEZ_TOML = Path("vez.toml")


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


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to work; made if it is not there.")] = Path("vez-demo"),
    device: Device = "auto",
) -> None:
    """The whole way on the embedded base: no download, no GPU. Run again to go on after a stop."""
    from vez import config
    from vez.demo import copy_project

    for kept in copy_project(folder):
        typer.echo(f"{kept} was changed by you and is left as it is.")
    _study(config.load(folder / "vez.toml"), None, device=device)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The new project's folder.")],
    trigger: Annotated[str, typer.Option(help="The made-up word that will call the concept.")],
    noun: Annotated[str, typer.Option(help='What kind of thing it is: "folk costume".')],
    describes: Annotated[
        str | None, typer.Option(help="The concept in words that CLIP knows; absent: the noun.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of pictures; absent: FOLDER/images, to be filled.")
    ] = None,
    base: Annotated[
        str, typer.Option(help='A hub id, a diffusers folder, or "tiny".')
    ] = "stable-diffusion-v1-5/stable-diffusion-v1-5",
    resolution: Annotated[int, typer.Option(help="Side of the training pictures, in pixels.")] = 512,
) -> None:
    """Write a vez.toml with comments."""
    from vez.project import create

    path = create(
        folder, trigger=trigger, noun=noun, describes=describes or noun, images=images, base=base, resolution=resolution
    )
    typer.echo(f"Wrote {path}. Next: vez build -c {shlex.quote(str(path))}")


@app.command()
def build(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[DATASET]...", help="Which; all of them if none is named.")
    ] = None,
    config: ConfigFile = VEZ_TOML,
) -> None:
    """Check, crop and caption the pictures, and freeze them as datasets."""
    from vez import study

    _show(study.build_datasets(_load(config), names or None))


@app.command()
def train(study: StudyName = None, config: ConfigFile = VEZ_TOML, device: Device = "auto") -> None:
    """Train the LoRAs of a study; a run that was cut goes on where it was."""
    from vez import study as stages

    loaded = _load(config)
    _show(stages.train_runs(loaded, stages.named(loaded, study), device=device))


@app.command()
def sample(study: StudyName = None, config: ConfigFile = VEZ_TOML, device: Device = "auto") -> None:
    """Draw every prompt of a study with every LoRA and without any."""
    from vez import study as stages

    loaded = _load(config)
    _show(stages.draw_samples(loaded, stages.named(loaded, study), device=device))


@app.command()
def score(study: StudyName = None, config: ConfigFile = VEZ_TOML, device: Device = "auto") -> None:
    """Measure the samples of a study, with intervals."""
    from vez import study as stages

    loaded = _load(config)
    _show(stages.score_samples(loaded, stages.named(loaded, study), device=device))


@app.command()
def report(study: StudyName = None, config: ConfigFile = VEZ_TOML) -> None:
    """Write a study's report.html from what lies on disk."""
    from vez import study as stages

    loaded = _load(config)
    name = stages.named(loaded, study)
    _tell(loaded, name, stages.write_report(loaded, name))


@app.command()
def study(
    study: StudyName = None,
    config: ConfigFile = VEZ_TOML,
    plan: Annotated[bool, typer.Option("--plan", help="Only print what would be done.")] = False,
    device: Device = "auto",
) -> None:
    """Do all of it: build, train, sample, score, report. What exists is not made again; what was cut goes on."""
    _study(_load(config), study, device=device, only_plan=plan)


@app.command()
def doctor() -> None:
    """Look at this machine: versions, device, memory, disk, the demo's weights, and what could be in the way."""
    from vez.doctor import examine

    facts = examine(Path.cwd())
    for fact in facts:
        typer.echo(f"{fact.state.value:8} {fact.name:14} {fact.value}")
        if fact.advice:
            typer.echo(f"{'':8} {'':14} → {fact.advice}")
    if any(fact.is_broken for fact in facts):
        raise typer.Exit(1)


def _load(path: Path) -> "Config":
    from vez import config

    return config.load(path)


def _study(config: "Config", name: str | None, *, device: str, only_plan: bool = False) -> None:
    from vez import study as stages

    name = stages.named(config, name)
    typer.echo(stages.plan(config, name, device=device).text())
    if not only_plan:
        done = _show(stages.run(config, name, device=device))
        _tell(config, name, done)


def _show(events: "Iterable[Event]") -> "Done | None":
    from rich.console import Console

    from vez.progress import show

    return show(events, console=Console())


def _tell(config: "Config", name: str, done: "Done | None") -> None:
    """The report's one sentence, and where the report lies."""
    from vez import study as stages

    typer.echo(stages.verdict(config, name))
    if done is not None:
        typer.echo(f"The report: {done.artifact_path}")
