"""`vez init`: the file it writes is one that vez reads, with the words that were given."""

from pathlib import Path

import pytest

import vez
from vez import config
from vez.errors import ConfigError
from vez.project import create, create_from_example, examples

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


@pytest.mark.parametrize("name", examples())
def test_an_example_becomes_a_project(tmp_path: Path, name: str) -> None:
    path = create_from_example(tmp_path / "p", name, words={})
    shipped = Path(vez.__file__).parent / "examples" / name
    assert path.read_bytes() == (shipped / "vez.toml").read_bytes(), "nothing was asked for, so not a byte differs"
    assert path.with_name("README.md").read_bytes() == (shipped / "README.md").read_bytes()
    assert all((tmp_path / "p" / dataset.images).is_dir() for dataset in config.load(path).dataset.values())
    with pytest.raises(ConfigError, match="left as it is"):
        create_from_example(tmp_path / "p", name, words={})


def test_an_example_takes_ones_own_words_and_keeps_its_comments(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    words = {"base": None, "trigger": "zolka", "noun": 'a "hat"', "describes": None}
    path = create_from_example(tmp_path / "p", "costume", words=words, images=tmp_path / "photos", resolution=768)
    loaded = config.load(path)
    assert (loaded.project.trigger, loaded.project.noun) == ("zolka", 'a "hat"')
    assert loaded.project.describes == "traditional Serbian folk costume"
    assert loaded.dataset["v1"].images == tmp_path / "photos" and loaded.dataset["v1"].resolution == 768
    text = path.read_text(encoding="utf-8")
    shipped = (Path(vez.__file__).parent / "examples" / "costume" / "vez.toml").read_text(encoding="utf-8")
    assert text.count("#") == shipped.count("#") and len(text.splitlines()) == len(shipped.splitlines())


def test_an_example_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are character, costume, object, reference-study, style"):
        create_from_example(tmp_path, "hats", words={})
    (tmp_path / "x").mkdir()
    with pytest.raises(ConfigError, match="has 2 datasets"):
        create_from_example(tmp_path, "reference-study", words={}, images=tmp_path / "x")
    assert not (tmp_path / "vez.toml").exists()
