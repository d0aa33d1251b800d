"""Commons' API as the local server plays it: shapes after api.php with formatversion=2, contents made up."""

import hashlib
from typing import Any

import pytest
from local_server import Local, Time, in_turn, picture, query, says, tells, web

from vez.collect import commons
from vez.collect.candidate import Candidate, Refused
from vez.collect.fetch import ServerBusy
from vez.errors import DataError

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]

ANA = '<a href="//commons.wikimedia.org/wiki/User:Ana" title="User:Ana">Ana <b>Anić</b></a>'


def page(local: Local, number: int, *, index: int | None = None, **changed: Any) -> dict[str, Any]:
    info = {
        "size": 1000,
        "width": 4000,
        "height": 3000,
        "url": local.url(f"/files/Kolo_{number}.jpg"),
        "descriptionurl": f"https://commons.wikimedia.org/wiki/File:Kolo_{number}.jpg",
        "descriptionshorturl": f"https://commons.wikimedia.org/w/index.php?curid={number}",
        "mime": "image/jpeg",
        "extmetadata": {
            "ObjectName": {"value": f"Kolo {number}", "source": "mediawiki-metadata", "hidden": ""},
            "Artist": {"value": ANA, "source": "commons-desc-page"},
            "Credit": {"value": '<span class="int-own-work" lang="en">Own work</span>', "source": "commons-desc-page"},
            "LicenseShortName": {"value": "CC BY-SA 4.0", "source": "commons-desc-page", "hidden": ""},
            "License": {"value": "cc-by-sa-4.0", "source": "commons-templates", "hidden": ""},
            "LicenseUrl": {"value": "https://creativecommons.org/licenses/by-sa/4.0", "hidden": ""},
            "AttributionRequired": {"value": "true", "source": "commons-desc-page", "hidden": ""},
        },
    }
    info |= changed
    row = {
        "pageid": number,
        "ns": 6,
        "title": f"File:Kolo {number}.jpg",
        "imagerepository": "local",
        "imageinfo": [info],
    }
    return row | ({} if index is None else {"index": index})


def answer(*pages: dict[str, Any], going_on: dict[str, str] | None = None) -> dict[str, Any]:
    return ({"continue": going_on} if going_on else {"batchcomplete": True}) | {"query": {"pages": list(pages)}}


def test_a_category_page_after_page(local: Local) -> None:
    going_on = {"gcmcontinue": "file|4B4F4C4F|7", "continue": "gcmcontinue||"}
    local.routes["/api"] = in_turn(
        tells(answer(page(local, 1), page(local, 2), going_on=going_on)), tells(answer(page(local, 2), page(local, 3)))
    )
    with web() as client:
        found = list(commons.category(client, "Kolo dances", api=local.url("/api")))
    assert [f.key for f in found] == [local.url(f"/files/Kolo_{n}.jpg") for n in (1, 2, 3)]
    first, second = (query(asked) for asked in local.asked)
    assert first == {
        "action": "query",
        "format": "json",
        "formatversion": "2",
        "maxlag": "5",
        "prop": "imageinfo",
        "iiprop": "url|size|mime|sha1|extmetadata",
        "iiextmetadatafilter": "LicenseShortName|License|LicenseUrl|UsageTerms|Artist|Credit|Attribution"
        "|AttributionRequired|ObjectName",
        "iiextmetadatalanguage": "en",
        "generator": "categorymembers",
        "gcmtitle": "Category:Kolo dances",
        "gcmtype": "file",
        "gcmlimit": "50",
    }
    assert second == first | going_on


def test_what_is_recorded(local: Local) -> None:
    local.routes["/api"] = tells(answer(page(local, 1)))
    with web() as client:
        (found,) = commons.category(client, "Category:Kolo", api=local.url("/api"))
    assert isinstance(found, Candidate)
    record = found.provenance
    assert found.name == "Kolo 1.jpg"
    assert query(local.asked[0])["gcmtitle"] == "Category:Kolo"
    assert record.origin == "commons"
    assert record.page == "https://commons.wikimedia.org/wiki/File:Kolo_1.jpg"
    assert record.url == local.url("/files/Kolo_1.jpg")
    assert (record.title, record.author) == ("Kolo 1", "Ana Anić")
    assert (record.licence, record.licence_url) == ("CC-BY-SA-4.0", "https://creativecommons.org/licenses/by-sa/4.0")
    assert record.attribution == (
        "“Kolo 1” by Ana Anić, https://commons.wikimedia.org/wiki/File:Kolo_1.jpg, CC BY-SA 4.0 "
        "(https://creativecommons.org/licenses/by-sa/4.0)"
    )
    assert (record.file, record.sha256, record.original_sha256, record.retrieved) == ("", "", "", "")


def test_a_search_in_its_order(local: Local) -> None:
    going_on = {"gsroffset": "50", "continue": "gsroffset||"}
    pages = [page(local, n, index=index) for n, index in ((5, 3), (6, 1), (7, 2))]
    local.routes["/api"] = in_turn(tells(answer(*pages, going_on=going_on)), tells({"batchcomplete": True}))
    with web() as client:
        found = list(commons.search(client, "kolo ношња", api=local.url("/api")))
    assert [f.key.rpartition("_")[2] for f in found] == ["6.jpg", "7.jpg", "5.jpg"]
    first = query(local.asked[0])
    assert (first["generator"], first["gsrsearch"], first["gsrnamespace"]) == ("search", "kolo ношња", "6")
    assert "iiurlwidth" not in first
    assert query(local.asked[1])["gsroffset"] == "50"


def test_nothing_found(local: Local) -> None:
    local.routes["/api"] = tells({"batchcomplete": True})
    with web() as client:
        assert list(commons.search(client, "nothing", api=local.url("/api"))) == []


@pytest.mark.parametrize(
    ("size", "thumb", "side", "step", "scaled"),
    [
        ((4000, 3000), (1280, 960), 512, "1280", True),
        ((3000, 4000), (1280, 1707), 640, "1280", True),
        ((9000, 2000), (1280, 284), 512, "1280", False),  # too flat: its scaled copy is too small
        ((900, 700), (900, 700), 512, "1280", False),  # nothing to scale
        ((4000, 3000), (3840, 2880), 2048, "3840", True),
    ],
)
def test_a_scaled_copy_in_a_size_that_wikimedia_serves(
    local: Local, size: tuple[int, int], thumb: tuple[int, int], side: int, step: str, scaled: bool
) -> None:
    copy = local.url("/thumb/1280px-Kolo_1.jpg")
    sizes = {"width": size[0], "height": size[1], "thumbwidth": thumb[0], "thumbheight": thumb[1], "thumburl": copy}
    local.routes["/api"] = tells(answer(page(local, 1, sha1="0" * 40, **sizes)))
    local.routes["/thumb/1280px-Kolo_1.jpg"] = says(200, b"copy")
    local.routes["/files/Kolo_1.jpg"] = says(200, b"original")
    with web() as client:
        (found,) = commons.category(client, "Kolo", side=side, api=local.url("/api"))
        assert isinstance(found, Candidate)
        assert query(local.asked[0])["iiurlwidth"] == step
        assert found.key == local.url("/files/Kolo_1.jpg"), "the key is the same at every size"
        if scaled:
            assert (found.provenance.url, found.read()) == (copy, b"copy")
        else:
            assert found.provenance.url == local.url("/files/Kolo_1.jpg")
            with pytest.raises(DataError, match="SHA-1"):
                found.read()


def test_the_original_is_the_one_that_is_described(local: Local) -> None:
    data = picture()
    local.routes["/api"] = tells(answer(page(local, 1, sha1=hashlib.sha1(data).hexdigest())))
    local.routes["/files/Kolo_1.jpg"] = says(200, data)
    with web() as client:
        (found,) = commons.category(client, "Kolo", api=local.url("/api"))
        assert isinstance(found, Candidate) and found.read() == data


@pytest.mark.parametrize(
    ("told", "licence", "author"),
    [
        ({"License": {"value": "pd"}, "LicenseShortName": {"value": "Public domain"}}, "Public-Domain", ""),
        ({"LicenseShortName": {"value": "CC BY-SA 3.0 rs"}, "Artist": {"value": 12}}, "CC-BY-SA-3.0-RS", "12"),
        ({"LicenseShortName": {"value": "<b>GFDL</b>"}}, "GFDL", ""),
        ({"License": {"value": "gfdl"}, "LicenseShortName": {"value": "GFDL 1.2+"}}, "GFDL 1.2+", ""),
        ({"LicenseShortName": {"value": None}, "Artist": {"value": ["x"]}}, "", ""),
        ({"Artist": "no object", "License": []}, "", ""),
        ({"Artist": {"value": "<script>x</script>\u202eAna<br>\x1b[0m"}}, "", "Ana [0m"),
        ([], "", ""),
        (None, "", ""),
    ],
)
def test_metadata_of_all_kinds(local: Local, told: object, licence: str, author: str) -> None:
    local.routes["/api"] = tells(answer(page(local, 1, extmetadata=told)))
    with web() as client:
        (found,) = commons.category(client, "Kolo", api=local.url("/api"))
    assert isinstance(found, Candidate)
    assert (found.provenance.licence, found.provenance.author) == (licence, author)


def test_the_authors_own_words_for_the_attribution(local: Local) -> None:
    told = {"Attribution": {"value": "Photo: <i>Ana</i> / Museum"}, "License": {"value": "cc-by-4.0"}}
    local.routes["/api"] = tells(answer(page(local, 1, extmetadata=told)))
    with web() as client:
        (found,) = commons.category(client, "Kolo", api=local.url("/api"))
    assert isinstance(found, Candidate) and found.provenance.attribution == "Photo: Ana / Museum"


def test_what_is_no_picture_or_has_no_file(local: Local) -> None:
    nameless = page(local, 3)
    del nameless["imageinfo"]
    going_on = {"iistart": "x", "continue": "||"}
    late = {"pageid": 4, "ns": 6, "title": "File:Kolo 4.jpg"}
    local.routes["/api"] = in_turn(
        tells(
            answer(page(local, 1, mime="image/svg+xml"), page(local, 2, url=None), nameless, late, going_on=going_on)
        ),
        tells(answer(page(local, 4), nameless)),
    )
    with web() as client:
        found = list(commons.category(client, "Kolo", api=local.url("/api")))
    svg, no_url, described_late, missing = found
    assert isinstance(svg, Refused) and "image/svg+xml" in svg.reason
    assert isinstance(no_url, Refused) and "no address" in no_url.reason
    assert isinstance(described_late, Candidate) and described_late.key.endswith("Kolo_4.jpg")
    assert isinstance(missing, Refused) and missing.key == "File:Kolo 3.jpg"


@pytest.mark.parametrize("code", ["maxlag", "ratelimited"])
def test_lag_is_waited_for(local: Local, code: str) -> None:
    error = {"error": {"code": code, "info": "Waiting for db1: 7 seconds lagged.", "lag": 7}}
    local.routes["/api"] = in_turn(tells(error, Retry_After="9"), tells(error), tells(answer(page(local, 1))))
    turned = Time()
    with web(turned, pause=0) as client:
        assert len(list(commons.category(client, "Kolo", api=local.url("/api")))) == 1
    assert turned.slept == [9.0, 5.0]


def test_lag_that_stays_and_lag_of_an_hour(local: Local) -> None:
    error = {"error": {"code": "maxlag", "info": "lagged"}}
    local.routes["/api"] = tells(error)
    with web() as client, pytest.raises(DataError, match="lags behind and stays so"):
        list(commons.category(client, "Kolo", api=local.url("/api")))
    local.routes["/api"] = tells(error, Retry_After="3600")
    with web() as client, pytest.raises(ServerBusy, match="3,600"):
        list(commons.category(client, "Kolo", api=local.url("/api")))


@pytest.mark.parametrize(
    ("said", "says_what"),
    [
        (
            {"error": {"code": "badvalue", "info": "Unrecognized <b>value</b>"}},
            "refuses the request: Unrecognized value",
        ),
        ({"error": "?"}, "does not say why"),
        ({"query": {"pages": {"1": {}}}}, "does not answer as MediaWiki"),
        ({"query": {"pages": [{"pageid": 1}]}}, "does not answer as MediaWiki"),
        ({"query": []}, "does not answer as MediaWiki"),
    ],
)
def test_answers_that_are_none(local: Local, said: object, says_what: str) -> None:
    local.routes["/api"] = tells(said)
    with web() as client, pytest.raises(DataError, match=says_what):
        list(commons.category(client, "Kolo", api=local.url("/api")))


def test_a_server_that_goes_on_for_ever(local: Local) -> None:
    local.routes["/api"] = tells(answer(page(local, 1), going_on={"gcmcontinue": "x", "continue": "-||"}))
    with web() as client, pytest.raises(DataError, match="repeats itself"):
        list(commons.category(client, "Kolo", api=local.url("/api")))
    assert len(local.asked) == 2
