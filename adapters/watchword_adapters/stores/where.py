"""Where a store is, as it may be told in an error: without the password."""

from __future__ import annotations

from urllib.parse import urlsplit


def shown(url: str) -> str:
    """Return the server that a URL names; nothing of what else stands in it, such as a user and a password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "the server in its url"
    if not host:
        return f"{parts.scheme}://{parts.path}" if parts.scheme == "unix" else "the server in its url"
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + ("" if port is None else f":{port}")
