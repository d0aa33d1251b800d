"""What a study comes to, computed from its numbers; and the sizes against those that kohya's files have."""

from pathlib import Path

import pytest

from vez import config
from vez.config import Config
from vez.errors import ConfigError
from vez.plan import cost_of, groups, named, plan, rate_key, span

THESIS = """
[project]
base = "stable-diffusion-v1-5/stable-diffusion-v1-5"
trigger = "nosnjaoutfit"
noun = "folk costume"
describes = "traditional Serbian folk costume"
[dataset.v1]
images = "images/v1"
[dataset.v2]
images = "images/v2"
[study.thesis]
images_seen = 3400
seeds = [0, 1]
[study.thesis.variant]
v1 = { dataset = "v1", batch = 1, rank = 32 }
v2 = { dataset = "v2", batch = 8, rank = 32 }
v3 = { dataset = "v2", batch = 8, rank = 64, alpha = 64 }
v4 = { dataset = "v2", batch = 8, rank = 64, alpha = 32, lr_text = 0 }
"""


@pytest.fixture
def thesis(tmp_path: Path) -> Config:
    (tmp_path / "vez.toml").write_text(THESIS, encoding="utf-8")
    return config.load(tmp_path / "vez.toml")


def test_rank_64_of_sd1_is_exactly_72_mib(thesis: Config) -> None:
    """The size that the reference study reports for its dim-64 files."""
    cost = cost_of(None)
    assert cost.unet + cost.text == 589_824
    assert cost.file_bytes(thesis.study["thesis"].variant["v3"]) == 72 * 2**20
    without_text = cost.file_bytes(thesis.study["thesis"].variant["v4"])
    assert without_text == cost.unet * 64 * 2


def test_variants_of_one_dataset_and_batch_train_in_one_pass(thesis: Config) -> None:
    assert groups(thesis.study["thesis"]) == {("v1", 1, 1): ("v1",), ("v2", 8, 1): ("v2", "v3", "v4")}


def test_steps_hold_the_pictures_seen(thesis: Config) -> None:
    made = plan(thesis, "thesis", pictures={"v1": 30, "v2": 34}, cost=cost_of(None), rates={}, device="cpu")
    assert [one.steps for one in made.passes] == [3400, 425]
    assert [one.seen for one in made.passes] == [3400, 3400]
    assert made.seconds is None
    assert made.images == (1 + 4 * 2) * len(thesis.study["thesis"].prompts) * 4
    assert "time unknown until the first steps" in made.text()
    assert "72.00 MiB" in made.text()


def test_a_measured_rate_gives_the_time(thesis: Config) -> None:
    rates = {
        rate_key(thesis, "thesis", "v1", batch=1, variants=1, device="cuda"): 0.1,
        rate_key(thesis, "thesis", "v2", batch=8, variants=3, device="cuda"): 1.0,
    }
    made = plan(thesis, "thesis", pictures={"v1": 30, "v2": 34}, cost=cost_of(None), rates=rates, device="cuda")
    assert made.seconds == pytest.approx(2 * (340 + 425))
    assert "about 26 min in all" in made.text()
    other = plan(thesis, "thesis", pictures={"v1": 30, "v2": 34}, cost=cost_of(None), rates=rates, device="cpu")
    assert other.seconds is None, "a rate of another device says nothing"


def test_epochs_and_repeats_count_as_in_kohya(tmp_path: Path) -> None:
    text = THESIS.replace("images_seen = 3400", "epochs = 10\nrepeats = 10")
    (tmp_path / "vez.toml").write_text(text, encoding="utf-8")
    loaded = config.load(tmp_path / "vez.toml")
    made = plan(loaded, "thesis", pictures={"v1": 34, "v2": 34}, cost=cost_of(None), rates={}, device="cpu")
    assert [one.steps for one in made.passes] == [3400, 425]


def test_which_study_is_meant(thesis: Config, tmp_path: Path) -> None:
    assert named(thesis, None) == named(thesis, "thesis") == "thesis"
    with pytest.raises(ConfigError, match=r"no \[study.other\].*thesis"):
        named(thesis, "other")
    (tmp_path / "vez.toml").write_text(
        THESIS + THESIS[THESIS.index("[study") :].replace("thesis", "two"), encoding="utf-8"
    )
    with pytest.raises(ConfigError, match="name the study: thesis, two"):
        named(config.load(tmp_path / "vez.toml"), None)


def test_a_folder_that_is_no_base(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a Stable Diffusion folder"):
        cost_of(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "said"), [(4.4, "4 s"), (89, "89 s"), (150, "2 min"), (3600, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_span(seconds: float, said: str) -> None:
    assert span(seconds) == said
