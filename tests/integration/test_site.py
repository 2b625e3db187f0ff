"""The site is built from what is here, without a network, and asks nothing of anyone when it is read."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
NOWHERE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it, as ``make docs`` does, with any request leading nowhere."""
    directory = tmp_path_factory.mktemp("site")
    done = build(ROOT, directory)
    assert done.returncode == 0, done.stderr
    return directory


def build(project: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run what ``make docs`` runs, for a project, into a directory."""
    found = re.search(r"\$\(BIN\)/mkdocs (build [^&\n]*)", (ROOT / "Makefile").read_text())
    assert found is not None
    command = [sys.executable, "-m", "mkdocs", *found[1].split(), "--site-dir", str(directory)]
    environment = {**os.environ, **NOWHERE, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(  # noqa: S603 - ours
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("link", ["nowhere.md", "../nowhere.py", "index.md#nowhere"])
def test_a_link_that_leads_nowhere_stops_the_build(tmp_path: Path, link: str) -> None:
    """Promise: with the flags of ``make docs`` and our settings, a broken link or anchor is an error."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Home\n\n[somewhere]({link}) and [there](index.md#home)\n")
    settings = (ROOT / "mkdocs.yml").read_text()
    (tmp_path / "mkdocs.yml").write_text(
        "site_name: x\n" + settings[settings.index("validation:") : settings.index("nav:\n  - Start")]
    )
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert link.partition("#")[2] in done.stderr
    assert link.partition("#")[0] in done.stderr


def test_every_page_is_there_and_says_something(site: Path) -> None:
    """Promise: each page of the repository is on the site, README and its like, too, and links lead to pages."""
    pages = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    made = {path.with_suffix(".html") if path.stem != "README" else path.with_name("index.html") for path in pages}
    made |= {Path(f"{name}.html") for name in ("readme", "security", "changelog", "contributing")}
    assert sorted(page for page in made if not (site / page).is_file()) == []
    assert 'href="replay.html#core-nats-the-journal"' in (site / "readme.html").read_text()


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """Promise: no font, script, style or picture comes from a server that is not the reader's own."""
    loaded = re.compile(r'<(?:script|img|iframe)[^>]*\bsrc="?(\w+:)?//[^>]*>|<link[^>]*\bhref="?(?:\w+:)?//[^>]*>')
    pages = {page.name: loaded.search(page.read_text()) for page in site.rglob("*.html")}
    assert [name for name, found in pages.items() if found] == []
    assert [
        style.name for style in site.rglob("*.css") if re.search(r"(@import|url\()[\"' ]*(\w+:)?//", style.read_text())
    ] == []


def test_the_search_works_without_a_server(site: Path) -> None:
    """Promise: the index is a script beside the pages, and has what the API's docstrings and the pages say."""
    index = (site / "search" / "search_index.js").read_text()
    assert [word for word in ("over_quota", "SigningProducer", "replay.floor_raised", "A54") if word not in index] == []


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("watchword", ("load", "Watchword", "Rejected")),
        ("spi", ("KeySource", "Context")),
        ("kafka", ("SigningProducer",)),
    ],
)
def test_the_api_is_on_it(site: Path, page: str, names: tuple[str, ...]) -> None:
    """Promise: the public names of a door are headings on its page."""
    text = (site / "api" / f"{page}.html").read_text()
    door = "watchword" if page == "watchword" else f"watchword.{page}"
    assert [name for name in names if f'id="{door}.{name}"' not in text] == []
