"""Pictures of a result, made without pyplot: nothing global is touched."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvopt.plots import blocks, cost, memory, roof, tornado, users
from kvopt.plots.blocks import heat_map as heat_map
from kvopt.plots.cost import session_cost as session_cost
from kvopt.plots.fronts import front as front
from kvopt.plots.memory import ledger as ledger
from kvopt.plots.roof import roofline as roofline
from kvopt.plots.style import DPI
from kvopt.plots.style import STYLE as STYLE
from kvopt.plots.tornado import elasticities as elasticities
from kvopt.plots.users import timeline as timeline
from kvopt.results import Result, write_files

__all__ = [
    "PLOTS",
    "STYLE",
    "drawable",
    "elasticities",
    "front",
    "heat_map",
    "ledger",
    "roofline",
    "save_all",
    "session_cost",
    "timeline",
    "write_figure",
]
METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}  # the same result gives the same files
PLOTS: dict[str, tuple[Callable[[Result, Axes | None], Axes], Callable[[Result], bool]]] = {
    "front": (front, lambda result: "points" in result.data),
    "ledger": (ledger, memory.available),
    "session_cost": (session_cost, cost.available),
    "roofline": (roofline, roof.available),
    "elasticities": (elasticities, tornado.available),
    "heat_map": (heat_map, blocks.available),
    "timeline": (timeline, users.available),
}
"""Every picture by name: what draws it, and whether a result has data for it."""


def drawable(result: Result) -> list[str]:
    """The names of the pictures that a result has data for, in the order of `PLOTS`."""
    return [name for name, (_, available) in PLOTS.items() if available(result)]


def save_all(result: Result, folder: str | Path) -> list[Path]:
    """Writes every picture that a result has data for into a folder, as `NAME.png` and `NAME.svg`: the names are those of `PLOTS`. Returns their paths.

    Raises `BadInput` where the folder cannot be written.
    """
    paths = []
    for name in drawable(result):
        figure = PLOTS[name][0](result, None).get_figure(root=True)
        assert figure is not None
        paths += write_figure(figure, folder, name)
    return paths


def write_figure(figure: Figure, folder: str | Path, name: str) -> list[Path]:
    """Writes a figure as `name.png` and `name.svg` into a folder. Returns their paths.

    Both are drawn before either is written, and each is written whole or not at all. Raises `BadInput` where the folder cannot be written.
    """
    return write_files(folder, {f"{name}.{kind}": rendered(figure, kind) for kind in METADATA})


def rendered(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of a file; `kind`: `png` or `svg`."""
    out = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(out, format=kind, dpi=DPI, metadata=METADATA[kind])
    return out.getvalue()
