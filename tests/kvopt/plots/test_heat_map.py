import numpy as np

from kvopt import plots


def images(axes):
    return [np.asarray(panel.images[0].get_array()) for panel in axes.child_axes if panel.images]


def test_tables_of_a_plan_by_head(explained, words):
    axes = plots.heat_map(explained)
    (image,) = images(axes)
    np.testing.assert_allclose(image, [[25, 50, 25], [50, 100, 25]])  # heads from top to bottom, layers from left to right
    said = words(axes)
    for part in ("research, duoattention + kivi: tokens kept [%]", "KV head", "Layer, of those that store a cache", "precision of K 8 bits"):
        assert part in said


def test_tables_by_layer_and_of_head_scores(explained, words):
    explained.data["research"]["plan"].pop("blocks")
    explained.data["plan"]["blocks"] = {"per": "layer", "key_bits": [[8.0], [16.0]], "value_bits": [[4.0], [8.0]]}
    bits = plots.heat_map(explained)
    assert [image.tolist() for image in images(bits)] == [[[8.0, 16.0]], [[4.0, 8.0]]]
    assert "precision of V [bits]" in words(bits)
    explained.data["plan"].pop("blocks")
    explained.data["heads"] = {"tables": {"head_keep": [[1.0, 0.0], [0.0, 1.0]]}, "exact": False}
    heads = plots.heat_map(explained)
    np.testing.assert_allclose(images(heads)[0], [[100, 0], [0, 100]])
    assert "which heads is not known" in words(heads)


def test_plans_by_block_that_are_not_the_answer(optimized, words):
    best = {"methods": ["kvzap"], "blocks": {"per": "layer", "token_keep": [[0.2], [0.4]]}, "sessions_per_gpu_hour": 95.0}
    optimized.data["per"] = {"deployable": None, "research": {**best, "uniform_sessions_per_gpu_hour": 100.0}}
    axes = plots.heat_map(optimized)
    assert len(images(axes)) == 1
    assert "research, kvzap (0.95x the best with one setting for all): tokens kept [%]" in words(axes)


def test_a_plan_that_is_alike_has_no_map(optimized, words):
    optimized.data["plan"]["blocks"] = {"per": "layer", "key_bits": [[8.0], [8.0]]}
    assert "heat_map" not in plots.drawable(optimized)
    assert "Every layer and head keeps the same." in words(plots.heat_map(optimized))
