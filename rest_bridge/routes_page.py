"""The page at ``/docs``: every route and what it does, made of the schema, with nothing from elsewhere.

FastAPI's own page is empty without the internet, which beamline networks do not have: its scripts
come from a server of others.
"""

from __future__ import annotations

from html import escape
from typing import Any

HEAD = '<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><h1>{title}</h1>'
TAIL = '<p>For programs: <a href="/openapi.json">/openapi.json</a>.</p></html>'


def routes_page(schema: dict[str, Any]) -> str:
    """Return the page of an OpenAPI schema, as HTML."""
    info = schema["info"]
    lines = [HEAD.format(title=escape(info["title"])), _paragraphs(info.get("description", ""))]
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            lines.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2>")
            lines.append(_paragraphs(route.get("description", "")))
            lines.extend(_body(route.get("requestBody", {})))
    return "\n".join([*lines, TAIL])


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{escape(part)}</p>" for part in text.strip().split("\n\n") if part)


def _body(body: dict[str, Any]) -> list[str]:
    """Return the keys of a route's body as a list."""
    schema = body.get("content", {}).get("application/json", {}).get("schema", {})
    keys = [
        f"<li><code>{escape(key)}</code> {escape(known.get('description', ''))}</li>"
        for key, known in schema.get("properties", {}).items()
    ]
    return ["<ul>", *keys, "</ul>"] if keys else []
