"""The reports of `simulate` and `curve` in a real browser."""

import json
import random
import subprocess

import pytest
from browser import Browser
from server import BINARY

COMMANDS = {
    "curve": ["curve", "--points", "6"],
    "simulate": ["simulate", "--capacity", "1%,10%,50%"],
}


@pytest.fixture(scope="module")
def browser():
    with Browser() as running:
        yield running


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """For each command, its report and the rows that it printed."""
    folder = tmp_path_factory.mktemp("reports")
    source = random.Random(11)
    keys = [str(int(source.paretovariate(0.8))) for _ in range(20_000)]
    (folder / "keys.txt").write_text("\n".join(keys), encoding="utf-8")
    reports = {}
    for name, words in COMMANDS.items():
        command = [BINARY, *words, "--trace", "keys.txt", "--output", "json", "--report", f"{name}.html"]
        output = subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300).stdout
        reports[name] = (folder / f"{name}.html", json.loads(output))
    return reports


VISIBLE = "[...document.querySelectorAll('svg')].filter(svg => svg.getBoundingClientRect().width > 0)"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_report_is_drawn_without_errors_and_without_the_network(browser, reports, command, dark, width):
    path, rows = reports[command]
    browser.open(path, width, dark)

    policies = {row["policy"] for row in rows}
    plots = browser.evaluate(f"{VISIBLE}.length")
    assert plots == 1 + min(6, plots - 1) and plots >= 3, "one set of curves and some bars"
    drawn = browser.evaluate(
        f"[...new Set({VISIBLE}.flatMap(svg => [...svg.querySelectorAll('text')].map(text => text.textContent)))]"
    )
    assert policies <= set(drawn)
    lines = browser.evaluate(
        f"{VISIBLE}[0] && [...{VISIBLE}[0].querySelectorAll('g.series:not(.label) > path:first-child')]"
        ".map(path => path.getBoundingClientRect().width)"
    )
    assert len(lines) == len(policies - {"belady"}) and min(lines) > width * 0.3
    outside = browser.evaluate(
        f"{VISIBLE}.flatMap(svg => [...svg.querySelectorAll('text')].filter(text => "
        "text.getBoundingClientRect().right > svg.getBoundingClientRect().right + 1).map(text => text.textContent))"
    )
    assert outside == [], "text is cut off"
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the window"
    assert browser.evaluate("document.querySelectorAll('table.sortable tbody tr').length") == len(rows)

    red = int(browser.evaluate(BACKGROUND).removeprefix("rgb(").split(",")[0])
    assert red < 64 if dark else red > 192
    ink = browser.evaluate("getComputedStyle(document.querySelector('svg .ink')).fill")
    assert (int(ink.removeprefix("rgb(").split(",")[0]) > 192) == dark

    assert browser.requested() == [path.as_uri()]
    assert browser.complaints() == []


def test_a_click_sorts_the_table_and_picks_a_policy(browser, reports):
    path, rows = reports["curve"]
    browser.open(path, 1280, False)
    column = 5
    cells = f"[...document.querySelectorAll('table.sortable tbody tr')].map(row => Number(row.cells[{column}].dataset.value))"
    for order in (False, True):
        browser.evaluate(f"document.querySelectorAll('table.sortable thead button')[{column}].click()")
        assert browser.evaluate(cells) == sorted((row["misses"] for row in rows), reverse=order)
    faint = "[...document.querySelectorAll('.series')].filter(s => !s.classList.contains('picked')).length"
    before = browser.evaluate(faint)
    click = "document.querySelector('.series[data-policy=lru] path').dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    browser.evaluate(click)
    assert browser.evaluate("document.body.classList.contains('picking')")
    assert browser.evaluate(faint) < before
    browser.evaluate(click)
    assert not browser.evaluate("document.body.classList.contains('picking')")
