import numpy as np
import pytest

from kvopt import plots


def test_roof_and_points(explained, words):
    axes = plots.roofline(explained)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Arithmetic intensity [FLOP/byte]", "Performance of one GPU [FLOP/s]")
    peak, reached = (line.get_xydata() for line in axes.lines if line.get_marker() == "None")
    assert peak[1] == pytest.approx([150, 3e14])
    assert peak[0, 1] / peak[0, 0] == pytest.approx(2e12)
    assert peak[2, 1] == pytest.approx(3e14)
    assert reached[2, 1] == pytest.approx(2.4e14)
    points = {(line.get_marker(), *np.round(line.get_xydata()[0], 6)) for line in axes.lines if line.get_marker() != "None"}
    assert ("s", 5000.0, 2e14) in points
    assert ("o", 2.0, 3.2e12) in points
    assert {x for shape, x, _ in points if shape == "^"} == {3.2, 6.4, 14.4}
    said = words(axes)
    for part in (
        "peak: 300 TFLOP/s, 2.00 TB/s",
        "chunk of 4,096 / 2,048 / 1,024 tokens",
        "decoding, one request",
        "decoding, 2 / 4 / 9 requests",
        "research (small)",
    ):
        assert part in said


def test_unknown_work(explained, words):
    for point in (explained.data, explained.data["research"], explained.data["baseline_point"]):
        point["arithmetic"]["roofline"]["work"][0]["seconds"] = None
    assert "roofline" not in plots.drawable(explained)
    assert "not known" in words(plots.roofline(explained))
