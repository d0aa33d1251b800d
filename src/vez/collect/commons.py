"""Pictures of Wikimedia Commons: the files of a category, or what a search finds, through MediaWiki's API.

https://www.mediawiki.org/wiki/API:Imageinfo, API:Categorymembers, API:Search, API:Etiquette (one request at a time,
maxlag, a User-Agent with a contact). Scaled sizes come only in Wikimedia's own steps
(https://www.mediawiki.org/wiki/Common_thumbnail_sizes), and only by the addresses that the API gives.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from vez.collect.candidate import Candidate, Refused, Source
from vez.collect.fetch import Web, ask
from vez.collect.licences import attribution, licence_id, url_of
from vez.collect.plain_text import plain
from vez.errors import DataError
from vez.images.provenance import Provenance

API: Final = "https://commons.wikimedia.org/w/api.php"
_STEPS: Final = (500, 960, 1280, 1920, 3840)  # widths that Wikimedia serves
_PAGE: Final = 50  # the most for which the API gives scaled sizes at once
_LAG: Final = 5  # seconds; while the servers' copies lag behind more than that, readers that can wait should
_LAGS: Final = 5  # how often it is waited for
# What Pillow reads; a drawing (svg), a book (pdf, djvu) or a film is not a picture to learn from.
_KINDS: Final = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/tiff", "image/bmp", "image/avif")
_FIELDS: Final = (
    "LicenseShortName|License|LicenseUrl|UsageTerms|Artist|Credit|Attribution|AttributionRequired|ObjectName"
)


def category(web: Web, name: str, *, side: int | None = None, api: str = API) -> Source:
    """The files of one category ("Category:" before its name may be left out), without its subcategories.

    ``side``: pictures are asked for at a size whose shorter side is at least this, where one is served; None: as they
    were uploaded. Raises DataError where the API cannot be reached or does not answer as it should.
    """
    title = name if name.lower().startswith("category:") else f"Category:{name}"
    return _files(
        web, {"generator": "categorymembers", "gcmtitle": title, "gcmtype": "file", "gcmlimit": str(_PAGE)}, side, api
    )


def search(web: Web, words: str, *, side: int | None = None, api: str = API) -> Source:
    """The files that Commons' search finds, best first; otherwise as `category`."""
    wanted = {"generator": "search", "gsrsearch": words, "gsrnamespace": "6", "gsrlimit": str(_PAGE)}
    return _files(web, wanted, side, api)


def _files(web: Web, wanted: Mapping[str, str], side: int | None, api: str) -> Source:
    """Page after page of the API's answer, each file once."""
    asked = {
        "action": "query",
        "format": "json",
        "formatversion": "2",
        "maxlag": str(_LAG),
        "prop": "imageinfo",
        "iiprop": "url|size|mime|sha1|extmetadata",
        "iiextmetadatafilter": _FIELDS,
        "iiextmetadatalanguage": "en",
        **wanted,
    }
    if side is not None:
        asked["iiurlwidth"] = str(next((step for step in _STEPS if step >= 2 * side), _STEPS[-1]))
    given: set[str] = set()
    waiting: dict[str, None] = {}  # files whose description the API gives only with a later page
    going_on: dict[str, str] = {}
    while True:
        answer = _asked(web, api, asked | going_on)
        for page in _pages(answer, api):
            title = page["title"]
            info = page.get("imageinfo")
            if isinstance(info, list) and info and isinstance(info[0], dict):
                waiting.pop(title, None)
                if title not in given:
                    given.add(title)
                    yield _file(web, title, info[0], side)
            elif title not in given:
                waiting[title] = None
        following = answer.get("continue")
        if not isinstance(following, dict) or not following:
            break
        previous, going_on = going_on, {str(key): str(value) for key, value in following.items()}
        if going_on == previous:
            raise DataError(f"{urlsplit(api).hostname} repeats itself: it goes on with {going_on} twice")
    for title in waiting:
        yield Refused(title, "Commons has no file under this name")


def _asked(web: Web, api: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """One answer of the API, waited for while its servers lag. Raises DataError with what the API complains of."""
    host = urlsplit(api).hostname
    for _ in range(_LAGS):
        answer, headers = ask(web, api, parameters)
        error = answer.get("error")
        if error is None:
            return answer
        code, said = (plain(error.get(key)) for key in ("code", "info")) if isinstance(error, dict) else ("", "")
        if code not in ("maxlag", "ratelimited"):
            raise DataError(f"{host} refuses the request: {said or code or 'it does not say why'}")
        seconds = headers.get("retry-after", "")
        web.wait(api, float(seconds) if seconds.isascii() and seconds.isdigit() else 5.0, why="lags behind")
    raise DataError(f"{host} lags behind and stays so after {_LAGS} pauses; try again later: it goes on")


def _pages(answer: Mapping[str, Any], api: str) -> list[dict[str, Any]]:
    """The pages of an answer in the order of the search; empty where nothing was found."""
    query = answer.get("query", {})
    pages = query.get("pages", []) if isinstance(query, dict) else None
    if not isinstance(pages, list) or not all(isinstance(p, dict) and isinstance(p.get("title"), str) for p in pages):
        raise DataError(f"{urlsplit(api).hostname} does not answer as MediaWiki's API does (formatversion 2)")
    return sorted(pages, key=lambda page: page["index"] if isinstance(page.get("index"), int) else 0)


def _file(web: Web, title: str, info: Mapping[str, Any], side: int | None) -> Candidate | Refused:
    url, page = _text(info, "url"), _text(info, "descriptionurl")
    if not url:
        return Refused(title, "Commons gives no address for it")
    kind = _text(info, "mime")
    if kind not in _KINDS:
        return Refused(url, f"it is {kind or 'of no kind that is told'}, not a picture made of pixels")
    told = info.get("extmetadata")
    values = {
        key: plain(value.get("value"))
        for key, value in (told if isinstance(told, dict) else {}).items()
        if isinstance(value, dict)
    }
    named = [values.get(key, "") for key in ("LicenseUrl", "License", "LicenseShortName", "UsageTerms")]
    licence = next(filter(None, map(licence_id, named)), "") or next(filter(None, named[2:] + named[:2]), "")
    licence_url = values.get("LicenseUrl", "") or url_of(licence)
    name = values.get("ObjectName", "") or title.removeprefix("File:").rpartition(".")[0]
    author = values.get("Artist", "")
    printed = values.get("Attribution", "") or attribution(
        title=name, author=author or values.get("Credit", ""), licence=licence, licence_url=licence_url, page=page
    )
    scaled = _scaled(info, side)
    return Candidate(
        key=url,
        name=unquote(title.removeprefix("File:")),
        read=_reader(web, scaled or url, "" if scaled else _text(info, "sha1")),
        provenance=Provenance(
            file="",
            origin="commons",
            page=page,
            url=scaled or url,
            title=name,
            author=author,
            licence=licence,
            licence_url=licence_url,
            attribution=printed,
        ),
    )


def _scaled(info: Mapping[str, Any], side: int | None) -> str:
    """The address of a scaled copy that is large enough and smaller than the original; empty: take the original."""
    sizes = [info.get(key) for key in ("width", "height", "thumbwidth", "thumbheight")]
    if side is None or not all(isinstance(size, int) for size in sizes):
        return ""
    width, height, thumb_width, thumb_height = (int(size) for size in sizes if size is not None)
    enough = min(thumb_width, thumb_height) >= side and thumb_width < width and thumb_height < height
    return _text(info, "thumburl") if enough else ""


def _reader(web: Web, url: str, sha1: str) -> Callable[[], bytes]:
    def read() -> bytes:
        data = web.get(url).data
        if sha1 and hashlib.sha1(data, usedforsecurity=False).hexdigest() != sha1.lower():
            raise DataError("it is not the file that Commons describes (its SHA-1 differs); it may just have changed")
        return data

    return read


def _text(info: Mapping[str, Any], key: str) -> str:
    value = info.get(key)
    return value if isinstance(value, str) else ""
