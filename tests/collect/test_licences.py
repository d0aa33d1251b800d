import pytest
from hypothesis import given
from hypothesis import strategies as st

from vez.collect.licences import FAMILIES, attribution, checked, family, licence_id, readable, refusal, url_of
from vez.config import Collect
from vez.errors import ConfigError

DEFAULT = Collect().licences
WRITTEN = [
    ("CC BY-SA 3.0 de", "CC-BY-SA-3.0-DE", "by-sa"),
    ("cc-by-sa-4.0,3.0,2.5,2.0,1.0", "CC-BY-SA-4.0", "by-sa"),
    ("CC BY-SA 4.0-3.0-2.5-2.0-1.0", "CC-BY-SA-4.0", "by-sa"),
    ("cc-by-sa-3.0-migrated", "CC-BY-SA-3.0", "by-sa"),
    ("CC BY-SA 3.0 igo", "CC-BY-SA-3.0-IGO", "by-sa"),
    ("CC BY 2.5", "CC-BY-2.5", "by"),
    ("CC-BY-4.0", "CC-BY-4.0", "by"),
    ("by 2.0", "CC-BY-2.0", "by"),
    ("by", "CC-BY", "by"),
    ("by-nc 4", "CC-BY-NC-4.0", "by-nc"),
    ("by-nc-sa 3.0", "CC-BY-NC-SA-3.0", "by-nc-sa"),
    ("by-nd 2.0", "CC-BY-ND-2.0", "by-nd"),
    ("by-nc-nd 2.0", "CC-BY-NC-ND-2.0", "by-nc-nd"),
    ("by-nd-nc 1.0", "CC-BY-NC-ND-1.0", "by-nc-nd"),
    ("Creative Commons Attribution-Share Alike 4.0", "CC-BY-SA-4.0", "by-sa"),
    ("Attribution-NonCommercial 4.0 International", "CC-BY-NC-4.0", "by-nc"),
    ("CC0", "CC0-1.0", "cc0"),
    ("cc0 1.0", "CC0-1.0", "cc0"),
    ("Creative Commons Zero, Public Domain Dedication", "CC0-1.0", "cc0"),
    ("pdm 1.0", "PDM-1.0", "pdm"),
    ("Public domain", "Public-Domain", "pdm"),
    ("pd", "Public-Domain", "pdm"),
    ("https://creativecommons.org/licenses/by-sa/3.0/rs/deed.en", "CC-BY-SA-3.0-RS", "by-sa"),
    ("http://creativecommons.org/licenses/by/4.0", "CC-BY-4.0", "by"),
    ("//creativecommons.org/licenses/by-nc-nd/3.0/", "CC-BY-NC-ND-3.0", "by-nc-nd"),
    ("http://creativecommons.org/publicdomain/zero/1.0/deed.en", "CC0-1.0", "cc0"),
    ("https://creativecommons.org/publicdomain/mark/1.0/", "PDM-1.0", "pdm"),
]
UNKNOWN = [
    "",
    "GFDL",
    "FAL",
    "Copyrighted free use",
    "No restrictions",
    "sampling+ 1.0",
    "nc-sampling+",
    "BY-SA-ND 4.0",
    "sa 1.0",
    "CC",
    "all rights reserved",
    "stand by",
    "by the author",
    "https://creativecommons.org.example/licenses/by/4.0/",
    "https://example.org/creativecommons.org/licenses/by/4.0/x",
    "not CC BY 4.0",
]


@pytest.mark.parametrize(("text", "id", "kind"), WRITTEN)
def test_names_of_licences(text: str, id: str, kind: str) -> None:
    assert (licence_id(text), family(id)) == (id, kind)
    assert licence_id(text.upper()) == id or "//" in text
    assert licence_id(id) == id
    assert not url_of(id) or licence_id(url_of(id)) == id


@pytest.mark.parametrize("text", UNKNOWN)
def test_what_is_not_known_is_not_guessed(text: str) -> None:
    assert licence_id(text) == ""
    assert family(text) == ""
    assert refusal(text, FAMILIES)


@given(text=st.text(max_size=60))
def test_any_text(text: str) -> None:
    id = licence_id(text)
    assert not id or family(id) in FAMILIES


@pytest.mark.parametrize(
    ("id", "allowed", "taken"),
    [
        ("CC0-1.0", DEFAULT, True),
        ("PDM-1.0", DEFAULT, True),
        ("Public-Domain", DEFAULT, True),
        ("CC-BY-4.0", DEFAULT, True),
        ("CC-BY-SA-3.0-DE", DEFAULT, True),
        ("CC-BY-NC-4.0", DEFAULT, False),
        ("CC-BY-NC-SA-4.0", DEFAULT, False),
        ("CC-BY-ND-4.0", DEFAULT, False),
        ("CC-BY-NC-ND-4.0", DEFAULT, False),
        ("CC-BY-ND-4.0", ("by-nd",), True),
        ("CC-BY-ND-4.0", ("by",), False),
        ("CC-BY-4.0", ("CC-BY-4.0",), True),
        ("CC-BY-3.0", ("CC-BY-4.0",), False),
        ("CC-BY-4.0", (), False),
    ],
)
def test_which_are_taken(id: str, allowed: tuple[str, ...], taken: bool) -> None:
    assert (refusal(id, allowed) == "") is taken


def test_reasons_name_what_is_wrong() -> None:
    assert "derivative" in refusal("CC-BY-ND-4.0", DEFAULT)
    assert "'GFDL'" in refusal("GFDL", DEFAULT)
    assert "nothing says" in refusal("", DEFAULT)
    assert "cc0, pdm, by, by-sa" in refusal("CC-BY-NC-4.0", DEFAULT)


def test_the_licences_of_the_configuration() -> None:
    assert checked(("BY", "cc by-sa 4.0", "CC0-1.0")) == ("by", "CC-BY-SA-4.0", "CC0-1.0")
    assert checked(DEFAULT) == DEFAULT
    with pytest.raises(ConfigError, match="cannot name 'gfdl'; known are cc0, pdm"):
        checked(("by", "gfdl"))


def test_the_sentence_to_print() -> None:
    whole = attribution(
        title="Dance", author="Ana", licence="CC-BY-SA-3.0-RS", licence_url="https://cc/3", page="https://p/1"
    )
    assert whole == "“Dance” by Ana, https://p/1, CC BY-SA 3.0 RS (https://cc/3)"
    assert attribution(title="", author="", licence="", licence_url="", page="https://p/1") == "Picture, https://p/1"
    assert readable("PDM-1.0") == "Public Domain Mark 1.0"
    assert readable("CC0-1.0") == "CC0 1.0"
