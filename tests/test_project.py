"""`vez init`: the file it writes is one that vez reads, with the words that were given."""

from pathlib import Path

import pytest

from vez import config
from vez.errors import ConfigError
from vez.project import create

WORDS = {
    "trigger": "nosnjaoutfit",
    "noun": "folk costume",
    "describes": "Serbian folk costume",
    "base": "tiny",
    "resolution": 64,
}


def test_the_file_is_read_back_with_the_words(tmp_path: Path) -> None:
    path = create(tmp_path / "new", images=None, **WORDS)
    loaded = config.load(path)
    words = {key: WORDS[key] for key in ("base", "trigger", "noun", "describes")}
    assert loaded.project.model_dump(exclude_defaults=True) == words
    assert loaded.dataset["v1"].resolution == 64
    assert list(loaded.study["first"].variant) == ["rank8", "rank32"]
    assert (tmp_path / "new" / "images").is_dir()
    assert (tmp_path / "new" / "captions").is_dir()


@pytest.mark.parametrize("words", ['say "hello"', "back\\slash", "ношња, нова", "tab\there"])
def test_any_words_survive_the_file(tmp_path: Path, words: str) -> None:
    path = create(tmp_path, images=None, **(WORDS | {"describes": words}))
    assert config.load(path).project.describes == words


def test_pictures_inside_are_relative_and_outside_absolute(tmp_path: Path) -> None:
    (tmp_path / "p" / "mine").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    inside = create(tmp_path / "p", images=tmp_path / "p" / "mine", **WORDS)
    assert config.load(inside).dataset["v1"].images == Path("mine")
    outside = create(tmp_path / "q", images=tmp_path / "elsewhere", **WORDS)
    assert config.load(outside).dataset["v1"].images == (tmp_path / "elsewhere").resolve()


def test_nothing_is_overwritten_and_nothing_left_half_made(tmp_path: Path) -> None:
    (tmp_path / "vez.toml").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="exists and is left as it is"):
        create(tmp_path, images=None, **WORDS)
    assert (tmp_path / "vez.toml").read_text(encoding="utf-8") == "mine"
    with pytest.raises(ConfigError, match="there is no folder"):
        create(tmp_path / "new", images=tmp_path / "nothing", **WORDS)
    with pytest.raises(ConfigError, match="resolution"):
        create(tmp_path / "new", images=None, **(WORDS | {"resolution": 63}))
    assert not (tmp_path / "new" / "vez.toml").exists()
