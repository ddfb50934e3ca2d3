"""Pictures as SVG inside a page: several of them share one document, so their ids are kept apart."""

from __future__ import annotations

import re

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvopt.plots import rendered

POINTS = 72.0  # SVG units per inch, as matplotlib writes them
_STYLE = re.compile(r"<style type=\"text/css\">\*\{([^}]*)\}</style>")


def inline_svg(axes: Axes, prefix: str) -> Markup:
    """The figure of some axes as an `<svg>` without its closing tag, so that more can be drawn over it in the same units; its ids begin with `prefix`.

    The picture is the one that `kvopt.plots.save_all` writes. What the page must not share with other pictures is made the picture's own.
    """
    text = rendered(figure_of(axes), "svg").decode()
    body = text[text.index("<svg") : text.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    common = _STYLE.search(body)
    body = _STYLE.sub("", body)  # a style element of a picture would hold for the whole page
    body = body.replace("<g id=", '<g aria-hidden="true" id=', 1)  # what it shows is said in words beside it
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r'xlink:href="#', f'href="#{prefix}-', body)
    body = re.sub(r"url\(#", f"url(#{prefix}-", body)
    opening = body[: body.index(">") + 1]
    box = re.search(r'viewBox="[^"]*"', opening)
    assert box is not None, "matplotlib writes one"
    style = f' style="{common.group(1)}"' if common else ""
    return Markup(f'<svg xmlns="http://www.w3.org/2000/svg" {box.group(0)}{style}>' + body[len(opening) :])


def figure_of(axes: Axes) -> Figure:
    """The whole figure that axes are in."""
    figure = axes.get_figure(root=True)
    assert figure is not None, "axes of a picture have a figure"
    return figure


def in_svg(axes: Axes, at: np.ndarray) -> np.ndarray:
    """Where data lie in the units of `inline_svg`, from its upper left corner; `at` is `(n, 2)` in data units."""
    return _in_svg(axes, axes.transData.transform(at))


def area(axes: Axes) -> tuple[float, float, float, float]:
    """The axes themselves in the same units: left, top, width, height."""
    (left, bottom), (right, top) = _in_svg(axes, axes.bbox.get_points())
    return float(left), float(top), float(right - left), float(bottom - top)


def _in_svg(axes: Axes, pixels: np.ndarray) -> np.ndarray:
    figure = figure_of(axes)
    scaled = np.asarray(pixels) * POINTS / figure.dpi
    return np.column_stack([scaled[:, 0], figure.get_figheight() * POINTS - scaled[:, 1]])
