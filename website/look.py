"""Opens each page of the site in headless Chromium, wide and narrow: ``python -m website.look [--dark] [PAGE...]``.

It fails where a page is wider than its window, something is cut that cannot be scrolled to, anything is asked of a
server or is not there, or a script fails. Screenshots are in ``build/site``, for people to look at. It speaks Chrome's
DevTools protocol over a pipe (``--remote-debugging-pipe``), so it needs nothing but the browser. The page for what a
server does not find works on a server only, and is left out.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
SITE: Final = ROOT / "build" / "docs"
SHOTS: Final = ROOT / "build" / "site"
WIDTHS: Final = (1300, 390)
_TALLEST: Final = 16_000
_STILL: Final = "Promise.all(document.getAnimations().map((one) => one.finished))"
_CUT: Final = """(() => {
  const cut = [];
  const width = document.documentElement.clientWidth;
  const whole = document.documentElement.scrollWidth;
  if (whole > width) cut.push(`page: ${whole} > ${width}`);
  for (const one of document.querySelectorAll(".md-content *")) {
    const style = getComputedStyle(one);
    if (style.visibility === "hidden" || one.closest("svg") && one.tagName !== "svg") continue;
    if (style.overflowX === "hidden" && one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 1)
      cut.push(`hidden: ${one.tagName}.${one.className} ${one.textContent.trim().slice(0, 60)}`);
    const box = one.getBoundingClientRect();
    if (box.width === 0 || box.right <= width + 1) continue;
    let scrolls = false;
    for (let up = one; up && up !== document.body; up = up.parentElement)
      scrolls ||= ["auto", "scroll"].includes(getComputedStyle(up).overflowX);
    if (!scrolls) cut.push(`outside: ${one.tagName}.${one.className} ${one.textContent.trim().slice(0, 60)}`);
  }
  return JSON.stringify([cut.slice(0, 5), document.documentElement.scrollHeight]);
})()"""


class Browser:
    """A Chromium with one page, which is given commands and reports what happens."""

    def __init__(self, program: str, profile: str) -> None:
        reads, self._told = os.pipe()
        self._heard, writes = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        command = [
            "bash",
            "-c",
            f'exec "$@" 3<&{reads} 4>&{writes}',
            "-",
            program,
            *flags,
            f"--user-data-dir={profile}",
        ]
        self._process = subprocess.Popen(command, pass_fds=(reads, writes), stderr=subprocess.DEVNULL)  # noqa: S603 - ours
        os.close(reads)
        os.close(writes)
        self._rest, self._number, self._session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **params: object) -> dict[str, Any]:
        """Tell the browser something, and return its answer; what happens meanwhile is in ``events``."""
        self._number += 1
        told = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            told["sessionId"] = self._session
        os.write(self._told, json.dumps(told).encode() + b"\0")
        while True:
            heard = self._hear()
            if heard.get("id") == self._number:
                if "error" in heard:
                    raise RuntimeError(f"{method}: {heard['error']}")
                return dict(heard["result"])
            self.events.append(heard)

    def open(self, url: str) -> None:
        """Open a page, and wait until it is loaded."""
        self.events.clear()
        self.do("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._hear())

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait()

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            some = os.read(self._heard, 1 << 20)
            if not some:
                raise RuntimeError("Chromium has gone")
            self._rest += some
        one, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(one))


def look(browser: Browser, page: Path, width: int, scheme: str) -> list[str]:
    """Open a page in a window of some width, take its picture, and return what is wrong with it."""
    name = f"{width}-{scheme}"
    browser.do("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    browser.do(
        "Emulation.setEmulatedMedia", features=[_feature("color-scheme", scheme), _feature("reduced-motion", "reduce")]
    )
    browser.open(page.as_uri())
    browser.do("Runtime.evaluate", expression=_STILL, awaitPromise=True)
    found = browser.do("Runtime.evaluate", expression=_CUT)["result"]["value"]
    wrong, height = json.loads(found)
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, _TALLEST), "scale": 1}
    taken = browser.do("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
    shot = (SHOTS / name / page.relative_to(SITE)).with_suffix(".png")
    shot.parent.mkdir(parents=True, exist_ok=True)
    shot.write_bytes(base64.b64decode(taken))
    for event in browser.events:
        params = event.get("params", {})
        url = params.get("request", {}).get("url", "")
        if event.get("method") == "Network.requestWillBeSent" and not url.startswith(("file:", "data:", "blob:")):
            wrong.append(f"asks {url}")
        if event.get("method") == "Network.loadingFailed" and not params.get("canceled"):
            wrong.append(f"not loaded: {params.get('type')} {params.get('errorText')}")
        if event.get("method") == "Runtime.exceptionThrown":
            wrong.append(f"script: {params['exceptionDetails'].get('text')}")
    return [f"{page.relative_to(SITE)} at {name}: {one}" for one in wrong]


def _feature(name: str, value: str) -> dict[str, str]:
    return {"name": f"prefers-{name}", "value": value}


def main(names: list[str]) -> int:
    """Look at the pages that are named, or at all, and return 1 if anything is wrong."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None or not SITE.is_dir():
        sys.stderr.write("this needs Chromium (apt-get install chromium) and a site (make docs)\n")
        return 2
    scheme = "dark" if "--dark" in names else "light"
    pages = [SITE / name for name in names if name != "--dark"] or sorted(
        set(SITE.rglob("*.html")) - {SITE / "404.html"}
    )
    wrong = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        try:
            for page in pages:
                for width in WIDTHS:
                    for fault in look(browser, page, width, scheme):
                        sys.stdout.write(f"{fault}\n")
                        wrong += 1
        finally:
            browser.close()
    sys.stdout.write(f"{len(pages)} pages looked at, {wrong} faults; screenshots in {SHOTS.relative_to(ROOT)}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
