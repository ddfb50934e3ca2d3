"""Title and legends above the axes, as wide as the axes are, so that they lie on nothing that is drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.transforms import ScaledTranslation

from kvopt.plots.style import STYLE

COLUMNS = 5  # of a legend, at most
GAP = 3.0  # [points] between what stands above the axes
LEGEND = {"loc": "lower left", "borderaxespad": 0.0, "borderpad": 0.2, "labelspacing": 0.35, "handlelength": 2.4, "columnspacing": 1.8}


def headed(axes: Axes, title: str, *legends: Sequence[Artist]) -> None:
    """Puts a title and legends, each a sequence of labelled handles, above the axes; in as many columns and as few lines as the width takes.

    Limits, labels and colourbars of the axes must be final.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None, "axes without a figure have no size"
    figure.draw_without_rendering()  # the width is known once the layout is settled
    points = 72 / figure.dpi
    width, above = axes.bbox.width * points, GAP
    for handles in reversed(legends):
        if handles:
            above += _legend(axes, handles, above, width) + GAP
    _title(axes, title, above, width)


def _legend(axes: Axes, handles: Sequence[Artist], above: float, width: float) -> float:
    """Adds a legend `above` points over the axes; its height [points]."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    raised = axes.transAxes + ScaledTranslation(0, above / 72, figure.dpi_scale_trans)
    labels = [str(handle.get_label()) for handle in handles]
    for columns in range(min(COLUMNS, len(handles)), 0, -1):
        made = Legend(axes, list(handles), labels, ncols=columns, bbox_to_anchor=(0, 1), bbox_transform=raised, **LEGEND)  # type: ignore[arg-type]
        axes.add_artist(made)
        box = made.get_window_extent()
        if box.width * 72 / figure.dpi <= width or columns == 1:
            break
        made.remove()
    return float(box.height * 72 / figure.dpi)


def _title(axes: Axes, title: str, above: float, width: float) -> None:
    """The title over the legends, broken where it is wider than the axes."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    for letters in range(int(width / (0.5 * STYLE["axes.titlesize"])), 12, -2):
        drawn = axes.set_title(textwrap.fill(title, letters), pad=above + GAP)
        if drawn.get_window_extent().width * 72 / figure.dpi <= width:
            return


def empty(axes: Axes, title: str, why: str) -> Axes:
    """Axes without data that say why there is none."""
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
    for side in axes.spines.values():
        side.set_visible(False)
    headed(axes, title)
    figure = axes.get_figure(root=True)
    assert figure is not None
    letters = max(12, int(axes.bbox.width * 72 / figure.dpi / (0.62 * STYLE["font.size"])))
    axes.text(0.5, 0.5, textwrap.fill(why, min(letters, 70)), ha="center", va="center", transform=axes.transAxes)
    return axes
