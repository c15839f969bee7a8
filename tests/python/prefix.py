"""Uses the console and the API's page behind a proxy that serves them under a path: prefix.py URL ADMIN_TOKEN."""

import sys

import requests
from playwright.sync_api import expect

from browser import Watched, chromium

URL, TOKEN = sys.argv[1:]


def stays(watched):
    """Every request went to the path, and the page complained of nothing."""
    outside = [url for url in watched.requests if not url.startswith((f"{URL}/", "data:"))]
    assert not outside and not watched.complaints, (outside, watched.complaints)


with chromium() as browser:
    console = Watched(browser, f"{URL}/", viewport={"width": 1440, "height": 1000})
    page = console.page
    expect(page.locator("#status")).to_have_text("live")
    page.get_by_role("button", name="Clear").click()
    page.locator("#search").fill("Film 113")
    expect(page.locator("#found [role=option]").first).to_contain_text("Film 113")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    answer = requests.post(f"{URL}/recommend", json={"history": ["113"]}, timeout=30).json()
    expect(page.locator("#items .id")).to_have_text([item["item"] for item in answer["items"]])
    page.wait_for_function("document.getElementById('p50').textContent !== ''")
    page.get_by_label("Admin token").fill(TOKEN)
    page.get_by_role("button", name="Reload").click()
    expect(page.locator("#reload-note")).to_have_text("Version 1 serves.")
    stays(console)

    # The link leads to the page of the API, which sends its requests to the path too.
    page.get_by_role("link", name="API").click()
    page.wait_for_url(f"{URL}/docs")
    explorer = page.locator("openapi-explorer")
    expect(explorer).to_contain_text("Recommend for many")
    # The binary's version, not only the API's.
    version = requests.get(f"{URL}/v2", timeout=30).json()["version"]
    expect(explorer).to_contain_text(f"canet {version}")
    # Nothing asks for a key here, and an operation has one heading.
    page.goto(f"{URL}/docs#?route=post-/recommend")
    page.reload()
    expect(explorer.locator(".expanded-endpoint-body h2")).to_have_text("Recommend")
    expect(explorer.locator(".expanded-endpoint-body h1")).to_be_hidden()
    # 24 routes, and three words for them, are folded.
    values = explorer.locator("summary", has_text="27 values").first
    expect(values).to_be_visible()
    for scheme, ground in [("dark", "rgb(24, 27, 30)"), ("light", "rgb(255, 255, 255)")]:
        page.emulate_media(color_scheme=scheme)
        expect(page.locator("body")).to_have_css("background-color", ground)
        expect(explorer).to_have_attribute("bg-color", "#181b1e" if scheme == "dark" else "#ffffff")
    # A client resolves the server's address against that of the document, and appends the path.
    document = requests.get(f"{URL}/openapi.json", timeout=30).json()
    relative = document["servers"][0]["url"] + "/model"
    assert requests.get(requests.compat.urljoin(f"{URL}/openapi.json", relative), timeout=30).json()["version"] == 1
    stays(console)
    console.close()
