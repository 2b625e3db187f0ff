"""What mkdocs does beside its own work: it brings README and its like onto the site, and puts pictures into pages.

Pages are written to be read in the repository, too. So a link that leaves ``docs`` for another file of the repository
is right as it stands; here it is bent to that file's page. Files that have no page of their own get one that shows
their text, under ``source``.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = PurePosixPath("docs")
PAGES: Final = {f"{name}.md": f"{name.lower()}.md" for name in ("README", "SECURITY", "CHANGELOG", "CONTRIBUTING")}
"""Files outside ``docs`` that are pages, by their names there."""

_LINK: Final = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)#\s]+)(?=[)#])")
_PICTURE: Final = re.compile(r"^!\[([^\]]*)\]\(([^)]+\.svg)\)$", re.MULTILINE)
_FENCES: Final = {".py": "python", ".toml": "toml", ".sh": "sh", ".json": "json", ".yaml": "yaml", ".go": "go"}


def on_files(files: Files, /, *, config: MkDocsConfig) -> Files:
    """Add a page for each file outside ``docs`` that is one, or that a page links to."""
    for name, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / name).read_text("utf-8")))
    for file in [*files.documentation_pages()]:
        for target in _LINK.findall(file.content_string):
            path = _in_repository(file.src_uri, target)
            page = _page_of(path)
            if page and page.startswith("source/") and page not in files.src_uris:
                files.append(File.generated(config, page, content=_shown(path)))
    return files


def on_page_markdown(markdown: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - the event's arguments
    """Bend links that leave ``docs``, and put the SVG of a picture into the page, so that it has the page's colours."""
    here = page.file.src_uri
    at = PurePosixPath(here).parent

    def bent(link: re.Match[str]) -> str:
        uri = _page_of(_in_repository(here, link[1]))
        return os.path.relpath(uri, at) if uri else link[1]

    def picture(image: re.Match[str]) -> str:
        svg = (ROOT / _in_repository(here, image[2])).read_text("utf-8")
        lines = [line for line in svg.splitlines() if line.strip()]  # a blank one would end the block of HTML
        return f'<figure class="picture" role="img" aria-label="{image[1]}">\n' + "\n".join(lines) + "\n</figure>"

    return _LINK.sub(bent, _PICTURE.sub(picture, markdown))


def _in_repository(page: str, target: str) -> PurePosixPath:
    """Return where in the repository a link of a page leads."""
    home = next((PurePosixPath(name).parent for name, uri in PAGES.items() if uri == page), (DOCS / page).parent)
    return PurePosixPath(os.path.normpath(home / target))


def _page_of(path: PurePosixPath) -> str | None:
    """Return the page of a file of the repository, None where there is no such file."""
    if path.name in PAGES and path.parent == PurePosixPath():
        return PAGES[path.name]
    if path.is_relative_to(DOCS):
        return str(path.relative_to(DOCS))
    return f"source/{path}.md" if not path.is_absolute() and (ROOT / path).is_file() else None


def _shown(path: PurePosixPath) -> str:
    """Return a page that shows a file's text, or the text itself where it is one."""
    text = (ROOT / path).read_text("utf-8")
    return text if path.suffix == ".md" else f"# {path}\n\n````{_FENCES.get(path.suffix, 'text')}\n{text}\n````\n"
