"""Votes on disk: never lost, never counted twice, whatever happens to the process."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged_study import PROJECT, build

from vez.errors import ConfigError, StoreError
from vez.judging import material
from vez.judging.material import Material
from vez.judging.plan import Pair, plan
from vez.judging.votes import Ballots, Vote, counted, read


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return material.read(build(tmp_path_factory.mktemp("study"), size=16), PROJECT)


@pytest.fixture(scope="module")
def pairs(judged: Material) -> tuple[Pair, ...]:
    return plan(judged, judge="me", question="concept", votes=20)


def test_a_vote_tells_all_that_the_analysis_needs(judged: Material, pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    with Ballots(tmp_path, "me") as ballots:
        ballots.vote(pairs[0], "left", question="concept", seconds=3.2, material=judged)
    (line,) = (tmp_path / "me.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert told["judge"] == "me" and told["pair"] == pairs[0].id and told["seconds"] == 3.2 and told["at"]
    assert told["left"] == {
        "arm": pairs[0].left.arm,
        "seed": pairs[0].left.seed,
        "sha256": judged.sha256[pairs[0].left],
    }
    (vote,) = read(tmp_path)
    assert vote.chosen == pairs[0].left.arm and vote.prompt == pairs[0].left.prompt


def test_a_pair_counts_once_and_an_undo_is_a_line(judged: Material, pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    with Ballots(tmp_path, "me") as ballots:
        for answer in ("left", "right", "tie"):
            ballots.vote(pairs[0], answer, question="concept", seconds=1, material=judged)
        assert [vote.answer for vote in ballots.counted.values()] == ["left"]
        before = (tmp_path / "me.jsonl").read_bytes()
        ballots.undo(pairs[0].id)
        ballots.undo(pairs[0].id)
        assert not ballots.counted
        ballots.vote(pairs[0], "neither", question="concept", seconds=1, material=judged)
        assert [vote.answer for vote in ballots.counted.values()] == ["neither"]
    after = (tmp_path / "me.jsonl").read_bytes()
    assert after.startswith(before) and after.count(b"\n") == 3
    assert [vote.answer for vote in read(tmp_path)] == ["neither"]


def test_a_torn_last_line_is_dropped_wherever_it_was_cut(
    judged: Material, pairs: tuple[Pair, ...], tmp_path: Path
) -> None:
    with Ballots(tmp_path, "me") as ballots:
        for pair in pairs[:3]:
            ballots.vote(pair, "tie", question="concept", seconds=1, material=judged)
    path = tmp_path / "me.jsonl"
    whole = path.read_bytes()
    second = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for cut in (second + 1, second + 40, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert len(read(tmp_path)) == 2
        with Ballots(tmp_path, "me") as ballots:
            assert list(ballots.counted) == [pair.id for pair in pairs[:2]]
            ballots.vote(pairs[2], "right", question="concept", seconds=1, material=judged)
        assert [vote.answer for vote in read(tmp_path)] == ["tie", "tie", "right"]


def test_a_damaged_line_in_the_middle_is_said_and_nothing_is_written(
    judged: Material, pairs: tuple[Pair, ...], tmp_path: Path
) -> None:
    path = tmp_path / "me.jsonl"
    with Ballots(tmp_path, "me") as ballots:
        for pair in pairs[:2]:
            ballots.vote(pair, "tie", question="concept", seconds=1, material=judged)
    first, second, _ = path.read_bytes().split(b"\n")
    for damaged in (b"{}\n" + second + b"\n", first + b'\n{"answer": "best"}\n', first + b"\n\x00\x00\n"):
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=r"me\.jsonl, line [12], is not a vote"):
            Ballots(tmp_path, "me")
        assert path.read_bytes() == damaged
    path.write_bytes(first + b"\n")
    Ballots(tmp_path, "me").close()  # the lock was let go


def test_every_vote_is_synced(
    judged: Material, pairs: tuple[Pair, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(file: int) -> None:
        synced.append(os.fstat(file).st_size)
        real(file)

    with Ballots(tmp_path, "me") as ballots:
        monkeypatch.setattr(os, "fsync", fsync)
        for pair in pairs[:3]:
            ballots.vote(pair, "left", question="concept", seconds=1, material=judged)
            assert synced[-1] == (tmp_path / "me.jsonl").stat().st_size
    assert len(synced) == 3


def test_a_full_disk_is_said_and_leaves_no_half_line(
    judged: Material, pairs: tuple[Pair, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    with Ballots(tmp_path, "me") as ballots:
        ballots.vote(pairs[0], "left", question="concept", seconds=1, material=judged)
        monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:50]))
        with pytest.raises(StoreError, match="disk is full"):
            ballots.vote(pairs[1], "left", question="concept", seconds=1, material=judged)
        monkeypatch.setattr(os, "write", real)
        assert list(ballots.counted) == [pairs[0].id]
        ballots.vote(pairs[1], "right", question="concept", seconds=1, material=judged)
    assert [vote.answer for vote in read(tmp_path)] == ["left", "right"]


def test_one_window_for_one_judge(tmp_path: Path) -> None:
    with Ballots(tmp_path, "me"):
        with pytest.raises(StoreError, match="another window"):
            Ballots(tmp_path, "me")
        Ballots(tmp_path, "you").close()
    Ballots(tmp_path, "me").close()


@pytest.mark.parametrize("name", ["", "../me", "a/b", ".me", "me\n", "a" * 41, "мe"])
def test_a_name_that_cannot_be_a_files_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be a file's name"):
        Ballots(tmp_path, name)
    assert not list(tmp_path.iterdir())


def line(pair: str, *, undone: bool) -> Vote:
    side = {"arm": "v1", "seed": 0, "sha256": ""}
    return Vote.model_validate(
        {"pair": pair, "judge": "me", "question": "concept", "kind": "comparison", "prompt": "p", "left": side,
         "right": side, "answer": "tie", "seconds": 1, "at": "", "undone": undone}
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=12))
def test_what_counts_is_each_pairs_last_word(history: list[tuple[str, bool]]) -> None:
    found = counted(line(pair, undone=undone) for pair, undone in history)
    for pair in "abc":
        words = [undone for name, undone in history if name == pair]
        assert (pair in found) == (bool(words) and not words[-1])
