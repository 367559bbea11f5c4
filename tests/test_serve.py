"""The page of ``aesearch serve``, clicked through in a real browser: each view, names as text, no outside request."""

from __future__ import annotations

import base64
import importlib.metadata
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from browsing import check_quiet, drag, wait
from conftest import NASTY, serving
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from aesearch.collection.facade import Collection

VIEWS = ["", "image?row=7", "map", "anomalies?rate=0.2", "clusters", "duplicates", "between?from=3&to=9", "about"]
LABELLED = "[...document.querySelectorAll('label')].find((l) => l.textContent.startsWith(arguments[0]))"


@pytest.fixture
def visit(browser, served):
    """Opens a view of the page; afterwards nothing was logged, and nobody else asked."""

    def show(view, address=served):
        browser.get("about:blank")
        browser.get(f"{address}#/{view}")
        wait(browser, "document.querySelector('#view[aria-busy=false]')?.hasChildNodes()")
        return browser

    yield show
    check_quiet(browser, served)


def texts(browser, selector):
    script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText.trim())"
    return browser.execute_script(script, selector)


def click(browser, selector):
    browser.find_element("css selector", selector).click()


def settled(browser):
    """All that was asked for is there, pictures too."""
    there = "[...document.images].every((i) => i.complete || i.loading === 'lazy')"
    wait(browser, f"document.querySelector('#view[aria-busy=false]') && !document.querySelector('.busy') && {there}")


def choose(browser, label, value):
    """Set what has that label, as a hand would."""
    script = f"const chosen = {LABELLED}.querySelector('select, input'); chosen.value = arguments[1];"
    events = "for (const kind of ['input', 'change']) chosen.dispatchEvent(new Event(kind));"
    browser.execute_script(script + events, label, value)


def test_images_are_filtered_and_lead_to_their_neighbours(visit, labelled):
    browser = visit("")
    assert "1 to 60 of 161 images" in texts(browser, ".told")
    choose(browser, "label", "3")
    count = Collection.open(labelled).labels().count("3")
    wait(browser, f"document.body.innerText.includes('1 to {count} of {count} images')")
    assert browser.current_url.endswith("#/?label=3")
    browser.find_elements("css selector", ".tile")[2].click()
    wait(browser, "document.querySelectorAll('.split .tile').length === 20")
    row = int(re.search(r"image\?row=(\d+)", browser.current_url)[1])
    told = Collection.open(labelled).query(row=row, k=20)
    assert texts(browser, "h1") == [Collection.open(labelled).ids[row]]
    assert texts(browser, ".tile > span:first-of-type")[:2] == [f"{n + 1}. {told.distances[n]:.4f}" for n in range(2)]
    wait(browser, "document.querySelectorAll('.three img').length === 3")
    choose(browser, "how many", "5")
    wait(browser, "document.querySelectorAll('.split .tile').length === 5 && location.hash.includes('k=5')")
    choose(browser, "cluster", "1")
    wait(browser, "location.hash.includes('cluster=1') && !document.querySelector('.busy')")
    assert all("cluster 1" in line for line in texts(browser, ".tile > .faint:nth-of-type(3)"))
    browser.find_elements("css selector", ".tile")[0].click()  # and on from there
    wait(
        browser,
        "arguments[0] !== location.hash && document.querySelectorAll('.split .tile').length === 20",
        f"#/image?row={row}",
    )
    browser.back()
    wait(browser, "location.hash.includes('k=5') && document.querySelectorAll('.split .tile').length === 5")
    browser.back()
    wait(browser, f"location.hash === '#/?label=3' && document.body.innerText.includes('of {count} images')")
    settled(browser)


@pytest.mark.parametrize("way", ["chosen", "dropped", "pasted"])
def test_an_image_is_given_and_searched_for(visit, labelled, way):
    browser = visit("")
    file = labelled.parent / "photos/4/004.png"
    if way == "chosen":
        browser.find_element("css selector", ".choose input").send_keys(str(file))
    else:
        make = ("const bytes = Uint8Array.from(arguments[0]); const held = new DataTransfer();"
                "held.items.add(new File([bytes], '004.png', { type: 'image/png' }));")  # fmt: skip
        event = {"dropped": "new DragEvent('drop', { dataTransfer: held, bubbles: true })",
                 "pasted": "new ClipboardEvent('paste', { clipboardData: held, bubbles: true })"}[way]  # fmt: skip
        browser.execute_script(f"{make} document.body.dispatchEvent({event})", list(file.read_bytes()))
    wait(browser, "document.querySelectorAll('.split .tile').length === 20")
    assert texts(browser, ".tile > span:first-of-type")[0] == "1. 0.0000" and texts(browser, "h1") == ["004.png"]
    wait(browser, "document.querySelectorAll('.three img').length === 3")
    browser.find_elements("css selector", ".tile")[3].click()
    wait(browser, "location.hash.includes('row=')")
    browser.back()
    wait(browser, "location.hash.includes('upload=') && document.querySelectorAll('.split .tile').length === 20")
    settled(browser)


def test_names_stay_text(visit, labelled):
    row = Collection.open(labelled).ids.index(f"0/{NASTY}")
    browser = visit(f"image?row={row}")
    assert texts(browser, "h1") == [f"0/{NASTY}"] and "onerror" not in browser.title
    assert not browser.execute_script("return document.querySelector('[onerror]')")
    browser = visit("duplicates")
    assert NASTY in texts(browser, ".tile > span") or any("onerror" in t for t in texts(browser, ".tile > span"))
    browser.execute_script("window.URL.createObjectURL = (blob) => { window.saved = blob.text(); return 'data:,' }")
    browser.find_element("xpath", "//button[text()='CSV']").click()
    assert NASTY.replace('"', '""') in browser.execute_script("return saved")
    settled(browser)


def test_the_map_imagines_selects_and_leads_on(visit):
    browser = visit("map")
    wait(browser, "window.imageMap?.data.count === 161 && !!imageMap.data.thumb(5)")
    ground = browser.find_element("css selector", ".ground").rect
    corner = (ground["x"] + 90, ground["y"] + 40)
    for step in range(4):
        browser.execute_cdp_cmd(
            "Input.dispatchMouseEvent", {"type": "mouseMoved", "x": corner[0] + step, "y": corner[1]}
        )
    wait(browser, "document.querySelector('.hover img')?.naturalWidth === 8")
    assert "imagined here" in texts(browser, ".hover")[0]
    drag(browser, [corner, corner])
    wait(browser, "document.querySelectorAll('.panel .entry').length === 8")
    assert texts(browser, ".panel h2") == ["imagined here"]
    browser.find_elements("css selector", ".panel .entry")[1].click()
    wait(browser, "document.querySelectorAll('.panel .entry').length > 8")
    wait(browser, "imageMap.map.getZoom() >= 4 && !document.querySelector('.leaflet-zoom-anim')")
    browser.execute_script("imageMap.map.fitBounds(imageMap.bounds, { animate: false })")
    browser.find_element("xpath", "//button[text()='lasso']").click()
    ground = browser.find_element("css selector", ".ground").rect  # less wide beside what has opened
    middle, high = ground["x"] + ground["width"] / 2, ground["y"] + ground["height"] / 2
    drag(browser, [(middle + 300 * np.cos(a), high + 200 * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 30)])
    wait(browser, "document.querySelector('.panel h2')?.textContent.endsWith('selected')")
    count = int(texts(browser, ".panel h2")[0].split()[0])
    choose(browser, "colour by", "cluster")
    assert [name.split()[0] for name in texts(browser, ".legend button")] == ["0", "1", "2"]
    wait(browser, "location.hash.includes('colour=cluster')")
    browser.find_element("xpath", "//a[text()='as a list']").click()
    wait(browser, f"document.body.innerText.includes('of {count} images')")
    assert texts(browser, "h1") == ["selected images"]
    browser.refresh()  # the address holds the selection
    wait(browser, f"document.body.innerText.includes('of {count} images')")
    browser.execute_script("window.URL.createObjectURL = (blob) => { window.saved = blob.text(); return 'data:,' }")
    wait(browser, "document.querySelectorAll('.controls .actions button').length === 2")
    browser.find_element("xpath", "//button[text()='CSV']").click()
    assert browser.execute_script("return saved").count("\r\n") == count + 1
    browser.back()
    wait(browser, "document.querySelector('.bar select:last-of-type') && location.hash.includes('colour=cluster')")
    settled(browser)


def test_the_threshold_follows_the_slider(visit, labelled):
    browser = visit("anomalies")
    assert "161 images ranked" in texts(browser, ".told")[0]
    told = Collection.open(labelled).anomalies(top=60)
    assert texts(browser, ".tile > span:nth-of-type(1)")[0] == f"1. {told.scores[0]:.4f}"
    choose(browser, "false alarms", "8")
    wait(browser, "document.querySelector('.told').textContent.startsWith('threshold')")
    alarms = Collection.open(labelled).anomalies(top=60, false_alarms=0.2)
    assert f"threshold {alarms.alarms.threshold:.4g}".rstrip("0") in texts(browser, ".told")[0].split(":")[0] + "0"
    assert (
        f"{alarms.flagged} of 161 images lie above" in texts(browser, ".told")[0] and "rate=0.2" in browser.current_url
    )
    wait(browser, "document.querySelector('.pair img:nth-child(2)').naturalWidth === 8")
    choose(browser, "false alarms", "1")  # too few images for that
    wait(browser, "document.querySelector('.wrong')?.textContent.includes('needs')")
    visit("anomalies?score=nap")
    assert texts(browser, ".lacks code") == [f"aesearch anomalies --score nap -c {labelled}"]
    choose(browser, "score", "reconstruction")
    wait(browser, "document.querySelectorAll('.pair').length === 60 && location.hash.includes('reconstruction')")
    assert [
        e["message"] for e in browser.get_log("browser") if "400" not in e["message"] and "404" not in e["message"]
    ] == []


def test_clusters_are_named_and_keep_their_names(visit, labelled):
    browser = visit("clusters")
    names = browser.find_elements("css selector", ".cluster input")
    assert (
        len(names) == 3 and browser.execute_script("return document.querySelectorAll('.cluster .row img').length") == 33
    )
    names[1].send_keys("round ones", Keys.ENTER)
    wait(browser, "document.querySelectorAll('.cluster a[href*=round]').length === 1")
    assert Collection.open(labelled).cluster_names()[1] == "round ones"
    browser.refresh()
    wait(browser, "document.querySelectorAll('.cluster input')[1]?.value === 'round ones'")
    browser.find_elements("xpath", "//a[text()='all of them']")[1].click()
    size = Collection.open(labelled).manifest.artifacts["clusters"]["figures"]["sizes"][1]
    wait(browser, f"document.body.innerText.includes('of {size} images')")
    visit("clusters").find_elements("css selector", ".cluster input")[1].clear()
    browser.find_elements("css selector", ".cluster input")[1].send_keys(Keys.ENTER)
    wait(browser, "document.querySelectorAll('.cluster a[href*=round]').length === 0")
    assert Collection.open(labelled).cluster_names() == ["0", "1", "2"]
    settled(browser)


def test_the_path_between_two_images_follows_the_hand(visit):
    browser = visit("between?from=3&to=9")

    def frame():
        url = browser.execute_script("return document.querySelector('.between canvas').toDataURL()")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))), dtype=float)

    seen = [frame()]
    box = browser.find_element("css selector", ".between canvas").rect
    high = box["y"] + box["height"] / 2
    for share in (0.02, 0.98):
        drag(browser, [(box["x"] + box["width"] * s, high) for s in (0.5, (0.5 + share) / 2, share)])
        seen.append(frame())
    assert browser.execute_script("return Number(document.querySelector('input[type=range]').value)") > 29
    middle, first, last = seen
    assert 0 < np.abs((first + last) / 2 - middle).mean() < np.abs(first - last).mean()
    click(browser, "input[type=range]")
    browser.switch_to.active_element.send_keys(Keys.HOME)
    assert browser.execute_script("return Number(document.querySelector('input[type=range]').value)") == 0
    browser.find_element("xpath", "//button[text()='play']").click()
    wait(browser, "Number(document.querySelector('input[type=range]').value) === 32")
    browser.find_element("xpath", "//button[text()='swap']").click()
    wait(browser, "location.hash === '#/between?from=9&to=3' && document.querySelector('.film')")
    settled(browser)


def test_the_keyboard_suffices(visit):
    browser = visit("")
    for _ in range(30):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        if browser.execute_script("return document.activeElement.classList.contains('tile')"):
            break
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.ENTER).perform()
    wait(browser, "location.hash === '#/image?row=1'")
    wait(browser, "document.querySelectorAll('.split .tile').length === 20")
    settled(browser)


def test_what_is_not_there_is_said_with_the_command_that_makes_it(browser, tmp_path, digit_images):
    (tmp_path / "photos").mkdir()
    for number in range(30):
        Image.fromarray(digit_images[number]).save(tmp_path / f"photos/{number:02}.png")
    Collection.build(str(tmp_path / "photos"), tmp_path / "c", progress=False, epochs=1, latent_dim=4)
    with serving(tmp_path / "c") as (address, _):
        for view, command in (("map", "aesearch map --method umap"), ("clusters", "aesearch cluster")):
            browser.get("about:blank")
            browser.get(f"{address}#/{view}")
            wait(browser, "document.querySelector('.lacks code')")
            assert texts(browser, ".lacks code") == [f"{command} -c {tmp_path / 'c'}"]
        collection = Collection.open(tmp_path / "c", progress=False)
        collection.cluster(method="kmeans", clusters=2, space="features")
        browser.execute_script("document.dispatchEvent(new Event('x')); ask('info')")
        wait(browser, "!document.getElementById('notice').hidden")
        assert "the collection has changed" in texts(browser, "#notice")[0]
        click(browser, "#notice button")
        wait(browser, "document.querySelectorAll('.cluster').length === 2")
    browser.execute_script("render()")
    wait(browser, "document.getElementById('notice').innerText.includes('aesearch serve')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_everybody_can_use_it(visit, browser, view, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser = visit(view)
    settled(browser)
    if view == "map":
        wait(browser, "document.querySelector('.legend button')")
    path = importlib.metadata.distribution("axe-playwright-python").locate_file("axe_playwright_python/axe.min.js")
    browser.execute_script(Path(str(path)).read_text(encoding="utf-8"))
    found = browser.execute_async_script("axe.run().then(arguments[0])")
    assert len(found["passes"]) > 10
    serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert not serious, json.dumps([[v["id"], [n["html"] for n in v["nodes"]]] for v in serious], indent=1)
    browser.set_window_size(500, 800)  # Chromium's least; the page is then laid out for 390
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
