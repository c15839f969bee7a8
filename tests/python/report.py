"""Reads a report of `canet report` in a browser as people would: report.py DIRECTORY."""

import sys
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe

from browser import Watched, chromium

DIRECTORY = Path(sys.argv[1])
PAGE = f"file://{DIRECTORY}/report.html"

WIDE = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "device_scale_factor": 2}

# Two texts of a picture that lie on each other.
OVERLAPS = """[...document.querySelectorAll('svg')].filter(svg => svg.checkVisibility()).flatMap(svg => {
    const texts = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
    return texts.flatMap(([a, p], place) => texts.slice(place + 1)
        .filter(([, q]) => Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1
            && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 4)
        .map(([b]) => `${a} | ${b}`));
})"""
# Texts that leave their picture.
OUTSIDE = """[...document.querySelectorAll('svg')].filter(svg => svg.checkVisibility()).flatMap(svg => {
    const frame = svg.getBoundingClientRect();
    return [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()])
        .filter(([, box]) => box.left < frame.left - 1 || box.right > frame.right + 1
            || box.top < frame.top - 1 || box.bottom > frame.bottom + 1).map(([text]) => text);
})"""

with chromium() as browser:
    for name, context in [("wide", WIDE), ("dark", {**WIDE, "color_scheme": "dark"}), ("phone", PHONE),
                          ("dark phone", {**PHONE, "color_scheme": "dark"})]:
        watched = Watched(browser, PAGE, **context)
        page = watched.page
        assert watched.requests == [PAGE] and not watched.complaints, (watched.requests, watched.complaints)
        pictures = page.locator("svg:visible")
        assert pictures.count() == 4, f"{name}: {pictures.count()} pictures"
        assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"], name
        for fault in (OVERLAPS, OUTSIDE):
            found = page.evaluate(fault)
            assert not found, f"{name}: {found}"
        violations = Axe().run(page)
        assert violations.violations_count == 0, f"{name}: {violations.generate_report()}"
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ("dark" in name) == (ground == "rgb(16, 18, 20)"), ground
        watched.close()

    # The pictures alone follow the reader's colours too.
    for picture in sorted(DIRECTORY.glob("*.svg")):
        watched = Watched(browser, f"file://{picture}", **WIDE, color_scheme="dark")
        fill = watched.page.evaluate("getComputedStyle(document.querySelector('.ground')).fill")
        assert fill == "rgb(24, 27, 30)" and not watched.complaints, (picture, fill, watched.complaints)
        watched.close()
