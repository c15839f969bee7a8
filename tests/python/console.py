"""Uses the console in a browser as a person would: console.py URL ADMIN_TOKEN.

The server has the model `small` of tests/it/server.rs, calibrated, in two versions of which it serves the first.
Every budget of the third runs the smallest route.
"""

import sys

import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from browser import Watched, chromium

URL, TOKEN = sys.argv[1:]

WIDE = {"viewport": {"width": 1440, "height": 1000}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "device_scale_factor": 2}


def recommend(history, **more):
    answer = requests.post(f"{URL}/recommend", json={"history": history, **more}, timeout=30)
    answer.raise_for_status()
    return answer.json()


def shows(page, answer):
    """Waits until the page shows this answer of the server: items in order, route, reason and cost."""
    name = answer["route"]["name"]
    expect(page.locator("#route-name")).to_have_text(name or "no route")
    expect(page.locator("#items .id")).to_have_text([item["item"] for item in answer["items"]])
    titles = [item.get("title", f"Item {item['item']}") for item in answer["items"]]
    expect(page.locator("#items .title")).to_have_text(titles)
    # Three digits of each score are shown.
    page.wait_for_function(
        """scores => [...document.querySelectorAll('#items .score')].every((shown, place) =>
            Math.abs(Number(shown.textContent) - scores[place]) <= 0.0051 * Math.abs(scores[place]))""",
        arg=[item["score"] for item in answer["items"]],
    )
    lit = page.locator("#routes .lit")
    if name is None:
        expect(lit).to_have_count(0)
        return
    expect(lit).to_have_attribute("data-name", name)
    expect(page.locator("#saved")).to_have_text(f"{answer['compute']['saved'] * 100:.1f} %")
    if answer["route"]["confidence"] is not None:
        expect(page.locator("#route-reason")).to_contain_text(f"{answer['route']['confidence'] * 100:.1f} %")


def add(page, text):
    page.locator("#search").fill(text)
    # The list shown may still be that of the text before.
    expect(page.locator("#found [role=option]").first).to_contain_text(text)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")


def opens_with_an_example(page):
    """A history of popular items whose answer saves compute, as the router of this model can."""
    expect(page.locator("#status")).to_have_text("live")
    expect(page.locator("#history .item")).to_have_count(8)
    ids = page.locator("#history .id").all_text_contents()
    assert len(set(ids)) == 8, ids
    answer = recommend(ids)
    shows(page, answer)
    assert answer["route"]["reason"] == "router" and answer["compute"]["saved"] > 0.5, answer
    # Every model knows the popular items.
    assert answer["history"] == {"used": 8, "unknown": []}, answer


def recommends(page):
    opens_with_an_example(page)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#history-hint")).to_be_visible()
    shows(page, recommend([]))
    # Counts have a zero: bars of a cold start are in proportion to them.
    shares = page.locator("#items .bar-fill").evaluate_all("bars => bars.map(bar => Number(bar.style.getPropertyValue('--share')))")
    counts = [item["score"] for item in recommend([])["items"]]
    assert all(abs(share - count / counts[0]) < 1e-6 for share, count in zip(shares, counts, strict=True)), (shares, counts)
    page.get_by_role("button", name="Example").click()
    expect(page.locator("#history .item")).to_have_count(8)
    page.get_by_role("button", name="Clear").click()

    # By keys, by title and by id; then by mouse.
    add(page, "Film 113")
    expect(page.locator("#history .id")).to_have_text(["113"])
    # The list would cover the recommendations.
    expect(page.locator("#found")).to_be_hidden()
    add(page, "128")
    page.locator("#search").fill("120")
    page.locator("#found [role=option]", has_text="120").click()
    expect(page.locator("#history .id")).to_have_text(["113", "128", "120"])
    shows(page, recommend(["113", "128", "120"]))
    page.locator("#search").fill("11")
    expect(page.locator("#found")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#found")).to_be_hidden()

    page.get_by_role("button", name="Move up: item 120").click()
    expect(page.locator("#history .id")).to_have_text(["113", "120", "128"])
    shows(page, recommend(["113", "120", "128"]))
    page.get_by_role("button", name="Remove: Film 113").click()
    shows(page, recommend(["120", "128"]))

    best = recommend(["120", "128"])["items"][0]["item"]
    page.locator("#items .pick").first.click()
    expect(page.locator("#history .id")).to_have_text(["120", "128", best])
    shows(page, recommend(["120", "128", best]))
    page.locator("#k").select_option("20")
    shows(page, recommend(["120", "128", best], k=20))
    return ["120", "128", best]


def routes(page, history):
    every = requests.get(f"{URL}/routes", timeout=30).json()["routes"]
    names = [cell.get_attribute("data-name") for cell in page.locator("#routes button").all()]
    assert sorted(names) == sorted(route["name"] for route in every)

    pinned = page.locator("#routes [data-name=h8-l2-e10]")
    pinned.click()
    expect(pinned).to_have_attribute("aria-pressed", "true")
    shows(page, recommend(history, k=20, route="h8-l2-e10"))
    expect(page.locator("#route-reason")).to_contain_text("Named by you")
    expect(page.locator("#budget")).to_be_disabled()
    # One to the right is another table: the next width's narrowest embedding.
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    shows(page, recommend(history, k=20, route="h12-l3-e6"))
    expect(page.locator("#change")).to_contain_text("h8-l2-e10 → h12-l3-e6")
    expect(page.locator("#tried tr")).to_have_count(3)
    page.get_by_role("button", name="Full", exact=True).click()
    shows(page, recommend(history, k=20, route="full"))
    page.get_by_role("button", name="Router", exact=True).click()
    shows(page, recommend(history, k=20))

    # The calibration leaves the router one choice at each end of the slider.
    page.locator("#budget").focus()
    page.keyboard.press("End")
    shows(page, recommend(history, k=20, budget=1))
    expect(page.locator("#route-name")).to_have_text("h12-l4-e10")
    page.keyboard.press("Home")
    shows(page, recommend(history, k=20, budget=0.05))
    expect(page.locator("#route-name")).to_have_text("h4-l1-e6")
    page.get_by_role("button", name="Server's budget").click()
    shows(page, recommend(history, k=20))


def follows(page):
    rows = page.locator("#heat [title^='h12-l1-e6:']")
    expect(rows).to_have_text("")
    for _ in range(60):
        recommend(["101", "102"], route="h12-l1-e6")
    expect(rows).to_have_attribute("title", "h12-l1-e6: 60 rows")
    page.wait_for_function("Number(document.getElementById('rate').textContent) > 1")
    expect(page.locator("#p50")).to_contain_text(" ms")
    expect(page.locator("#p99")).to_contain_text(" ms")
    expect(page.locator("#queue")).to_have_text("0")
    page.wait_for_function("parseFloat(document.getElementById('live-saved').textContent) > 5")
    counted = "[...document.querySelectorAll('#batches .bar-count')].reduce((sum, bar) => sum + Number(bar.textContent), 0)"
    page.wait_for_function(f"{counted} >= 60")
    # One user returns with the item that was recommended: a judged answer, and a hit.
    first = recommend(["101", "102"], user="ann", route="h12-l1-e6")
    recommend(["101", "102", first["items"][0]["item"]], user="ann", route="h12-l1-e6")
    expect(page.locator("#accuracy li")).to_have_text(["h12-l1-e6100.0 % of 1"])
    expect(page.locator("#hit-rate")).to_have_text("100.0 %")
    expect(page.locator("#accuracy-hint")).to_be_hidden()
    expect(page.locator("#rate-chart")).to_have_attribute("aria-label", "Requests per second, now 0")
    painted = """canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(value => value)"""
    for chart in page.locator(".chart canvas").all():
        assert chart.evaluate(painted)


def reloads(watched, history):
    page = watched.page
    expect(page.locator("#model-version")).to_have_text("v1")
    page.get_by_role("button", name="Reload").click()
    expect(page.locator("#reload-note")).to_contain_text("Not reloaded: send")
    # The browser itself reports the refusal, and nothing else was wrong until here.
    assert len(watched.complaints) == 1 and "401" in watched.complaints[0], watched.complaints
    watched.complaints.clear()
    page.get_by_label("Admin token").fill(TOKEN)
    expect(page.locator("#budget")).to_be_enabled()
    serves(page, 3)
    shows(page, recommend(history, k=20))
    expect(page.locator("#budget-hint")).to_contain_text("Every budget runs h4-l1-e6")
    expect(page.locator("#budget")).to_be_disabled()
    serves(page, 2)
    shows(page, recommend(history, k=20))
    expect(page.locator("#budget")).to_be_enabled()
    assert TOKEN not in kept(page)


def serves(page, version):
    """Asks for a version."""
    page.get_by_label("Version").fill(str(version))
    page.keyboard.press("Enter")
    expect(page.locator("#reload-note")).to_have_text(f"Version {version} serves.")
    expect(page.locator("#model-version")).to_have_text(f"v{version}")


def names_the_candidate(page):
    """The page follows what somebody else orders."""
    def order(path, body):
        headers = {"authorization": f"Bearer {TOKEN}"}
        requests.post(f"{URL}/admin/{path}", json=body, headers=headers, timeout=30).raise_for_status()

    expect(page.locator("#candidate")).to_be_hidden()
    order("candidate", {"version": 1, "share": 0.05})
    expect(page.locator("#candidate")).to_have_text("v1 is the candidate for 5.0 % of the users")
    order("candidate", {"version": 1, "share": 0.1})
    expect(page.locator("#candidate")).to_have_text("v1 is the candidate for 10.0 % of the users")
    order("withdraw", {})
    expect(page.locator("#candidate")).to_be_hidden()


def asks_for_a_key(browser):
    """What the page does before a server that wants a key: here the browser itself refuses what comes without."""
    watched = Watched(browser, URL, **WIDE)
    page = watched.page

    def refuse(route):
        is_file = route.request.url.rstrip("/") == URL or "/console/" in route.request.url
        if is_file or route.request.headers.get("x-api-key") == "a key":
            route.continue_()
        else:
            route.fulfill(status=401, json={"status": 401, "code": "unauthorized", "detail": "send an API key"})

    page.route("**/*", refuse)
    page.reload()
    expect(page.locator("#status")).to_have_text("needs a key")
    page.locator("#key").fill("another")
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#key-note")).to_have_text("This is not the server's key.")
    accessible(page, "key")
    page.locator("#key").fill("a key")
    page.keyboard.press("Enter")
    expect(page.locator("#key-form")).to_be_hidden()
    expect(page.locator("#status")).to_have_text("live")
    expect(page.locator("#history .item")).to_have_count(8)
    shows(page, recommend(page.locator("#history .id").all_text_contents()))
    assert all("401" in complaint for complaint in watched.complaints), watched.complaints
    assert "a key" not in kept(page)
    watched.close()


def tells_of_a_failed_search(browser):
    watched = Watched(browser, URL, **WIDE)
    page = watched.page
    page.locator("#search").fill("Film 113")
    expect(page.locator("#found [role=option]").first).to_contain_text("Film 113")
    problem = {"status": 500, "code": "internal", "detail": "no luck"}
    page.route("**/items?*", lambda route: route.fulfill(status=500, json=problem))
    page.locator("#search").fill("Film 115")
    # In place of what was found before.
    expect(page.locator("#found li")).to_have_text(["The search failed: no luck"])
    assert all("500" in complaint for complaint in watched.complaints), watched.complaints
    watched.close()


def counts_each_series(page):
    """A reload took the routes of one lane away: what is left grew by 3 and 2, though the sum fell."""
    grown = page.evaluate("""async () => {
        const scrapes = await import("/console/scrape.js");
        const scrape = (text, time) => scrapes.parse(text, time, ["rows_total"], () => true);
        const before = scrape('canet_rows_total{lane="a"} 100\\ncanet_rows_total{lane="b"} 5', 0);
        const after = scrape('canet_rows_total{lane="b"} 8\\ncanet_rows_total{lane="c"} 2', 1);
        const by = Object.fromEntries(scrapes.growthBy(before, after, "rows_total", "lane"));
        return [scrapes.growth(before, after, "rows_total"), by];
    }""")
    assert grown == [5, {"b": 3, "c": 2}], grown


def kept(page):
    """Everything that outlives the page in the browser."""
    return page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")


def accessible(page, name):
    # A colour half way between two is nobody's choice.
    page.evaluate("document.getAnimations().forEach((a) => { if (a instanceof CSSTransition) a.finish(); })")
    found = Axe().run(page)
    assert found.violations_count == 0, f"{name}: {found.generate_report()}"


def fits(page):
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]
    small = page.evaluate("""[...document.querySelectorAll('button, input, select')]
        .filter(element => element.checkVisibility())
        .map(element => [element.getBoundingClientRect(), element.outerHTML])
        .filter(([box]) => box.width < 24 || (box.height < 24 && box.width < 200)).map(([, html]) => html)""")
    assert not small, small


with chromium() as browser:
    wide = Watched(browser, URL, **WIDE)
    history = recommends(wide.page)
    routes(wide.page, history)
    follows(wide.page)
    counts_each_series(wide.page)
    accessible(wide.page, "light")
    reloads(wide, history)
    names_the_candidate(wide.page)
    assert not wide.complaints and not wide.elsewhere(), (wide.complaints, wide.elsewhere())
    wide.close()
    asks_for_a_key(browser)
    tells_of_a_failed_search(browser)

    for name, context in [("dark", {**WIDE, "color_scheme": "dark"}), ("phone", PHONE),
                          ("dark phone", {**PHONE, "color_scheme": "dark"})]:
        watched = Watched(browser, URL, **context)
        page = watched.page
        expect(page.locator("#history .item")).to_have_count(8)
        page.get_by_role("button", name="Clear").click()
        add(page, "Film 139")
        shows(page, recommend(["139"]))
        page.locator("#routes button").last.click()
        shows(page, recommend(["139"], route="full"))
        page.keyboard.press("Escape")
        accessible(page, name)
        fits(page)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ("dark" in name) == (ground == "rgb(16, 18, 20)"), ground
        assert not watched.complaints and not watched.elsewhere(), (watched.complaints, watched.elsewhere())
        watched.close()
