"""A simulated browser as servers see it: tabs, redirects, a cookie jar, and Sec-Fetch headers."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import unescape
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

import httpx

from tests.support.hostile_op.cookie_jar import Context, CookieJar, is_trustworthy, site_of

_REFRESH = re.compile(r'<meta http-equiv="refresh" content="0;url=([^"]+)">')
_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_HOPS = 10
_NAVIGATION = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
_AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


class Page(NamedTuple):
    """The result of a request after its redirects."""

    url: str
    status: int
    headers: httpx.Headers
    text: str
    hops: tuple[str, ...]
    """Every URL of the redirect chain, this one last."""
    cleared: frozenset[str]
    """Origins whose stored pages a response of the chain cleared (Clear-Site-Data)."""

    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def is_stored(self) -> bool:
        """Whether the browser may show it again without a request."""
        return "no-store" not in self.headers.get("cache-control", "")


@dataclass
class _Request:
    """One request of a page: the mode and destination of the Fetch standard."""

    method: str
    url: str
    initiator: str | None
    mode: Literal["navigate", "no-cors", "cors"] = "navigate"
    dest: str = "document"
    around: tuple[str, ...] = ()
    """Addresses of the pages around a frame."""
    body: bytes | None = None
    content_type: str = ""
    accept: str = _NAVIGATION
    user: bool = True
    headers: Mapping[str, str] | None = None


class Browser:
    """One browser profile. `now` is Unix time in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.jar = CookieJar(now)
        # Plain http to loopback only: loading all CA certificates would take longer than the tests.
        self._http = httpx.AsyncHTTPTransport(verify=False)
        self.sent: list[httpx.Request] = []
        self.stop_at: str | None = None
        """Redirects to URLs with this prefix are not followed; the test follows them later or elsewhere."""

    def tab(self, url: str | None = None) -> Tab:
        """Open a tab that shows `url` without a request, such as a page of another site."""
        return Tab(self, url)

    async def close(self) -> None:
        await self._http.aclose()

    async def load(self, request: _Request) -> Page:
        """Send a request and follow its redirects, with Fetch metadata headers and the cookies allowed by SameSite."""
        hops: list[str] = []
        cleared: set[str] = set()
        while True:
            hops.append(request.url)
            context = _context(request, hops)
            response = await self._send(request, context, hops)
            for header in response.headers.get_list("set-cookie"):
                self.jar.set(header, request.url, context)
            if '"cache"' in response.headers.get("clear-site-data", ""):
                cleared.add(_origin(request.url))
            target = response.headers.get("location") if response.status_code in _REDIRECTS else None
            if request.mode == "navigate" and (refresh := _REFRESH.search(response.text)) is not None:
                target = unescape(refresh[1])
            if target is None or len(hops) == _MAX_HOPS:
                shown = (request.url, response.status_code, response.headers, response.text)
                return Page(*shown, tuple(hops), frozenset(cleared))
            request.url = urljoin(request.url, target)
            if self.stop_at is not None and request.url.startswith(self.stop_at):
                stopped = httpx.Response(0)
                return Page(request.url, stopped.status_code, stopped.headers, "", tuple(hops), frozenset(cleared))
            if response.status_code not in {307, 308} and request.method != "HEAD":
                request.method, request.body, request.content_type = "GET", None, ""

    async def _send(self, request: _Request, context: Context, hops: list[str]) -> httpx.Response:
        headers = {"user-agent": _AGENT, "accept": request.accept, **(request.headers or {})}
        if is_trustworthy(urlsplit(request.url)):
            headers |= {
                "sec-fetch-site": _fetch_site(request, hops),
                "sec-fetch-mode": request.mode,
                "sec-fetch-dest": request.dest,
            }
            if request.mode == "navigate" and request.user:
                headers["sec-fetch-user"] = "?1"
        if cookies := self.jar.header(request.url, context):
            headers["cookie"] = cookies
        if request.initiator is not None and (request.method not in {"GET", "HEAD"} or request.mode == "cors"):
            left = len({_origin(each) for each in hops}) > 1 and _origin(request.initiator) != _origin(request.url)
            headers["origin"] = "null" if left else _origin(request.initiator)
        if request.content_type:
            headers["content-type"] = request.content_type
        sent = httpx.Request(request.method, request.url, headers=headers, content=request.body)
        self.sent.append(sent)
        # The transport alone: a client would add its own cookie jar and URL log.
        response = await self._http.handle_async_request(sent)
        await response.aread()
        await response.aclose()
        return response


class Tab:
    """A tab: its current page and its history."""

    def __init__(self, browser: Browser, url: str | None = None) -> None:
        self.browser = browser
        self.url = url
        self._history: list[Page] = []
        self._forgotten: set[str] = set()

    async def open(self, url: str) -> Page:
        """Open a URL as if typed or bookmarked."""
        return await self._show(_Request("GET", url, None))

    async def follow(self, target: str, **headers: str) -> Page:
        """Click a link on the page."""
        return await self._show(_Request("GET", self._absolute(target), self.url, headers=headers))

    async def submit(self, target: str, fields: Mapping[str, str] | None = None, *, user: bool = True) -> Page:
        """Submit a form of the page; without `user`, by a script."""
        request = _Request("POST", self._absolute(target), self.url, body=urlencode(fields or {}).encode(), user=user)
        request.content_type = "application/x-www-form-urlencoded"
        return await self._show(request)

    async def submit_shown_form(self) -> Page:
        """Submit the form of the current page, such as the self-submitting page of `response_mode=form_post`."""
        text = self._history[-1].text
        action = html.unescape(re.findall(r'action="([^"]*)"', text)[0])
        fields = re.findall(r'name="([^"]*)" value="([^"]*)"', text)
        return await self.submit(action, {name: html.unescape(value) for name, value in fields}, user=False)

    async def frame(self, target: str) -> Page:
        """Show an address in a frame on the page."""
        assert self.url is not None
        request = _Request("GET", self._absolute(target), self.url, dest="iframe", around=(self.url,), user=False)
        return await self.browser.load(request)

    async def image(self, target: str) -> Page:
        """Load an address as an image."""
        request = _Request("GET", self._absolute(target), self.url, "no-cors", "image", accept="image/*", user=False)
        return await self.browser.load(request)

    async def fetch(self, target: str, method: str = "GET", *, data: Any = None, **headers: str) -> Page:
        """Call `fetch(..., {credentials: "include"})` in a script of the page."""
        encoded = None if data is None else json.dumps(data).encode()
        request = _Request(method, self._absolute(target), self.url, "cors", "empty", accept="application/json", user=False)
        request.body, request.content_type = encoded, "application/json" if data is not None else ""
        request.headers = headers
        return await self.browser.load(request)

    async def back(self) -> Page:
        """Press Back: a storable page is restored, any other is requested again."""
        self._history.pop()
        before = self._history[-1]
        self.url = before.url
        if before.is_stored and _origin(before.url) not in self._forgotten:
            return before
        self._history.pop()
        return await self._show(_Request("GET", before.url, None, user=False))

    async def _show(self, request: _Request) -> Page:
        page = await self.browser.load(request)
        self.url = page.url
        self._forgotten |= page.cleared
        self._history.append(page)
        return page

    def _absolute(self, target: str) -> str:
        return urljoin(self.url or "", target)


def _context(request: _Request, hops: list[str]) -> Context:
    home = site_of(request.url)
    others = [*hops, *request.around, *([request.initiator] if request.initiator else [])]
    # A typed URL has no initiator and counts as same-site; a redirect through another site does not.
    same_site = all(site_of(each) == home for each in others)
    top_level = request.mode == "navigate" and request.dest == "document"
    return Context(same_site, top_level, request.method in {"GET", "HEAD"})


def _fetch_site(request: _Request, hops: list[str]) -> str:
    """`Sec-Fetch-Site` (Fetch Metadata 2.3): the worst value of all URLs of the chain."""
    if request.initiator is None:
        return "none"
    site = "same-origin"
    for each in hops:
        if _origin(each) == _origin(request.initiator):
            continue
        if site_of(each) != site_of(request.initiator):
            return "cross-site"
        site = "same-site"
    return site


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
