"""The page in a real browser: nothing leaves the machine, it sorts by mouse and keyboard, it fits a phone."""

import re
import shutil
from functools import partial

import pytest
from evaluated_runs import density, interval, make_ablation, make_run, quality

from genmap_jax.report.page import write_page

sync_api = pytest.importorskip("playwright.sync_api", reason="drives the browser; in the extra dev")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)"),
]

# The browser itself is kept from calling home, so every request that is seen is the page's.
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    bound, estimate, exact = density("lower_bound", 1.2), density("estimate", 1.1), density("exact", 1.7)
    approximate, tractable = {"continent": "approximate"}, {"continent": "tractable"}
    toy = {"energy": interval(0.012, 0.004, null=0.001, null_sd=0.002, n=(2000, 2000))}
    flag = {"memorises": True, "memorises_why": "C_T z = -4.1"}
    draw = partial(make_run, root, drawn=True)
    folders = [
        draw("gan_digits", metrics=quality(1.3), train_seconds=60.0, **flag),
        draw("vae_digits", likelihood=bound, metrics=quality(2.4), train_seconds=35.0, **approximate),
        draw("vae_digits", seed=1, likelihood=bound, metrics=quality(2.5), train_seconds=36.0, **approximate),
        draw("ebm_digits", likelihood=estimate, metrics=quality(1.9), train_seconds=9.0, **approximate),
        draw("gpt_digits", likelihood=exact, metrics=quality(1.1), train_seconds=200.0, **tractable),
        draw("flow_digits", likelihood=density("exact", 1.9), train_seconds=100.0, **tractable),
        draw("gpt_pydoc", field="tokens", data="pydoc", likelihood=exact, **tractable),
        draw("ebm_toy", field="x", data="toy", metrics=toy, **approximate),
        make_ablation(root, "vae_digits"),
        root / "not_finished",
    ]
    return write_page(folders, root / "map.html", waiting=["still_to_come"])


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, path):
    """(page, requests, troubles) of the page in a window of 1280 pixels, closed after the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    requests, troubles = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(path.as_uri())
    yield page, requests, troubles
    page.close()


def order(page, body=0):
    """Families of a table body, from the top."""
    rows = page.locator("#numbers tbody").nth(body).locator("tr:not([data-fixed]) th a")
    return rows.all_inner_texts()


def heading(page, title):
    return page.locator("#numbers thead button", has_text=re.compile(f"^{title}$"))


def test_loads_in_silence_and_asks_nobody(opened, path):
    page, requests, troubles = opened
    for button in page.locator("button").all():
        button.click()
    assert troubles == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]


def test_the_policy_stops_requests_and_foreign_scripts(opened):
    """Even text that found a way into the page could not run or call."""
    page, _, troubles = opened
    blocked = []
    page.on("requestfailed", lambda request: blocked.append((request.url, request.failure)))
    page.evaluate("""() => {
        const image = new Image(); image.src = 'http://127.0.0.1:9/x.png'; document.body.append(image);
        const script = document.createElement('script'); script.textContent = 'window.ran = 1';
        document.body.append(script);
    }""")
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran") is None
    assert blocked == [("http://127.0.0.1:9/x.png", "csp")]  # refused, not merely unanswered
    assert len(troubles) >= 2


def test_headings_sort_with_the_mouse_and_say_so(opened):
    page, _, _ = opened
    training = heading(page, "Training, s")
    training.click()
    assert order(page) == ["EBM", "VAE", "GAN", "FLOW", "GPT"]
    header = training.locator("xpath=..")
    assert header.get_attribute("aria-sort") == "ascending"
    assert page.locator("#sorted").inner_text() == "Sorted by Training, s, ascending."
    training.click()
    assert order(page) == ["GPT", "FLOW", "GAN", "VAE", "EBM"]
    assert header.get_attribute("aria-sort") == "descending"
    heading(page, "Family").click()
    assert header.get_attribute("aria-sort") is None
    assert order(page) == ["EBM", "FLOW", "GAN", "GPT", "VAE"]
    assert page.locator("#numbers thead th[aria-sort]").count() == 1


def test_headings_sort_with_the_keyboard(opened):
    page, _, _ = opened
    training = heading(page, "Training, s")
    training.focus()
    page.keyboard.press("Enter")
    assert order(page) == ["EBM", "VAE", "GAN", "FLOW", "GPT"]
    page.keyboard.press("Space")
    assert order(page) == ["GPT", "FLOW", "GAN", "VAE", "EBM"]
    assert page.evaluate("document.activeElement.textContent") == "Training, s"


def test_likelihoods_stay_apart_by_kind_in_both_directions(opened):
    """The bound (1.2) and the estimate (1.1) are below both exact numbers, and never stand among them."""
    page, _, _ = opened
    heading(page, "Likelihood").click()
    assert order(page) == ["GPT", "FLOW", "VAE", "EBM", "GAN"]
    heading(page, "Likelihood").click()
    assert order(page) == ["FLOW", "GPT", "VAE", "EBM", "GAN"]


def test_rows_stay_with_their_data_set(opened):
    page, _, _ = opened
    first = page.locator("#numbers tbody").first.locator("tr")
    for title in ("Training, s", "Family", "KD"):
        for _ in range(2):
            heading(page, title).click()
            assert [order(page, body) for body in (1, 2)] == [["GPT"], ["EBM"]]
            assert first.nth(0).inner_text().startswith("digits")
            assert first.nth(1).inner_text().startswith("real data")


def test_nothing_moves_until_asked(opened):
    page, _, _ = opened
    assert "image/gif" not in "".join(i.get_attribute("src")[:20] for i in page.locator("img").all())
    button = page.locator(".play").first
    picture = page.locator(f"#{button.get_attribute('aria-controls')}")
    still = picture.get_attribute("src")
    assert button.inner_text().startswith("Play") and still.startswith("data:image/png")
    button.focus()
    page.keyboard.press("Enter")
    assert picture.get_attribute("src").startswith("data:image/gif") and button.inner_text().startswith("Pause")
    picture.scroll_into_view_if_needed()
    seen = {picture.screenshot()}
    for _ in range(20):
        if len(seen) == 1:
            page.wait_for_timeout(100)
            seen.add(picture.screenshot())
    assert len(seen) > 1
    button.click()
    assert picture.get_attribute("src") == still and button.inner_text().startswith("Play")


def test_every_picture_has_words(opened):
    page, _, _ = opened
    unnamed = page.evaluate("""() => [...document.querySelectorAll('img, svg')].filter(e =>
        !(e.alt || e.querySelector(':scope > title')?.textContent || '').trim()).map(e => e.outerHTML)""")
    assert page.locator("img").count() >= 10 and page.locator("svg").count() >= 10
    assert unnamed == []
    nameless = page.evaluate("""() => [...document.querySelectorAll('a, button, summary')].filter(e =>
        !(e.textContent.trim() || e.getAttribute('aria-label') || e.ariaHidden)).map(e => e.outerHTML)""")
    assert nameless == []


def test_headings_are_in_order_and_landmarks_are_there(opened):
    page, _, _ = opened
    levels = [int(tag[1]) for tag in page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(e => e.tagName)")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))
    for landmark in ("header", "nav[aria-label]", "main", "footer"):
        assert page.locator(landmark).count() == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def test_places_of_the_map_lead_to_their_families(opened):
    page, _, _ = opened
    places = page.locator(".map .wide a[aria-label]")
    assert places.count() == 7 and page.locator(".map .wide a:not([aria-label]):not([tabindex='-1'])").count() == 0
    page.locator(".map .wide a[aria-label='GPT on pydoc']").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**#run-*")
    assert page.evaluate("document.querySelector(location.hash).innerText").startswith("GPT pydoc")


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_only_the_tables_scroll_sideways(opened, width):
    page, _, _ = opened
    page.set_viewport_size({"width": width, "height": 780})
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    table = page.locator("#numbers .scroll")
    wider, clipped = table.evaluate("e => [e.scrollWidth > e.clientWidth, getComputedStyle(e).overflowX]")
    assert clipped == "auto" and (wider or width > 1000)
    assert table.get_attribute("tabindex") == "0"  # or the keyboard could not scroll it
    assert page.locator(".map .phone").is_visible() == (width < 700)
    assert page.locator(".map .wide").is_visible() == (width >= 700)


def test_without_scripts_it_is_all_there(browser, path):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(path.as_uri())
    assert order(page)[:2] == ["GPT", "FLOW"]
    assert not page.locator(".play").first.is_visible()
    context.close()
