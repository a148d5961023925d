"""Renders the provider's HTML pages under a strict content security policy. Independent of the protocol."""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Response
from litestar.enums import MediaType

__all__ = ("content_security_policy", "render", "render_error", "static_asset")

_environment = Environment(
    loader=PackageLoader("auth_demo.op", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def content_security_policy(*, form_targets: Iterable[str] = (), frames: Iterable[str] = (), scripts: bool = False) -> str:
    """Return the policy of one page.

    `form_targets` are the origins a form of the page may end at: browsers judge redirects after a form post by
    form-action too. `frames` are the origins of front-channel logout iframes. `scripts` admits our own file.
    """
    directives = {
        "default-src": ["'none'"],
        "style-src": ["'self'"],
        "img-src": ["'self'"],
        "script-src": ["'self'"] if scripts else ["'none'"],
        "form-action": ["'self'", *sorted(set(form_targets))],
        "frame-src": sorted(set(frames)) or ["'none'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
    return "; ".join(f"{name} {' '.join(sources)}" for name, sources in directives.items())


def render(
    template: str,
    *,
    status: int = 200,
    form_targets: Iterable[str] = (),
    frames: Iterable[str] = (),
    scripts: bool = False,
    **context: Any,  # noqa: ANN401 - whatever the template shows
) -> Response[str]:
    """Return the page `template` with its policy; every value is escaped by Jinja."""
    return Response(
        _environment.get_template(template).render(**context),
        status_code=status,
        media_type=MediaType.HTML,
        headers={"Content-Security-Policy": content_security_policy(form_targets=form_targets, frames=frames, scripts=scripts)},
    )


def render_error(status: int, title: str, detail: str) -> Response[str]:
    """Return an error page of the provider; nothing is sent to any client."""
    return render("error.html", status=status, title=title, detail=detail)


@cache
def static_asset(name: str) -> bytes:
    """Return a packaged file of ``static/``; `name` comes from the routes, never from a request."""
    return (files("auth_demo.op") / "static" / name).read_bytes()
