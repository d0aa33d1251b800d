from pathlib import Path

import pytest
from pydantic import BaseModel

import vez.config
from vez.config import (
    PICTURE_CHECKS,
    WORD_CHECKS,
    Block,
    Checks,
    Collect,
    Config,
    Dataset,
    Exclusion,
    Override,
    Project,
    Prompt,
    Rule,
    Sampling,
    Study,
    Variant,
    Waiver,
    load,
)
from vez.errors import ConfigError

GOOD = """
[project]
base = "tiny"
trigger = "nosnjaoutfit"
noun = "folk costume"
describes = "traditional Serbian folk costume"
[dataset.v1]
images = "images/v1"
[study.thesis]
images_seen = 3400
[study.thesis.variant]
v1 = { dataset = "v1", batch = 8 }
"""


def loaded(tmp_path: Path, text: str) -> Config:
    (tmp_path / "vez.toml").write_text(text, encoding="utf-8")
    return load(tmp_path / "vez.toml")


def test_the_least_file(tmp_path: Path) -> None:
    config = loaded(tmp_path, GOOD)
    study = config.study["thesis"]
    assert config.root == tmp_path.resolve() and config.dataset["v1"].resolution == 512
    assert study.variant["v1"].scale_alpha == 32 and study.seeds == (0,) and (study.suite, study.prompts) == (None, ())
    assert study.sampling.solver == "dpm++2m"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("images =", "imges =", r'\[dataset.v1\] has no key "imges"; did you mean "images"'),
        ("trigger =", "triger =", r'\[project\] has no key "triger"; did you mean "trigger"'),
        ("batch = 8", "rnk = 8", r'\[study.thesis.variant.v1\] has no key "rnk"; did you mean "rank"'),
        ("batch = 8", "quux = 8", r'no key "quux"; known are dataset, batch'),
        ("batch = 8", "batch = 0", '"batch" cannot be 0; it should be greater than or equal to 1'),
        ("batch = 8", "lr_unet = nan", '"lr_unet" cannot be nan'),
        ("batch = 8", "lr_unet = 0, lr_text = 0", "nothing would be trained"),
        ('dataset = "v1"', 'dataset = "v9"', r"there is no \[dataset.v9\]; known are: v1"),
        ("images_seen = 3400", "", "exactly one of steps, images_seen and epochs; it has none"),
        ("images_seen = 3400", "images_seen = 1\nsteps = 2", "it has steps and images_seen"),
        ("images_seen = 3400", "steps = 1\nrepeats = 2", "repeats goes with epochs"),
        ("images_seen = 3400", "steps = 1\nseeds = [1, 1]", "seeds must be different"),
        ("images_seen = 3400", 'steps = 1\nprompts = ["a {word}"]', "{word} cannot be filled in"),
        ("[dataset.v1]", '[dataset."../v1"]', "cannot be a folder's"),
        ("v1 = {", "base = {", 'no variant may be called "base"'),
        ('noun = "folk costume"', "", r'\[project\] lacks the key "noun"'),
        ('images = "images/v1"', 'images = "a"\ndrop = ["blury"]', "'blury'"),
        ('images = "images/v1"', 'images = "a"\nchecks = { blured = 1 }', 'did you mean "blurred"'),
        ('images = "images/v1"', 'images = "a"\nrole = "class"', 'whose role is "class"'),
        ("batch = 8", 'prior = "v1"', 'has the prior .v1., which is no dataset of the role "class"; known are: none'),
        ("batch = 8", 'prior = "v9"', 'has the prior .v9., which is no dataset of the role "class"'),
        ("batch = 8", "masked = true", r"is masked, but \[dataset.v1\] has no masks"),
        ('images = "images/v1"', 'images = "a"\nrole = "class"\nheld_out = 2', "class pictures judge nothing"),
        ('images = "images/v1"', 'images = "a"\ncrops = ["full", "full"]', "names one twice"),
        ('images = "images/v1"', 'images = "a"\ntags = ["{triger}"]', "{triger} cannot be filled in"),
        ('images = "images/v1"', 'images = "a"\nwaive = [{ check = "blurry", reason = "x" }]', "'blurry'"),
        ('images = "images/v1"', 'images = "a"\nwaive = [{ check = "blurred" }]', 'lacks the key "reason"'),
        ('images = "images/v1"', 'images = "a"\nexclude = [{ file = "a.jpg" }]', 'lacks the key "reason"'),
        ("[project]", "[project", "not valid TOML"),
        ("[project]", 'root = "x"\n[project]', 'unknown key "root"'),
    ],
)
def test_a_mistake_becomes_one_sentence_that_names_it(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=says) as caught:
        loaded(tmp_path, GOOD.replace(old, new, 1))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="vez init"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "latin.toml")
    (tmp_path / "bom.toml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load(tmp_path / "bom.toml").project.base == "tiny"


def test_steps_at_fixed_images_seen_steps_and_epochs() -> None:
    one, eight = Variant(dataset="v1", batch=1), Variant(dataset="v1", batch=8)
    study = {"variant": {"a": one}}
    assert [Study(images_seen=3400, **study).steps_of(v, 34) for v in (one, eight)] == [3400, 425]  # type: ignore[arg-type]
    assert [Study(steps=7, **study).steps_of(v, 34) for v in (one, eight)] == [7, 7]  # type: ignore[arg-type]
    assert [Study(epochs=2, repeats=10, **study).steps_of(v, 34) for v in (one, eight)] == [680, 85]  # type: ignore[arg-type]
    assert Study(images_seen=3, **study).steps_of(eight, 34) == 1  # type: ignore[arg-type]


def test_prompts_get_names_and_ids_differ(tmp_path: Path) -> None:
    text = GOOD.replace(
        "images_seen = 3400", 'steps = 1\nprompts = ["a {trigger}", { text = "a cat", role = "drift" }]'
    )
    prompts = loaded(tmp_path, text).study["thesis"].prompts
    assert [(p.id, p.group) for p in prompts] == [("01-trigger", "p1"), ("02-drift", "p2")]
    with pytest.raises(ConfigError, match="two prompts have the id"):
        loaded(tmp_path, text.replace('role = "drift"', 'id = "01-trigger"'))
    with pytest.raises(ConfigError, match="prompts"):
        loaded(tmp_path, text.replace('role = "drift"', 'id = "../x"'))


def test_expand() -> None:
    project = Project(base="tiny", trigger="t", noun="n", describes="{noun}")
    assert project.expand("{trigger} {noun} {describes} {x}") == "t n {noun} {x}"


TABLES = (
    *(Project, Collect, Rule, Override, Exclusion, Waiver, Checks, Dataset),
    *(Variant, Block, Sampling, Prompt, Study, Config),
)


@pytest.mark.parametrize("model", TABLES)
def test_every_field_is_explained_and_frozen(model: type[BaseModel]) -> None:
    assert all(field.description for field in model.model_fields.values())
    assert model.model_config.get("frozen") and model.model_config.get("extra") == "forbid"


def test_every_table_is_in_the_list_above() -> None:
    tables = {n for n, t in vars(vez.config).items() if isinstance(t, type) and issubclass(t, BaseModel)}
    assert tables - {"BaseModel", "Table"} == {table.__name__ for table in TABLES}


def test_a_check_of_pictures_and_one_of_words_never_share_a_name() -> None:
    assert not set(PICTURE_CHECKS) & set(WORD_CHECKS)
    for check in (*PICTURE_CHECKS, *WORD_CHECKS):
        assert Waiver.model_validate({"check": check, "reason": "known"}).file == "*"
