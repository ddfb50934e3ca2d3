"""A run folder: the result and all that is drawn from it. Every file but the result itself is a function of the result, so that a saved run draws it again."""

from __future__ import annotations

from pathlib import Path

from kvopt.results import Result, write_files


def write_run(result: Result, folder: str | Path) -> Path:
    """Writes a result with its pictures, its `report.html` and the launch files of its plan. The result comes first: what follows can be drawn again.

    Raises `BadInput` where a file cannot be written; those before it are there and whole.
    """
    result.save(folder)
    drawn_again(result, folder)
    return Path(folder)


def drawn_again(result: Result, folder: str | Path) -> list[Path]:
    """Writes all that is drawn from a result into a folder: pictures, `report.html`, launch files. Returns the paths. Raises `BadInput` likewise."""
    from kvopt.export import launch_files
    from kvopt.html import report_html, reports_on
    from kvopt.plots import save_all

    written = save_all(result, folder)
    page = {"report.html": report_html(result)} if reports_on(result) else {}
    return [*written, *write_files(folder, {**page, **launch_files(result)})]
