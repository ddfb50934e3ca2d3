import io
import itertools
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Annotation, Text

from kvopt import plots
from kvopt.errors import BadInput

PAIRS = (
    ("sessions_per_gpu_hour", "accuracy_retained"),
    ("accuracy_retained", "ttft_s"),
    ("sessions_per_gpu_hour", "ttft_s"),
    ("users_per_gpu", "cost_per_session_usd"),
    ("sessions_per_gpu_hour", "accuracy_retained", "tpot_s"),
    ("ttft_s", "tpot_s", "sessions_per_gpu_hour"),
)


def written(axes):
    figure = axes.get_figure(root=True)
    figure.draw_without_rendering()
    return [found for found in figure.findobj(Text) if found.get_visible() and found.get_text().strip()]


def words(axes):
    return " ".join(" ".join(found.get_text().split()) for found in written(axes))


def assert_inside(axes):
    figure = axes.get_figure(root=True)
    for found in written(axes):
        box = found.get_window_extent()
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        ticks = {*axes.get_xticklabels(which="both"), *axes.get_yticklabels(which="both")}  # those beyond the limits are not drawn
        assert inside or found in ticks, found.get_text()


def assert_apart(axes):
    boxes = [(found.get_text(), found.get_window_extent()) for found in written(axes) if isinstance(found, Annotation)]
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not first.overlaps(second), (one, other)


@pytest.mark.parametrize("goals", PAIRS)
def test_front_has_its_words_in_place(fronts, goals):
    fronts.data["objectives"] = list(goals)
    axes = plots.front(fronts)
    assert_inside(axes)
    assert_apart(axes)
    said = words(axes)
    for part in (
        "yi-34b-200k, a100-80-sxm x 2, 50,000 tokens of context, vllm",
        "deployable today",
        "uncompressed",
        "today: fp8",
        "research: duoattention + kivi",
    ):
        assert part in said
    assert ("floor 95 %" in said) == ("accuracy_retained" in goals)


def test_labels_do_not_cover_points(fronts):
    axes = plots.front(fronts)
    axes.get_figure().draw_without_rendering()
    places = axes.transData.transform(
        [(100 * p["metrics"]["accuracy_retained"], p["metrics"]["sessions_per_gpu_hour"]) for p in fronts.data["points"]]
    )
    for found in axes.texts:
        box = found.get_window_extent()
        assert not np.any((places > (box.x0, box.y0)).all(axis=1) & (places < (box.x1, box.y1)).all(axis=1)), found.get_text()


def test_axes_of_the_default_front(fronts):
    axes = plots.front(fronts)
    assert axes.get_xlabel() == "Accuracy kept [%]"
    assert axes.get_ylabel() == "Sessions per GPU-hour"
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "linear")
    low, high = axes.get_ylim()
    assert low < 40 < 120 < high
    assert "prefill ceiling of today's plan: 96.6" in words(axes)


def test_ceiling_beyond_the_axis_is_noted(fronts):
    fronts.data["answer"]["metrics"]["prefill_ceiling_per_gpu_hour"] = 1000.0
    axes = plots.front(fronts)
    assert axes.get_ylim()[1] < 200
    assert "prefill ceiling of today's plan, 1,000 sessions per GPU-hour, lies beyond the axis" in words(axes)
    assert_inside(axes)


def test_wide_ranges_are_logarithmic(fronts):
    fronts.data["points"][0]["metrics"]["sessions_per_gpu_hour"] = 2000.0
    axes = plots.front(fronts)
    assert axes.get_yscale() == "log"
    assert_inside(axes)


def test_baseline_that_serves_nothing_is_noted(fronts):
    fronts.data["answer"]["baseline"]["sessions_per_gpu_hour"] = 0.0
    assert "uncompressed, nothing is served within the targets" in words(plots.front(fronts))


def test_points_with_unknown_values_are_left_out(fronts):
    fronts.data["points"][0]["metrics"]["sessions_per_gpu_hour"] = None
    fronts.data["points"][1]["metrics"]["accuracy_lower"] = None
    assert_inside(plots.front(fronts))


def test_front_without_points_says_why(fronts, infeasible):
    fronts.data.update(points=[], answer=infeasible.data)
    said = words(plots.front(fronts))
    assert "No points: the weights of Llama do not fit" in said


def test_one_point(fronts):
    fronts.data["points"] = fronts.data["points"][:1]
    assert_inside(plots.front(fronts))


def test_ones_own_axes(fronts, optimized):
    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    assert plots.front(fronts, left) is left
    assert plots.ledger(optimized, right) is right
    assert figure.axes == [left, right]


def test_ledger(optimized, infeasible):
    axes = plots.ledger(optimized)
    said = words(axes)
    for part in (
        "weights",
        "engine's reserve",
        "caches in use",
        "left for caches",
        "32.0",
        "29.0",
        "today: fp8",
        "research: duoattention + kivi",
        "[GiB]",
    ):
        assert part in said
    assert_inside(axes)
    assert sum(bar.get_width() for bar in axes.patches[:4]) == pytest.approx(71)
    short = plots.ledger(infeasible)
    assert "for the engine: 21.7 GiB" in words(short)
    assert_inside(short)


def test_ledger_says_what_is_unknown(optimized):
    optimized.data["metrics"].update(weight_bytes=None, kv_pool_bytes=None)
    axes = plots.ledger(optimized)
    assert "unknown: weights, left for caches" in words(axes)
    assert_inside(axes)


def test_files(fronts, optimized, tmp_path):
    paths = [*plots.save_all(fronts, tmp_path), *plots.save_all(optimized, tmp_path / "deeper")]
    assert [path.name for path in paths] == [
        "front.png",
        "front.svg",
        "ledger.png",
        "ledger.svg",
        "ledger.png",
        "ledger.svg",
        "elasticities.png",
        "elasticities.svg",
    ]
    for path in paths:
        if path.suffix == ".png":
            pixels = imread(io.BytesIO(path.read_bytes()))
            assert pixels.shape[1] == 1440
            assert 0.05 < np.mean(pixels[..., :3] < 0.99) < 0.9
        else:
            assert ElementTree.fromstring(path.read_text()).tag.endswith("svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deeper", "front.png", "front.svg", "ledger.png", "ledger.svg"]


def test_same_result_same_files(optimized, tmp_path):
    first, second = (plots.save_all(optimized, tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_nothing_is_written_where_drawing_fails(fronts, tmp_path, monkeypatch):
    drawn = []

    def broken(axes, kind):
        drawn.append(kind)
        if kind == "svg":
            raise RuntimeError("no")
        return b"picture"

    monkeypatch.setattr(plots, "rendered", broken)
    with pytest.raises(RuntimeError):
        plots.save_all(fronts, tmp_path)
    assert drawn == ["png", "svg"]
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written(optimized, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        plots.save_all(optimized, tmp_path / "file")


def test_nothing_global_is_changed(fronts):
    before = dict(mpl.rcParams)
    plots.front(fronts)
    assert dict(mpl.rcParams) == before
