"""The report of a real front in a real browser: what a person points at, clicks, filters, sorts and reaches by keyboard."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kvopt
from kvopt import wording
from kvopt.export import export_point
from kvopt.html import report_html
from kvopt.results import Result

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'kvopt[test]'")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MOST_BYTES = 3_000_000
ALL = "#all tbody tr:visible"


@pytest.fixture(scope="module")
def result() -> Result:
    return kvopt.pareto(model="llama-3.1-8b", accelerator="h100-sxm", gpus=1, context="32k")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the PATH")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=found, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(result: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report_html(result), encoding="utf-8")
    return path


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    """The report, opened from disk. Afterwards: nothing was asked for but the file itself, and nothing went wrong."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    asked, said = [], []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(file.as_uri())
    yield opened
    assert asked == [file.as_uri()]
    assert said == []
    opened.close()


def at(page: Any, index: int) -> tuple[float, float]:
    """Where a point lies on the screen."""
    circle = page.locator(f"#points [data-index='{index}']")
    circle.scroll_into_view_if_needed()
    box = circle.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def points(page: Any) -> list[dict[str, Any]]:
    return json.loads(page.locator("#data").text_content())


def alone(page: Any, front: str) -> dict[str, Any]:
    """A point of a front that no other lies upon."""
    found = points(page)

    def apart(one: dict[str, Any]) -> float:
        return min((one["x"] - other["x"]) ** 2 + (one["y"] - other["y"]) ** 2 for other in found if other is not one)

    return max((one for one in found if one["front"] == front), key=apart)


def command_of(result: Result, found: dict[str, Any]) -> str:
    """The engine command of the plan that the page shows at a place, exported anew."""
    rate = next(value for label, value in found["said"] if label == "Sessions per GPU-hour")
    every = [*result.data["points"], result.data["answer"], result.data["answer"]["research"]]
    same = [
        point
        for point in every
        if wording.methods(point["plan"]) == found["title"] and wording.number(point["metrics"]["sessions_per_gpu_hour"]) == rate
    ]
    return export_point(same[0]["plan"]["engine"], result.data["scenario"], same[0]).text


def test_the_file_is_small_enough_to_mail(file: Path) -> None:
    assert file.stat().st_size <= MOST_BYTES


def test_pointing_at_a_plan_shows_its_numbers(page: Any) -> None:
    found = alone(page, "research")
    assert page.locator("#tip").is_hidden()
    page.mouse.move(*at(page, found["index"]))
    said = page.locator("#tip").inner_text()
    assert found["title"] in said
    for label, value in found["said"]:
        assert label in said
        assert value in said
    page.mouse.move(2, 2)
    assert page.locator("#tip").is_hidden()


@pytest.mark.parametrize("front", ["deployable", "research"])
def test_a_click_shows_the_plan_and_its_command(page: Any, result: Result, front: str) -> None:
    found = alone(page, front)
    page.mouse.click(*at(page, found["index"]))
    shown = page.locator("#chosen")
    assert found["title"] in shown.locator("h3").inner_text()
    assert shown.locator(".command").text_content() == command_of(result, found)
    assert page.locator("#points [aria-pressed=true]").get_attribute("data-index") == str(found["index"])
    assert page.locator("#all tr.is-chosen").get_attribute("data-index") == str(found["index"])


def test_what_is_filtered_out_is_nowhere(page: Any) -> None:
    found = points(page)
    assert page.locator(ALL).count() == len(found)
    assert page.locator("#veil").is_hidden()
    page.get_by_label("engine-ready").uncheck()
    left = [one for one in found if one["where"] != "engine-ready"]
    assert 0 < len(left) < len(found)
    assert page.locator(ALL).count() == page.locator("#points .point:visible").count() == len(left)
    assert page.locator("#veil").get_attribute("display") == "inline"
    stop = int(page.locator("#points [tabindex='0']").get_attribute("data-index"))
    assert stop in [one["index"] for one in left]
    page.get_by_label("at its lower end").check()
    assert page.locator(ALL).count() == sum(one["holds"] for one in left)
    assert page.locator("#count").inner_text() == f"{sum(one['holds'] for one in left)} of {len(found)} plans shown"


def test_a_point_that_is_filtered_out_cannot_be_pointed_at(page: Any) -> None:
    found = alone(page, "research")
    page.get_by_label("research library").uncheck()
    page.mouse.move(*at_hidden(page, found))
    assert page.locator("#tip").is_hidden()


def at_hidden(page: Any, found: dict[str, Any]) -> tuple[float, float]:
    """Where a point would lie on the screen."""
    page.locator("#picture").scroll_into_view_if_needed()
    spot = (
        "([x, y]) => { const at = new DOMPoint(x, y).matrixTransform(document.querySelector('#picture svg').getScreenCTM()); return [at.x, at.y]; }"
    )
    x, y = page.evaluate(spot, [found["x"], found["y"]])
    return x, y


def test_by_keyboard_alone(page: Any, result: Result) -> None:
    found = points(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('point')"):
            break
    focused = "Number(document.activeElement.dataset.index)"
    first = page.evaluate(focused)
    assert page.locator("#tip").is_visible()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    reached = page.evaluate(focused)
    assert found[reached]["front"] != found[first]["front"]
    before = page.locator("#chosen h3").inner_text()
    page.keyboard.press("Enter")
    assert page.locator("#chosen h3").inner_text() != before
    assert page.locator("#chosen .command").text_content() == command_of(result, found[reached])
    page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    assert page.locator("#points [aria-pressed=true]").get_attribute("data-index") == str(page.evaluate(focused))
    page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.classList.contains('point')")  # the front is one stop


def test_sorting_the_table(page: Any) -> None:
    head = page.get_by_role("columnheader", name="Cost per session")
    rates = f"{ALL} td:last-child"
    for way, sign in (("descending", -1), ("ascending", 1)):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == way
        values = [float(one.get_attribute("data-value")) for one in page.locator(rates).all()]
        assert values == sorted(values, key=lambda value: sign * value)
        assert len(set(values)) > 2


def test_a_row_chooses_too(page: Any) -> None:
    row = page.locator(ALL).nth(2)
    row.locator("button").press("Enter")
    index = row.get_attribute("data-index")
    assert page.locator("#points [aria-pressed=true]").get_attribute("data-index") == index
    assert points(page)[int(index)]["title"] in page.locator("#chosen h3").inner_text()


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_window(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
