"""kohya's lists of numbers for blocks: which module each is about, and the table that says the same."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from test_kohya_config import made
from vez.config import Variant
from vez.errors import ConfigError
from vez.family import FAMILIES, kohya_keys, numbered_blocks
from vez.kohya_config.carried import Carried
from vez.kohya_config.carry import carry
from vez.shape import LoraSpec, spec_of

NETWORK = {"network_dim": 8, "network_alpha": 4}


def carried(**arguments: Any) -> Carried:
    values = {f"network_args.{name}": value for name, value in arguments.items()}
    return carry({**NETWORK, **values}, near=Path("config.toml"))


def variant(work: Carried) -> Variant:
    return Variant(dataset="v1", **work.tables["variant"])


def listed(numbers: dict[int, float], rest: float, *, xl: bool = False) -> str:
    return ",".join(f"{numbers.get(i, rest):g}" for i in range(23 if xl else 25))


def number_of(key: str, *, xl: bool) -> int:
    """kohya's get_block_index, from what its comments say: by file names, not by ours."""
    parts = key.removeprefix("lora_unet_").split("_")
    if xl:
        starts = {"input": 1, "middle": 10, "output": 13}
        return starts[parts[0]] + int(parts[2])
    if parts[0] == "mid":
        return 12
    level, kind, place = int(parts[2]), parts[3], int(parts[4])
    return {"down": 1, "up": 13}[parts[0]] + 3 * level + (2 if "sampler" in kind else place)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_every_module_stands_in_the_block_of_its_number(family: str) -> None:
    layout, xl = FAMILIES[family].layout, family == "sdxl"
    assert layout is not None
    names = numbered_blocks(xl=xl)
    for key, target in kohya_keys(layout, resnets=True).items():
        if target.network == "unet":
            assert target.block.startswith(names[number_of(key, xl=xl)]) and names[number_of(key, xl=xl)], key
    assert {name for name in names if name} <= set(layout.block_names())


def test_ranks_and_alphas_of_blocks() -> None:
    dims, alphas = {1: 2, 2: 2, 3: 2, 12: 16, 24: 0}, {1: 2, 2: 2, 3: 2, 12: 4}
    work = carried(block_dims=listed(dims, 8), block_alphas=listed(alphas, 4))
    assert work.tables["variant"]["blocks"] == {
        "down.0": {"rank": 2, "alpha": 2.0},
        "mid": {"rank": 16, "alpha": 4.0},
        "up.3.2": {"rank": 0},
    }
    assert not [left for left in work.left if "block" in left.option]
    xl = carried(block_dims=listed({10: 4, 11: 4, 12: 4}, 8, xl=True)).tables["variant"]["blocks"]
    assert xl == {"mid": {"rank": 4, "alpha": 4.0}}


def test_rates_of_blocks() -> None:
    work = carried(down_lr_weight="1,1,1,1,.5,.5,.5", mid_lr_weight="2", up_lr_weight="zeros")
    assert work.tables["variant"]["blocks"] == {"down.1": {"lr": 0.5}, "mid": {"lr": 2.0}, "up": {"lr": 0.0}}
    half = carried(up_lr_weight="1,1,1,.1,.1,.1", block_lr_zero_threshold="0.2").tables["variant"]["blocks"]
    assert half == {"up.1": {"lr": 0.0}}
    curve = carried(down_lr_weight="sine+.25").tables["variant"]["blocks"]
    assert curve["down.0.0"]["lr"] == pytest.approx(0.25 + 0.142315, abs=1e-6)  # sin(π/2 · 1/11)


def test_convolutions() -> None:
    work = carried(conv_dim="4")
    assert (work.tables["variant"]["conv_rank"], work.tables["variant"]["conv_alpha"]) == (4, 1.0)
    assert "nothing" in work.comments["variant.conv_alpha"]
    both = carried(conv_dim=4, conv_alpha=2, block_dims=listed({}, 8), conv_block_dims=listed({12: 0, 13: 2}, 4))
    assert both.tables["variant"]["blocks"] == {"mid": {"conv_rank": 0}, "up.0.0": {"conv_rank": 2, "conv_alpha": 2.0}}
    assert "conv_rank" not in carried(conv_alpha=2).tables["variant"]
    none = carried(conv_dim=0)
    assert none.tables["variant"]["resnets"] is True and "conv_rank" not in none.tables["variant"]
    assert "resnets" not in carried(conv_dim=4).tables["variant"]
    assert not any(left.option.startswith("network_args") for left in none.left)
    other = carry({**NETWORK, "network_module": "networks.oft", "network_args.conv_dim": 4}, near=Path("x.toml"))
    assert "conv_rank" not in other.tables["variant"]
    assert any(left.option == "network_args.conv_dim" for left in other.left)


@pytest.mark.parametrize(
    "arguments",
    [
        {"block_dims": "2,4"},
        {"block_dims": listed({}, 8).replace("8", "x", 1)},
        {"block_dims": listed({3: -1}, 8)},
        {"block_dims": listed({}, 8), "block_alphas": "1,2"},
        {"down_lr_weight": "1,steep"},
        {"up_lr_weight": "nan"},
    ],
    ids=str,
)
def test_lists_that_kohya_would_refuse(arguments: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"expected numbers|kohya takes 25 numbers"):
        carried(**arguments)


ranks = st.lists(st.sampled_from([0, 2, 8, 16]), min_size=25, max_size=25)
rates = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=12, max_size=12)


@settings(max_examples=60, deadline=None)
@given(ranks, ranks, st.lists(st.sampled_from([1.0, 4.0]), min_size=25, max_size=25), rates, rates)
def test_the_table_says_what_the_lists_say(
    dims: list[int], conv: list[int], alphas: list[float], down: list[float], up: list[float]
) -> None:
    lists = {"block_dims": dims, "conv_block_dims": conv, "block_alphas": alphas, "down_lr_weight": down,
             "up_lr_weight": up}  # fmt: skip
    work = carried(conv_dim=4, conv_alpha=2, **{name: ",".join(map(str, of)) for name, of in lists.items()})
    spec: LoraSpec = spec_of(variant(work))
    layout, factors = FAMILIES["sd1"].layout, [*down, 1.0, *up]
    assert layout is not None
    for key, target in kohya_keys(layout, resnets=True).items():
        if target.network == "unet":
            i, part = number_of(key, xl=False), spec.of(target)
            rank, alpha = (conv[i], 2.0) if target.kernel == 3 else (dims[i], alphas[i])
            wanted = None if rank == 0 or factors[i] == 0 else (rank, alpha, factors[i])
            assert (part and (part.rank, part.alpha, part.lr)) == wanted, key


def test_a_config_with_blocks_becomes_a_vez_toml_that_loads(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    text = f'network_dim = 8\nnetwork_alpha = 4\nnetwork_args = ["conv_dim=2", "block_dims={listed({4: 2}, 8)}"]\n'
    file.write_text(text, encoding="utf-8")
    _, _, one = made(tmp_path / "new", file)
    assert (one.conv_rank, one.conv_alpha) == (2, 1.0)
    assert {name: block.model_dump(exclude_none=True) for name, block in one.blocks.items()} == {
        "down.1.0": {"rank": 2, "alpha": 4.0}
    }
