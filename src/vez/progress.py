"""Events made visible: a live bar for a person at a terminal, a plain line now and then for a log file.

Both only iterate what the stage yields; a stage knows nothing of either.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from vez.events import Done, Event, Item, Note, Previewed, Sampled, Saved, Stage, Step, Validated
from vez.plan import span

MANY = 200  # items from which on a log file hears of them before the stage is done
LINES_PER_RUN = 20  # a log file gets about so many lines of steps per run, however long the run is
REMEMBERED = 32  # advances that the time left is judged by: a stage may grow slower, as when others use the machine


class Clock:
    """The time left of a stage, by the clock on the wall: all that happens between two steps counts as well.

    What lay there already when the stage began (a run that goes on) is no measure of its speed and is not counted.
    """

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self.stage = Stage("")
        self.done = 0
        self._seen: deque[tuple[float, int]] = deque(maxlen=REMEMBERED)

    def see(self, event: Event) -> None:
        """Take note of an event: a stage that begins, or how far it is."""
        match event:
            case Stage():
                self.stage, self.done = event, 0
                self._seen.clear()
                if event.name != "train":  # of a run it is not known yet where it goes on
                    self._seen.append((self._now(), 0))
            case Step(step=done) | Item(done=done) if done > self.done:
                self._advance(done)
            case Sampled(seconds=seconds) if seconds:
                self._advance(self.done + 1)
            case Sampled():  # it was there already: more is done, and nothing is known of the speed
                self.done += 1
                self._seen = deque(((at, done + 1) for at, done in self._seen), maxlen=REMEMBERED)

    def _advance(self, done: int) -> None:
        self.done = done
        self._seen.append((self._now(), done))

    @property
    def left(self) -> float | None:
        """Seconds until the stage's last item; None where it cannot be said yet."""
        if self.stage.total is None or len(self._seen) < 2:
            return None
        (began, first), (now, last) = self._seen[0], self._seen[-1]
        return (now - began) / (last - first) * max(0, self.stage.total - last)


def show(events: Iterable[Event], *, console: Console) -> Done | None:
    """Iterate a stage to its end, showing it on the console; returns its last Done (None if there was none)."""
    last: Done | None = None
    for event in _bars(events, console) if console.is_terminal else _lines(events, console):
        if isinstance(event, Done):
            last = event
    return last


def plain(event: Event, left: float | None = None) -> str | None:
    """One line of text for an event, or None where the event is not worth a line of a log.

    ``left``: seconds until the stage's end, where they are known.
    """
    ends = "" if left is None else f" · {span(left)} left"
    match event:
        case Stage(name=name, total=total, detail=detail):
            return f"{name}{f' ({total})' if total is not None else ''}{f': {detail}' if detail else ''}"
        case Item(name=name, done=done, of=of) if of and of >= MANY and done % (of // 5) == 0:
            return f"  {name} {done}/{of}{ends}"
        case Step(step=step, of=of) if step == of or step == 1 or step % max(1, of // LINES_PER_RUN) == 0:
            ends = ends or f" · {span((of - step) * event.seconds)} left"
            return f"  {event.run} step {step}/{of} loss {event.loss:.4f} · {event.seconds:.2f} s/step{ends}"
        case Validated(run=run, step=step, loss=loss, split=split):
            return f"  {run} step {step} fixed-noise loss of {split.replace('_', '-')} pictures {loss:.4f}"
        case Saved(run=run, step=step, path=path):
            return f"  {run} step {step} saved {path.name}"
        case Previewed(run=run, step=step, path=path):
            return f"  {run} step {step} drew {path.name}"
        case Note(text=text):
            return f"  {text}"
        case _:
            return None


def _lines(events: Iterable[Event], console: Console) -> Iterator[Event]:
    clock = Clock()
    for event in events:
        clock.see(event)
        text = plain(event, clock.left)
        if isinstance(event, Sampled) and clock.done % 50 == 0:
            ends = "" if clock.left is None else f" · {span(clock.left)} left"
            text = f"  {clock.done} images, last {event.arm}/{event.path.name}{ends}"
        if text is not None:
            console.print(text, markup=False, highlight=False, soft_wrap=True)
        yield event


def _bars(events: Iterable[Event], console: Console) -> Iterator[Event]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    clock = Clock()
    with Progress(*columns, console=console) as progress:
        task: TaskID | None = None
        for event in events:
            clock.see(event)
            match event:
                case Stage(name=name, total=total, detail=detail):
                    if task is not None:
                        progress.stop_task(task)
                    task = progress.add_task(f"{name} {detail}".strip(), total=total, left="")
                case Step() if task is not None:
                    progress.update(
                        task, completed=event.step, total=event.of, description=f"train · loss {event.loss:.4f}"
                    )
                case Item() if task is not None:
                    progress.update(task, completed=event.done)
                case Sampled() if task is not None:
                    progress.update(task, advance=1, description=f"sample · {event.arm}")
                case Note() | Saved() | Validated() | Previewed():
                    progress.console.print(plain(event) or "", markup=False, highlight=False)
                case _:
                    pass
            if task is not None:
                progress.update(task, left="" if clock.left is None else f"{span(clock.left)} left")
            yield event
