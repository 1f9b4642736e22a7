"""Pictures of every page with demo data: ``make screenshots``, or ``python -m tests.web.screenshots FOLDER [--all]``.

The main pages are photographed in light and dark at 1440, 1024 and 360 px, all others in light at 1440 and in dark at
360 px: that is what ``docs/screenshots`` keeps. ``--all`` makes all six of every page. Files are WebP, as the browser
writes it: ``<page>-<scheme>-<width>.webp``. ``--only NAME`` (a part of a name) makes fewer.
"""

from __future__ import annotations

import argparse
import base64
import os
import tempfile
from pathlib import Path

import django
from playwright.sync_api import Page, sync_playwright

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "praisonweb.settings")
os.environ["PRAISON_HOME"] = tempfile.mkdtemp(prefix="praisonweb-screenshots-")  # this process stores nothing
django.setup()

from tests.web.showcase import PAGES, SCHEMES, WIDTHS, Scheme, Shown, open_showcase  # noqa: E402
from tests.web.test_browser import FLAGS  # noqa: E402

#: Of the browser's encoder, 0 to 100. Text stays sharp.
_QUALITY = 82


def main() -> None:
    options = _options()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    pages = [shown for shown in PAGES if options.only in shown.name]
    with open_showcase() as showcase, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        for scheme in SCHEMES:
            with showcase.browsing(browser, scheme) as browsing:
                for shown in pages:
                    for width in WIDTHS:
                        if options.all or _is_kept(shown, scheme, width):
                            page = browsing.go(shown, width=width)
                            _photograph(page, folder / f"{shown.name}-{scheme}-{width}.webp")
        browser.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--only", default="")
    return parser.parse_args()


def _is_kept(shown: Shown, scheme: Scheme, width: int) -> bool:
    return shown.is_main or (scheme, width) in (("light", 1440), ("dark", 360))


def _photograph(page: Page, path: Path) -> None:
    """By the protocol of the browser itself: Playwright knows PNG and JPEG alone, which are several times as large."""
    session = page.context.new_cdp_session(page)
    taken = session.send("Page.captureScreenshot", {"format": "webp", "quality": _QUALITY})
    path.write_bytes(base64.b64decode(taken["data"]))
    session.detach()


if __name__ == "__main__":
    main()
