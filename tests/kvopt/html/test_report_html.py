"""The report as text: what is in it, what never is, and that it does not change."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from kvopt import plots
from kvopt.errors import BadInput
from kvopt.export import Exported
from kvopt.html import plans, report_html
from kvopt.html.front import as_script
from kvopt.html.inline import in_svg, inline_svg
from kvopt.plots.fronts import place
from kvopt.results import Result, load

VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """Reads a page: its ids, what it refers to, its words; fails where an element is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.uses: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "action", "srcset"):
                self.uses.append(value or "")
            self.uses += re.findall(r"url\(([^)]*)\)", value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)


def words(text: str) -> str:
    return " ".join(" ".join(Page(text).words).split())


@pytest.fixture(autouse=True)
def _exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small results made by hand hold too little for a real export: the browser's test has a real one."""
    made = Exported("vllm", {"vllm.sh": "vllm serve </script> --flag\n"}, ("a note",), ("a setting",))
    monkeypatch.setattr(plans, "export_point", lambda engine, scenario, point: made)


@pytest.fixture
def whole(fronts: Result) -> Result:
    """Points with everything that a run has of them."""
    data = copy.deepcopy(fronts.data)
    for point in data["points"]:
        point |= {"constraints": data["answer"]["constraints"], "bottleneck": "time to first token"}
    return Result("pareto", data)


def test_the_answer_comes_first_and_is_the_terminals(whole: Result) -> None:
    said = words(report_html(whole))
    for line in (
        "Today vllm with fp8",
        "1.50x the uncompressed baseline",
        "Research duoattention + kivi",
        "Gap +50 % sessions per GPU-hour",
        "no cache compression lifts sessions above 96.6 per GPU-hour",
    ):
        assert line in said
    assert said.index("Today vllm") < said.index("All plans of the front")


def test_nothing_is_loaded_and_no_id_stands_twice(whole: Result) -> None:
    page = Page(report_html(whole))
    assert len(page.ids) == len(set(page.ids))
    for used in page.uses:
        assert used == "data:," or (used.startswith("#") and used[1:] in page.ids), used
    assert "default-src 'none'" in report_html(whole)


def test_the_same_result_gives_the_same_report(whole: Result, optimized: Result, tmp_path: Any) -> None:
    for result in (whole, optimized):
        text = report_html(result)
        assert text == report_html(dataclasses.replace(result, data=copy.deepcopy(result.data)))
        assert text == report_html(load(result.save(tmp_path / result.kind)))


def test_names_from_outside_stay_text(whole: Result) -> None:
    whole.data["scenario"]["model"] = "</script><script>alert(1)</script>&"
    whole.data["points"][0]["plan"]["methods"] = ["<img src=x onerror=alert(2)>"]
    text = report_html(whole)
    assert "<script>alert" not in text
    assert "<img" not in text
    assert text.count("</script>") == 2
    data = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    assert "<img src=x onerror=alert(2)>" in [point["title"] for point in json.loads(data.group(1))]


def test_data_cannot_end_their_element() -> None:
    assert not set("<>&") & set(as_script(["</script>", "<!--", "&"]))
    assert json.loads(as_script(["</script>"])) == ["</script>"]
    with pytest.raises(ValueError, match="Out of range"):
        as_script([float("nan")])


def test_points_lie_on_their_markers(whole: Result) -> None:
    axes = plots.front(whole)
    drawn = inline_svg(axes, "here")
    assert 'id="here-' in drawn
    goals = ["accuracy_retained", "sessions_per_gpu_hour"]
    places = np.array([place(point["metrics"], goals) for point in whole.data["points"]])
    markers = {(round(float(x), 1), round(float(y), 1)) for x, y in re.findall(r'<use href="#here-[^"]*" x="([\d.]+)" y="([\d.]+)"', drawn)}
    for x, y in in_svg(axes, places):
        near = [marker for marker in markers if abs(marker[0] - x) < 0.2 and abs(marker[1] - y) < 0.2]
        assert near, (x, y)


def test_a_recommended_plan_behind_the_front_can_be_chosen_too(whole: Result) -> None:
    listed = words(report_html(whole))
    assert "deployable today, recommended" in listed
    assert "research, recommended" in listed
    assert len([name for name in Page(report_html(whole)).ids if name.startswith("plan-")]) == len(whole.data["points"]) + 2


def test_without_points_there_is_no_front(optimized: Result) -> None:
    page = Page(report_html(optimized))
    assert "points" not in page.ids
    assert "plans" in page.ids
    assert "The answer: fp8" in words(report_html(optimized))
    assert "Warning" not in words(report_html(optimized))  # the style says it, once
    assert "sessions exceed what the model states" in words(report_html(optimized))


def test_infeasible_says_why_and_what_would_help(infeasible: Result) -> None:
    said = words(report_html(infeasible))
    assert "the weights of Llama do not fit beside the engine's reserve" in said
    assert "--gpus 7" in said


def test_words_are_defined(optimized: Result) -> None:
    said = words(report_html(optimized))
    for term in ("TTFT", "TPOT", "ISL, OSL", "Users", "Requests in flight"):
        assert term in said


def test_other_kinds_are_refused(optimized: Result) -> None:
    with pytest.raises(BadInput, match="simulate"):
        report_html(dataclasses.replace(optimized, kind="simulate"))
