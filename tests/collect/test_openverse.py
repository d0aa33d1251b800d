"""Openverse's API as the local server plays it: shapes after /v1/images/, contents made up."""

from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from local_server import Local, Time, query, says, tells, web

from vez.collect import openverse
from vez.collect.candidate import Candidate, Refused
from vez.collect.fetch import ServerBusy
from vez.errors import DataError

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]

TAKEN = ("cc0", "pdm", "by", "by-sa")


def result(local: Local, number: int, **changed: Any) -> dict[str, Any]:
    return {
        "id": f"00000000-0000-4000-8000-{number:012}",
        "title": f"Dance {number}",
        "indexed_on": "2026-01-02T03:04:05Z",
        "foreign_landing_url": f"https://photos.example/{number}",
        "url": local.url(f"/files/{number}_o.jpg"),
        "creator": "Bo",
        "creator_url": "https://photos.example/bo",
        "license": "by-sa",
        "license_version": "2.0",
        "license_url": "https://creativecommons.org/licenses/by-sa/2.0/",
        "provider": "flickr",
        "source": "flickr",
        "category": None,
        "filesize": None,
        "filetype": None,
        "tags": [{"accuracy": None, "name": "dance"}],
        "attribution": f'"Dance {number}" by Bo is licensed under CC BY-SA 2.0.',
        "mature": False,
        "height": 683,
        "width": 1024,
        "unstable__sensitivity": [],
    } | changed


def answering(local: Local, pages: int, each: int = 2, **headers: str) -> Any:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        number = int(query(handler.path)["page"])
        results = [result(local, number * 100 + n) for n in range(each)]
        row = {"result_count": pages * each, "page_count": pages, "page_size": 20, "page": number, "results": results}
        tells(row, **headers)(handler)

    return answer


def found(local: Local, turned: Time | None = None, licences: tuple[str, ...] = TAKEN) -> list[Candidate | Refused]:
    with web(turned, pause=0) as client:
        return list(openverse.search(client, "folk dance", licences=licences, api=local.url("/v1/images/")))


def test_page_after_page(local: Local) -> None:
    local.routes["/v1/images/"] = answering(local, 3)
    assert [f.key for f in found(local)] == [local.url(f"/files/{n}_o.jpg") for n in (100, 101, 200, 201, 300, 301)]
    asked = [query(path) for path in local.asked]
    assert asked[0] == {"q": "folk dance", "license": "cc0,pdm,by,by-sa", "page_size": "20", "page": "1"}
    assert [row["page"] for row in asked] == ["1", "2", "3"]


def test_only_the_licences_wanted_are_asked_for(local: Local) -> None:
    local.routes["/v1/images/"] = answering(local, 1)
    found(local, licences=("CC-BY-SA-4.0", "by-nc"))
    assert query(local.asked[0])["license"] == "by-sa,by-nc"


def test_no_more_than_twenty_pages(local: Local) -> None:
    local.routes["/v1/images/"] = answering(local, 999, each=1)
    assert len(found(local)) == 20
    assert len(local.asked) == 20


def test_what_is_recorded_and_read(local: Local) -> None:
    local.routes["/v1/images/"] = answering(local, 1, each=1)
    local.routes["/files/100_o.jpg"] = says(200, b"bytes")
    with web() as client:
        (one,) = openverse.search(client, "folk dance", licences=TAKEN, api=local.url("/v1/images/"))
        assert isinstance(one, Candidate)
        assert one.read() == b"bytes"
    record = one.provenance
    assert one.name == "Dance 100"
    assert (record.origin, record.page) == ("openverse", "https://photos.example/100")
    assert (record.title, record.author, record.licence) == ("Dance 100", "Bo", "CC-BY-SA-2.0")
    assert record.licence_url == "https://creativecommons.org/licenses/by-sa/2.0/"
    assert record.attribution == '"Dance 100" by Bo is licensed under CC BY-SA 2.0.'


@pytest.mark.parametrize(
    ("changed", "licence", "name"),
    [
        ({"license_url": None}, "CC-BY-SA-2.0", "Dance 1"),
        ({"license_url": None, "license_version": None, "license": "pdm"}, "PDM-1.0", "Dance 1"),
        ({"license_url": None, "license": "sampling+", "license_version": "1.0"}, "sampling+ 1.0", "Dance 1"),
        ({"license_url": None, "license": None, "license_version": None}, "", "Dance 1"),
        ({"title": None, "creator": None, "attribution": None, "tags": 5}, "CC-BY-SA-2.0", "1_o.jpg"),
    ],
)
def test_results_of_all_kinds(local: Local, changed: dict[str, Any], licence: str, name: str) -> None:
    row = {"result_count": 1, "page_count": 1, "results": [result(local, 1, **changed)]}
    local.routes["/v1/images/"] = tells(row)
    (one,) = found(local)
    assert isinstance(one, Candidate)
    assert (one.provenance.licence, one.name) == (licence, name)
    assert one.provenance.attribution


@pytest.mark.parametrize("row", [None, [], "x", {}, {"url": None, "id": "a"}, {"url": 5}])
def test_results_that_are_none(local: Local, row: object) -> None:
    local.routes["/v1/images/"] = tells({"page_count": 1, "results": [row]})
    (one,) = found(local)
    assert isinstance(one, Refused) and "no address" in one.reason


@pytest.mark.parametrize("row", [{}, {"results": {}, "page_count": 1}, {"results": [], "page_count": "1"}])
def test_answers_that_are_none(local: Local, row: object) -> None:
    local.routes["/v1/images/"] = tells(row)
    with pytest.raises(DataError, match="as Openverse's API does"):
        found(local)


def test_a_limit_that_is_used_up_is_waited_for(local: Local) -> None:
    local.routes["/v1/images/"] = answering(
        local,
        2,
        **{"X-RateLimit-Limit-burst": "20/min", "X-RateLimit-Available-burst": "0"},
        **{"X-RateLimit-Limit-sustained": "200/day", "X-RateLimit-Available-sustained": "7"},
    )
    turned = Time()
    assert len(found(local, turned)) == 4
    assert turned.slept == [60.0]


def test_a_day_that_is_used_up_ends_the_search(local: Local) -> None:
    local.routes["/v1/images/"] = answering(
        local, 2, **{"X-RateLimit-Limit-day": "200/day", "X-RateLimit-Available-day": "0"}
    )
    with pytest.raises(ServerBusy, match="as often as it allows and asks for a pause of 86,400 s"):
        found(local)
    assert len(local.asked) == 1
