import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vez.errors import StoreError
from vez.store import artifact_id, find, making, open_artifact, verify, write_atomic

SETTINGS = {"kind": "thing", "parents": {"base": "0" * 64}, "config": {"a": 1}, "version": 1}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def make(folder: Path, text: str = "x", **changed: object) -> str:
    with making(folder, **{**SETTINGS, **changed}) as made:  # type: ignore[arg-type]
        (made.path / "sub").mkdir(exist_ok=True)
        (made.path / "sub" / "a.txt").write_text(text)
    return made.id


@given(st.dictionaries(st.text(), VALUES))
def test_id_does_not_depend_on_the_order_of_keys(config: dict[str, object]) -> None:
    turned = dict(reversed(list(config.items())))
    assert artifact_id("a", {}, config, 1) == artifact_id("a", {}, turned, 1)


def test_id_depends_on_everything() -> None:
    ids = {
        artifact_id("a", {}, {}, 1),
        artifact_id("b", {}, {}, 1),
        artifact_id("a", {"p": "1"}, {}, 1),
        artifact_id("a", {}, {"p": "1"}, 1),
        artifact_id("a", {}, {}, 2),
    }
    assert len(ids) == 5


def test_id_stays_the_same_over_versions_of_vez() -> None:
    assert artifact_id("dataset", {"p": "é"}, {"x": (1, 2.5, None), "path": Path("a/b")}, 1) == (
        artifact_id("dataset", {"p": "é"}, {"path": "a/b", "x": [1, 2.5, None]}, 1)
    )


@pytest.mark.parametrize("value", [float("nan"), object(), {1: "a"}, b"x", {"a", "b"}])
def test_id_refuses_what_json_cannot_say(value: object) -> None:
    with pytest.raises(StoreError):
        artifact_id("a", {}, {"v": value}, 1)


def test_made_found_opened_verified(tmp_path: Path) -> None:
    id = make(tmp_path / "thing")
    artifact = find(tmp_path / "thing", id)
    assert artifact is not None and artifact == open_artifact(tmp_path / "thing")
    assert (artifact.id, artifact.kind, artifact.config, list(artifact.files)) == (id, "thing", {"a": 1}, ["sub/a.txt"])
    verify(artifact)
    assert find(tmp_path / "thing", "0" * 64) is None and find(tmp_path / "other", id) is None
    (tmp_path / "thing" / "sub" / "a.txt").write_text("y")
    with pytest.raises(StoreError, match=r"a\.txt was changed"):
        verify(artifact)
    (tmp_path / "thing" / "sub" / "a.txt").unlink()
    assert find(tmp_path / "thing", id) is None


def test_a_failed_making_leaves_no_artifact_and_is_resumed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), making(tmp_path / "t", **SETTINGS) as made:  # type: ignore[arg-type]
        (made.path / "half").write_text("half")
        raise RuntimeError
    assert not (tmp_path / "t").exists()
    with making(tmp_path / "t", **SETTINGS) as made:  # type: ignore[arg-type]
        assert made.resumed and (made.path / "half").read_text() == "half"
    assert find(tmp_path / "t", made.id) is not None


def test_what_another_id_left_is_cleared(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), making(tmp_path / "t", **SETTINGS) as made:  # type: ignore[arg-type]
        (made.path / "half").write_text("half")
        raise RuntimeError
    with making(tmp_path / "t", **{**SETTINGS, "config": {"a": 2}}) as made:  # type: ignore[arg-type]
        assert not made.resumed and not (made.path / "half").exists()


def test_a_new_version_replaces_the_old_only_when_finished(tmp_path: Path) -> None:
    old = make(tmp_path / "t", "old")
    with pytest.raises(RuntimeError), making(tmp_path / "t", **{**SETTINGS, "version": 2}):  # type: ignore[arg-type]
        raise RuntimeError
    assert find(tmp_path / "t", old) is not None
    new = make(tmp_path / "t", "new", version=2)
    assert find(tmp_path / "t", new) is not None and (tmp_path / "t" / "sub" / "a.txt").read_text() == "new"
    assert not [p for p in tmp_path.iterdir() if p.name.endswith((".old", ".partial"))]


def test_a_folder_that_is_no_artifact_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "mine").write_text("mine")
    with pytest.raises(StoreError, match="in the way"):
        make(tmp_path / "t")
    assert (tmp_path / "t" / "mine").read_text() == "mine"


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    first = making(tmp_path / "t", **SETTINGS)  # type: ignore[arg-type]
    with first, pytest.raises(StoreError, match="another process"):
        make(tmp_path / "t")


def test_a_killed_making_is_resumed(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from vez.store import making\n"
        f"with making(Path(sys.argv[1]), **{SETTINGS!r}) as m:\n"
        "    (m.path / 'half').write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    source = str(Path(__file__).parents[1] / "src")
    environment = {**os.environ, "PYTHONPATH": source}
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "t")], env=environment, check=False)
    assert killed.returncode == -9 and not (tmp_path / "t").exists()
    with making(tmp_path / "t", **SETTINGS) as made:  # type: ignore[arg-type]
        assert made.resumed and (made.path / "half").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"id": 1}',
        "\x00",
        '{"id":"a","kind":"k","parents":{},"config":{},"version":1,"files":{"../x":"a"}}',
    ],
)
def test_a_broken_manifest_is_an_error_and_found_nowhere(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text("outside")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "manifest.json").write_text(text)
    with pytest.raises(StoreError):
        open_artifact(tmp_path / "t")
    assert find(tmp_path / "t", "a") is None


def test_manifest_is_readable_by_others(tmp_path: Path) -> None:
    make(tmp_path / "t")
    manifest = json.loads((tmp_path / "t" / "manifest.json").read_text())
    assert set(manifest) == {"id", "kind", "parents", "config", "version", "files"}
    assert not (tmp_path / "t" / ".making.json").exists()


def test_write_atomic_leaves_nothing_behind(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new" / "f", b"one")
    write_atomic(tmp_path / "new" / "f", b"two")
    assert (tmp_path / "new" / "f").read_bytes() == b"two" and len(list((tmp_path / "new").iterdir())) == 1
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError):
        write_atomic(tmp_path / "folder", b"x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "new"]


def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / ".vez").write_text("a file")
    with pytest.raises(StoreError, match=r"cannot write into .*\.vez.datasets"):
        make(tmp_path / ".vez" / "datasets" / "v1")
