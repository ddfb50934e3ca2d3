import pytest

from kvopt import plots


def test_bars_of_a_tornado(explained, words):
    axes = plots.elasticities(explained)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["accuracy floor", "peak FLOP/s", "HBM size", "think time", "TTFT target"]
    widths = {
        (names[round(bar.get_y() + bar.get_height() / 2 + (0.18 if bar.get_hatch() else -0.18))], bool(bar.get_hatch())): bar.get_width()
        for bar in axes.patches
    }
    assert widths[("accuracy floor", True)] == 3.0  # a lower floor serves more
    assert widths[("accuracy floor", False)] == -2.0
    assert (widths[("HBM size", True)], widths[("HBM size", False)]) == (-0.5, 0.25)
    assert (widths[("peak FLOP/s", True)], widths[("think time", False)]) == (-1.0, -0.3)
    whisker = next(line for line in axes.lines if list(line.get_xdata()) == [-1.0, -2.0])
    assert len(whisker.get_xdata()) == 2
    said = words(axes)
    for part in ("-2.00 to -1.00", "+0.25", "unknown", "1 % less", "latency targets", "[%] for 1 % less or more of an input"):
        assert part in said
    colours = {
        name: {bar.get_edgecolor() for bar in axes.patches if round(bar.get_y() + bar.get_height() / 2) == row} for row, name in enumerate(names)
    }
    assert colours["accuracy floor"] != colours["peak FLOP/s"] != colours["TTFT target"]


def test_numbers_lie_within_the_axes(explained):
    axes = plots.elasticities(explained)
    axes.get_figure().draw_without_rendering()
    for said in axes.texts:
        box = said.get_window_extent()
        assert axes.bbox.x0 <= box.x0 <= box.x1 <= axes.bbox.x1, said.get_text()


def test_without_elasticities(optimized, words):
    optimized.data["elasticities"] = {"flops": {"left": None, "right": None}}
    assert "elasticities" not in plots.drawable(optimized)
    assert "No elasticities are known." in words(plots.elasticities(optimized))
    optimized.data["elasticities"] = {"flops": {"left": 0.0, "right": 0.0}}
    assert plots.elasticities(optimized).patches[0].get_width() == pytest.approx(0)
