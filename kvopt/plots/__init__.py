"""Pictures of a result, made without pyplot: nothing global is touched."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from kvopt.plots.fronts import front as front
from kvopt.plots.memory import ledger as ledger
from kvopt.plots.style import DPI
from kvopt.plots.style import STYLE as STYLE
from kvopt.results import Result, writable, write_atomically

__all__ = ["STYLE", "front", "ledger", "save_all", "write_figure"]
METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}  # the same result gives the same files


def save_all(result: Result, folder: str | Path) -> list[Path]:
    """Writes the pictures of a result into a folder: `front.png` and `.svg` of a front, `ledger.png` and `.svg` of any other. Returns their paths.

    Raises `BadInput` where the folder cannot be written.
    """
    name, axes = ("front", front(result)) if result.kind == "pareto" else ("ledger", ledger(result))
    figure = axes.get_figure(root=True)
    assert figure is not None
    return write_figure(figure, folder, name)


def write_figure(figure: Figure, folder: str | Path, name: str) -> list[Path]:
    """Writes a figure as `name.png` and `name.svg` into a folder. Returns their paths.

    Both are drawn before either is written, and each is written whole or not at all. Raises `BadInput` where the folder cannot be written.
    """
    drawn = {f"{name}.{kind}": rendered(figure, kind) for kind in METADATA}
    target = writable(folder)
    for file, content in drawn.items():
        write_atomically(target / file, content)
    return [target / file for file in drawn]


def rendered(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of a file; `kind`: `png` or `svg`."""
    out = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(out, format=kind, dpi=DPI, metadata=METADATA[kind])
    return out.getvalue()
