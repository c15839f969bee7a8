"""Chromium as Debian packages it, driven by Playwright, for tests and screenshots of the console."""

from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import expect, sync_playwright

# No call home: whatever the browser asks for is asked for by the page.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# As long as Playwright waits for anything else: what is still not on the page then hangs. A reload beside live requests
# gives way to whatever else the machine does.
expect.set_options(timeout=30_000)


@contextmanager
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page, with everything that it complained of and every request that it sent."""

    def __init__(self, browser, url, **context):
        self.url = url
        self.page = browser.new_context(**context).new_page()
        self.complaints = []
        self.requests = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)

    def _said(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} {message.location.get('url', '')}")

    def elsewhere(self):
        """Requests to any other server than the page's own."""
        here = urlsplit(self.url).netloc
        return [url for url in self.requests if urlsplit(url).netloc != here]

    def close(self):
        self.page.context.close()
