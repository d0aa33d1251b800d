"""The commands of the data: from found pictures to frozen datasets, and from one version to the next."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vez.cli.app import VEZ_TOML, ConfigFile, app, load, show, shown
from vez.errors import ConfigError

if TYPE_CHECKING:
    from vez.config import Config
    from vez.images.findings import Finding

FOUND = 1  # exit code: an error stands that nobody has waived
Names = Annotated[list[str] | None, typer.Argument(metavar="[DATASET]...", help="Which; all of them if none is named.")]
DatasetName = Annotated[str, typer.Argument(metavar="DATASET", help="Its name in vez.toml.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a program.")]
Because = Annotated[str, typer.Option("--because", help="The reason; it stays in the records.")]


@app.command()
def collect(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, an archive, a .txt or .csv of addresses, commons:category:NAME, commons:WORDS, "
            "openverse:WORDS."
        ),
    ],
    into: Annotated[Path, typer.Argument(help="The folder that gets the pictures, and provenance.jsonl.")],
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many pictures.")] = None,
    side: Annotated[
        int | None, typer.Option(min=64, help="Ask Commons for about so many pixels on the shorter side.")
    ] = None,
    licence: Annotated[
        list[str] | None, typer.Option(help="A licence to take (cc0, pdm, by, by-sa, …); instead of vez.toml's.")
    ] = None,
    config: ConfigFile = VEZ_TOML,
) -> None:
    """Fetch pictures with a record of where each is from; run again to go on. Nothing there is changed."""
    from vez.collect import collect
    from vez.config import Collect

    settings = load(config).collect if config.exists() or config != VEZ_TOML else Collect()
    show(collect(source, into, settings=settings, limit=limit, side=side, licences=licence or None))


@app.command()
def check(names: Names = None, json: Json = False, config: ConfigFile = VEZ_TOML) -> None:
    """Look at the pictures: what is broken, small, blurred, doubled. Exit code 1 where an error stands."""
    from vez import curate

    loaded = load(config)
    _tell(loaded, {name: shown(curate.check(loaded, name), err=json) for name in _named(loaded, names)}, json=json)


@app.command()
def crop(
    name: DatasetName,
    sheet: Annotated[Path, typer.Argument(help="The PNG to write.")],
    config: ConfigFile = VEZ_TOML,
) -> None:
    """Draw a contact sheet: where each picture is cut, and what comes out. boxes.toml beside them changes it."""
    from vez import curate

    shown(curate.sheet(load(config), name, sheet))
    typer.echo(f"Wrote {sheet}")


@app.command()
def build(names: Names = None, config: ConfigFile = VEZ_TOML) -> None:
    """Check, crop and caption the pictures, and freeze them as datasets."""
    from vez import study

    show(study.build_datasets(load(config), names or None))


@app.command()
def caption(
    name: DatasetName,
    diff: Annotated[
        bool, typer.Option("--diff", help="Machine text → what is trained on, word by word, for every picture.")
    ] = False,
    config: ConfigFile = VEZ_TOML,
) -> None:
    """Print the captions of a dataset; it is built where it is not there yet."""
    from vez import curate

    typer.echo(shown(curate.captions(load(config), name, compared=diff), err=True))


@app.command()
def lint(names: Names = None, json: Json = False, config: ConfigFile = VEZ_TOML) -> None:
    """Read the captions with the base's tokenizer and against the pictures. Exit code 1 where an error stands."""
    from vez import curate

    loaded = load(config)
    lints = {name: shown(curate.lint(loaded, name), err=json) for name in _named(loaded, names)}
    _tell(loaded, {name: list(one.findings) for name, one in lints.items()}, json=json)


@app.command()
def diff(
    old: Annotated[str, typer.Argument(help="A dataset in vez.toml.")],
    new: Annotated[str, typer.Argument(help="Another.")],
    html: Annotated[Path | None, typer.Option(help="Also write a page with thumbnails.")] = None,
    json: Json = False,
    config: ConfigFile = VEZ_TOML,
) -> None:
    """Compare two versions: pictures added and removed, with the reason, and captions word by word."""
    from vez import curate
    from vez.dataset import diff as differ

    before, after = shown(curate.pair(load(config), old, new), err=True)
    changes = differ.diff(before, after)
    typer.echo(differ.as_json(changes) if json else differ.as_text(changes))
    if html is not None:
        from vez.report.changes import write

        typer.echo(f"Wrote {write(before, after, html)}", err=True)


@app.command()
def waive(
    name: DatasetName,
    finding: Annotated[str, typer.Argument(metavar="CHECK", help="Which finding: blurred, near-duplicate, …")],
    file: Annotated[str, typer.Argument(help='The picture; "*": all of them.')],
    because: Because,
    config: ConfigFile = VEZ_TOML,
) -> None:
    """Accept a finding: writes it, with the reason, into vez.toml."""
    from vez.toml_edit import add_waiver

    add_waiver(config, name, check=finding, file=file, reason=because)


@app.command()
def exclude(
    name: DatasetName,
    file: Annotated[str, typer.Argument(help="The picture.")],
    because: Because,
    config: ConfigFile = VEZ_TOML,
) -> None:
    """Leave a picture out of a dataset: writes it, with the reason, into vez.toml. The picture stays where it is."""
    from vez.toml_edit import add_exclusion

    add_exclusion(config, name, file=file, reason=because)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="kohya's folders or TOML, an imagefolder, or pictures with .txt.")],
    name: Annotated[str, typer.Argument(metavar="DATASET", help="What to call it.")],
    layout: Annotated[
        Literal["auto", "kohya", "imagefolder", "sidecars"], typer.Option(help="How it is laid out.")
    ] = "auto",
    extension: Annotated[
        str | None, typer.Option(help="Of the caption files, where it is not the layout's own.")
    ] = None,
    config: ConfigFile = VEZ_TOML,
) -> None:
    """Copy somebody's dataset into the project and add it to vez.toml; says aloud what kohya passes over in silence."""
    from vez.dataset.imports import import_dataset
    from vez.toml_edit import add_dataset

    if name in load(config).dataset:  # asked before anything is copied
        raise ConfigError(f"{config} has a [dataset.{name}] already; call this one otherwise")
    made = import_dataset(source, config.parent, name=name, layout=layout, caption_extension=extension)
    add_dataset(config, made.tables)
    typer.echo(f"{made.as_text()}\nNext: vez check {name} -c {shlex.quote(str(config))}")


@app.command()
def export(
    name: DatasetName,
    folder: Annotated[Path, typer.Argument(help="Where to; it must be empty or not there.")],
    layout: Annotated[
        Literal["kohya", "imagefolder", "sidecars"], typer.Option(help="How to lay it out.")
    ] = "sidecars",
    repeats: Annotated[int, typer.Option(min=1, help="kohya's repeats: the N of N_words.")] = 1,
    words: Annotated[str, typer.Option(help="kohya's class tokens; absent: trigger and noun.")] = "",
    config: ConfigFile = VEZ_TOML,
) -> None:
    """Write a dataset as other tools read it, with its card and attributions."""
    from vez import curate
    from vez.dataset.export import export

    loaded = load(config)
    dataset = shown(curate.built(loaded, name))
    files = export(dataset, folder, layout=layout, repeats=repeats, words=words)
    typer.echo(f"Wrote {len(files)} files to {folder}")


def _named(config: "Config", names: list[str] | None) -> list[str]:
    return names or list(config.dataset)


def _tell(config: "Config", found: "dict[str, list[Finding]]", *, json: bool) -> None:
    """Print the findings of each dataset; leave with exit code 1 where an error stands."""
    from dataclasses import asdict
    from json import dumps

    from vez.images.findings import as_text, open_errors

    if json:
        typer.echo(dumps({name: [asdict(f) for f in of] for name, of in found.items()}, ensure_ascii=False, indent=1))
    else:
        for name, of in found.items():
            typer.echo(f"[dataset.{name}] {config.dataset[name].images}\n{as_text(of, name)}")
    if any(open_errors(of) for of in found.values()):
        raise typer.Exit(FOUND)
