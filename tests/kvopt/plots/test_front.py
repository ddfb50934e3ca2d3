import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from kvopt import plots
from kvopt.plots.binding import MARKERS, OTHER, binding, markers
from kvopt.plots.style import BLUE, VERMILLION

GOALS = ["accuracy_retained", "sessions_per_gpu_hour"]


def constraint(name, value, limit):
    slack = value - limit if name == "accuracy" else limit - value
    return {"name": name, "value": value, "limit": limit, "slack": slack, "satisfied": slack >= 0}


@pytest.fixture
def bound(fronts):
    for index, point in enumerate(fronts.data["points"]):
        tpot = constraint("tpot_s", 0.0999 if index % 2 else 0.05, 0.1)
        point["constraints"] = [constraint("hbm", 10.0, 10.05), tpot, constraint("accuracy", 0.9501, 0.95)]
    return fronts


def drawn(axes, color, marker):
    """All points of a colour with a marker."""
    lines = [line for line in axes.lines if line.get_marker() == marker and to_hex(line.get_color()).lower() == color.lower()]
    return np.concatenate([np.empty((0, 2)), *(line.get_xydata() for line in lines)])


def test_what_binds():
    rows = [constraint("hbm", 10.0, 10.05), constraint("ttft_s", 5.0, 10.0), constraint("accuracy", 0.951, 0.95), constraint("host_link", 0.0, 0.0)]
    assert binding({"constraints": rows}, GOALS) == ("HBM",)
    assert binding({"constraints": rows}, ["ttft_s"]) == ("HBM", "accuracy floor")
    assert binding({"constraints": rows[1:2], "bottleneck": "decoding"}, GOALS) == ("decoding",)
    assert binding({}, GOALS) == ()


def test_markers_are_fixed_for_one_and_differ_for_several():
    several = [("HBM", "TPOT")] * 3 + [("HBM", "TTFT")] * 2 + [("TTFT", "TPOT"), ("HBM", "TTFT", "TPOT"), ("HBM", "host link"), ("TTFT", "host link")]
    found = markers([("TPOT",), *several])
    assert found[("TPOT",)] == MARKERS["TPOT"]
    assert len({str(marker) for marker in found.values()}) == 6
    assert list(found.values()).count(OTHER) == 2
    assert found[("HBM", "TPOT")] != OTHER
    assert len({str(marker) for marker in MARKERS.values()}) == len(MARKERS)


def test_markers_show_what_binds(bound, words):
    axes = plots.front(bound)
    assert len(drawn(axes, VERMILLION, "s")) == 10
    assert len(drawn(axes, VERMILLION, "P")) == 10
    assert len(drawn(axes, BLUE, "s")) == len(drawn(axes, BLUE, "P")) == 1
    assert "HBM binds" in words(axes)
    assert "HBM + TPOT bind" in words(axes)


def test_bands_reach_from_the_lower_end_to_what_is_kept(bound, words):
    axes = plots.front(bound)
    bands = {band.get_gid(): band for band in axes.collections if isinstance(band, PolyCollection)}
    assert set(bands) == {"band deployable", "band research"}
    corners = bands["band research"].get_paths()[0].vertices
    points = [point["metrics"] for point in bound.data["points"] if point["front"] == "research"]
    for point in points:
        at_rate = corners[np.isclose(corners[:, 1], point["sessions_per_gpu_hour"])][:, 0]
        assert (at_rate.min(), at_rate.max()) == pytest.approx((100 * point["accuracy_lower"], 100 * point["accuracy_retained"]))
    assert "band: to the lower end at 90 % confidence" in words(axes)


def test_bars_where_there_is_no_band(bound):
    bound.data["points"] = [point for point in bound.data["points"] if point["front"] == "research"] + bound.data["points"][:1]
    axes = plots.front(bound)
    ends = [segment for lines in axes.collections if isinstance(lines, LineCollection) for segment in lines.get_segments()]
    assert any(np.allclose(segment, [[97.9, 60], [99.6, 60]]) for segment in ends)  # the only deployable point
    assert any(np.allclose(segment, [[95.7, 90], [99.0, 90]]) for segment in ends)  # the research optimum, which is not on its front


def test_targets_are_drawn_where_they_are_on_an_axis(bound, words):
    bound.data["objectives"] = ["sessions_per_gpu_hour", "ttft_s"]
    for point in bound.data["points"]:
        point["metrics"]["ttft_s"] = 20 + point["metrics"]["sessions_per_gpu_hour"] / 20
    axes = plots.front(bound)
    assert "target: p95 of TTFT 30.0 s" in words(axes)
    assert any(np.allclose(line.get_ydata(), 30.0) for line in axes.lines)
    bound.data["scenario"] = {**bound.data["scenario"], "ttft_s": 300.0, "ttft": None}
    assert "the target, TTFT 300 s, lies beyond the axis" in words(plots.front(bound))


@pytest.mark.parametrize("draw", [plots.front, plots.ledger])
def test_narrow_axes_wrap_title_and_legend(bound, draw):
    figure = Figure(figsize=(4, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    assert draw(bound, axes) is axes
    figure.draw_without_rendering()
    title = next(text for text in axes.get_figure().findobj(Text) if text.get_text().startswith("yi-34b"))
    assert "\n" in title.get_text()
    for found in (title, *axes.findobj(Legend)):
        assert found.get_window_extent().width <= axes.bbox.width * 1.02
    legends = [found.get_window_extent() for found in axes.findobj(Legend)]
    assert all(not one.overlaps(title.get_window_extent()) and one.y0 >= axes.bbox.y1 for one in legends)
