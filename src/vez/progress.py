"""Events made visible: a live bar for a person at a terminal, a plain line now and then for a log file.

Both only iterate what the stage yields; a stage knows nothing of either.
"""

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vez.events import Done, Event, Item, Note, Sampled, Saved, Stage, Step, Validated
from vez.plan import span

MANY = 200  # items from which on a log file hears of them before the stage is done
LINES_PER_RUN = 20  # a log file gets about so many lines of steps per run, however long the run is


def show(events: Iterable[Event], *, console: Console) -> Done | None:
    """Iterate a stage to its end, showing it on the console; returns its last Done (None if there was none)."""
    last: Done | None = None
    for event in _bars(events, console) if console.is_terminal else _lines(events, console):
        if isinstance(event, Done):
            last = event
    return last


def plain(event: Event) -> str | None:
    """One line of text for an event, or None where the event is not worth a line of a log."""
    match event:
        case Stage(name=name, total=total, detail=detail):
            return f"{name}{f' ({total})' if total is not None else ''}{f': {detail}' if detail else ''}"
        case Item(name=name, done=done, of=of) if of and of >= MANY and done % (of // 5) == 0:
            return f"  {name} {done}/{of}"
        case Step(step=step, of=of) if step == of or step == 1 or step % max(1, of // LINES_PER_RUN) == 0:
            left = (of - step) * event.seconds
            return (
                f"  {event.run} step {step}/{of} loss {event.loss:.4f} · {event.seconds:.2f} s/step · {span(left)} left"
            )
        case Validated(run=run, step=step, loss=loss, split=split):
            return f"  {run} step {step} fixed-noise loss of {split.replace('_', '-')} pictures {loss:.4f}"
        case Saved(run=run, step=step, path=path):
            return f"  {run} step {step} saved {path.name}"
        case Note(text=text):
            return f"  {text}"
        case _:
            return None


def _lines(events: Iterable[Event], console: Console) -> Iterator[Event]:
    drawn = 0
    for event in events:
        text = plain(event)
        if isinstance(event, Stage):
            drawn = 0
        if isinstance(event, Sampled):
            drawn += 1
            text = f"  {drawn} images, last {event.arm}/{event.path.name}" if drawn % 50 == 0 else None
        if text is not None:
            console.print(text, markup=False, highlight=False, soft_wrap=True)
        yield event


def _bars(events: Iterable[Event], console: Console) -> Iterator[Event]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task: TaskID | None = None
        for event in events:
            match event:
                case Stage(name=name, total=total, detail=detail):
                    if task is not None:
                        progress.stop_task(task)
                    task = progress.add_task(f"{name} {detail}".strip(), total=total)
                case Step() if task is not None:
                    progress.update(
                        task, completed=event.step, total=event.of, description=f"train · loss {event.loss:.4f}"
                    )
                case Item() if task is not None:
                    progress.update(task, completed=event.done)
                case Sampled() if task is not None:
                    progress.update(task, advance=1, description=f"sample · {event.arm}")
                case Note() | Saved() | Validated():
                    progress.console.print(plain(event) or "", markup=False, highlight=False)
                case _:
                    pass
            yield event
