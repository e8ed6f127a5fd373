"""The page in a real browser: headless Chromium, driven by Playwright."""

import shutil

import evaluated_runs as fake
import numpy as np
import pytest

from genmap_jax.report.page import write_page

sync_api = pytest.importorskip("playwright.sync_api", reason="drives the browser; in the extra dev")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """(page, requests, complaints) of a phone-sized window with a page of three families."""
    root = tmp_path_factory.mktemp("page")
    runs = [
        fake.make_run(root, "gpt_digits", system="GPT", continent="tractable", likelihood=fake.density("exact", 1.9)),
        fake.make_run(root, "vae_digits", system="VAE", likelihood=fake.density("lower_bound", 1.5)),
        fake.make_run(
            root,
            "gan_digits",
            system="GAN",
            continent="implicit",
            likelihood=None,
            frames=np.zeros((12, 16, 8, 8, 1), np.uint8),
        ),
    ]
    path = write_page(runs, root / "map.html")
    requests, complaints = [], []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 360, "height": 740})
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        yield page, requests, complaints
        browser.close()


def test_it_loads_without_complaint_and_asks_for_nothing(opened):
    page, requests, complaints = opened
    assert page.title() and page.locator("h1").count() == 1
    assert complaints == []
    assert requests and all(url.startswith(("file:", "data:", "blob:")) for url in requests)


def labels(page) -> list[str]:
    return page.locator("tbody tr:not([data-fixed]) > th[data-value]").evaluate_all(
        "all => all.map(e => e.dataset.value)"
    )


def test_the_table_sorts_by_click_and_by_keyboard(opened):
    page, *_ = opened
    header = page.locator("th[data-first] button").first
    header.click()
    assert header.locator("..").get_attribute("aria-sort") == "ascending"
    up = labels(page)
    assert up == sorted(up) and len(up) == 3
    header.focus()
    page.keyboard.press("Enter")
    assert header.locator("..").get_attribute("aria-sort") == "descending" and labels(page) == up[::-1]


def test_likelihood_is_sorted_within_its_kind(opened):
    """The VAE's bound is the smaller number; it never goes above the exact one, and no density is last."""
    page, *_ = opened
    header = page.locator("th[data-first] button", has_text="ikelihood").first
    for _ in range(2):
        header.click()
        assert [name.split()[0] for name in labels(page)] == ["GPT", "VAE", "GAN"]


def test_the_sampler_plays_when_asked(opened):
    page, *_ = opened
    button = page.locator("button.play").first
    picture = page.locator(f"#{button.get_attribute('aria-controls')}")
    still = picture.get_attribute("src")
    button.click()
    assert picture.get_attribute("src") != still and "Pause" in button.inner_text()
    button.click()
    assert picture.get_attribute("src") == still


def test_pictures_have_text_headings_are_in_order_and_nothing_overflows(opened):
    page, *_ = opened
    assert page.locator("img").evaluate_all("all => all.every(e => e.alt.length > 3)")
    named = "e => e.getAttribute('aria-hidden') === 'true' || e.hasAttribute('aria-label') || "
    named += "e.hasAttribute('aria-labelledby') || e.querySelector('title')"
    assert page.locator("svg:not(svg svg)").evaluate_all(f"all => all.every({named})")
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(e => Number(e.tagName[1]))")
    assert levels[0] == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
