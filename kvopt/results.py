"""One result object for every verb: it prints, saves, loads, and gives a table."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import platform
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from kvopt.errors import BadInput

FORMAT = 1  # of a run folder; one that an older kvopt wrote says none and is read as it is
WRITTEN = (".json", ".csv", ".yaml", ".tsv", ".png", ".svg", ".html", ".sh", ".py")  # endings of the files of a run
PACKAGES = ("kvopt", "jax", "jaxlib", "optax", "numpy", "scipy", "moocore", "matplotlib", "simpy")


@dataclass(frozen=True)
class Result:
    """What a verb found: the object that `--json` prints, and what a person should know beside it.

    >>> result = Result("analyze", {"scenario": {"asked": {"model": "yi-34b-200k"}}, "plan": {"methods": ["fp8"]}, "metrics": {"ttft_s": 2.5}})
    >>> result.rows()
    [{'point': 'answer', 'methods': 'fp8', 'ttft_s': 2.5}]
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load(result.save(folder)) == result
    True
    """

    kind: str  # analyze, optimize, pareto, simulate, sensitivity, explain or next
    data: dict[str, Any]  # as `--json` prints it
    warnings: tuple[str, ...] = ()
    feasible: bool = True
    extra: dict[str, Any] = field(default_factory=dict)  # recommended points of a front and such, for plots
    files: dict[str, str] = field(default_factory=dict)  # written beside the result, by name: a plan in the form that its library reads

    @property
    def question(self) -> dict[str, Any]:
        """The fields of the scenario that were asked, and the seed: what `--config` reads."""
        scenario = self.data["scenario"]
        return {**scenario.get("asked", {}), "seed": scenario.get("seed", 0)}

    def to_json(self) -> str:
        """The object that `--json` prints; no NaN in it."""
        return json.dumps(self.data, indent=2, allow_nan=False)

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per point: the answer, the baseline, the research optimum, or the points of a front."""
        if self.kind == "pareto":
            return [_flat(point) for point in self.data["points"]]
        if self.kind == "sensitivity":
            return [{"input": name, **_numbers(sides)} for name, sides in self.data["elasticities"].items()]
        if self.kind == "next":
            return list(self.data["measurements"])
        if self.kind == "simulate":
            return [{"figures": name, **_numbers(self.data[name])} for name in ("simulation", "closed_form", "ratio") if name in self.data]
        if self.kind == "explain":
            return [
                {"metric": row["metric"], "value": row["value"], "dominates": row["dominates"], "formula": row["formula"]}
                for row in self.data["explained"]
            ]
        rows = [{"point": "answer", **_flat(self.data)}]
        if self.data.get("research", {}).get("plan"):
            rows.append({"point": "research", **_flat(self.data["research"])})
        if self.data.get("baseline"):
            rows.append({"point": "baseline", **self.data["baseline"]})
        return rows

    def to_frame(self) -> Any:
        """The rows as a pandas DataFrame. Raises `BadInput` where pandas is not installed."""
        return frame(self.rows())

    def save(self, folder: str | Path) -> Path:
        """Writes `result.json`, `points.csv`, `scenario.yaml` (the question, for `--config`) and the result's own files, each whole or not at all.

        Raises `BadInput` where the folder cannot be written.
        """
        kept = {"format": FORMAT, "kind": self.kind, "feasible": self.feasible, "warnings": self.warnings, "run": run_record()}
        whole = {**kept, "result": self.data, "extra": self.extra, "files": list(self.files)}
        files = {
            "result.json": json.dumps(whole, indent=2) + "\n",
            "points.csv": table_text(self.rows()),
            "scenario.yaml": yaml.safe_dump(self.question, sort_keys=False),
        }
        write_files(folder, {**files, **self.files})
        return Path(folder)

    def __str__(self) -> str:
        from kvopt.report import text

        return text(self)


def load(folder: str | Path) -> Result:
    """The result of a run folder, or of its `result.json`, as it was saved. Raises `BadInput` where there is none, or a newer kvopt wrote it."""
    path = Path(folder)
    if not path.exists():
        raise BadInput("run folder", folder, "is not there")
    path = path / "result.json" if path.is_dir() else path
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved.get("format", 0) > FORMAT:
            by = saved.get("run", {}).get("versions", {}).get("kvopt", "a newer version")
            raise BadInput("run folder", path, f"written by kvopt {by} in format {saved['format']}, and this one reads up to {FORMAT}: update kvopt")
        if "rows" in saved:
            raise BadInput("run folder", path.parent, "holds the table of a study, which has no plan")
        files = {name: (path.parent / name).read_text(encoding="utf-8") for name in saved.get("files", ())}
        return Result(saved["kind"], saved["result"], tuple(saved["warnings"]), saved["feasible"], saved.get("extra", {}), files)
    except OSError as error:
        name = Path(error.filename or path).name  # the folder may be too long to be shown with it
        raise BadInput("run folder", path.parent, f"{name} cannot be read ({error.strerror or error.__class__.__name__})") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise BadInput("run folder", path, f"not a result of kvopt ({error.__class__.__name__})") from None


def chosen(result: Result, point: int | None = None) -> dict[str, Any]:
    """One point of a result with its plan: the recommended one, or point number `point` of a front, from 0. Raises `BadInput` where there is none."""
    if point is None:
        answer: dict[str, Any] = result.data.get("answer") or result.data
        if not answer.get("plan") or answer.get("infeasible"):
            raise BadInput("point", "none", f"this {result.kind} run recommends no plan")
        return answer
    points = result.data.get("points") or []
    if not 0 <= point < len(points):
        raise BadInput(
            "point", point, f"one of 0 to {len(points) - 1}" if points else f"this {result.kind} run has no front to choose from: leave it out"
        )
    found: dict[str, Any] = points[point]
    return found


def _flat(point: dict[str, Any]) -> dict[str, Any]:
    plan = {name: _cell(value) for name, value in (point.get("plan") or {}).items() if name != "blocks"}  # tables are in result.json
    label = {"front": point["front"]} if "front" in point else {}
    return {**label, **plan, **point.get("metrics", {})}


def _cell(value: Any) -> Any:
    """One cell of a table: names joined by plus signs, labelled settings by semicolons."""
    if not isinstance(value, list):
        return value
    return "+".join(value) if all(isinstance(entry, str) for entry in value) else "; ".join(f"{entry['method']}: {entry['where']}" for entry in value)


def _numbers(tree: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested numbers as one row, their names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _numbers(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return flat


def frame(rows: Iterable[dict[str, Any]]) -> Any:
    """Rows as a pandas DataFrame. Raises `BadInput` where pandas is not installed."""
    try:
        import pandas
    except ImportError:
        raise BadInput("to_frame", "pandas", "not installed; pip install pandas, or use the rows as they are") from None
    return pandas.DataFrame(list(rows))


def table_text(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as CSV; columns in order of first appearance, empty where a row has none."""
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def run_record() -> dict[str, Any]:
    """The versions that a run was made with."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"versions": found, "python": platform.python_version(), "platform": platform.machine()}


def writable(folder: str | Path) -> Path:
    """The folder, made where it is missing. Raises `BadInput` where it cannot be written."""
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target):
            pass
    except OSError as error:
        raise BadInput("out", folder, f"cannot be written ({error.strerror or error.__class__.__name__})") from None
    return target


def kept_runs(folder: Path) -> Path:
    """The folder, with the files of an earlier run in it moved to `previous-N`: nothing that was written is lost. Raises `BadInput` where that fails."""
    moved_aside(folder)
    return folder


def moved_aside(folder: Path) -> list[tuple[Path, Path]]:
    """The same; returns where each file was and where it is now. Files of other kinds than a run writes stay."""
    if not (folder / "result.json").exists():
        return []
    number = 1
    while (folder / f"previous-{number}").exists():
        number += 1
    kept = folder / f"previous-{number}"
    try:
        kept.mkdir()
        files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix in WRITTEN and not path.name.startswith(".")]
        return [(path, path.rename(kept / path.name)) for path in files]
    except OSError as error:
        raise BadInput("out", folder, f"the run in it cannot be kept ({error.strerror or error.__class__.__name__})") from None


def moved_back(moved: Iterable[tuple[Path, Path]]) -> None:
    """Undoes `moved_aside` where nothing has taken the place of a file."""
    for before, now in moved:
        if not before.exists():
            now.rename(before)
            with contextlib.suppress(OSError):  # not empty yet
                now.parent.rmdir()


def write_files(folder: str | Path, files: Mapping[str, str | bytes]) -> list[Path]:
    """Writes files by name into a folder, made where it is missing, each whole or not at all, in their order. Returns their paths.

    Raises `BadInput` for the first that cannot be written: the disk is full, say; those before it are there and whole.
    """
    target = writable(folder)
    for name, content in files.items():
        try:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target / name, content)
        except OSError as error:
            raise BadInput(
                "out", target / name, f"cannot be written ({error.strerror or error.__class__.__name__}); what stood before stays"
            ) from None
    return [target / name for name in files]


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all: into a neighbour first, then renamed."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
