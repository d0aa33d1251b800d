"""The whole stage, from a source on a local server to the folder on disk."""

import dataclasses
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from local_server import Local, Time, in_turn, picture, says, tells, web
from PIL import Image

from vez.collect import collect
from vez.collect.fetch import ServerBusy
from vez.collect.journal import FILE, Journal
from vez.collect.sources import Apis
from vez.config import Collect
from vez.errors import ConfigError, DataError, StoreError
from vez.events import Done, Item, Note, Stage
from vez.images import provenance

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]

SETTINGS = Collect(contact="test@example.org", hosts=("127.0.0.1",), pause=0)
NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def run(source: object, into: Path, *, turned: Time | None = None, local: Local | None = None, **given: Any) -> Any:
    """All events of a collection whose pauses take no time."""
    settings = given.pop("settings", SETTINGS)
    apis = Apis(local.url("/w/api.php"), local.url("/v1/images/")) if local else None
    with web(turned, pause=settings.pause, most_bytes=settings.most_bytes) as client:
        return list(collect(str(source), into, settings=settings, web=client, apis=apis, now=lambda: NOW, **given))


def notes(events: list[object]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note)]


def pictures(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".") and p.name != provenance.FILE)


def listed(tmp_path: Path, local: Local, *paths: str) -> Path:
    path = tmp_path / "list.txt"
    path.write_text("".join(local.url(p) + "\n" for p in paths), encoding="utf-8")
    return path


def serve(local: Local, count: int) -> list[str]:
    for number in range(count):
        local.routes[f"/p/{number}.png"] = says(200, picture(number))
    return [f"/p/{number}.png" for number in range(count)]


def commons_page(local: Local, number: int, licence: str = "cc-by-4.0", mime: str = "image/jpeg") -> dict[str, Any]:
    told = {"License": {"value": licence}, "Artist": {"value": "<b>Ana</b>"}}
    info = {
        "url": local.url(f"/files/{number}.jpg"),
        "descriptionurl": f"https://commons.wikimedia.org/wiki/File:{number}.jpg",
        "mime": mime,
        "width": 24,
        "height": 16,
        "extmetadata": told,
    }
    return {"pageid": number, "ns": 6, "title": f"File:Kolo {number}.jpg", "imageinfo": [info]}


def commons(local: Local, *pages: dict[str, Any]) -> None:
    local.routes["/w/api.php"] = tells({"batchcomplete": True, "query": {"pages": list(pages)}})


def with_place() -> bytes:
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (44.0, 49.0, 0.0), 3: "E", 4: (20.0, 27.0, 0.0)}
    file = io.BytesIO()
    Image.new("RGB", (24, 16), "red").save(file, "JPEG", exif=exif)
    return file.getvalue()


# the way through


def test_a_category_of_commons_becomes_a_folder_with_records(local: Local, tmp_path: Path) -> None:
    commons(local, *(commons_page(local, n) for n in (1, 2)), commons_page(local, 3, mime="application/pdf"))
    placed = with_place()
    local.routes["/files/1.jpg"] = says(200, placed, Content_Type="text/html")
    local.routes["/files/2.jpg"] = says(200, picture(2, "PNG"), Content_Type="image/jpeg")
    events = run("commons:category:Kolo", tmp_path / "in", local=local)
    assert events[0] == Stage("collect", None, "commons:category:Kolo")
    assert [e for e in events if isinstance(e, Item)] == [Item("collect", 1), Item("collect", 2)]
    assert pictures(tmp_path / "in") == ["Kolo_1.jpg", "Kolo_2.png"], "the suffix is that of the bytes"
    records = provenance.read(tmp_path / "in")
    record = records["Kolo_1.jpg"]
    stored = (tmp_path / "in" / "Kolo_1.jpg").read_bytes()
    assert record.original_sha256 == hashlib.sha256(placed).hexdigest()
    assert record.sha256 == hashlib.sha256(stored).hexdigest() != record.original_sha256
    assert not Image.open(io.BytesIO(stored)).getexif().get_ifd(0x8825), "no place is written"
    assert (record.author, record.licence, record.origin) == ("Ana", "CC-BY-4.0", "commons")
    assert record.retrieved == "2026-11-01T12:00:00+00:00"
    assert records["Kolo_2.png"].sha256 == records["Kolo_2.png"].original_sha256
    digest = hashlib.sha256((tmp_path / "in" / provenance.FILE).read_bytes()).hexdigest()
    assert events[-1] == Done(tmp_path / "in", digest)
    assert any("application/pdf" in note for note in notes(events))
    assert notes(events)[-1].startswith("taken: 2, refused: 1;")


def test_a_search_of_openverse(local: Local, tmp_path: Path) -> None:
    row = {"id": "a", "title": "A/../dance", "url": local.url("/p/0.png"), "license": "by", "license_version": "2.0"}
    other = {"id": "b", "title": "B", "url": local.url("/p/1.png"), "license": "by-nd", "license_version": "2.0"}
    local.routes["/v1/images/"] = tells({"page_count": 1, "results": [row, other]})
    serve(local, 2)
    events = run("openverse:dance", tmp_path / "in", local=local)
    assert pictures(tmp_path / "in") == ["dance.png"]
    assert any("CC-BY-ND-2.0 is not among" in note and "derivative" in note for note in notes(events))
    assert "/p/1.png" not in local.asked, "what may not be used is not fetched"


def test_side_and_limit_reach_the_server(local: Local, tmp_path: Path) -> None:
    commons(local, *(commons_page(local, n) for n in range(5)))
    for number in range(5):
        local.routes[f"/files/{number}.jpg"] = says(200, picture(number))
    run("commons:kolo", tmp_path / "in", local=local, side=512, limit=2)
    assert "iiurlwidth=1280" in local.asked[0]
    assert local.asked[1:] == ["/files/0.jpg", "/files/1.jpg"]
    assert len(pictures(tmp_path / "in")) == 2


def test_a_folder_and_an_archive(tmp_path: Path) -> None:
    import zipfile

    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
    (tmp_path / "one" / "a.png").write_bytes(picture(1))
    (tmp_path / "one" / "sub" / "a.png").write_bytes(picture(2))
    (tmp_path / "one" / "notes.txt").write_text("no picture")
    (tmp_path / "two" / "a.png").write_bytes(picture(3))
    with zipfile.ZipFile(tmp_path / "heap.zip", "w") as heap:
        heap.writestr("x/a.png", picture(4))
        heap.writestr("x/b.png", picture(1))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for source in ("one", "two", "heap.zip", "one", "heap.zip"):
        run(tmp_path / source, tmp_path / "in")
    assert pictures(tmp_path / "in") == ["a.png", "a_2.png", "a_3.png", "a_4.png"]
    assert {r.origin for r in provenance.read(tmp_path / "in").values()} == {"folder", "archive"}
    assert {p: p.read_bytes() for p in before} == before, "what is read is not changed"
    assert str(tmp_path) not in (tmp_path / "in" / FILE).read_text(), "no path of this machine is written down"


def test_a_file_that_is_too_large_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "a.png").write_bytes(picture(1) + b"x" * 5000)
    settings = SETTINGS.model_copy(update={"most_bytes": 5000})
    events = run(tmp_path / "from", tmp_path / "in", settings=settings)
    assert any("bytes" in note and "5,000" in note for note in notes(events))
    run(tmp_path / "from", tmp_path / "in")
    assert pictures(tmp_path / "in") == ["a.png"], "what is at hand is looked at again when more is allowed"


@pytest.mark.parametrize(
    "source", ["nowhere", "nowhere.zip", "nowhere.csv", "flickr:cats", "https://example.org/a.jpg", "", "a.exe"]
)
def test_what_is_no_source(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.exe").write_bytes(b"MZ")
    if not source:
        (tmp_path / "in").mkdir()
        return
    with pytest.raises(ConfigError, match=r"a folder, an archive .*commons:category:NAME, commons:WORDS"):
        run(source, tmp_path / "in")
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("source", ["commons:", "commons:category:", "openverse: "])
def test_a_search_for_nothing(tmp_path: Path, source: str) -> None:
    with pytest.raises(ConfigError, match="needs words"):
        run(source, tmp_path / "in")


@pytest.mark.parametrize("source", ["commons:kolo", "commons:category:Kolo", "openverse:kolo"])
def test_commons_and_openverse_need_a_contact(local: Local, tmp_path: Path, source: str) -> None:
    with pytest.raises(ConfigError, match=r"\[collect\] contact"):
        run(source, tmp_path / "in", local=local, settings=Collect(contact=" "))
    assert not local.asked


def test_a_licence_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot name 'gpl'"):
        run(tmp_path, tmp_path / "in", licences=("gpl",))


def test_the_folder_may_not_lie_in_what_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lies in"):
        run(tmp_path, tmp_path / "in")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        run(listed(tmp_path, Local(1), "/a"), tmp_path / "file")


def test_two_at_once(local: Local, tmp_path: Path) -> None:
    source = listed(tmp_path, local, *serve(local, 2))
    first = collect(str(source), tmp_path / "in", settings=SETTINGS)
    next(first)
    with pytest.raises(StoreError, match="another process"):
        run(source, tmp_path / "in")
    first.close()  # type: ignore[attr-defined]
    assert len([e for e in run(source, tmp_path / "in") if isinstance(e, Item)]) == 2


# what is refused


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html>Please log in</html>", "not a picture"),
        (b"", "empty"),
        (picture(1, "JPEG", (200, 200))[:300], "damaged|cut short"),
        (picture(1, "PNG", (200, 200)), "pixels"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 30_000, "bytes"),
    ],
)
def test_what_is_broken_too_large_or_no_picture(local: Local, tmp_path: Path, body: bytes, reason: str) -> None:
    local.routes["/a.jpg"] = says(200, body, Content_Type="image/jpeg")
    serve(local, 1)
    settings = SETTINGS.model_copy(update={"most_pixels": 20_000, "most_bytes": 20_000})
    events = run(listed(tmp_path, local, "/a.jpg", "/p/0.png"), tmp_path / "in", settings=settings)
    (note,) = [n for n in notes(events) if n.startswith("refused")]
    assert any(word in note for word in reason.split("|")), note
    assert local.url("/a.jpg") in note
    assert pictures(tmp_path / "in") == ["0.png"], "the collection goes on, and nothing of the other is written"
    rows = [json.loads(line) for line in (tmp_path / "in" / FILE).read_text().splitlines()]
    assert any(word in rows[0]["refused"] for word in reason.split("|"))


def test_the_same_file_twice(local: Local, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "mine.png").write_bytes(picture(7))
    for path, number in (("/a.png", 1), ("/b.png", 1), ("/c.png", 7), ("/d.png", 2)):
        local.routes[path] = says(200, picture(number))
    events = run(listed(tmp_path, local, "/a.png", "/b.png", "/c.png", "/d.png"), tmp_path / "in")
    assert pictures(tmp_path / "in") == ["a.png", "d.png", "mine.png"]
    assert [n.partition(": ")[2] for n in notes(events)[:2]] == [
        "it is the same file as a.png",
        "it is the same file as mine.png",
    ]


def test_the_same_file_but_for_its_place(local: Local, tmp_path: Path) -> None:
    placed = with_place()
    local.routes["/a.jpg"] = says(200, placed)
    run(listed(tmp_path, local, "/a.jpg"), tmp_path / "in")
    local.routes["/b.jpg"] = says(200, (tmp_path / "in" / "a.jpg").read_bytes())
    local.routes["/c.jpg"] = says(200, placed)
    run(listed(tmp_path, local, "/a.jpg", "/b.jpg", "/c.jpg"), tmp_path / "in")
    assert pictures(tmp_path / "in") == ["a.jpg"]


def test_nothing_is_overwritten_and_captions_stay_with_their_picture(local: Local, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.jpg").write_bytes(b"mine")
    (tmp_path / "in" / "1.txt").write_text("a caption")
    run(listed(tmp_path, local, *serve(local, 2)), tmp_path / "in")
    assert pictures(tmp_path / "in") == ["0.jpg", "0_2.png", "1.txt", "1_2.png"]
    assert (tmp_path / "in" / "0.jpg").read_bytes() == b"mine"


def test_licences_that_are_asked_for_hold_for_every_source(local: Local, tmp_path: Path) -> None:
    serve(local, 3)
    table = tmp_path / "list.csv"
    rows = [f"{local.url(f'/p/{n}.png')},{licence}" for n, licence in enumerate(("CC BY 4.0", "CC BY-NC 4.0", ""))]
    table.write_text("url,licence\n" + "\n".join(rows))
    run(table, tmp_path / "strict", licences=("by",))
    assert pictures(tmp_path / "strict") == ["0.png"]
    run(table, tmp_path / "strict", licences=("by", "by-nc"))
    assert pictures(tmp_path / "strict") == ["0.png", "1.png"], "a licence that is allowed later is looked at again"
    run(table, tmp_path / "loose")
    assert pictures(tmp_path / "loose") == ["0.png", "1.png", "2.png"]


def test_names_and_reasons_cannot_write_on_the_terminal(local: Local, tmp_path: Path) -> None:
    page = commons_page(local, 1, licence="\x1b[31mGFDL\u202e")
    page["imageinfo"][0]["url"] = local.url("/files/\x1b]0;owned\x07.jpg")
    commons(local, page)
    events = run("commons:kolo", tmp_path / "in", local=local)
    assert any("GFDL" in note for note in notes(events))
    assert all(note.isprintable() for note in notes(events))


# going on


def test_a_second_run_asks_for_nothing_that_is_settled(local: Local, tmp_path: Path) -> None:
    local.routes["/html"] = says(200, b"<html>")
    local.routes["/gone.png"] = in_turn(says(404), says(200, picture(9)))
    source = listed(tmp_path, local, *serve(local, 2), "/html", "/gone.png")
    run(source, tmp_path / "in")
    first = len(local.asked)
    journal = (tmp_path / "in" / FILE).read_bytes()
    events = run(source, tmp_path / "in")
    assert local.asked[first:] == ["/gone.png"], "only what may have passed is looked at again"
    assert "2 of them are there already" in notes(events)
    assert pictures(tmp_path / "in") == ["0.png", "1.png", "gone.png"]
    assert (tmp_path / "in" / FILE).read_bytes().startswith(journal)
    last = (tmp_path / "in" / FILE).read_bytes()
    run(source, tmp_path / "in")
    assert (tmp_path / "in" / FILE).read_bytes() == last


def test_what_was_refused_before_and_a_folder_without_a_picture_are_said(local: Local, tmp_path: Path) -> None:
    local.routes["/a.jpg"] = says(200, b"no picture", Content_Type="image/jpeg")
    links = listed(tmp_path, local, "/a.jpg")
    assert notes(run(links, tmp_path / "in", local=local))[-1].startswith("taken: 0, refused: 1;")
    again = notes(run(links, tmp_path / "in", local=local))
    assert again[0] == "1 of them was refused for good on an earlier run; .collected.jsonl says why"
    assert again[1].startswith("taken: 0, refused: 0;")
    (tmp_path / "empty").mkdir()
    assert notes(run(tmp_path / "empty", tmp_path / "in"))[0] == "there is no picture in it"


def test_the_limit_counts_what_is_there(local: Local, tmp_path: Path) -> None:
    source = listed(tmp_path, local, *serve(local, 5))
    run(source, tmp_path / "in", limit=2)
    run(source, tmp_path / "in", limit=3)
    assert pictures(tmp_path / "in") == ["0.png", "1.png", "2.png"]
    run(source, tmp_path / "in", limit=3)
    assert len(local.asked) == 3


def test_a_picture_that_a_person_took_out_stays_out(local: Local, tmp_path: Path) -> None:
    source = listed(tmp_path, local, *serve(local, 3))
    run(source, tmp_path / "in")
    (tmp_path / "in" / "2.png").unlink()
    run(source, tmp_path / "in")
    assert pictures(tmp_path / "in") == ["0.png", "1.png"]
    (tmp_path / "in" / FILE).unlink()
    run(source, tmp_path / "in")
    assert pictures(tmp_path / "in") == ["0.png", "1.png"], "its record remembers it"


def test_a_busy_host_in_a_list_does_not_hold_up_the_others(local: Local, tmp_path: Path) -> None:
    serve(local, 1)
    local.routes["/busy.png"] = says(429, Retry_After="3600")
    path = tmp_path / "list.txt"
    busy = [f"http://busy.example:{local.port}/busy.png", f"http://busy.example:{local.port}/more.png"]
    path.write_text("\n".join([*busy, local.url("/p/0.png")]))
    with web(resolve=lambda host, port: ["127.0.0.1"], hosts=("127.0.0.1", "busy.example")) as client:
        events = list(collect(str(path), tmp_path / "in", settings=SETTINGS, web=client))
    assert pictures(tmp_path / "in") == ["0.png"]
    assert local.asked == ["/busy.png", "/p/0.png"], "who asks for an hour is not asked for the next picture"
    assert sum("3,600" in note for note in notes(events)) == 2


def test_when_commons_is_busy_the_collection_stops_and_goes_on_later(local: Local, tmp_path: Path) -> None:
    commons(local, *(commons_page(local, n) for n in range(3)))
    for number in range(3):
        local.routes[f"/files/{number}.jpg"] = says(200, picture(number))
    local.routes["/files/1.jpg"] = in_turn(says(429, Retry_After="3600"), says(200, picture(1)))
    with pytest.raises(ServerBusy, match="same command again"):
        run("commons:kolo", tmp_path / "in", local=local)
    assert pictures(tmp_path / "in") == ["Kolo_0.png"]
    run("commons:kolo", tmp_path / "in", local=local)
    assert pictures(tmp_path / "in") == ["Kolo_0.png", "Kolo_1.png", "Kolo_2.png"]
    assert local.asked.count("/files/0.jpg") == 1


def snapshots(monkeypatch: pytest.MonkeyPatch, folder: Path, copies: Path) -> Callable[[], int]:
    """Copy the folder before and after each durable step: what a kill at that point would leave."""
    taken = [0]

    def copy() -> None:
        if folder.exists():
            shutil.copytree(folder, copies / f"{taken[0]:03}", ignore=shutil.ignore_patterns("*.lock"))
            taken[0] += 1

    def around(step: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*arguments: Any) -> Any:
            copy()
            result = step(*arguments)
            copy()
            return result

        return stepped

    monkeypatch.setattr(os, "fsync", around(os.fsync))
    monkeypatch.setattr(os, "replace", around(os.replace))
    return lambda: taken[0]


def torn(state: Path, before: Path | None) -> Iterator[Path]:
    """The state as it is; and if a log just grew (nothing later is on disk yet), with its new line cut at some points.

    A line that was synced in an earlier state is whole: the steps after it began only then.
    """
    yield state
    for name in (FILE, provenance.FILE):
        data = (state / name).read_bytes() if (state / name).exists() else b""
        begin = (before / name).stat().st_size if before and (before / name).exists() else 0
        for cut in sorted({begin + 1, (begin + len(data)) // 2, len(data) - 1}):
            if begin < cut < len(data):
                copy = state.with_name(f"{state.name}-{name}-{cut}")
                shutil.copytree(state, copy)
                os.truncate(copy / name, cut)
                yield copy


def test_a_kill_at_any_point_loses_and_doubles_nothing(
    local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.routes["/bad.png"] = says(200, b"<html>")
    source = listed(tmp_path, local, *serve(local, 2), "/bad.png", "/p/0.png?again", "/p/1.png#x")
    folder, copies = tmp_path / "in", tmp_path / "copies"
    with monkeypatch.context() as patched:
        count = snapshots(patched, folder, copies)
        run(source, folder)
    assert count() >= 16
    whole = {name: (folder / name).read_bytes() for name in pictures(folder)}
    records = provenance.read(folder)
    assert sorted(whole) == sorted(records) == ["0.png", "1.png"]
    tried = 0
    states = sorted(copies.iterdir())
    for state in [p for path, before in zip(states, [None, *states], strict=False) for p in torn(path, before)]:
        run(source, state)
        run(source, state)  # what was mended stays readable
        assert {name: (state / name).read_bytes() for name in pictures(state)} == whole, state.name
        assert provenance.read(state) == records, state.name
        assert len((state / provenance.FILE).read_text().splitlines()) == 2, state.name
        assert not list(state.glob("*.tmp")) and not list(state.glob(".*.tmp")), state.name
        tried += 1
    assert tried > 25


def test_a_picture_that_was_cut_is_not_forgotten_over_another_source(local: Local, tmp_path: Path) -> None:
    paths = serve(local, 2)
    source = listed(tmp_path, local, paths[0])
    run(source, tmp_path / "in")
    (tmp_path / "in" / "0.png").unlink()
    (tmp_path / "in" / provenance.FILE).unlink()  # as a kill leaves it that comes after the journal's line
    other = tmp_path / "other.txt"
    other.write_text(local.url(paths[1]))
    run(other, tmp_path / "in")
    run(source, tmp_path / "in")
    assert pictures(tmp_path / "in") == ["0.png", "1.png"]


def test_what_a_person_wrote_is_kept(local: Local, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    own = '{"file": "mine.png", "author": "me"}'  # without a line end, as editors leave it
    (tmp_path / "in" / provenance.FILE).write_text("\n" + own)
    run(listed(tmp_path, local, *serve(local, 1)), tmp_path / "in")
    lines = (tmp_path / "in" / provenance.FILE).read_text().splitlines()
    assert lines[1] == own
    assert provenance.read(tmp_path / "in")["mine.png"].author == "me"
    assert "0.png" in provenance.read(tmp_path / "in")


@pytest.mark.parametrize("text", ['{"file": "a.png"', '{"file": "a.png", "licens": "x"}'])
def test_a_wrong_record_is_named_and_left_alone(local: Local, tmp_path: Path, text: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / provenance.FILE).write_text(text)
    with pytest.raises(DataError, match="line 1"):
        run(listed(tmp_path, local, "/a"), tmp_path / "in")
    assert (tmp_path / "in" / provenance.FILE).read_text().rstrip("\n") == text


@pytest.mark.parametrize(
    "line", ["nonsense", "[]", "{}", '{"source": "x", "key": 5}', '{"source":"x","key":"k","record":5}']
)
def test_a_damaged_journal_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / FILE).write_text(line + "\n")
    with pytest.raises(StoreError, match="line 1 is damaged"):
        Journal(tmp_path, "x")


def test_a_journal_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    record = {"file": "../secret", "sha256": hashlib.sha256(b"x").hexdigest()}
    (tmp_path / "in" / FILE).write_text(json.dumps({"source": "x", "key": "k", "record": record}) + "\n")
    journal = Journal(tmp_path / "in", "x")
    assert not journal.is_settled("k")
    assert not (tmp_path / "in" / provenance.FILE).exists()


def test_keys_that_are_no_unicode_are_remembered(tmp_path: Path) -> None:
    key = os.fsdecode(b"\xff\xfe.png")
    journal = Journal(tmp_path, "x")
    record = provenance.Provenance(file="a.png", sha256="1", original_sha256="2", url=key)
    journal.take(key, record, b"x")
    again = Journal(tmp_path, "x")
    assert again.is_settled(key) and again.taken == 1
    assert dataclasses.replace(record, url="??.png") == provenance.read(tmp_path)["a.png"]


def test_importing_collect_loads_neither_the_network_nor_the_pictures() -> None:
    code = "import sys, vez.collect; print(sorted({'httpx2', 'httpcore2', 'numpy', 'PIL', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
