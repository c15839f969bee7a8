"""Takes the README's pictures of the console: screenshots.py URL DIRECTORY.

The server should have the shipped model with titles (make data) and nothing else to do: the load that the live panel
shows is made here. It needs Debian's pngquant; fonts-inter and fonts-jetbrains-mono give the type of most browsers.
"""

import random
import subprocess
import sys
import threading
from pathlib import Path

import requests
from playwright.sync_api import expect

from browser import Watched, chromium

URL, DIRECTORY = sys.argv[1], Path(sys.argv[2])

WIDE = {"viewport": {"width": 1440, "height": 1160}}
PHONE = {"viewport": {"width": 390, "height": 1180}, "device_scale_factor": 1.5, "has_touch": True}
FILMS = ["english patient", "full monty", "dead man walking", "fargo", "godfather", "shawshank", "amadeus", "star wars"]
# Enough for lines in the charts, which gain a point every two seconds.
POINTS = 20
CLIENTS = 6


def load(stopped, seed):
    """Users with random histories who ask, wait up to 0.2 seconds, and ask again."""
    chance, session = random.Random(seed), requests.Session()
    while not stopped.wait(chance.random() / 5):
        history = [str(chance.randint(1, 1682)) for _ in range(chance.randint(1, 50))]
        session.post(f"{URL}/recommend", json={"history": history, "budget": chance.choice([0.1, 0.2, 0.3, 0.5, 0.8])})


def add(page, title):
    page.locator("#search").fill(title)
    expect(page.locator("#found [role=option]").first).to_contain_text(title, ignore_case=True)
    page.keyboard.press("Enter")


def take(browser, name, **context):
    watched = Watched(browser, URL, **context)
    page = watched.page
    # The example comes first. The picture has films that readers know.
    expect(page.locator("#history .item").first).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    for title in FILMS:
        add(page, title)
    expect(page.locator("#history .item")).to_have_count(len(FILMS))
    # The largest route, and one of the middle.
    names = page.locator("#routes [data-name]").evaluate_all("(routes) => routes.map((route) => route.dataset.name)")
    for route in [names[-1], names[len(names) // 2]]:
        page.locator(f"#routes [data-name={route}]").click()
        expect(page.locator("#route-name")).to_have_text(route)
    page.get_by_role("button", name="Router", exact=True).click()
    expect(page.locator("#tried tr").first).to_contain_text("server")
    for _ in range(POINTS):
        with page.expect_response("**/metrics"):
            pass
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    picture = DIRECTORY / f"console-{name}.png"
    page.screenshot(path=picture, full_page=name != "phone")
    subprocess.run(["pngquant", "--quality=80-98", "--speed=1", "--strip", "--force", "--ext=.png", picture], check=True)
    watched.close()


stopped = threading.Event()
clients = [threading.Thread(target=load, args=(stopped, seed)) for seed in range(CLIENTS)]
for client in clients:
    client.start()
try:
    with chromium() as browser:
        take(browser, "wide", **WIDE)
        take(browser, "dark", **WIDE, color_scheme="dark")
        take(browser, "phone", **PHONE)
finally:
    stopped.set()
    for client in clients:
        client.join()
