"""Reports in a browser: Debian's chromium, driven by selenium. Where there is none these are skipped; CI has one."""

import base64
import json
import os
import re
import shutil
import time
from dataclasses import replace

import pytest

from report_cases import HOSTILE, hostile, view
from torchshrink.report.page import page

REQUIRED = "TORCHSHRINK_BROWSER"  # set where a missing browser is a fault
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDTHS = (360, 1600)
A4 = {"paperWidth": 8.27, "paperHeight": 11.7}
PICTURES = {"fig-loss", "fig-gap", "fig-inputs", "fig-now", "fig-folds", "fig-curves", "fig-layers", "fig-sizes-0"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        if os.environ.get(REQUIRED):
            pytest.fail(f"{REQUIRED} is set, and there is no chromium or no chromedriver")
        pytest.skip("no chromium with its chromedriver: apt-get install chromium chromium-driver")
    selenium = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for each in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(each)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = selenium.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    image = {"inputs": 64, "columns": tuple(f"pixel_{i}_{j}" for i in range(8) for j in range(8))}
    made = {
        "table": view("l1", "group_lasso"),
        "image": view(layers=((16, 64), (10, 16)), **image),
        "hostile": hostile(),
        "long": view(strengths=100),
    }
    for name, shown in made.items():
        (folder / f"{name}.html").write_text(page(shown), encoding="utf-8")
    return folder


def open_page(browser, path, *, width=1280, scheme="light"):
    """Open it at this width and wait until it is drawn; forget what was logged before."""
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    screen(browser, width)
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(path.as_uri())
    until(lambda: browser.execute_script("return document.documentElement.dataset.drawn") == "yes")


def screen(browser, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def until(done, seconds=30):
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            pytest.fail("the page was not drawn in time")
        time.sleep(0.05)


def drawn(browser):
    """What each picture shows now, as SVG."""
    return browser.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('.chart')].map(each => [each.id, each.innerHTML]))"
    )


def said(browser):
    return browser.execute_script("return document.getElementById('said').textContent")


def move(browser, place):
    """Move the slider as a hand would, and wait for the pictures."""
    browser.execute_script(
        "const s = document.getElementById('strength'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))",
        place,
    )
    time.sleep(0.4)


def requests(browser):
    """The addresses that the page has asked for since it was opened, its own left out."""
    events = [json.loads(each["message"])["message"] for each in browser.get_log("performance")]
    sent = [each["params"] for each in events if each["method"] == "Network.requestWillBeSent"]
    ours = [each["request"]["url"] for each in sent if each["documentURL"].startswith("file:")]
    return [url for url in ours if not re.fullmatch(r"file:///.*\.html|data:.*", url, re.DOTALL)]


@pytest.mark.parametrize("name", ["table", "hostile"])
def test_opens_without_a_fault_or_a_request(browser, pages, name):
    open_page(browser, pages / f"{name}.html")
    for place in (0, 3, 1):
        move(browser, place)
    assert browser.get_log("browser") == []
    assert requests(browser) == []
    assert set(drawn(browser)) >= PICTURES
    assert all("<svg" in each for each in drawn(browser).values())


@pytest.mark.parametrize("name", ["table", "image"])
def test_the_slider_moves_every_picture(browser, pages, name):
    open_page(browser, pages / f"{name}.html")
    move(browser, 1)
    before, words = drawn(browser), said(browser)
    move(browser, 6)
    after = drawn(browser)
    assert set(before) == set(after) >= PICTURES
    assert [each for each in before if before[each] == after[each]] == []
    assert said(browser) != words
    assert "at 0.0316" in said(browser)
    move(browser, 1)
    assert drawn(browser) == before


def test_the_values_that_are_drawn_are_those_of_the_strength(browser, pages):
    open_page(browser, pages / "table.html")
    shown = view("l1", "group_lasso").parts[0]
    for place in (0, 2, 11):
        move(browser, place)
        layers = drawn(browser)["fig-layers"]
        for at, (_, shape) in enumerate(shown.weights.layers):
            counts = shown.weights.counts[place][at]
            total = shape[0] * shape[1]
            left = total * (1 - counts[0] / sum(counts))
            shown_as = f"{left:.0f}" if abs(left - round(left)) < 0.05 else f"{left:.1f}"
            assert f">{shown_as} of {total} weights" in layers
        widths = browser.execute_script(
            "return [...document.querySelectorAll('#fig-now .mark-rect path')]"
            ".map(each => each.getBoundingClientRect().width)"
        )
        values = sorted(shown.weights.inputs[place])
        largest = max(*values, 1e-9)
        assert sorted(each / max(*widths, 1) for each in widths) == pytest.approx(
            [each / largest for each in values], abs=0.02
        )


def test_another_penalty_is_chosen_by_its_button(browser, pages):
    open_page(browser, pages / "table.html")
    assert said(browser).startswith("L1 at")
    before = drawn(browser)
    browser.execute_script("document.querySelector('input[name=part][value=\"1\"]').click()")
    until(lambda: said(browser).startswith("group lasso at"))
    time.sleep(0.4)
    after = drawn(browser)
    assert before["fig-loss"] != after["fig-loss"]


def test_the_keyboard_suffices(browser, pages):
    from selenium.webdriver.common.keys import Keys

    open_page(browser, pages / "table.html")
    slider = browser.find_element("id", "strength")
    seen = []
    for _ in range(12):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        seen.append(browser.execute_script("return document.activeElement.id || document.activeElement.tagName"))
        if seen[-1] == "strength":
            break
    assert seen[-1] == "strength", seen
    outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    words = said(browser)
    slider.send_keys(Keys.ARROW_RIGHT)
    until(lambda: said(browser) != words)
    assert slider.get_attribute("aria-valuetext") == said(browser)
    slider.send_keys(Keys.HOME)
    until(lambda: said(browser).startswith("No penalty (strength 0)"))


@pytest.mark.parametrize("name", ["table", "image", "hostile"])
def test_nothing_is_wider_than_the_screen(browser, pages, name):
    for width in WIDTHS:
        if width == WIDTHS[0]:
            open_page(browser, pages / f"{name}.html", width=width)
            browser.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
        else:
            screen(browser, width)
            time.sleep(0.5)  # pictures are drawn anew
        wide = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1] == width
        over = browser.execute_script(
            "return [...document.querySelectorAll('td,th,p,dd,svg,h1,h3,li')]"
            ".filter(each => each.getBoundingClientRect().right > innerWidth + 0.5)"
            ".map(each => each.outerHTML.slice(0, 80))"
        )
        assert over == []
    narrowest = browser.execute_script(
        "return Math.min(...[...document.querySelectorAll('.chart svg')]"
        ".map(each => each.getBoundingClientRect().width))"
    )
    assert narrowest > 200  # and they use the room that they have


def test_dark_is_dark(browser, pages):
    def ink_and_paper():
        colours = browser.execute_script(
            "const s = getComputedStyle(document.body), t = getComputedStyle(document.querySelector('#fig-loss text'));"
            "return [s.color, s.backgroundColor, t.fill]"
        )
        return [sum(int(each) for each in re.findall(r"\d+", colour)[:3]) / 3 for colour in colours]

    open_page(browser, pages / "table.html")
    ink, paper, label = ink_and_paper()
    assert ink < 80 < 200 < paper
    assert label < 130
    open_page(browser, pages / "table.html", scheme="dark")
    ink, paper, label = ink_and_paper()
    assert paper < 80 < 200 < ink
    assert label > 130


@pytest.mark.parametrize(("name", "width", "scheme"), [("table", 1600, "light"), ("hostile", 360, "dark")])
def test_axe_finds_nothing_serious(browser, pages, name, width, scheme):
    axe = pytest.importorskip("axe_core_python.selenium").Axe()
    open_page(browser, pages / f"{name}.html", width=width, scheme=scheme)
    browser.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
    # The policy lets no other script run in the page; the driver's own may, as they come from outside of it.
    found = axe.run(browser)["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in serious] == []


def test_prints_in_pages_with_heads_and_whole_rows(browser, pages):
    open_page(browser, pages / "long.html", scheme="dark")
    printed = browser.execute_cdp_cmd(
        "Page.printToPDF", {"printBackground": True, "paperWidth": 8.27, "paperHeight": 11.7}
    )
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page[^s]", pdf)) > 4
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    style = browser.execute_script(
        "const of = each => getComputedStyle(document.querySelector(each));"
        "return [of('thead').display, of('tbody tr').breakInside, of('#strength').display, of('body').backgroundColor]"
    )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert style == ["table-header-group", "avoid", "none", "rgb(255, 255, 255)"]


def test_names_do_nothing(browser, pages):
    open_page(browser, pages / "hostile.html")
    for place in (0, 5, 11):
        move(browser, place)
    assert "gone" not in browser.title.split()
    assert (
        browser.execute_script("return document.querySelectorAll('.chart image, .chart a, body img, body a').length")
        == 0
    )
    names = browser.execute_script(
        "return [...document.querySelectorAll('#fig-now text')].map(each => each.textContent)"
    )
    assert any(each.startswith("<script>") for each in names)
    assert any("שלום" in each for each in names)
    assert not any("\n" in each or "\u202e" in each for each in names)
    assert len(set(HOSTILE)) == len(HOSTILE)


def test_without_a_script_words_and_tables_stand(browser, pages, tmp_path):
    text = re.sub(r"<script>.*?</script>", "", page(replace(view(), test=None)), flags=re.DOTALL)
    (tmp_path / "bare.html").write_text(text)
    browser.get((tmp_path / "bare.html").as_uri())
    assert "Penalising helps" in browser.find_element("tag name", "h1").text
    assert len(browser.find_elements("css selector", "tbody tr")) > 12
