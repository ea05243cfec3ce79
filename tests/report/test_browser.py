"""Pages in a real browser: nothing is fetched, nothing hostile runs, and any width and the keyboard will do."""

import itertools
import re

import pytest
from told_run import HOSTILE, N_CHOSEN, N_QUESTIONS

from pipeline.report.page import visible
from pipeline.report.run_page import run_page, write_page

PHONE, DESKTOP = {"width": 360, "height": 780}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def file(whole, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(run_page(whole), path)
    return path


@pytest.fixture
def opened(browser, file):
    """Return a function that opens the page; afterwards nothing may have been fetched, said, or run."""
    pages, noticed = [], []

    def open_page(path=file, **options):
        page = browser.new_page(**{"viewport": DESKTOP, **options})
        page.on("console", lambda message: noticed.append(message.text))
        page.on("pageerror", lambda error: noticed.append(str(error)))
        page.on("dialog", lambda dialog: noticed.append(dialog.message))
        page.on("request", lambda request: noticed.append(request.url) if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn]")
        pages.append(page)
        return page

    yield open_page
    assert [page.evaluate("window.owned") for page in pages] == [None] * len(pages)
    assert noticed == []
    for page in pages:
        page.close()


def rows(page, explorer="questions"):
    return page.locator(f"[data-explorer={explorer}] details.row")


def status(page):
    return page.locator("[data-explorer=questions] [role=status]").inner_text()


def test_every_plot_is_drawn_and_follows_the_width(opened):
    page = opened()
    plots = page.locator("main > section [data-plot]")
    assert plots.count() >= 20
    assert page.locator("main > section [data-plot] svg.marks").count() == plots.count()
    width = page.locator("[data-plot=costs] svg, [data-plot=vote_share] svg").first
    before = width.bounding_box()["width"]
    page.set_viewport_size(PHONE)
    page.wait_for_function(f"document.querySelector('[data-plot=vote_share] svg').clientWidth < {before} - 50")
    page.locator("[data-plot=vote_share] svg .mark-rect path").first.hover()
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "count" in page.locator("#vg-tooltip-element").inner_text()


def test_rows_are_searched_filtered_sorted_and_opened(opened):
    page = opened()
    assert status(page) == f"{N_QUESTIONS + 2} of {N_QUESTIONS + 2} rows match, 12 shown"
    page.fill("#questions-search", "thing q17")
    assert rows(page).count() == 1
    page.fill("#questions-search", "near_duplicate near duplicate q00")
    assert status(page).startswith("0 of")
    page.fill("#questions-search", "")
    page.select_option("[data-explorer=questions] [data-facet]", "chosen")
    assert rows(page).count() == N_CHOSEN
    page.select_option("[data-explorer=questions] [data-sort]", label="rank")
    page.click("[data-explorer=questions] [data-turn]")
    assert rows(page).first.locator(".title").inner_text().startswith("What is thing 5?")
    rows(page).first.locator("summary").click()
    assert rows(page).first.locator("dd").first.inner_text() == f"rank 6: {visible(HOSTILE)}"
    page.select_option("[data-explorer=questions] [data-facet]", "")
    page.click("[data-explorer=questions] [data-more]")
    assert rows(page).count() == 24


def test_hostile_text_is_seen_as_text(opened):
    page = opened()
    rows(page).first.locator("summary").click()
    assert visible(HOSTILE) in rows(page).first.locator(".title").inner_text()
    assert "</script><script>window.owned" in page.locator("#selection .card .title").first.inner_text()
    assert page.locator("img, iframe, object, a[href^=javascript]").count() == 0


def test_a_phone_shows_it_without_scrolling_sideways(opened):
    page = opened(viewport=PHONE)
    for summary in page.locator("details.fold > summary").all():
        summary.click()
    rows(page).first.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def luminance(page, script):
    """Return the relative luminance (WCAG 2) of a CSS colour that a script gives."""
    channels = [int(value) / 255 for value in re.findall(r"\d+", page.evaluate(script))[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(page, selector):
    """Return the contrast of an element's text to the section that it stands in."""
    text = f"getComputedStyle(document.querySelector('{selector}')).color"
    ground = f"getComputedStyle(document.querySelector('{selector}').closest('main > section')).backgroundColor"
    dark, light = sorted((luminance(page, text), luminance(page, ground)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_schemes_and_plots_follow(opened, scheme):
    page = opened(color_scheme=scheme)
    ground = luminance(page, "getComputedStyle(document.body).backgroundColor")
    assert ground > 0.8 if scheme == "light" else ground < 0.05
    for selector in (
        ".verdict",
        ".lead",
        ".tile dt",
        ".tile.good .value",
        ".tile.bad .value",
        ".interval",
        "figcaption",
    ):
        assert contrast(page, selector) >= 4.5, selector
    label = "document.querySelector('[data-plot=vote_share] svg .role-axis-label text').getAttribute('fill')"
    before = page.evaluate(label)
    page.evaluate("delete document.documentElement.dataset.drawn")
    page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
    page.wait_for_selector("html[data-drawn]")
    assert page.evaluate(label) != before


def focused(page):
    return page.evaluate("document.activeElement.id || document.activeElement.textContent")


def test_the_keyboard_reaches_everything(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the report"
    page.keyboard.press("Enter")
    assert focused(page) == "content"
    order = []
    while "questions-search" not in order and len(order) < 60:
        page.keyboard.press("Tab")
        order.append(focused(page))
    assert order[-1] == "questions-search"
    assert any("Near-duplicates" in name for name in order)  # what is folded can be reached
    page.keyboard.type("q17")
    for _ in range(4):  # facet, order, its turn, the one row
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert rows(page).first.get_attribute("open") is not None


def test_landmarks_and_headings_tell_where_one_is(opened):
    page = opened()
    assert [page.locator(name).count() for name in ("main", "header", "footer", "h1", "nav[aria-label]")] == [1] * 5
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map((each) => Number(each.tagName[1]))")
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    unnamed = "[...document.querySelectorAll('input, select')].filter((each) => !each.labels.length).length"
    assert page.evaluate(unnamed) == 0
    links = page.eval_on_selector_all("nav a", "all => all.map((each) => each.getAttribute('href'))")
    assert all(page.locator(link).count() == 1 for link in links)
