"""The study of bounds on two drawn scenarios: nothing found is above its bound, and little is below what trying everything gives."""

from studies import bounds


def test_found_plans_lie_between_everything_tried_and_the_bound():
    result = bounds.run(scenarios=2, fronts=0, seed=3)
    assert result.ok
    assert len(result.rows) == 2
    for row in result.rows:
        assert row["found"] >= 0.995 * row["everything tried"]
        assert row["found"] * (1 + row["gap %"] / 100) >= row["everything tried"] * (1 - 1e-4)
        assert row["gap %"] <= 1
