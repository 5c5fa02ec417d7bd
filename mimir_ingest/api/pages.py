"""HTML pages from the package's own templates, and the switch between HTML and JSON.

Templates autoescape, and load nothing from other hosts. Links are relative, so that pages work under
`-server.path-prefix`.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse

from mimir_ingest import __version__


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mimir_ingest", "web/templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["version"] = __version__
    return environment


def render_page(template: str, *, root: str = "", status_code: int = 200, **context: Any) -> HTMLResponse:
    """Render a template as `text/html; charset=utf-8`.

    Parameters
    ----------
    template : file name in `web/templates`
    root : relative path from the page to the index page, such as "../" for `/ingester/tenants`; empty at the top
    context : the template's variables; one that is missing raises jinja2.UndefinedError
    """
    text = _environment().get_template(template).render(root=root, **context)
    return HTMLResponse(text, status_code=status_code)


def wants_json(request: Request) -> bool:
    """Say whether a status page was asked for as JSON: `Accept` contains `application/json` (http-api, section 1.6)."""
    return "application/json" in request.headers.get("accept", "")


def go_time(now: datetime) -> str:
    """Print a time as Go's JSON does: RFC 3339, UTC, fraction without trailing zeros."""
    text = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".")
    return f"{text}Z"


def static_file(name: str) -> bytes | None:
    """Return a file of `web/static`, or None when there is none of that name."""
    folder = resources.files("mimir_ingest").joinpath("web", "static")
    return next((file.read_bytes() for file in folder.iterdir() if file.name == name and file.is_file()), None)
