"""Pictures that Openverse finds: its catalogue says where they are and under which licence; other hosts serve them.

https://api.openverse.org/v1/ (images/search). Without an account it gives 20 results a page and 20 pages, at most 20
requests a minute and 200 a day; its headers X-RateLimit-Available-… say how many are left, and vez waits for them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from vez.collect.candidate import Candidate, Refused, Source
from vez.collect.fetch import Web, ask
from vez.collect.licences import FAMILIES, attribution, family, licence_id, url_of
from vez.collect.plain_text import plain
from vez.errors import DataError
from vez.images.provenance import Provenance

API: Final = "https://api.openverse.org/v1/images/"
_PAGE_SIZE: Final = 20
_PAGES: Final = 20
_PERIODS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}  # "20/min", "200/day": the first letter counts


def search(web: Web, words: str, *, licences: Sequence[str], api: str = API) -> Source:
    """The pictures that Openverse finds, best first, at most 400; only those under one of the licences are asked for.

    ``licences``: families and ids as `vez.collect.licences.checked` gives them. Raises DataError where the API cannot
    be reached or does not answer as it should.
    """
    families = [name for name in FAMILIES if name in {text if text in FAMILIES else family(text) for text in licences}]
    given: set[str] = set()
    for number in range(1, _PAGES + 1):
        asked = {"q": words, "license": ",".join(families), "page_size": str(_PAGE_SIZE), "page": str(number)}
        answer, headers = ask(web, api, asked)
        results, pages = answer.get("results"), answer.get("page_count")
        if not isinstance(results, list) or not isinstance(pages, int):
            raise DataError(f"{urlsplit(api).hostname} does not answer as Openverse's API does")
        for result in results:
            found = _picture(web, result if isinstance(result, dict) else {})
            if found.key not in given:
                given.add(found.key)
                yield found
        if number >= pages or not results:
            return
        if seconds := _used_up(headers):
            web.wait(api, seconds, why="has answered as often as it allows")


def _used_up(headers: Mapping[str, str]) -> float:
    """Seconds until a limit that is used up has passed; 0 where none is (several hold at once, each with its pair)."""
    longest = 0.0
    for name, value in headers.items():
        limit = re.fullmatch(r"\d+/([smhd])[a-z]*", headers.get(name.replace("-available-", "-limit-"), ""))
        if name.startswith("x-ratelimit-available-") and value == "0" and limit:
            longest = max(longest, _PERIODS[limit[1]])
    return longest


def _picture(web: Web, result: Mapping[str, Any]) -> Candidate | Refused:
    told = {key: plain(value) for key, value in result.items()}
    url = result.get("url")
    key = url if isinstance(url, str) and url else told.get("id", "")
    if not isinstance(url, str) or not url:
        return Refused(key or "a result without a name", "Openverse gives no address for it")
    page, author, title = (told.get(name, "") for name in ("foreign_landing_url", "creator", "title"))
    named = f"{told.get('license', '')} {told.get('license_version', '')}".strip()
    licence = licence_id(told.get("license_url", "")) or licence_id(named) or named
    licence_url = told.get("license_url", "") or url_of(licence)
    printed = told.get("attribution", "") or attribution(
        title=title, author=author, licence=licence, licence_url=licence_url, page=page
    )
    return Candidate(
        key=url,
        name=title or unquote(urlsplit(url).path.rpartition("/")[2]),
        read=_reader(web, url),
        provenance=Provenance(
            file="",
            origin="openverse",
            page=page,
            url=url,
            title=title,
            author=author,
            licence=licence,
            licence_url=licence_url,
            attribution=printed,
        ),
    )


def _reader(web: Web, url: str) -> Callable[[], bytes]:
    return lambda: web.get(url).data
