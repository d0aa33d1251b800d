"""The commands of LoRA files: what one is, and another one made of it."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vez.cli.app import app
from vez.errors import LoraFileError


@app.command()
def convert(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="LoRAs in any layout; one model with --minus.")
    ],
    out: Annotated[Path, typer.Argument(help="The .safetensors to write; a new folder with --into.")],
    to: Annotated[Literal["kohya", "diffusers"], typer.Option(help="The layout to write.")] = "kohya",
    dtype: Annotated[
        Literal["fp16", "bf16", "fp32"] | None, typer.Option(help="Precision; absent: as it was, fp16 with --minus.")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="The largest rank a module may have; larger ones by SVD.")] = None,
    energy: Annotated[
        float | None, typer.Option(help="The share of squared singular values to keep, by module: 0.98.")
    ] = None,
    sv_ratio: Annotated[
        float | None, typer.Option(help="Drop singular values below the largest divided by this.")
    ] = None,
    weight: Annotated[
        list[float] | None, typer.Option(help="One for each FILE, in their order; absent: 1 each.")
    ] = None,
    into: Annotated[str | None, typer.Option(metavar="BASE", help="Add to this base, and write the base.")] = None,
    minus: Annotated[
        str | None, typer.Option(metavar="BASE", help="FILE is a model: write a LoRA of how it differs from this base.")
    ] = None,
    strip: Annotated[bool, typer.Option("--strip", help="Keep of the metadata only what loading needs.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it is a file that exists.")] = False,
) -> None:
    """Rewrite LoRAs: another layout, precision, rank; several in one; into a base, or out of the difference of two."""
    from vez.files import convert as conversion
    from vez.files.operations import Keep

    wanted = conversion.Wanted(to, dtype, Keep(rank, energy, sv_ratio), strip, force)
    if into is not None:
        if minus is not None or wanted != conversion.Wanted(force=force):
            raise LoraFileError("--into writes a base, in its own layout and precision; give it --weight and no others")
        said = conversion.into(files, into, out, weights=weight or ())
    elif minus is not None:
        if len(files) != 1 or weight:
            raise LoraFileError("--minus takes one model and no --weight: vez convert MODEL OUT --minus BASE --rank 32")
        said = conversion.extract(str(files[0]), minus, out, wanted)
    else:
        said = conversion.convert(files, out, wanted, weights=weight or ())
    typer.echo(said)


@app.command("show")
def show_(
    file: Annotated[Path, typer.Argument(help="A LoRA in any layout.")],
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON, for a program: every module, all metadata.")
    ] = False,
) -> None:
    """Say what a LoRA file is: family, layout, ranks, alphas, what it adds where, and its metadata."""
    from vez.files import describe
    from vez.files.reading import read

    lora = read(file)
    typer.echo(describe.as_json(file, lora) if json else describe.as_text(file, lora))
