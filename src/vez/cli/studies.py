"""The commands of the study: from a project's file to its report."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vez.cli.app import VEZ_TOML, ConfigFile, Device, app, load, show

if TYPE_CHECKING:
    from vez.config import Config
    from vez.events import Done

StudyName = Annotated[
    str | None, typer.Argument(metavar="STUDY", help="Its name in vez.toml; may be left out where there is one.")
]


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
    trigger: Annotated[str | None, typer.Option(help="The made-up word that will call the concept.")] = None,
    noun: Annotated[str | None, typer.Option(help='What kind of thing it is: "folk costume".')] = None,
    describes: Annotated[
        str | None, typer.Option(help="The concept in words that CLIP knows; absent: the noun.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of pictures; absent: FOLDER/images, to be filled.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help='A hub id, a folder, a .safetensors file, or "tiny"; absent: SD 1.5.')
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Side of the training pictures, in pixels; absent: 512.")
    ] = None,
    from_kohya: Annotated[
        Path | None,
        typer.Option(help="kohya's training config, dataset config, the GUI's JSON, or a LoRA: say the same in vez."),
    ] = None,
    example: Annotated[
        str | None, typer.Option(help="Begin with one: costume, character, object, style, reference-study.")
    ] = None,
) -> None:
    """Write a vez.toml with comments; with --example, one for a goal; with --from-kohya, what kohya's file says."""
    from vez import project

    if example is not None:
        if from_kohya is not None:
            raise typer.BadParameter("it goes without --from-kohya", param_hint="--example")
        path = project.create_from_example(
            folder, example, images=images, resolution=resolution,
            words={"base": base, "trigger": trigger, "noun": noun, "describes": describes or noun},
        )  # fmt: skip
        typer.echo(f"What to collect, how to caption, what to check: {path.with_name(project.ADVICE)}")
    elif from_kohya is not None:
        made = project.create_from_kohya(
            folder, from_kohya, trigger=trigger, noun=noun, describes=describes, images=images, base=base,
            resolution=resolution,
        )  # fmt: skip
        typer.echo(made.as_text())
        path = made.path
    else:
        for option, word in (("--trigger", trigger), ("--noun", noun)):
            if word is None:
                raise typer.BadParameter("it is needed, unless --from-kohya tells it", param_hint=option)
        path = project.create(
            folder, trigger=trigger or "", noun=noun or "", describes=describes or noun or "", images=images,
            base=base or project.BASE, resolution=resolution or project.RESOLUTION,
        )  # fmt: skip
    typer.echo(f"Wrote {path}. Next: vez build -c {shlex.quote(str(path))}")


@app.command()
def train(study: StudyName = None, config: ConfigFile = VEZ_TOML, device: Device = "auto") -> None:
    """Train the LoRAs of a study; a run that was cut goes on where it was."""
    from vez import study as stages

    loaded = load(config)
    show(stages.train_runs(loaded, stages.named(loaded, study), device=device))


@app.command()
def probe(study: StudyName = None, config: ConfigFile = VEZ_TOML, device: Device = "auto") -> None:
    """Ask every saved LoRA what it can tell without drawing, and say which are worth drawing with."""
    from vez import study as stages

    loaded = load(config)
    show(stages.probe_runs(loaded, stages.named(loaded, study), device=device))


@app.command()
def sample(
    study: StudyName = None,
    profile: Annotated[
        str | None, typer.Option(help="Another part of the suite: quick, standard, thorough; or confirm.")
    ] = None,
    arms: Annotated[str | None, typer.Option(help="Only these, as a,b; no LoRA is always drawn.")] = None,
    config: ConfigFile = VEZ_TOML,
    device: Device = "auto",
) -> None:
    """Draw every prompt of a study with every LoRA and without any."""
    from vez import study as stages
    from vez.suite import PROFILES

    if profile is not None and profile not in PROFILES:
        raise typer.BadParameter(f"known are {', '.join(PROFILES)}", param_hint="--profile")
    loaded = load(config)
    only = None if arms is None else [arm.strip() for arm in arms.split(",") if arm.strip()]
    show(stages.draw_samples(loaded, stages.named(loaded, study), device=device, profile=profile, only=only))


@app.command()
def score(study: StudyName = None, config: ConfigFile = VEZ_TOML, device: Device = "auto") -> None:
    """Measure the samples of a study, with intervals."""
    from vez import study as stages

    loaded = load(config)
    show(stages.score_samples(loaded, stages.named(loaded, study), device=device))


@app.command()
def controls(study: StudyName = None, config: ConfigFile = VEZ_TOML, device: Device = "auto") -> None:
    """Make and score the LoRAs that cannot have learned the concept, as the study's controls list them."""
    from vez import study as stages

    loaded = load(config)
    name = stages.named(loaded, study)
    if not loaded.study[name].controls:
        typer.echo(f'[study.{name}] lists no controls; add controls = ["shuffled", "class", "random"], or some of them')
    show(stages.control_runs(loaded, name, device=device))


@app.command()
def report(
    study: StudyName = None,
    as_json: Annotated[bool, typer.Option("--json", help="Only print verdict and tables as JSON.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Also write tables/pictures.csv and tables/arms.csv.")] = False,
    card: Annotated[bool, typer.Option("--card", help="Also put the LoRA beside its model card, for the Hub.")] = False,
    config: ConfigFile = VEZ_TOML,
) -> None:
    """Write a study's report.html and model card from what lies on disk."""
    from vez import study as stages
    from vez.report import card as model_card
    from vez.report import machine
    from vez.report.evidence import gather

    loaded = load(config)
    name = stages.named(loaded, study)
    folder, weight = stages.folder_of(loaded, name), loaded.study[name].weight
    if as_json:
        typer.echo(machine.as_json(gather(folder), weight=weight), nl=False)
        return
    if csv:
        for path in machine.write_csv(gather(folder), folder / "tables"):
            typer.echo(f"Wrote {path}")
    if card:
        path = model_card.write(gather(folder), folder / model_card.FOLDER, weight=weight, with_lora=True)
        typer.echo(f"Wrote {path}")
    _tell(loaded, name, stages.write_report(loaded, name))


@app.command()
def study(
    study: StudyName = None,
    config: ConfigFile = VEZ_TOML,
    plan: Annotated[bool, typer.Option("--plan", help="Only print what would be done.")] = False,
    device: Device = "auto",
) -> None:
    """Do all of it: build, train, sample, score, report. What exists is not made again; what was cut goes on."""
    _study(load(config), study, device=device, only_plan=plan)


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


def _study(config: "Config", name: str | None, *, device: str, only_plan: bool = False) -> None:
    from vez import study as stages

    name = stages.named(config, name)
    typer.echo(stages.plan(config, name, device=device).text())
    if not only_plan:
        done = show(stages.run(config, name, device=device))
        _tell(config, name, done)


def _tell(config: "Config", name: str, done: "Done | None") -> None:
    """The report's one sentence, and where the report lies."""
    from vez import study as stages

    typer.echo(stages.verdict(config, name))
    if done is not None:
        typer.echo(f"The report: {done.artifact_path}")
