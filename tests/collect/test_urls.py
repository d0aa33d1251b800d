from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_server import web

from vez.collect.candidate import Candidate
from vez.collect.urls import from_list
from vez.errors import DataError


def read(path: Path, data: str | bytes) -> list[Candidate]:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    with web() as client:
        found = list(from_list(client, path))
    assert all(isinstance(candidate, Candidate) for candidate in found)
    return found  # type: ignore[return-value]


def test_a_text_list(tmp_path: Path) -> None:
    text = "\ufeff# pictures\n\nhttps://a.example/1.jpg\r\n  http://b.example/x%20y.png#part  # the second\n#end"
    found = read(tmp_path / "list.txt", text)
    assert [c.key for c in found] == ["https://a.example/1.jpg", "http://b.example/x%20y.png#part"]
    assert [c.name for c in found] == ["1.jpg", "x y.png"]
    assert found[0].provenance.origin == "url"
    assert found[0].provenance.url == "https://a.example/1.jpg"
    assert found[0].provenance.attribution == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("https://a.example/1.jpg\nnonsense", "line 2.*not an address"),
        ("https://a.example/1.jpg https://a.example/2.jpg", "line 1 has more than an address"),
        ("ftp://a.example/1.jpg", "line 1.*not an address"),
        ("https:///1.jpg", "line 1.*no host"),
        ("http://[x/1.jpg", "line 1.*not an address"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_a_text_list_that_is_wrong(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read(tmp_path / "list.txt", text)


def test_a_table(tmp_path: Path) -> None:
    table = (
        "\ufeffURL, Page ,title,author,license,licence_url,attribution\r\n"
        'https://a.example/1.jpg,https://a.example/p,"Dance, with ""quotes""\nin two lines",Ana,CC BY-SA 4.0,,\r\n'
        "\r\n"
        "https://a.example/2.jpg,,,,,https://creativecommons.org/licenses/by/3.0/,As Bo wishes\r\n"
        "https://a.example/3.jpg,,,,house rules,,\r\n"
    )
    first, second, third = (c.provenance for c in read(tmp_path / "list.csv", table))
    assert (first.title, first.author, first.page) == (
        'Dance, with "quotes" in two lines',
        "Ana",
        "https://a.example/p",
    )
    assert (first.licence, first.licence_url) == ("CC-BY-SA-4.0", "https://creativecommons.org/licenses/by-sa/4.0/")
    assert first.attribution.startswith("“Dance, with")
    assert (second.licence, second.attribution) == ("CC-BY-3.0", "As Bo wishes")
    assert third.licence == "house rules"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_other_countries(tmp_path: Path, delimiter: str) -> None:
    table = delimiter.join(["author", "url"]) + "\n" + delimiter.join(["Ana", "https://a.example/" + "x" * 900]) + "\n"
    found = read(tmp_path / "list.csv", table)[0]
    assert found.provenance.author == "Ana"
    assert found.key == "https://a.example/" + "x" * 900, "an address is never shortened"


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("title,author\nA,B\n", 'line 1.*no column "url"'),
        ("url,autor\nhttps://a.example/1,B\n", "line 1.*unknown column 'autor'"),
        ("url,url\n", "line 1.*one twice"),
        ("url,licence,license\n", "line 1.*one twice"),
        ("url,title\nhttps://a.example/1.jpg,Dance, with a comma\n", "line 2 has 3 fields and the table 2 columns"),
        ("url,title\nhttps://a.example/1.jpg\n", "line 2 has 1 fields"),
        ('url,title\nhttps://a.example/1.jpg,"open\n', "not CSV"),
        ('url,title\nhttps://a.example/1.jpg,"a"b\n', "not CSV"),
        ("url,title\nhttps://a.example/1.jpg,A\n,B\n", "line 3.*not an address"),
    ],
)
def test_a_table_that_is_wrong(tmp_path: Path, table: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read(tmp_path / "list.csv", table)


def test_no_such_list(tmp_path: Path) -> None:
    with web() as client, pytest.raises(DataError, match="cannot be read"):
        from_list(client, tmp_path / "none.txt")


@settings(max_examples=50)
@given(data=st.binary(max_size=300), table=st.booleans())
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes, table: bool) -> None:
    path = tmp_path_factory.mktemp("lists") / ("list.csv" if table else "list.txt")
    try:
        read(path, b"url,title\n" * table + data)
    except DataError as error:
        assert str(path) in str(error)
