"""The demo's project is copied once, brought up to date after that, and never over what a person changed."""

import hashlib
import json
from pathlib import Path

from vez import config, suite
from vez.demo import copy_project
from vez.metrics.stats import ALPHA, smallest_p


def test_the_copy_is_a_project_that_vez_reads(tmp_path: Path) -> None:
    assert copy_project(tmp_path / "demo") == []
    loaded = config.load(tmp_path / "demo" / "vez.toml")
    assert loaded.project.base == "tiny"
    for dataset in loaded.dataset.values():
        assert any((loaded.root / dataset.images).iterdir())
        assert dataset.captions is None or (loaded.root / dataset.captions).is_dir()


def test_the_demo_asks_the_quick_profile_and_could_name_each_of_its_loras(tmp_path: Path) -> None:
    copy_project(tmp_path)
    loaded = config.load(tmp_path / "vez.toml")
    of = loaded.study["nosnja"]
    asked = suite.asked(of, loaded.project)
    assert (asked.about["suite"], asked.about["profile"]) == ("tiny", "quick")
    quick = [prompt for prompt in asked.prompts if prompt.set == "B"]
    loras = len(of.variant)
    assert smallest_p(len(quick)) * max(loras, loras * (loras - 1) // 2) <= ALPHA, "against none, and each other"
    scenes = {prompt.group for prompt in quick}
    for role in ("class", "none"):
        assert {prompt.group for prompt in asked.prompts if prompt.role == role} == scenes
    assert asked.images == 2 * 8 + 8 + 8


def test_a_second_copy_changes_nothing(tmp_path: Path) -> None:
    copy_project(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file() and p.parent.name != ".vez"}
    assert copy_project(tmp_path) == []
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_what_a_person_changed_stays_and_is_named(tmp_path: Path) -> None:
    copy_project(tmp_path)
    mine = tmp_path / "vez.toml"
    mine.write_text(mine.read_text(encoding="utf-8") + "\n# mine\n", encoding="utf-8")
    assert copy_project(tmp_path) == [mine]
    assert mine.read_text(encoding="utf-8").endswith("# mine\n")
    assert copy_project(tmp_path) == [mine], "and it stays the person's"


def test_a_deleted_file_comes_back_and_an_old_one_is_renewed(tmp_path: Path) -> None:
    copy_project(tmp_path)
    wanted = (tmp_path / "vez.toml").read_bytes()
    (tmp_path / "vez.toml").unlink()
    assert copy_project(tmp_path) == []
    assert (tmp_path / "vez.toml").read_bytes() == wanted
    # as if an earlier vez had shipped another file, and the person had not touched it
    old = b"# old\n"
    (tmp_path / "vez.toml").write_bytes(old)
    record = tmp_path / ".vez" / "demo.json"
    copied = json.loads(record.read_bytes()) | {"vez.toml": hashlib.sha256(old).hexdigest()}
    record.write_text(json.dumps(copied), encoding="utf-8")
    assert copy_project(tmp_path) == []
    assert (tmp_path / "vez.toml").read_bytes() == wanted


def test_files_that_were_there_before_the_first_copy_are_the_persons(tmp_path: Path) -> None:
    (tmp_path / "vez.toml").write_text("# something else\n", encoding="utf-8")
    assert copy_project(tmp_path) == [tmp_path / "vez.toml"]
    assert (tmp_path / "vez.toml").read_text(encoding="utf-8") == "# something else\n"
