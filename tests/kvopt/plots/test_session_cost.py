import pytest

from kvopt import plots


def test_bars_are_the_stages(explained, words):
    axes = plots.session_cost(explained)
    rows = {row: [bar for bar in axes.patches if round(bar.get_y() + bar.get_height() / 2) == row] for row in range(3)}
    for row, scale in enumerate((2.0, 1.0, 0.5)):
        assert [bar.get_width() for bar in rows[row]] == pytest.approx([scale * part for part in (30, 1, 20, 10, 5, 0.5)])
        assert max(bar.get_x() + bar.get_width() for bar in rows[row]) == pytest.approx(66.5 * scale)
    assert [label.get_text().split(":")[0] for label in axes.get_yticklabels()] == ["uncompressed", "today", "research"]
    said = words(axes)
    for part in ("One session [GPU-seconds]", "66.5 GPU-s $0.0665", "prefill: prompt", "decode: KV cache", "context switching"):
        assert part in said
    assert "recomputed" not in said
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in rows[0]}) == 6


def test_unknown_price_and_unknown_cost(explained, words):
    for point in (explained.data, explained.data["research"], explained.data["baseline_point"]):
        point["arithmetic"]["session"]["usd_per_gpu_s"] = None
    said = words(plots.session_cost(explained))
    assert "66.5 GPU-s" in said
    assert "$" not in said
    for point in (explained.data, explained.data["research"], explained.data["baseline_point"]):
        point["arithmetic"] = None
    assert "session_cost" not in plots.drawable(explained)
    assert "The cost of a session is not known." in words(plots.session_cost(explained))
