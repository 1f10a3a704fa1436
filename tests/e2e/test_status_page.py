"""The status page in a real browser, over a real server."""

import json

import cache_pb2 as pb
import pytest
from browser import Browser
from clients import connect, fetch
from http2 import address_of
from server import Server, wait_until

CARDS = ["hit-ratio", "throughput", "latency", "memory", "entries", "evictions"]
BROWSER_ACCEPTS = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
TINY = {"CACHE_MAX_ITEMS": "100"}


@pytest.fixture(scope="module")
def browser():
    with Browser() as running:
        yield running


def show(browser, server, width=1280, dark=False):
    """Opens the page and waits until it has figures."""
    browser.open(f"http://{server.http}/", width, dark)
    wait_for_text(browser, "#memory strong", lambda text: text.endswith(("B", "0")))


def text_of(browser, selector):
    return browser.evaluate(f"document.querySelector({json.dumps(selector)}).textContent").replace("\u00a0", " ")


def wait_for_text(browser, selector, fits):
    def look():
        text = text_of(browser, selector)
        return text if fits(text) else None

    return wait_until(look, f"{selector}: {text_of(browser, selector)!r}", timeout=20)


def history_of(server, query=""):
    return fetch(server.http, f"/history{query}").json()


def wait_for_seconds(server, count):
    """Until the server has noted this many seconds more."""
    begun = history_of(server)["next"]
    wait_until(lambda: history_of(server)["next"] >= begun + count, "the server notes no seconds", timeout=count + 10)


def read_and_write(server, keys=1000):
    """Writes keys, more than TINY takes, and reads the last of them four times, once in vain."""
    with connect(server.grpc) as stub:
        for number in range(keys):
            stub.Set(pb.CacheItem(key=f"key-{number}", value=b"x" * 100))
            for _ in range(3):
                stub.Get(pb.CacheKey(key=f"key-{number}"))
            stub.Get(pb.CacheKey(key="nothing"))


def lines(browser, card):
    """How many points each line of a plot has."""
    return browser.evaluate(
        f"[...document.querySelectorAll('#{card} .series')].map(series => [...series.querySelectorAll('.line')]"
        ".reduce((sum, path) => sum + path.getAttribute('d').split('L').length, 0))"
    )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 768, 360])
def test_the_page_loads_without_complaints_and_asks_nobody_else(browser, server, width, dark):
    show(browser, server, width, dark)
    wait_for_text(browser, "#state", lambda text: text == "Ready")

    assert browser.evaluate("[...document.querySelectorAll('.card')].map(card => card.id)") == CARDS
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the window"
    outside = browser.evaluate(
        "[...document.querySelectorAll('.plot')].flatMap(svg => [...svg.querySelectorAll('text')].filter(text => "
        "text.getBoundingClientRect().left < svg.getBoundingClientRect().left - 1 || "
        "text.getBoundingClientRect().right > svg.getBoundingClientRect().right + 8).map(text => text.textContent))"
    )
    assert outside == [], "text is cut off"
    red = int(browser.evaluate("getComputedStyle(document.body).backgroundColor").removeprefix("rgb(").split(",")[0])
    assert red < 64 if dark else red > 192

    assert {url.split("?")[0] for url in browser.requested()} == {f"http://{server.http}/", f"http://{server.http}/history"}
    assert browser.complaints() == []


def test_figures_and_plots_follow_the_load(browser):
    with Server(environment=TINY) as server:
        show(browser, server)
        assert text_of(browser, "#hit-ratio strong") == "–"
        wait_for_text(browser, "#verdict", lambda text: text == "Nothing to tell yet.")
        read_and_write(server)
        ratio = wait_for_text(browser, "#hit-ratio strong", lambda text: text != "–")
        assert 74 < float(ratio.removesuffix(" %")) < 76
        wait_for_text(browser, "#entries strong", lambda text: text == "100")
        assert text_of(browser, "#entries .figure span").startswith("of 100")
        assert text_of(browser, "#evictions strong").endswith("/s")
        wait_for_text(browser, "#evictions .figure span", lambda text: "at an age of" in text)
        wait_for_text(browser, "#verdict", lambda text: text == "No, but more entries would.")
        assert "met is max_items (100)" in text_of(browser, "#reason"), "memory is not what is short"
        assert text_of(browser, "#latency strong").endswith(("µs", "ms", " s"))
        # A line takes two points, and there may be a single one yet.
        wait_until(lambda: len(lines(browser, "latency")) == 2, "the lines are not drawn")
        assert "requests" in text_of(browser, "#throughput .figure span")
        wait_for_seconds(server, 8)
        for card, count in {"throughput": 1, "memory": 1, "entries": 1, "evictions": 2}.items():
            wait_until(lambda card=card, count=count: len(got := lines(browser, card)) >= count and min(got) >= 2, card)
        facts = browser.evaluate("Object.fromEntries([...document.querySelectorAll('dl div')].map(one => [one.firstChild, one.lastChild].map(part => part.textContent)))")
        assert (facts["policy"], facts["store"]) == ("lru", "memory")
        assert (facts["hits"], facts["misses"], facts["evicted"]) == ("3,000", "1,000", "900")
        browser.evaluate("document.querySelectorAll('summary').forEach(summary => summary.click())")
        wait_until(lambda: browser.evaluate("document.querySelectorAll('.card tbody tr').length") >= 6, "the tables")
        assert browser.complaints() == []


def test_the_advice_is_about_the_limit_that_was_met_and_about_writes_that_were_refused(browser, server):
    show(browser, server)

    def advised(rows, **limits):
        answer = {"max_entries": 100, "max_memory_bytes": 10_000, "rejected_capacity_total": 0} | limits
        row = {"seconds": 1, "hits": 1, "misses": 1, "evictions": 0, "expired_removals": 0, "rejected_writes": 0, "requests": None}
        row |= {"latency_p50_seconds": None, "latency_p99_seconds": None, "eviction_age_p50_seconds": None, "entries": 1, "memory_usage_bytes": 1}
        # Nobody else writes there in between.
        both = browser.evaluate(
            f"(advise({json.dumps(answer)}, {json.dumps([row | more for more in rows])}),"
            "['verdict', 'reason'].map((id) => document.getElementById(id).textContent).join(' '))"
        )
        return both.replace("\u00a0", " ").replace("\u202f", " ")

    full = {"entries": 100, "memory_usage_bytes": 20, "evictions": 50}
    expired = {"entries": 0, "memory_usage_bytes": 0, "expired_removals": 100}
    cases = [
        ([full], {}, "No, but more entries would."),
        ([full, expired], {}, "No, but more entries would."),
        ([full | {"eviction_age_p50_seconds": 600}, expired], {}, "No, but more entries might."),
        ([full | {"memory_usage_bytes": 10_000, "entries": 50}, expired], {}, "Very likely."),
        ([full, expired], {"max_entries": None}, "Very likely."),
        ([{}], {}, "No. Nothing was evicted"),
        ([{"rejected_writes": 1}], {}, "1 write was refused"),
        ([{"rejected_writes": 2}], {"rejected_capacity_total": 1}, "For some writes. Nothing was evicted"),
        ([{}], {"rejected_capacity_total": 1}, "No. Nothing was evicted"),
    ]
    for rows, limits, expected in cases:
        assert expected in advised(rows, **limits), (rows, limits)
    assert "met is max_items (100), at 0.2 % of the memory: raise that one." in advised([full, expired])


def test_a_page_that_is_opened_later_shows_the_past_at_once(browser):
    with Server(environment=TINY) as server:
        read_and_write(server, keys=200)
        wait_for_seconds(server, 6)
        show(browser, server)
        asked = [url for url in browser.requested() if "since=0" in url]
        assert len(asked) == 1 and lines(browser, "entries")[0] >= 2
        assert browser.evaluate("kept[1].rows.reduce((sum, row) => sum + row.hits, 0)") == history_of(server)["hits_total"]
        browser.evaluate("document.querySelector('input[value=\"30\"]').click()")
        wait_until(lambda: any("step=30" in url for url in browser.requested()), "the coarse history is not asked for")
        assert browser.complaints() == []


def test_a_paused_page_asks_for_a_history_that_it_has_not_got_yet(browser, server):
    read_and_write(server, keys=50)
    show(browser, server)
    coarse = lambda: sum("step=30" in url for url in browser.requested())
    browser.evaluate("document.querySelector('#pause').click()")
    wait_for_seconds(server, 1)
    assert coarse() == 0
    browser.evaluate("document.querySelector('input[value=\"30\"]').click()")
    wait_until(lambda: coarse() == 1, "the coarse history is not asked for")
    assert text_of(browser, "#state") == "Paused"
    assert browser.complaints() == []


def test_a_server_that_is_gone_is_shown_and_so_is_its_successor(browser):
    with Server(kept=True) as server:
        host, port = address_of(server.http)
        read_and_write(server, keys=50)
        show(browser, server)
        wait_for_text(browser, "#entries strong", lambda text: text == "50")
    wait_for_text(browser, "#state", lambda text: text == "Not answering")
    assert text_of(browser, "#alarm").startswith("No answer since")
    assert browser.evaluate("document.querySelector('#alarm').getBoundingClientRect().height") > 20
    assert "not answering" in browser.evaluate("document.title")
    assert browser.evaluate("Number(getComputedStyle(document.querySelector('.cards')).opacity)") < 0.6
    with Server("--listen", "127.0.0.1:0", "--http-listen", f"{host}:{port}", listen=False):
        wait_for_text(browser, "#state", lambda text: text == "Ready")
        wait_for_text(browser, "#entries strong", lambda text: text == "0")
        assert browser.evaluate("document.querySelector('#alarm').hidden")
        assert browser.evaluate("kept[1].rows.every(row => row.hits === 0)"), "what the one before had counted is gone"


def test_a_hidden_page_and_a_paused_one_ask_nothing(browser, server):
    show(browser, server)

    def hide(hidden):
        browser.evaluate(
            f"Object.defineProperty(document, 'hidden', {{configurable: true, value: {json.dumps(hidden)}}}),"
            "document.dispatchEvent(new Event('visibilitychange')), 0"
        )

    def asked():
        return browser.evaluate("performance.getEntriesByType('resource').length")

    for stop, start in [
        (lambda: hide(True), lambda: hide(False)),
        (lambda: browser.evaluate("document.querySelector('#pause').click()"),) * 2,
    ]:
        stop()
        # One question may have been on its way.
        wait_for_seconds(server, 1)
        before = asked()
        wait_for_seconds(server, 3)
        assert asked() == before
        start()
        wait_until(lambda: asked() > before, "the page does not go on")
    assert browser.complaints() == []


def test_the_page_is_usable_by_keyboard_and_by_ear(browser, server):
    show(browser, server)
    wait_for_seconds(server, 10)
    reached = []
    for _ in range(24):
        browser.press("Tab")
        reached.append(browser.evaluate("document.activeElement.ariaLabel ?? document.activeElement.id"))
    assert sum("arrow keys" in name for name in set(reached)) == len(CARDS) and "pause" in reached

    browser.evaluate("document.querySelector('#memory .plot').focus()")
    told = []
    for key in ("Home", "ArrowRight", "End"):
        browser.press(key)
        told.append(browser.evaluate("document.querySelector('#memory .plot').getAttribute('aria-valuetext')"))
    assert all("charged to entries 0" in text for text in told) and len(set(told)) == 3, told
    assert browser.evaluate("document.querySelectorAll('.plot .cursor').length") == len(CARDS), "one moment in all plots"
    browser.press("Escape")
    wait_until(lambda: browser.evaluate("document.querySelectorAll('.plot .cursor').length") == 0, "the cursor stays")

    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    wanted = ("slider", "button", "radio", "article", "DisclosureTriangle", "link")
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    controls = [(role, name) for role, name in named if role in wanted]
    assert len(controls) >= 6 * 3 + 3 and all(name for _, name in controls), controls


def test_the_security_policy_keeps_strangers_out(browser, server):
    show(browser, server)
    attacks = [
        "document.body.append(Object.assign(document.createElement('style'), {textContent: 'body {display: none}'}))",
        "document.body.setAttribute('style', 'display: none')",
        "document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:1/x.png'}))",
        "fetch('http://127.0.0.1:1/').catch(() => 0)",
        "document.head.append(Object.assign(document.createElement('base'), {href: 'http://127.0.0.1:1/'}))",
    ]
    for attack in attacks:
        before = len(browser.complaints())
        browser.evaluate(f"{attack}, 0")
        wait_until(
            lambda before=before: any(refused(event) for event in browser.complaints()[before:]), f"not refused: {attack}"
        )
    assert browser.evaluate("getComputedStyle(document.body).display") == "block"
    assert "TypeError" in browser.evaluate("(() => { try { document.body.innerHTML = '<p>' } catch (error) { return error.name } })()")


def refused(event):
    return "Content Security Policy" in json.dumps(event)


def test_only_browsers_get_the_page(server):
    page = fetch(server.http, "/", headers={"accept": BROWSER_ACCEPTS})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert len(page.body) < 40_000
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in page.headers["content-security-policy"]
    assert (page.headers["x-content-type-options"], page.headers["referrer-policy"]) == ("nosniff", "no-referrer")
    head = fetch(server.http, "/", method="HEAD", headers={"accept": BROWSER_ACCEPTS})
    assert (head.body, head.headers["content-length"]) == (b"", str(len(page.body)))

    port = address_of(server.grpc)[1]
    expected = f'{{"service":"tiny-cache","endpoints":["/health","/ready","/live","/metrics","/stats","/history"],"grpc_port":{port}}}'
    for headers in ({}, {"accept": "*/*"}, {"accept": "application/json"}, {"accept": "application/json, text/html;q=0.9"}):
        answer = fetch(server.http, "/", headers=headers)
        assert (answer.headers["content-type"], answer.body.decode()) == ("application/json", expected)
    assert page.headers["vary"] == answer.headers["vary"] == "accept"


def test_the_history_goes_on_where_a_reader_left_off(server):
    wait_for_seconds(server, 3)
    first = history_of(server)
    assert (first["status"], first["step_seconds"], first["policy"], first["max_entries"]) == ("ready", 1, "lru", 1000)
    lengths = {len(column) for column in first["columns"].values()}
    assert lengths == {first["next"]}
    assert all(0.5 < seconds < 10 for seconds in first["columns"]["seconds"])
    assert first["columns"]["time"] == sorted(first["columns"]["time"])
    wait_for_seconds(server, 1)
    more = history_of(server, f"?since={first['next']}")
    assert 1 <= len(more["columns"]["time"]) == more["next"] - first["next"]
    assert more["columns"]["time"][0] > first["columns"]["time"][-1]
    for query in ("?step=7", "?since=x"):
        answer = fetch(server.http, f"/history{query}")
        assert answer.status == 400 and answer.json()["status"] == "error"
