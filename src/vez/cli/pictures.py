"""The commands of the data: from found pictures to frozen datasets, and from one version to the next."""

import difflib
import os
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
    from vez.images import provenance

    loaded = load(config) if config.exists() or config != VEZ_TOML else None
    settings = Collect() if loaded is None else loaded.collect
    show(collect(source, into, settings=settings, limit=limit, side=side, licences=licence or None))
    if (into / provenance.FILE).exists():
        _next_after_collect(loaded, into, config)


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

    _check_new_file(sheet, ".png", load(config))
    for page in shown(curate.sheet(load(config), name, sheet)):
        typer.echo(f"Wrote {page}")


@app.command()
def build(names: Names = None, config: ConfigFile = VEZ_TOML) -> None:
    """Check, crop and caption the pictures, and freeze them as datasets."""
    from vez import study
    from vez.config import PICTURE_CHECKS
    from vez.dataset import load as load_dataset
    from vez.images.findings import open_errors

    for name, folder in shown(study.build_datasets(load(config), names or None)).items():
        dataset = load_dataset(folder)
        held_out = f", {len(dataset.held_out)} held out" if dataset.held_out else ""
        typer.echo(f"{name}: {len(dataset.train)} to train on{held_out}, in {os.path.relpath(folder)}")
        if errors := open_errors(f for f in dataset.findings if f.check in PICTURE_CHECKS):
            stand = f"{errors} error stands" if errors == 1 else f"{errors} errors stand"
            typer.echo(f"  {stand}; see {_command('check', name, config=config)}")
    typer.echo(f"Next: {_command('lint', *(names or []), config=config)}")


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
    from vez.lint import in_words

    loaded = load(config)
    lints = {name: shown(curate.lint(loaded, name), err=json) for name in _named(loaded, names)}
    varied = {name: in_words.as_text(one.diversity) for name, one in lints.items()}
    _tell(loaded, {name: list(one.findings) for name, one in lints.items()}, json=json, also=varied)


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

    if html is not None:
        _check_new_file(html, ".html", load(config))
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
    from vez.config import PICTURE_CHECKS, WORD_CHECKS
    from vez.toml_edit import add_waiver

    if finding in (*PICTURE_CHECKS, *WORD_CHECKS):
        _check_is_there(load(config), name, file)
    add_waiver(config, name, check=finding, file=file, reason=because)
    typer.echo(f"Wrote it into {config}. Next: {_command('check', name, config=config)}")


@app.command()
def exclude(
    name: DatasetName,
    file: Annotated[str, typer.Argument(help="The picture.")],
    because: Because,
    config: ConfigFile = VEZ_TOML,
) -> None:
    """Leave a picture out of a dataset: writes it, with the reason, into vez.toml. The picture stays where it is."""
    from vez.toml_edit import add_exclusion

    _check_is_there(load(config), name, file)
    add_exclusion(config, name, file=file, reason=because)
    typer.echo(f"Wrote it into {config}. Next: {_command('check', name, config=config)}")


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
    repeats: Annotated[
        int | None, typer.Option(min=1, help="kohya's repeats: the N of N_words; absent: 1.", show_default=False)
    ] = None,
    words: Annotated[str, typer.Option(help="kohya's class tokens; absent: trigger and noun.")] = "",
    config: ConfigFile = VEZ_TOML,
) -> None:
    """Write a dataset as other tools read it, with its card and attributions."""
    from vez import curate
    from vez.dataset.export import export

    loaded = load(config)
    if layout != "kohya" and (repeats is not None or words):
        raise ConfigError(f"--repeats and --words go with --layout kohya; {layout} has no place for them")
    dataset = shown(curate.built(loaded, name))
    files = export(dataset, folder, layout=layout, repeats=repeats or 1, words=words)
    typer.echo(f"Wrote {len(files)} files to {folder}")


def _named(config: "Config", names: list[str] | None) -> list[str]:
    return names or list(config.dataset)


def _command(command: str, *names: str, config: Path) -> str:
    """What is to be typed for a command about datasets."""
    return shlex.join(["vez", command, *names, *([] if config == VEZ_TOML else ["-c", str(config)])])


def _next_after_collect(loaded: "Config | None", into: Path, config: Path) -> None:
    """Say what comes next: the check of the dataset that has this folder, or how a dataset gets it."""
    folder = into.resolve()
    if loaded is None:
        place = shlex.quote(str(into))
        typer.echo(f"Next: vez init FOLDER --trigger WORD --noun NOUN --images {place}")
        return
    names = [name for name, of in loaded.dataset.items() if (loaded.root / of.images).resolve() == folder]
    if names:
        typer.echo(f"Next: {_command('check', names[0], config=config)}")
    else:
        typer.echo(f"Next: make it the images of a [dataset.NAME] in {config}, then vez check NAME")


def _check_new_file(path: Path, suffix: str, config: "Config") -> None:
    """Raise ConfigError for a file that is called wrongly, or would lie among somebody's pictures."""
    if path.suffix.lower() != suffix:
        raise ConfigError(f"cannot write {path}: its name must end in {suffix}")
    for name, of in config.dataset.items():
        if path.parent.resolve() == (config.root / of.images).resolve():
            raise ConfigError(f"{path} would lie among the pictures of [dataset.{name}]; write it elsewhere")


def _check_is_there(config: "Config", name: str, file: str) -> None:
    """Raise ConfigError for a file that is neither picture nor caption of the dataset; "*" is all of them."""
    if name not in config.dataset or file == "*":
        return  # the edit itself says what is wrong with the name
    recipe = config.dataset[name]
    folders = [config.root / folder for folder in (recipe.images, recipe.captions) if folder is not None]
    there = [path.name for folder in folders if folder.is_dir() for path in folder.iterdir()]
    if file not in there:
        near = difflib.get_close_matches(file, there, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "name it as it is called there"
        raise ConfigError(f"there is no {file!r} in {recipe.images}; {hint}")


def _tell(
    config: "Config", found: "dict[str, list[Finding]]", *, json: bool, also: dict[str, str] | None = None
) -> None:
    """Print the findings of each dataset, and the text that follows them; exit code 1 where an error stands."""
    from dataclasses import asdict
    from json import dumps

    from vez.images.findings import as_text, open_errors

    if json:
        typer.echo(dumps({name: [asdict(f) for f in of] for name, of in found.items()}, ensure_ascii=False, indent=1))
    else:
        for name, of in found.items():
            typer.echo(f"[dataset.{name}] {config.dataset[name].images}\n{as_text(of, name)}")
            if also is not None:
                typer.echo(f"\n{also[name]}")
    if any(open_errors(of) for of in found.values()):
        raise typer.Exit(FOUND)
