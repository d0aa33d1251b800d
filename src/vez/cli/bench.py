"""The command that measures: what a training step costs on this machine, and how long a study would take."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vez.cli.app import Device, app, load
from vez.errors import ConfigError

if TYPE_CHECKING:
    from vez.bench import Measured, Workload
    from vez.config import Config

STEPS = 10


@app.command()
def bench(
    base: Annotated[str | None, typer.Option(help="Whose shapes: tiny, sd1, sd2, sdxl; absent: sd1.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the pictures, in pixels; absent: 512.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures per step; absent: 1.")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the LoRAs; absent: 32.")] = None,
    variants: Annotated[int | None, typer.Option(help="LoRAs trained side by side; absent: 1.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Computes in bf16, fp16 or fp32; absent: bf16.")] = None,
    checkpointing: Annotated[str | None, typer.Option(help="none, selective or whole; absent: none.")] = None,
    device: Device = "auto",
    steps: Annotated[int, typer.Option(help="Steps that are timed, after two to warm up.")] = STEPS,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="A vez.toml: measure the passes of its studies, and say how long they take."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a training step on random weights: time, memory, operators, share of the machine's matrix rate.

    Nothing is downloaded, and nothing is written.
    """
    from vez.bench import Workload, measured

    given = {"base": base, "size": size, "batch": batch, "rank": rank, "variants": variants, "dtype": dtype}
    given["checkpointing"] = checkpointing
    asked = {name: value for name, value in given.items() if value is not None}
    if config is not None:
        if asked:
            raise ConfigError(f"with --config the step is as the file says; leave out --{next(iter(asked))}")
        _studies(load(config), device=device, steps=steps, as_json=as_json)
        return
    many = 1 if variants is None else variants
    work = Workload(
        base=base or "sd1",
        size=512 if size is None else size,
        batch=1 if batch is None else batch,
        ranks=(32 if rank is None else rank,) * many,
        dtype=dtype or "bf16",
        device=device,
        steps=steps,
        checkpointing=checkpointing or "none",  # type: ignore[arg-type]  # the workload checks it
    )
    found = measured(work)
    typer.echo(json.dumps(found.as_json(), indent=1) if as_json else found.text())


def _studies(config: "Config", *, device: str, steps: int, as_json: bool) -> None:
    """Measure every different pass of the file's studies, and say how long each study's training takes."""
    from vez import study as stages
    from vez.bench import measured, study_seconds, study_text, work_of

    if not config.study:
        raise ConfigError("vez.toml has no [study.<name>] to measure; add one, or leave --config out")
    known: dict[Workload, Measured] = {}
    rows = []
    for name in config.study:
        made, own = stages.plan(config, name), stages.fitted(config, name, device=device)
        passes = []
        for one in made.passes:
            work = work_of(own, name, one, sizes=stages.sizes(config), device=device, steps=steps)
            if work not in known:
                known[work] = measured(work)
                if not as_json:
                    typer.echo(known[work].text())
            passes.append((one, known[work]))
        total = sum(study_seconds(passes, len(made.seeds)))
        rows.append({"study": name, "training_seconds": total, "passes": [took.as_json() for _, took in passes]})
        if not as_json:
            typer.echo(f"Study {name}{', on a base taken to be SD 1.x' if made.assumed else ''}:")
            typer.echo(study_text(passes, len(made.seeds)))
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
