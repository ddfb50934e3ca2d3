import numpy as np
import pytest

from kvopt import plots
from kvopt.plots.users import LOOKS
from kvopt.simulation.timeline import STATES


def test_spans_are_drawn_in_their_rows(played, words):
    axes = plots.timeline(played)
    found = {drawn.get_gid(): [path.vertices for path in drawn.get_paths()] for drawn in axes.collections}
    assert set(found) == {"think-parked", "prefill", "decode", "switch"}
    (prefill,) = found["prefill"]
    assert (prefill[:, 0].min(), prefill[:, 0].max()) == (1.0, 4.0)
    assert [np.round(box[:4, 1].mean()) for box in found["decode"]] == [0.0, 1.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "3"]
    assert axes.get_xlim() == (0, 10)
    begins = next(line for line in axes.lines if line.get_marker() == "v")
    assert begins.get_xydata().tolist() == [[1.0, -0.5]]
    said = words(axes)
    for part in (
        "Time since the warm-up [s]",
        "User",
        "prefill",
        "decode",
        "cache on the link",
        "thinking, cache in host memory",
        "a session begins",
    ):
        assert part in said
    assert "dropped" not in said


def test_every_state_has_a_look_of_its_own():
    assert set(LOOKS) == set(STATES)
    assert len({(height, face["facecolor"], face.get("hatch")) for _, height, face in LOOKS.values()}) == len(STATES)


@pytest.mark.parametrize("rows", [[], None])
def test_nobody_served(played, rows, words):
    played.data["timeline"] = rows
    assert plots.drawable(played) == []
    assert "No user was served." in words(plots.timeline(played))
