"""The command that asks people."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from vez.cli.app import VEZ_TOML, ConfigFile, app, load
from vez.cli.studies import StudyName
from vez.errors import ConfigError


@app.command()
def judge(
    study: StudyName = None,
    judge: Annotated[str, typer.Option(help="Who judges; everyone has pairs and a file of their own.")] = "me",
    votes: Annotated[
        int | None, typer.Option(min=1, help="Pairs to judge for a question; absent: as many as fit in --minutes.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=1, help="How long a question may take, at ten seconds a pair.")] = 10.0,
    arm: Annotated[
        list[str] | None, typer.Option(help="Only these arms, and no LoRA; may be given again. Absent: all.")
    ] = None,
    results: Annotated[bool, typer.Option("--results", help="Say what the votes say so far, and ask nobody.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the page listens; 0: a free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    config: ConfigFile = VEZ_TOML,
) -> None:
    """Compare pictures two at a time, without knowing what drew them; stop at any time, go on with the same command."""
    from vez import study as stages

    loaded = load(config)
    name = stages.named(loaded, study)
    folder = stages.folder_of(loaded, name)
    if results:
        _tell_results(folder, name, tuple(arm or ()))
        return
    from vez.judging import material, session
    from vez.judging.plan import thinness, votes_in
    from vez.judging.server import Server
    from vez.judging.votes import FOLDER, Ballots

    drawn = material.read(folder, loaded.project).only(tuple(arm or ()))
    real = material.references(folder, loaded.root / ".vez" / "datasets")
    with Ballots(folder / FOLDER, judge) as ballots:
        asked = votes or votes_in(minutes)
        sitting = session.begin(drawn, ballots, project=loaded.project, votes=asked, references=real)
        typer.echo(f"{thinness(drawn, asked)}; fewer arms (--arm) or more judges (--judge) say more.")
        with Server(sitting, port=port, tell=lambda trouble: typer.echo(f"vez: {trouble}", err=True)) as server:
            typer.echo(f"The page: {server.url}\nStop with Ctrl-C; every vote is kept, and the same command goes on.")
            if browser:
                webbrowser.open(server.url)
            try:
                server.serve_forever(poll_interval=0.1)
            except KeyboardInterrupt:
                typer.echo()
        for question, (answered, of) in sitting.progress().items():
            typer.echo(f"{question}: {answered} of {of} pairs judged")
    typer.echo(f"What they say: vez judge {name} --results")


def _tell_results(folder: Path, name: str, arms: tuple[str, ...]) -> None:
    from vez.judging import words
    from vez.judging.results import gather, write

    found = gather(folder, arms)
    if found is None or not found.judges:
        raise ConfigError(f"nobody has judged {name} yet; begin with: vez judge {name}")
    typer.echo(words.as_text(found))
    if not arms:  # the file is about all of them
        typer.echo(f"\nThe same as data: {write(found, folder)}")
