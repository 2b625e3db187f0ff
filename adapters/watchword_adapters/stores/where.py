"""Formats a store's URL for error texts, without user and password."""

from __future__ import annotations

from urllib.parse import urlsplit


def shown(url: str) -> str:
    """Return scheme, host and port of a URL, and nothing else, such as a user or password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "the server in its url"
    if not host:
        return f"{parts.scheme}://{parts.path}" if parts.scheme == "unix" else "the server in its url"
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + ("" if port is None else f":{port}")
