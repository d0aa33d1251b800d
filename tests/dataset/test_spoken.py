import json
import os
import signal
import subprocess
import sys
import tracemalloc
import unicodedata
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import vez.demo
from vez.dataset import spoken
from vez.dataset.rows import Row
from vez.errors import DataError, StoreError
from vez.events import Event, Item, Note
from vez.images.captioners import digest, identity_of, load
from vez.images.pixels import pixels_sha256

IDENTITY = {"source": "the mean colour"}


class Colours:
    """A captioner that says the mean colour; it counts what it is asked, and can fail at a picture."""

    identity = digest(IDENTITY)

    def __init__(self, *, fails_at: int = -1) -> None:
        self.asked: list[int] = []
        self.fails_at = fails_at

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        if 0 <= self.fails_at <= sum(self.asked):
            raise KeyboardInterrupt
        self.asked.append(len(images))
        return [" {}\n{} {}".format(*np.asarray(image).mean((0, 1)).astype(int)) for image in images]


def pictures(folder: Path, count: int, side: int = 8) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    made = {}
    for i in range(count):
        image = Image.new("RGB", (side, side), (i % 256, i // 256, 7))
        image.save(folder / f"{i}.png")
        made[pixels_sha256(image)] = folder / f"{i}.png"
    return made


def run(events: Generator[Event, None, dict[str, str]]) -> tuple[dict[str, str], list[Event]]:
    seen: list[Event] = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as stop:
            return stop.value, seen


def test_every_picture_is_captioned_in_order_and_in_one_line(tmp_path: Path) -> None:
    made, colours = pictures(tmp_path / "in", 5), Colours()
    said, seen = run(spoken.say(made, captioner=lambda: colours, at_once=2))
    assert list(said) == list(made) and list(said.values()) == [f"{i} 0 7" for i in range(5)]
    assert colours.asked == [2, 2, 1]
    assert seen == [Item(f"{i}.png", i + 1, 5) for i in range(5)]
    assert list(tmp_path.iterdir()) == [tmp_path / "in"]


def test_no_picture_is_captioned_twice(tmp_path: Path) -> None:
    made, cache, first = pictures(tmp_path / "in", 4), tmp_path / "captions", Colours()
    some = dict(list(made.items())[:3])
    before, _ = run(spoken.say(some, captioner=lambda: first, identity=IDENTITY, cache=cache))
    second = Colours()
    said, seen = run(spoken.say(made, captioner=lambda: second, identity=IDENTITY, cache=cache))
    assert second.asked == [1] and list(said) == list(made) and {k: said[k] for k in some} == before
    assert seen == [Note("3 of 4 pictures were captioned before"), Item("3.png", 4, 4)]

    def never() -> Colours:
        raise AssertionError("a captioner was loaded for nothing")

    assert run(spoken.say(made, captioner=never, identity=IDENTITY, cache=cache))[0] == said
    assert run(spoken.say({}, captioner=never))[0] == {}


def test_another_captioner_has_another_file(tmp_path: Path) -> None:
    made, cache = pictures(tmp_path / "in", 1), tmp_path / "captions"
    for source in ("one", "two"):
        colours = Colours()
        run(spoken.say(made, captioner=lambda c=colours: c, identity={"source": source}, cache=cache))
        assert colours.asked == [1]
    names = {f"{digest({'source': source})[:16]}.jsonl" for source in ("one", "two")}
    assert {path.name for path in cache.iterdir()} == names
    with pytest.raises(ValueError, match="identity"):
        run(spoken.say(made, captioner=Colours, cache=cache))


def test_asked_again_the_new_words_count_and_hand_captions_are_not_touched(tmp_path: Path) -> None:
    made, cache = pictures(tmp_path / "in", 2), tmp_path / "captions"
    hand = tmp_path / "in" / "0.txt"
    hand.write_text("by hand")

    class Other(Colours):
        def caption(self, images: Sequence[Image.Image]) -> list[str]:
            return ["other"] * len(images)

    run(spoken.say(made, captioner=Colours, identity=IDENTITY, cache=cache))
    run(spoken.say(made, captioner=Other, identity=IDENTITY, cache=cache, again=True))
    said, _ = run(spoken.say(made, captioner=Colours, identity=IDENTITY, cache=cache))
    assert set(said.values()) == {"other"} and hand.read_text() == "by hand"


def test_what_was_said_before_a_stop_is_kept(tmp_path: Path) -> None:
    made, cache = pictures(tmp_path / "in", 7), tmp_path / "captions"
    with pytest.raises(KeyboardInterrupt):
        run(spoken.say(made, captioner=lambda: Colours(fails_at=4), identity=IDENTITY, cache=cache, at_once=2))
    after = Colours()
    said, _ = run(spoken.say(made, captioner=lambda: after, identity=IDENTITY, cache=cache, at_once=2))
    assert sum(after.asked) == 3 and list(said.values()) == [f"{i} 0 7" for i in range(7)]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_spoken import IDENTITY, Colours, pictures
from vez.dataset import spoken
made = pictures(Path({folder!r}) / "in", 6)
for n, _ in enumerate(spoken.say(made, captioner=Colours, identity=IDENTITY, cache=Path({folder!r}) / "captions",
                                 at_once=2)):
    if n == 2: os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_nothing_that_it_told(tmp_path: Path) -> None:
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    after = Colours()
    made = pictures(tmp_path / "in", 6)
    run(spoken.say(made, captioner=lambda: after, identity=IDENTITY, cache=tmp_path / "captions"))
    assert sum(after.asked) == 2


def test_a_torn_line_and_lines_that_are_none_are_captioned_anew(tmp_path: Path) -> None:
    made, cache = pictures(tmp_path / "in", 3), tmp_path / "captions"
    first, _ = run(spoken.say(made, captioner=Colours, identity=IDENTITY, cache=cache))
    (file,) = cache.iterdir()
    for cut in (file.read_bytes()[:-1], file.read_bytes()[:-9], file.read_bytes()[:-120]):
        file.write_bytes(b'\n[]\n{"sha256": 1}\n\xff\xfe\n' + cut)
        after = Colours()
        said, _ = run(spoken.say(made, captioner=lambda c=after: c, identity=IDENTITY, cache=cache))
        assert said == first and sum(after.asked) <= 2
        again = Colours()
        run(spoken.say(made, captioner=lambda c=again: c, identity=IDENTITY, cache=cache))
        assert again.asked == []


@given(st.text())
def test_any_words_survive_the_cache(tmp_path_factory: pytest.TempPathFactory, words: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    made = {"0" * 64: folder / "0.png"}
    Image.new("RGB", (2, 2)).save(folder / "0.png")

    class Fixed(Colours):
        def caption(self, images: Sequence[Image.Image]) -> list[str]:
            return [words + "\ud800"]

    said, _ = run(spoken.say(made, captioner=Fixed, identity=IDENTITY, cache=folder / "c"))
    again, _ = run(spoken.say(made, captioner=Fixed, identity=IDENTITY, cache=folder / "c"))
    assert said == again == {"0" * 64: " ".join(f"{words}?".split())}
    lines = next((folder / "c").iterdir()).read_text().splitlines()
    assert [json.loads(line)["caption"] for line in lines] == list(said.values())


def test_no_more_than_a_batch_of_pictures_is_in_memory(tmp_path: Path) -> None:
    """24 pictures of 0.75 MB: all at once would be 18 MB, a batch of two is 1.5 MB."""
    made = pictures(tmp_path / "in", 24, side=512)

    class Quiet(Colours):
        def caption(self, images: Sequence[Image.Image]) -> list[str]:
            self.alive = max(getattr(self, "alive", 0), sum(len(image.tobytes()) for image in images))
            held.append(tracemalloc.get_traced_memory()[0])
            return ["x"] * len(images)

    held: list[int] = []
    quiet = Quiet()
    tracemalloc.start()
    try:
        run(spoken.say(made, captioner=lambda: quiet, at_once=2))
    finally:
        tracemalloc.stop()
    assert quiet.alive == 2 * 512 * 512 * 3 and len(held) == 12 and max(held) - held[0] < 1_000_000


def test_what_goes_wrong_is_one_clear_error(tmp_path: Path) -> None:
    made = pictures(tmp_path / "in", 2)

    class Short(Colours):
        def caption(self, images: Sequence[Image.Image]) -> list[str]:
            return ["x"]

    with pytest.raises(DataError, match="1 captions for 2 pictures"):
        run(spoken.say(made, captioner=Short))
    (tmp_path / "captions").write_text("a file in the way")
    with pytest.raises(StoreError, match="the captions"):
        run(spoken.say(made, captioner=Colours, identity=IDENTITY, cache=tmp_path / "captions"))
    (tmp_path / "in" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be opened to be captioned"):
        run(spoken.say(made, captioner=Colours))


def test_the_captioner_in_the_package_speaks_through_the_cache(tmp_path: Path) -> None:
    files = sorted((Path(vez.demo.__file__).parent / "project").rglob("*.jpg"))[:3]
    made = {}
    for i, file in enumerate(files):
        with Image.open(file) as image:
            image.convert("RGB").resize((64, 64)).save(tmp_path / f"{i}.png")
            made[pixels_sha256(image.convert("RGB"))] = tmp_path / f"{i}.png"
    identity = identity_of("blip", base="tiny", root=tmp_path)
    blip = load("blip", base="tiny", root=tmp_path)
    said, _ = run(spoken.say(made, captioner=lambda: blip, identity=identity, cache=tmp_path / "captions"))
    assert len(said) == len(files) and all(said.values())
    assert os.listdir(tmp_path / "captions") == [f"{blip.identity[:16]}.jsonl"]


def row(file: str, machine: str | None, caption: str, *, hand: bool = False) -> Row:
    return Row(file, "", "1.jpg", "", machine, caption, hand, "train")


def test_changes_are_shown_for_every_picture_with_a_count() -> None:
    rows = [
        row("images/1.png", "a folk costume", "nosnjaoutfit, a nosnjaoutfit"),
        row("images/2.png", "a girl", "a girl"),
        row("images/3.png", None, "nosnjaoutfit, seated", hand=True),
        row("images/4.png", "a girl", "nosnjaoutfit, a girl seated", hand=True),
    ]
    assert spoken.caption_changes(rows) == (
        "images/1.png\n"
        "  said:    a folk costume\n"
        "  trained: {+nosnjaoutfit,+} a [-folk costume-] {+nosnjaoutfit+}\n\n"
        "images/2.png\n  said:    a girl\n  trained: a girl\n\n"
        "images/3.png   (by hand)\n  said:    –\n  trained: nosnjaoutfit, seated\n\n"
        "images/4.png   (by hand)\n  said:    a girl\n  trained: {+nosnjaoutfit,+} a girl {+seated+}\n\n"
        "4 captions: 1 by the rules, 1 as said, 2 by hand; 2 to 4 words, half of them up to 2"
    )
    assert spoken.caption_changes([]) == "0 captions"


@given(st.text(), st.one_of(st.none(), st.text()), st.text())
def test_no_caption_can_write_on_the_terminal(file: str, machine: str | None, caption: str) -> None:
    shown = spoken.caption_changes([row(f"{file}\x1b[2J", machine, f"{caption}\u202e\x07")])
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown.replace("\n", ""))
    assert shown.count("\n") == 4
