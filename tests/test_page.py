"""The live page in a real headless Chromium, over a running stream.

Screenshots go to UNDERTONE_SCREENSHOTS, or to the test's temporary folder.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, Request, expect, sync_playwright

from support.process import Running

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LABELS = ("negative", "neutral", "positive")
SECONDS = 1000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = os.environ.get("UNDERTONE_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


class Visit:
    """A page, and everything that went wrong on it."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page, self.origin = page, origin
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self.requested)

    def requested(self, request: Request) -> None:
        if not request.url.startswith((self.origin, "data:", "blob:")):
            self.foreign.append(request.url)

    def by(self, testid: str) -> Locator:
        return self.page.get_by_test_id(testid)

    def number(self, testid: str) -> float:
        """The figure, or -1 while there is none."""
        digits = re.sub(r"[^\d.]", "", self.by(testid).inner_text())
        return float(digits) if digits else -1

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.fixture
def visit(request: pytest.FixtureRequest, browser: Browser, server: Running) -> Iterator[Visit]:
    """The live page, loaded and connected. `indirect` parameters are options of the browser's context."""
    options = {"viewport": {"width": 1280, "height": 900}} | getattr(request, "param", {})
    with browser.new_context(**options) as context:
        visit = Visit(context.new_page(), server.http)
        visit.page.goto(server.http + "/")
        expect(visit.by("connection")).to_have_attribute("data-state", "live", timeout=10 * SECONDS)
        yield visit


def screenshot(page: Page, tmp_path: Path, name: str) -> None:
    folder = Path(os.environ.get("UNDERTONE_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=True)


def test_it_loads_without_complaints_and_asks_nobody_else(visit: Visit, tmp_path: Path):
    expect(visit.page).to_have_title(re.compile("undertone", re.I))
    visit.page.wait_for_timeout(2 * SECONDS)
    assert visit.complaints == []
    assert visit.foreign == []
    assert visit.overflow() <= 0
    screenshot(visit.page, tmp_path, "live-light")


def test_its_numbers_move_and_are_the_servers(visit: Visit, server: Running):
    before = server.overview()["totals"]
    scored = visit.number("totals-scored")
    assert visit.number("totals-events") >= scored >= 0
    visit.page.wait_for_function(
        "then => Number(document.querySelector('[data-testid=totals-scored]').textContent.replace(/[^0-9]/g, '')) > then + 20",
        arg=scored,
        timeout=20 * SECONDS,
    )
    shown, after = visit.number("totals-scored"), server.overview()["totals"]
    assert before["scored"] <= shown <= after["scored"]
    assert visit.number("rate") > 0


def test_mood_is_a_real_plot(visit: Visit, server: Running):
    plot = visit.by("mood-plot")
    lines = plot.locator("g.line path")
    expect(lines.first).to_be_visible(timeout=10 * SECONDS)
    shapes = lines.evaluate_all("paths => paths.map(path => path.getBBox()).map(box => [box.width, box.height])")
    assert len(shapes) >= 3
    assert max(width for width, _ in shapes) > 50, "ten minutes of history are some pixels wide"
    assert max(height for _, height in shapes) > 2, "moods differ over time"
    topics = {series["topic"] for series in server.overview()["topics"]["series"]}
    legend = visit.by("topic-legend").get_by_role("button").all_inner_texts()
    assert len({text.split("\n")[0].strip() for text in legend} & topics) >= min(8, len(topics))
    drawn = lines.count()
    visit.by("topic-legend").locator("button[aria-pressed=true]").first.click()
    expect(lines).to_have_count(drawn - 1)


def test_the_latest_posts_have_labels(visit: Visit):
    posts = visit.by("latest-post")
    expect(posts.first).to_be_visible(timeout=10 * SECONDS)
    texts = visit.by("post-label").all_inner_texts()
    assert len(texts) >= 10
    assert all(any(label in text.lower() for label in LABELS) for text in texts), texts
    newest = posts.first.inner_text()
    visit.page.wait_for_function("then => document.querySelector('[data-testid=latest-post]').innerText !== then", arg=newest, timeout=10 * SECONDS)


def test_dead_letters_and_lag_are_shown(visit: Visit, server: Running):
    server.await_that(lambda: server.overview()["dead"]["latest"], "have a dead letter", 60)
    letter = visit.by("dead-letter").first
    expect(letter).to_be_visible(timeout=10 * SECONDS)
    reasons = [each["reason"] for each in server.overview()["dead"]["latest"]]
    assert any(reason in visit.by("dead-letter").all_inner_texts()[0] for reason in reasons)
    assert visit.number("totals-dead") > 0
    stages = visit.by("lag-row").evaluate_all("rows => rows.map(row => row.dataset.stage)")
    assert {"score", "bronze.posts", "silver.posts"} <= set(stages)


def test_a_text_of_ones_own_is_scored(visit: Visit, tmp_path: Path):
    visit.by("try-input").fill("I love this, what a wonderful day!")
    visit.by("try-submit").click()
    result = visit.by("try-result")
    expect(result).to_contain_text("positive", timeout=10 * SECONDS)
    expect(result).to_contain_text("%")
    # A table a head. A share that is nearly nothing is written "<0.1%".
    tables = result.locator("table").all()
    assert len(tables) == len(requests.get(f"{visit.origin}/v1/models", timeout=10).json()["models"][0]["heads"])
    for table in tables:
        shares = [float(text.strip("<>% ")) for text in table.locator("tr td:last-child").all_inner_texts()]
        assert sum(shares) == pytest.approx(100, abs=0.5)
    visit.by("try-input").fill("I hate this, everything is broken and nobody cares")
    visit.by("try-submit").click()
    expect(result.locator("caption").first).to_contain_text(re.compile("negative", re.I), timeout=10 * SECONDS)
    assert visit.complaints == []
    screenshot(visit.page, tmp_path, "try")


def test_a_text_that_cannot_be_scored_says_why(visit: Visit):
    expect(visit.by("try-submit")).to_be_disabled()
    visit.by("try-input").focus()
    visit.page.keyboard.press("Control+Enter")  # the keyboard's way does not look at the button
    alert = visit.by("try-result").get_by_role("alert")
    expect(alert).to_contain_text("empty", timeout=10 * SECONDS)
    visit.by("try-input").fill("x" * 5000)
    visit.by("try-submit").click()
    expect(alert).to_contain_text("too long", timeout=10 * SECONDS)
    # The browser itself reports answers of 4xx on the console; nothing else may be there.
    assert [complaint for complaint in visit.complaints if "Failed to load resource" not in complaint] == []


def background(page: Page) -> float:
    """How bright the page's ground is, 0 to 255."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    if colour in ("rgba(0, 0, 0, 0)", "transparent"):
        colour = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    return sum(float(part) for part in re.findall(r"[\d.]+", colour)[:3]) / 3


def test_light_and_dark_can_be_switched_and_are_remembered(visit: Visit, tmp_path: Path):
    assert background(visit.page) > 200
    visit.by("theme-toggle").click()
    assert background(visit.page) < 60
    screenshot(visit.page, tmp_path, "live-dark")
    visit.page.reload()
    expect(visit.by("connection")).to_have_attribute("data-state", "live", timeout=10 * SECONDS)
    assert background(visit.page) < 60, "the choice is remembered"
    visit.by("theme-toggle").click()
    assert background(visit.page) > 200


@pytest.mark.parametrize("visit", [{"color_scheme": "dark"}], indirect=True)
def test_the_systems_dark_is_followed(visit: Visit):
    assert background(visit.page) < 60


@pytest.mark.parametrize("visit", [{"viewport": {"width": 360, "height": 740}, "has_touch": True}], indirect=True)
def test_a_phone_does_not_scroll_sideways(visit: Visit, tmp_path: Path):
    expect(visit.by("latest-post").first).to_be_visible(timeout=10 * SECONDS)
    visit.page.wait_for_timeout(1 * SECONDS)
    assert visit.overflow() <= 0
    for testid in ("rate", "mood-plot", "try-input"):
        box = visit.by(testid).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360, testid
    screenshot(visit.page, tmp_path, "phone")


def test_the_keyboard_reaches_everything_that_matters(visit: Visit):
    wanted = {"try-input", "mood-plot", "theme-toggle"}
    for _ in range(120):
        visit.page.keyboard.press("Tab")
        focused = visit.page.evaluate("document.activeElement.dataset?.testid ?? document.activeElement.closest('[data-testid]')?.dataset.testid")
        wanted.discard(focused)
        if not wanted:
            return
    pytest.fail(f"tab never reached {wanted}")


def test_a_text_can_be_scored_without_a_mouse(visit: Visit):
    visit.by("try-input").focus()
    visit.page.keyboard.type("what a lovely surprise")
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Enter")
    expect(visit.by("try-result")).to_contain_text("positive", timeout=10 * SECONDS)


def test_a_lost_connection_is_said_and_found_again(browser: Browser, server: Running):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(server.http + "/")
        state = page.get_by_test_id("connection")
        expect(state).to_have_attribute("data-state", "live", timeout=10 * SECONDS)
        # Going offline does not cut streams that are open, so the page is loaded into the silence.
        context.route("**/v1/*", lambda route: route.abort())
        page.reload()
        expect(state).to_have_attribute("data-state", "lost", timeout=15 * SECONDS)
        context.unroute("**/v1/*")
        expect(state).to_have_attribute("data-state", re.compile("live|polling"), timeout=30 * SECONDS)


def test_the_reference_renders_every_route(browser: Browser, server: Running, tmp_path: Path):
    with browser.new_context() as context:
        visit = Visit(context.new_page(), server.http)
        visit.page.goto(server.http + "/docs")
        paths = server.get("/openapi.json").json()["paths"]
        expect(visit.page.get_by_role("heading", level=1)).to_contain_text("Undertone", timeout=10 * SECONDS)
        content = visit.page.locator("#content").inner_text()
        for path in paths:
            assert path in content
        assert visit.complaints == []
        assert visit.foreign == []
        screenshot(visit.page, tmp_path, "docs")
