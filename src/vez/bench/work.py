"""A workload and what was measured of it. Imports no torch: the work is done by a process of its own."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, get_args

from vez.config import Checkpointing, Config, Precision, Quantize, Variant
from vez.errors import ConfigError, TrainError
from vez.family import family_of
from vez.plan import Pass, span
from vez.room import Sizes
from vez.shape import LoraSpec, spec_of

SHAPES = ("tiny", "sd1", "sd2", "sdxl")
DTYPES = get_args(Precision)
LARGEST_SIDE = 2048
SHAPE = {"rank", "alpha", "rslora", "conv_rank", "conv_alpha", "resnets", "blocks", "lr_unet", "lr_text", "lr_text2"}
_GB = 1e9


@dataclass(frozen=True)
class Workload:
    """One training step: ``size`` is the pictures' side in pixels, ``ranks`` has one rank per variant.

    ``shapes``: those settings of each variant that shape its LoRA (`SHAPE`); absent: its rank, on both networks.
    """

    base: str = "sd1"
    size: int = 512
    batch: int = 1
    ranks: tuple[int, ...] = (32,)
    dtype: str = "bf16"
    device: str = "auto"
    steps: int = 10
    checkpointing: Checkpointing = "none"
    shapes: tuple[Mapping[str, Any], ...] = ()
    compile: bool = False
    quantize: Quantize = "none"

    @property
    def specs(self) -> tuple[LoraSpec, ...]:
        """The shapes of its LoRAs."""
        if not self.shapes:
            return tuple(LoraSpec(rank, rank) for rank in self.ranks)
        return tuple(spec_of(Variant(dataset="any", **shape)) for shape in self.shapes)

    def check(self) -> None:
        """Raise ConfigError for a workload that cannot be."""
        if self.base not in SHAPES:
            raise ConfigError(f"there is no shape {self.base!r} to measure; take {', '.join(SHAPES)}")
        if self.dtype not in DTYPES:
            raise ConfigError(f"the dtype cannot be {self.dtype!r}; take fp32, bf16 or fp16")
        if self.checkpointing not in get_args(Checkpointing):
            known = ", ".join(get_args(Checkpointing))
            raise ConfigError(f"the checkpointing cannot be {self.checkpointing!r}; take {known}")
        if not 64 <= self.size <= LARGEST_SIDE or self.size % 64:
            raise ConfigError(f"the size cannot be {self.size}; take a multiple of 64 from 64 to {LARGEST_SIDE}")
        numbers = {"batch": self.batch, "number of variants": len(self.ranks), "steps": self.steps}
        for what, value in (*numbers.items(), *(("rank", rank) for rank in self.ranks)):
            if value < 1:
                raise ConfigError(f"the {what} cannot be {value}; take 1 or more")


@dataclass(frozen=True)
class Measured:
    """A workload's numbers.

    ``seconds`` of each step after the warm-up; ``peak_bytes``: of the whole process on a CPU, of torch's allocations on
    a GPU; ``flops`` and ``operators`` of one step; ``matrix_rate``: FLOP/s of a matrix product in the same dtype.
    """

    work: Workload
    machine: str
    seconds: tuple[float, ...]
    peak_bytes: int
    flops: int
    operators: int
    matrix_rate: float

    @property
    def step_seconds(self) -> float:
        """Median seconds per step."""
        return median(self.seconds)

    @property
    def samples_per_second(self) -> float:
        """Samples per second, each variant's counted."""
        return self.work.batch * len(self.work.ranks) / self.step_seconds

    @property
    def share(self) -> float:
        """Share of the machine's matrix rate that a step reaches, 0 to 1."""
        return self.flops / self.step_seconds / self.matrix_rate

    def as_json(self) -> dict[str, Any]:
        """Everything, the derived numbers too, as JSON values."""
        derived = {"step_seconds": self.step_seconds, "samples_per_second": self.samples_per_second}
        return asdict(self) | derived | {"matrix_rate_share": self.share}

    def text(self) -> str:
        """The numbers as a person reads them."""
        work, ms = self.work, [1e3 * s for s in self.seconds]
        again = "" if work.checkpointing == "none" else f", checkpointing {work.checkpointing}"
        again += ", compiled" if work.compile else ""
        again += "" if work.quantize == "none" else f", weights kept as {work.quantize}"
        own = ", with the convolutions, blocks and networks of vez.toml" if work.shapes else ""
        variants = f"{len(work.ranks)} variants" if len(work.ranks) > 1 else "1 variant"
        return "\n".join(
            [
                f"{work.base}, {work.size} px, batch {work.batch}, {variants} of rank "
                f"{', '.join(str(rank) for rank in dict.fromkeys(work.ranks))}{own}, {work.dtype}{again}",
                f"  on {self.machine}",
                f"  {median(ms):.1f} ms/step (median of {len(ms)}; {min(ms):.1f} to {max(ms):.1f})",
                f"  {self.samples_per_second:.3g} samples/s",
                f"  {self.peak_bytes / _GB:.2f} GB at the peak",
                f"  {self.flops / 1e9:.1f} GFLOP and {self.operators} operators per step",
                f"  {100 * self.share:.0f} % of the machine's matrix rate, {self.matrix_rate / 1e9:.0f} GFLOP/s",
            ]
        )


def measured(work: Workload) -> Measured:
    """Do the workload in a process of its own, whose peak memory is its own. Raises ConfigError, TrainError."""
    work.check()
    result = subprocess.run(
        [sys.executable, "-m", "vez.bench.step", json.dumps(asdict(work))], capture_output=True, text=True, check=False
    )
    lines = result.stdout.splitlines()
    if result.returncode != 0 or not lines:
        said = result.stderr.strip().splitlines()
        why = said[-1] if said else f"it ended with {result.returncode}"
        killed = "; it was killed, as for lack of memory: take a smaller batch" if result.returncode < 0 else ""
        raise TrainError(f"the step could not be measured ({why}){killed}")
    return read(json.loads(lines[-1]))


def read(row: Mapping[str, Any]) -> Measured:
    """What the child process wrote."""
    work = workload(row["work"])
    return Measured(**(dict(row) | {"work": work, "seconds": tuple(row["seconds"])}))


def workload(row: Mapping[str, Any]) -> Workload:
    """A workload that was JSON."""
    lists = {"ranks": tuple(row["ranks"]), "shapes": tuple(row.get("shapes", ()))}
    return Workload(**(dict(row) | lists))


def work_of(config: Config, study: str, one: Pass, *, sizes: Sizes, device: str, steps: int) -> Workload:
    """The step of one pass of a study. Raises ConfigError for a base of no published shape."""
    family = family_of(sizes.unet, list(sizes.texts), sizes.layout).name if not sizes.assumed else "sd1"
    if (family == "tiny" and config.project.base != "tiny") or family not in SHAPES:
        raise ConfigError(f"the base {config.project.base} has sizes of its own, which vez bench has no weights for")
    variants = config.study[study].variant
    shapes = [variants[name].model_dump(mode="json", include=SHAPE) for name in one.variants]
    plain = all(spec_of(variants[name]) == _as_rank(variants[name]) for name in one.variants)
    return Workload(
        base=family,
        size=config.dataset[one.dataset].resolution,
        batch=variants[one.variants[0]].batch,
        ranks=tuple(variants[name].rank for name in one.variants),
        dtype=config.study[study].precision,
        device=device,
        steps=steps,
        checkpointing=config.study[study].checkpointing,
        shapes=() if plain else tuple(shapes),
        compile=config.study[study].compile,
        quantize=config.study[study].quantize,
    )


def _as_rank(variant: Variant) -> LoraSpec:
    """The shape of a variant that says a rank and nothing else of it."""
    return LoraSpec(variant.rank, variant.scale_alpha, root=variant.rslora)


def study_seconds(passes: Sequence[tuple[Pass, Measured]], seeds: int) -> list[float]:
    """Seconds that each pass trains at the measured pace, all seeds; a step may be several batches (accumulate)."""
    return [one.steps * seeds * took.step_seconds * one.batch / took.work.batch for one, took in passes]


def study_text(passes: Sequence[tuple[Pass, Measured]], seeds: int) -> str:
    """How long a study's training would take at the measured pace."""
    seconds = study_seconds(passes, seeds)
    lines = []
    for (one, took), total in zip(passes, seconds, strict=True):
        pace = f"{one.steps} steps × {seeds} × {1e3 * took.step_seconds * one.batch / took.work.batch:.0f} ms"
        lines.append(f"  {', '.join(one.variants)}: {pace} = {span(total)}")
    return "\n".join([*lines, f"  training takes about {span(sum(seconds))} in all"])
