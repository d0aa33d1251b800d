"""What a study comes to, computed from its numbers; and the sizes against those that kohya's files have."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vez import config
from vez.config import Config
from vez.errors import ConfigError, StoreError
from vez.plan import Cost, Plan, check_disk, check_memory, cost_of, groups, named, plan, rate_key, span
from vez.room import Sizes, sizes_of

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
    assert groups(thesis.study["thesis"]) == [("v1", 1, ("v1",)), ("v2", 8, ("v2", "v3", "v4"))]


def test_side_by_side_splits_a_pass(thesis: Config) -> None:
    study = thesis.study["thesis"].model_copy(update={"side_by_side": 2})
    assert groups(study) == [("v1", 1, ("v1",)), ("v2", 8, ("v2", "v3")), ("v2", 8, ("v4",))]


def test_steps_hold_the_pictures_seen(thesis: Config) -> None:
    made = plan(thesis, "thesis", pictures={"v1": 30, "v2": 34}, cost=cost_of(None), rates={}, device="cpu")
    assert [one.steps for one in made.passes] == [3400, 425]
    assert [one.seen for one in made.passes] == [3400, 3400]
    assert made.seconds is None
    assert made.images == (1 + 4 * 2) * 200, "the standard profile"
    assert "1800 images to compare them (profile standard, 200 for each of 9 arms), time unknown" in made.text()
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


def planned(config: Config, *, sizes: Sizes | None = None, **change: Any) -> tuple[Config, Plan, Cost]:
    """The thesis' plan on a base that is known, with some of the study's settings changed."""
    study = config.study["thesis"].model_copy(update=change)
    config = config.model_copy(update={"study": {"thesis": study}})
    cost = Cost(sizes or replace(sizes_of(None), assumed=False))
    made = plan(config, "thesis", pictures={"v1": 30, "v2": 34}, cost=cost, rates={}, device="cpu")
    return config, made, cost


def test_the_memory_is_told_and_grows_with_batch_and_variants(thesis: Config) -> None:
    _, made, _ = planned(thesis)
    one, three = (p.peak_bytes / 1e9 for p in made.passes)
    assert 5 < one < 10, "SD 1.5 in fp32, 512 px, batch 1"
    assert three > 10 * (one - 5), "24 samples at once"
    assert f"about {one:.1f} GB of memory" in made.text()
    _, half, _ = planned(thesis, precision="bf16")
    assert half.passes[0].peak_bytes < 0.6 * made.passes[0].peak_bytes


def test_what_cannot_fit_names_the_setting_that_makes_it_fit(thesis: Config) -> None:
    """Following the sentence must lead to a study that is not refused."""
    for free, said in [
        (40e9, r"set side_by_side = 1$"),
        (20e9, r'set side_by_side = 1 and precision = "bf16"$'),
        (5e9, r'set side_by_side = 1 and precision = "bf16" and batch = 2 and accumulate = 4$'),
    ]:
        config, made, cost = planned(thesis)
        with pytest.raises(ConfigError, match=said) as refused:
            check_memory(config, made, cost=cost, free=free, device="cpu")
        assert f"{free / 1e9:.1f} GB are free" in str(refused.value)
        change: dict[str, Any] = {"side_by_side": 1}
        if "bf16" in said:
            change["precision"] = "bf16"
        if "batch" in said:
            variants = thesis.study["thesis"].variant
            change["variant"] = {name: v.model_copy(update={"batch": min(v.batch, 2)}) for name, v in variants.items()}
        config, made, cost = planned(thesis, **change)
        check_memory(config, made, cost=cost, free=free, device="cpu")


def test_where_nothing_fits_that_is_said(thesis: Config) -> None:
    config, made, cost = planned(thesis)
    with pytest.raises(ConfigError, match="no setting makes it fit"):
        check_memory(config, made, cost=cost, free=1e9, device="cpu")


def test_an_assumed_base_refuses_nothing(thesis: Config) -> None:
    config, made, cost = planned(thesis, sizes=sizes_of(None))
    check_memory(config, made, cost=cost, free=1.0, device="cpu")


def test_files_that_do_not_fit_onto_the_disk(thesis: Config, tmp_path: Path) -> None:
    _, made, _ = planned(thesis, save_every=100)
    needed = sum(made.disk_bytes.values())
    rank32, rank64 = 36 * 2**20 + 100_000, 72 * 2**20 + 100_000
    without_text = made.file_bytes["v4"] + 100_000
    assert made.disk_bytes["LoRAs"] == 2 * (34 * rank32 + 5 * (rank32 + rank64 + without_text))
    assert made.disk_bytes["latents"] == (30 + 34) * 8 * 64 * 64 * 4
    check_disk(made, free=needed, there=0, folder=tmp_path)
    check_disk(made, free=needed / 2, there=needed / 2, folder=tmp_path)
    with pytest.raises(StoreError, match=r"writes up to .* GB to .*free some room.*LoRAs.*save_every"):
        check_disk(made, free=needed - 1, there=0, folder=tmp_path)


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
    with pytest.raises(ConfigError, match="not a Stable Diffusion base"):
        cost_of(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "said"), [(4.4, "4 s"), (89, "89 s"), (150, "2 min"), (3600, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_span(seconds: float, said: str) -> None:
    assert span(seconds) == said
