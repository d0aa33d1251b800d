"""Events of training shown elsewhere too: TensorBoard's event files, Weights & Biases.

A mirror is made of a run's events.jsonl: where a run goes on, what it had told is told again from there to a fresh
file, so that nothing is missing and nothing is in it twice. A mirror that breaks is noted and left; training goes on.
"""

import importlib.util
import io
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL import Image

from vez.errors import MissingExtra
from vez.events import Done, Event, Note, Previewed, Saved, Stage, Step, Validated, read
from vez.store import under_way

Kind = Literal["tensorboard", "wandb"]


class Mirror(Protocol):
    """One run as one of them shows it."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step by name."""

    def picture(self, step: int, name: str, file: Path, caption: str) -> None:
        """A PNG of a step."""

    def close(self) -> None:
        """All is told."""


def check(kinds: Sequence[Kind]) -> None:
    """Raise MissingExtra where a mirror's package is not installed."""
    for kind in kinds:
        if importlib.util.find_spec(kind) is None:
            raise MissingExtra(f'log = ["{kind}"] needs {kind}: pip install "vez[{kind}]"')


def mirrored(events: Iterable[Event], kinds: Sequence[Kind], *, runs: Iterable[Path], folder: Path) -> Iterator[Event]:
    """Hand on the events of a pass, telling its runs' to the mirrors; a mirror that breaks gets a Note, once.

    ``runs`` are the runs' folders, which are called as they are; mirrors' own files go into the study's ``folder``, by
    their kind. The last event of a pass closes them, as does its end by an error.
    """
    if not kinds:
        yield from events
        return
    open_ones: dict[tuple[str, Kind], _Telling] = {}
    try:
        for event in events:
            if isinstance(event, Stage) and event.name == "train":
                for path in runs:
                    run, (partial, id) = path.name, under_way(path) or (None, "")
                    for kind in kinds if partial is not None else ():
                        telling = _Telling(kind, run, path, folder.name, folder, id)
                        open_ones[run, kind] = telling
                        yield from telling.begin(partial or path)
            yield event
            for (run, _), telling in open_ones.items():
                if getattr(event, "run", None) == run:
                    yield from telling.tell(event)
            if isinstance(event, Done):
                for telling in open_ones.values():
                    yield from telling.end()
    finally:
        for telling in open_ones.values():
            list(telling.end())


@dataclass
class _Telling:
    """One run to one mirror, which is None before it is opened and after it was closed or broke."""

    kind: Kind
    run: str
    path: Path
    study: str
    folder: Path
    id: str
    mirror: Mirror | None = None
    at: Path = Path()

    def begin(self, partial: Path) -> Iterator[Event]:
        """Open the mirror, and tell what the run had told before it was cut."""
        self.at = partial
        make = {"tensorboard": _tensorboard, "wandb": _wandb}[self.kind]

        def opened() -> None:
            self.mirror = make(self.folder / self.kind, self.run, self.study, self.id)
            for event in read(partial / "events.jsonl") if (partial / "events.jsonl").is_file() else ():
                _tell(self.mirror, event, self.at)

        yield from self._guarded(opened)

    def tell(self, event: Event) -> Iterator[Event]:
        """One event more."""
        if (mirror := self.mirror) is not None:
            yield from self._guarded(lambda: _tell(mirror, event, self.at))

    def end(self) -> Iterator[Event]:
        """Close it; doing so twice is fine."""
        mirror, self.mirror = self.mirror, None
        if mirror is not None:
            yield from self._guarded(mirror.close)

    def _guarded(self, act: Callable[[], None]) -> Iterator[Event]:
        try:
            act()
        except Exception as error:  # anything at all: W&B's client raises classes of many kinds, by version
            self.mirror = None
            said = str(error).split("\n")[0][:200] or type(error).__name__
            yield Note(f"{self.run} is not told to {self.kind} any more ({said}); training goes on")


def _tell(mirror: Mirror, event: Event, at: Path) -> None:
    match event:
        case Step(step=step, loss=loss, lr_unet=unet, lr_text=text, grad_norm=norm, seconds=seconds, drift=drift):
            values = {"loss": loss, "gradient norm": norm, "rate/unet": unet, "rate/text": text, "seconds": seconds}
            mirror.numbers(step, values | ({} if drift is None else {"drift": drift}))
        case Validated(step=step, loss=loss, bands=bands, split=split):
            each = {f"{split}/band {i}": band for i, band in enumerate(bands, start=1)}
            mirror.numbers(step, {f"{split}/loss": loss, **each})
        case Saved(step=step, norm=norm, change=change):
            known = {"saved/norm": norm, "saved/change": change}
            mirror.numbers(step, {name: value for name, value in known.items() if value is not None})
        case Previewed(step=step, prompt=prompt, path=path):
            mirror.picture(step, f"samples/{path.stem.rpartition('-')[2]}", at / path, prompt)
        case _:
            pass


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class _TensorBoard:
    """Event files as TensorBoard reads them, a run a folder; each event is on the disk before the next step."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.events, self.summaries = event_pb2, summary_pb2
        self.writer: Any = EventFileWriter(str(folder))

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars."""
        self._add(step, [self.summaries.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])

    def picture(self, step: int, name: str, file: Path, caption: str) -> None:
        """An image; the PNG goes in as it is."""
        data = file.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
        made = self.summaries.Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        self._add(step, [self.summaries.Summary.Value(tag=name, image=made)])

    def _add(self, step: int, values: list[Any]) -> None:
        event = self.events.Event(wall_time=time.time(), step=step, summary=self.summaries.Summary(value=values))
        self.writer.add_event(event)
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        self.writer.close()


class _Wandb:
    """A run at W&B, or for later in a folder (WANDB_MODE=offline); steps that it has already are passed over."""

    def __init__(self, folder: Path, run: str, study: str, id: str) -> None:
        import wandb

        self.wandb: Any = wandb
        quiet = wandb.Settings(silent=True, console="off")
        self.run: Any = wandb.init(
            project=f"vez-{study}", name=run, id=id[:16], dir=str(folder), resume="allow", reinit="create_new",
            settings=quiet,
        )  # fmt: skip
        self.known = int(self.run.step)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one row of its history."""
        if step >= self.known:
            self.run.log(dict(values), step=step)

    def picture(self, step: int, name: str, file: Path, caption: str) -> None:
        """A picture with its prompt."""
        if step >= self.known:
            self.run.log({name: self.wandb.Image(str(file), caption=caption)}, step=step)

    def close(self) -> None:
        """The run is finished, or will be gone on with under the same id."""
        self.run.finish()


def _tensorboard(folder: Path, run: str, study: str, id: str) -> Mirror:
    return _TensorBoard(_fresh(folder / run))


def _wandb(folder: Path, run: str, study: str, id: str) -> Mirror:
    folder.mkdir(parents=True, exist_ok=True)
    for cut in folder.glob(f"wandb/offline-run-*-{id[:16]}"):  # it is told whole again
        shutil.rmtree(cut)
    return _Wandb(folder, run, study, id)
