"""The page's views in a real headless Chromium: each shows what the server says, and holds to what a page owes its readers.

Screenshots go to UNDERTONE_SCREENSHOTS, or to the test's temporary folder.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Response, Route, expect
from support.process import ROOT, Running
from test_page import SECONDS, Visit, browser, screenshot  # noqa: F401

PAGE = ROOT / "gateway" / "page"
AXE = PAGE / "node_modules" / "axe-core" / "axe.min.js"
VIEWS = ("live", "trends", "search", "stream", "model")
ADDRESSES = {"live": "", "trends": "#trends?span=day&a=tag:espresso&b=all", "search": "#search?q=espresso", "stream": "#stream", "model": "#model"}
# What is there once a view has what it shows.
FULL = {"live": "latest-post", "trends": "trend-plot", "search": "no-store", "stream": "sink-row", "model": "reliability"}

# The most that one change may move what is on the screen, in the share of it times the share of the way.
SHIFT = 0.05
# Posts that move on in their list as others come are what a live list is, and figures that grow wider are no jump.
WATCH_SHIFTS = """
    window.shifts = [];
    const ofTheList = ({node}) => (node?.closest ? node : node?.parentElement)?.closest(".scroll, [data-testid=latest-post]");
    const jumped = source => !ofTheList(source) && Math.abs(source.previousRect.y - source.currentRect.y) > 3;
    const told = ({node, previousRect, currentRect}) => `${node?.className || node?.nodeName} ${previousRect.y} to ${currentRect.y}`;
    new PerformanceObserver(list => list.getEntries().filter(entry => entry.sources.some(jumped))
        .forEach(entry => shifts.push([entry.value, ...entry.sources.map(told)]))).observe({type: "layout-shift", buffered: true});
"""


@pytest.fixture
def visit(request: pytest.FixtureRequest, browser: Browser, server: Running) -> Iterator[Visit]:  # noqa: F811
    """A page that is not loaded yet. `indirect` parameters are options of the browser's context."""
    with browser.new_context(**({"viewport": {"width": 1440, "height": 900}} | getattr(request, "param", {}))) as context:
        yield Visit(context.new_page(), server.http)


def show(visit: Visit, view: str, address: str | None = None) -> None:
    """Loads a view anew, and returns once it shows what it has to show."""
    visit.page.goto("about:blank")
    visit.page.goto(f"{visit.origin}/{ADDRESSES[view] if address is None else address}")
    expect(visit.by(FULL[view]).first).to_be_visible(timeout=15 * SECONDS)


def own(complaints: list[str]) -> list[str]:
    """Complaints but the browser's own about answers of 4xx."""
    return [complaint for complaint in complaints if "Failed to load resource" not in complaint]


@pytest.fixture(scope="module", autouse=True)
def committed(server: Running) -> None:
    """The tables hold something, and there is a dead letter."""
    server.await_that(lambda: server.get("/v1/query/tags?limit=1").json().get("tags"), "commit tags")
    server.await_that(lambda: server.overview()["dead"]["total"], "have a dead letter")


@pytest.mark.parametrize(
    "visit",
    [
        {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
        for width, height in ((1440, 900), (390, 844))
        for scheme in ("light", "dark")
    ],
    ids=["wide-light", "wide-dark", "phone-light", "phone-dark"],
    indirect=True,
)
def test_every_view_is_accessible_fits_and_asks_nobody_else(visit: Visit, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    for view in VIEWS:
        show(visit, view)
        assert visit.page.locator("h1").count() == 1, view
        assert visit.page.locator("nav a[aria-current=page]").inner_text().lower() == view
        assert visit.overflow() <= 0, view
        visit.page.evaluate(AXE.read_text())
        violations = visit.page.evaluate("axe.run().then(done => done.violations.map(v => [v.id, v.nodes.map(n => n.html)]))")
        assert violations == [], view
        screenshot(visit.page, tmp_path, f"{view}-{request.node.callspec.id}")
    assert own(visit.complaints) == []
    assert visit.foreign == []


@pytest.mark.parametrize("visit", [{}, {"viewport": {"width": 390, "height": 844}}], ids=["wide", "phone"], indirect=True)
def test_nothing_jumps_while_a_view_fills(visit: Visit) -> None:
    visit.page.add_init_script(WATCH_SHIFTS)
    for view in VIEWS:
        show(visit, view)
        visit.page.wait_for_timeout(1 * SECONDS)
        jumps = [shift for shift in visit.page.evaluate("shifts") if shift[0] > SHIFT]
        assert jumps == [], view


def test_all_files_of_the_page_are_under_300_kilobytes() -> None:
    sizes = {path.name: len(gzip.compress(path.read_bytes())) for path in (PAGE / "dist").rglob("*") if path.is_file()}
    assert len(sizes) > 5
    assert sum(sizes.values()) < 300_000, sizes


def is_series(response: Response) -> bool:
    return "/v1/query/series" in response.url


def cells(visit: Visit, row: int) -> list[str]:
    return visit.by("trend-table").locator("tbody tr").nth(row).locator("td").all_inner_texts()


def test_trends_are_what_the_store_counts(visit: Visit) -> None:
    visit.page.goto(visit.origin)
    with visit.page.expect_response(is_series) as answer:
        visit.by("view-trends").click()
    points = answer.value.json()["points"]
    posts = sum(point["posts"] for point in points)
    mean = sum(point["posts"] * point["mean_polarity"] for point in points) / posts
    expect(visit.by("trend-table").locator("tbody td").first).not_to_have_text("–", timeout=10 * SECONDS)
    shown = cells(visit, 0)
    assert int(shown[0].replace(",", "")) == posts > 100
    assert float(shown[1].replace("−", "-")) == pytest.approx(mean, abs=0.006)
    assert sum(int(share.rstrip("%")) for share in shown[2:]) == pytest.approx(100, abs=2)
    width = visit.by("trend-plot").locator("g.line path").first.evaluate("path => path.getBBox().width")
    assert width > 50, "ten minutes are some pixels wide"


def test_two_selections_are_compared_and_the_address_remembers_them(visit: Visit) -> None:
    show(visit, "trends", "#trends")
    lines = visit.by("trend-plot").locator("g.line")
    expect(lines).to_have_count(1)
    expect(visit.by("window-1h")).to_be_disabled()
    tag = visit.by("tags-table").locator("tbody th").first.inner_text()
    visit.by("tags-table").get_by_role("button", name=f"Compare with {tag}").click()
    expect(lines).to_have_count(2)
    with visit.page.expect_response(lambda response: is_series(response) and "window=1h" in response.url):
        visit.by("span-day").click()
    expect(visit.by("window-1h")).to_have_attribute("aria-pressed", "true")
    with visit.page.expect_response(lambda response: is_series(response) and "window=1m" in response.url):
        visit.by("window-1m").click()
    with visit.page.expect_response(lambda response: is_series(response) and "source=reddit" in response.url):
        visit.by("first-kind").select_option("source")
        visit.by("first-value").fill("reddit")
        visit.by("first-value").press("Enter")
    assert set(re.findall(r"(\w+)=", visit.page.url)) == {"span", "window", "a", "b"}
    visit.page.reload()
    expect(lines).to_have_count(2, timeout=10 * SECONDS)
    expect(visit.by("span-day")).to_have_attribute("aria-pressed", "true")
    expect(visit.by("first-value")).to_have_value("reddit")
    expect(visit.by("second-value")).to_have_value(tag)
    first, second = (float(cells(visit, row)[1].replace("−", "-")) for row in (0, 1))
    difference = visit.by("trend-difference").inner_text().replace("−", "-")
    assert float(difference) == pytest.approx(second - first, abs=0.011)
    assert visit.complaints == []


def test_the_keyboard_goes_through_views_and_reads_the_plot(visit: Visit) -> None:
    show(visit, "live")
    visit.by("view-trends").focus()
    visit.page.keyboard.press("Enter")
    plot = visit.by("trend-plot")
    expect(plot).to_be_visible(timeout=10 * SECONDS)
    plot.focus()
    before = plot.get_attribute("aria-valuetext")
    visit.page.keyboard.press("ArrowLeft")
    assert plot.get_attribute("aria-valuetext") != before
    for view in ("search", "stream", "model"):
        visit.page.keyboard.press("Control+Home")
        visit.by(f"view-{view}").focus()
        visit.page.keyboard.press("Enter")
        expect(visit.page.locator("h1")).to_have_text(view.capitalize())
    visit.page.go_back()
    expect(visit.page.locator("h1")).to_have_text("Stream")
    assert visit.page.title() == "Stream · Undertone"


def test_a_store_that_is_not_there_is_said_calmly(visit: Visit) -> None:
    show(visit, "search")
    said = visit.by("no-store")
    expect(said).to_contain_text("needs OpenSearch, and this server has none")
    expect(said).to_contain_text("opensearch.url")
    visit.by("by-meaning").click()
    visit.by("search-submit").click()
    expect(said).to_contain_text("need Qdrant, and this server has none", timeout=10 * SECONDS)
    assert visit.page.get_by_role("alert").count() == 0, "it is no error"
    assert own(visit.complaints) == []


def test_a_query_that_fails_says_why(visit: Visit) -> None:
    problem = {"type": "/problems/unavailable", "title": "a store is down", "status": 503, "detail": "clickhouse does not answer"}
    visit.page.route(
        "**/v1/query/series*",
        lambda route: route.fulfill(status=503, content_type="application/problem+json", headers={"retry-after": "2"}, body=json.dumps(problem)),
    )
    visit.page.goto(f"{visit.origin}/#trends")
    alert = visit.page.get_by_role("alert").first
    expect(alert).to_contain_text("clickhouse does not answer; try again in 2 s", timeout=10 * SECONDS)


def test_the_stream_tells_lag_freshness_and_reasons(visit: Visit, server: Running) -> None:
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    show(visit, "stream")
    stages = visit.by("lag-row").evaluate_all("rows => rows.map(row => row.dataset.stage)")
    assert {"score", "bronze.posts", "silver.posts"} <= set(stages)
    rows = [row.inner_text().split("\t") for row in visit.by("sink-row").all()]
    sinks = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    assert {"bronze.posts", "silver.posts", "gold.sentiment_1m", "gold.tags_1h"} <= set(sinks)
    for fresh, commits, failed, state in sinks.values():
        assert re.fullmatch(r"[\d.]+ s", fresh) and int(commits.replace(",", "")) > 0
        assert (failed, state) == ("0", "going")
    told = {
        reason: int(count)
        for reason, count in re.findall(r'undertone_stream_dead_total\{[^}]*reason="(\w+)"\} (\d+)', server.get("/metrics").text)
    }
    shown = {row.get_attribute("data-reason"): int(row.locator("td").last.inner_text()) for row in visit.by("dead-reason").all()}
    assert shown and all(0 < count <= told[reason] for reason, count in shown.items())
    commands = visit.by("replay").get_by_test_id("command")
    assert commands.all_inner_texts()[1:] == ["undertone dead replay --dry-run", "undertone dead replay"]
    visit.by("replay-stage").select_option("parse")
    assert commands.all_inner_texts()[2] == "undertone dead replay --stage parse"
    visit.by("replay").get_by_role("button").nth(1).click()
    expect(visit.by("replay").get_by_role("button").nth(1)).to_have_text("Copied")
    assert visit.page.evaluate("navigator.clipboard.readText()") == "undertone dead replay --stage parse --dry-run"
    assert visit.complaints == []
    # The embedded stream runs here, so the page can only say what else to do.
    visit.by("replay-count").click()
    expect(visit.by("replay-outcome")).to_contain_text("stop it and run", timeout=10 * SECONDS)
    expect(visit.by("replay-confirm")).to_have_count(0)
    assert own(visit.complaints) == []


def test_the_models_card_and_calibration_are_those_of_the_report(visit: Visit, server: Running) -> None:
    report = json.loads((ROOT / "models" / "report.json").read_text())
    served = server.get("/v1/models").json()["models"][0]
    assert served["revision"] == report["model"]["revision"], "the model under test is the one that ships"
    show(visit, "model")
    for said in (served["revision"], served["precision"], f"{served['max_tokens']} tokens"):
        expect(visit.by("model-card")).to_contain_text(said)
    rows = visit.by("heads-table").locator("tbody tr")
    expect(rows).to_have_count(len(served["heads"]))
    for row, (name, head) in zip(rows.all(), report["heads"].items(), strict=True):
        text = row.inner_text()
        assert name in text and head["metric"] in text and f"{100 * head['value']:.1f}" in text, text
    for name, head in report["heads"].items():
        visit.by(f"calibration-{name}").click()
        bins = head["calibration"]["bins"]
        expect(visit.by("reliability").locator("circle")).to_have_count(len(bins))
        figures = visit.by("bins-table").locator("tbody td").all_text_contents()
        assert figures[2::3] == [f"{each['posts']:,}" for each in bins]
        assert figures[1] == ("100%" if bins[0]["accuracy"] == 1 else f"{100 * bins[0]['accuracy']:.1f}%")
    passed = report["suite"]["capabilities"]["negation"]
    expect(visit.by("capabilities")).to_contain_text(f"{passed['passed']} of {passed['cases']}")
    assert visit.complaints == []


def test_figures_of_one_model_are_never_shown_for_another(visit: Visit) -> None:
    def another(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        body["models"][0]["revision"] = "0" * 64
        route.fulfill(response=answer, json=body)

    visit.page.route("**/v1/models", another)
    visit.page.goto(f"{visit.origin}/#model")
    expect(visit.by("not-measured")).to_be_visible(timeout=10 * SECONDS)
    assert visit.by("reliability").count() == 0
    assert visit.by("heads-table").get_by_text("not measured").count() == 5


def test_the_try_box_tells_tokens_and_confidence_beside_the_model(visit: Visit, server: Running) -> None:
    text = "The espresso here is wonderful, again and again"
    score = server.post("/v1/score", json={"text": text}).json()["results"][0]
    show(visit, "model")
    visit.by("try-input").fill(text)
    visit.by("try-submit").click()
    expect(visit.by("try-tokens")).to_have_text(str(score["tokens"]), timeout=10 * SECONDS)
    expect(visit.by("try-result")).to_contain_text(f"{100 * score['confidence']:.1f}%")
    for head in ("sentiment", "emotion", "irony", "offensive", "hate"):
        expect(visit.by("try-result").locator("caption").filter(has_text=re.compile(head, re.I)).first).to_be_visible()
