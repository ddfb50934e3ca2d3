"""The command `kvopt`. Exit codes: 0 done, 1 infeasible, 2 bad input (one line on standard error)."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from kvopt import arguments, catalog
from kvopt.errors import BadInput


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code."""
    try:
        return _run(arguments.parse(sys.argv[1:] if words is None else words))
    except BadInput as error:
        print(f"kvopt: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has gone, as in `kvopt ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("kvopt: interrupted", file=sys.stderr)
        return 130


def _run(asked: Any) -> int:
    if asked.version:
        from importlib.metadata import version

        print(version("kvopt"))
        return 0
    if asked.verb is None:
        arguments.parser().print_help()
        return 0
    if asked.verb == "catalog":
        return _catalog(asked)
    if asked.verb == "cache":
        for folder in (cache_folder(), programs_folder()):
            shutil.rmtree(folder, ignore_errors=True)
        print(f"cleared {cache_folder().parent}")
        return 0
    if asked.verb == "validate":
        return _validate(asked)
    if asked.verb == "report":
        return _report(asked)
    if asked.verb == "export":
        from kvopt.export.verb import run as export

        return export(asked)
    gc.set_threshold(100_000, 50, 50)  # imports and traces make objects by the million and little garbage: looking for it takes a tenth of the time
    keep_compiled()
    if asked.verb == "calibrate":
        from kvopt.calibration.verb import run

        return run(asked)
    return _study(asked) if asked.verb == "study" else _question(asked)


def cache_folder() -> Path:
    """Where JAX keeps what it has compiled between runs: in `KVOPT_CACHE`, or the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("KVOPT_CACHE") or Path(home) / "kvopt") / "xla"


def programs_folder() -> Path:
    """Where the programs of searches are kept whole (`kvopt.kept_programs`), beside JAX's."""
    return cache_folder().parent / "programs"


def keep_compiled() -> None:
    """Tells JAX and the searches to keep compiled programs on disk: the command line's choice, never the library's."""
    import jax

    from kvopt.kept_programs import keep_in

    with contextlib.suppress(OSError):
        cache_folder().mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
        keep_in(programs_folder())


@contextlib.contextmanager
def progress_bar(json_output: bool) -> Iterator[Any]:
    """A progress callback `(phase, share)`: a bar on a terminal's standard error, silent elsewhere."""
    console = Console(stderr=True)
    if json_output or not console.is_terminal:
        yield None
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("reading", total=1.0)
        yield lambda phase, share: bar.update(task, description=phase, completed=share)


def _question(asked: Any) -> int:
    from kvopt.kept_programs import reading_ahead

    scenario = arguments.scenario(asked)
    folder = _folder(asked, scenario)
    with progress_bar(asked.json) as progress, reading_ahead(asked.verb):
        from kvopt import api

        if asked.verb == "analyze":
            result = api.analyze(scenario)
        elif asked.verb == "optimize":
            result = api.optimize(scenario, objective=asked.objective, verify=asked.verify, progress=progress)
        elif asked.verb == "pareto":
            result = api.pareto(scenario, [name.strip() for name in asked.objectives.split(",")], progress, asked.chance)
        elif asked.verb == "simulate":
            from kvopt.simulation.verb import simulate

            result = simulate(scenario, plan=_plan(asked), **arguments.options(asked))
        elif asked.verb == "explain":
            from kvopt.explanation.explained import explain

            result = explain(scenario, plan=_plan(asked))
        elif asked.verb == "next":
            from kvopt.accuracy.next_measurement import next_measurements

            result = next_measurements(scenario)
        else:
            result = api.sensitivity(scenario, progress=progress)
    for warning in result.warnings:
        print(f"kvopt: {warning}", file=sys.stderr)
    if asked.json:
        print(result.to_json())
    else:
        from kvopt.report import show

        show(result, Console(soft_wrap=False))
    if folder is not None:
        from kvopt.results import kept_runs
        from kvopt.run_folder import write_run

        write_run(result, kept_runs(folder))
        print(f"written to {folder}", file=sys.stderr if asked.json else sys.stdout)
    return 0 if result.feasible else 1


def _plan(asked: Any) -> dict[str, Any] | None:
    """The plan of `--plan`; none where it is not given."""
    from kvopt.results import chosen, load

    if asked.plan is None:
        if asked.point is not None:
            raise BadInput("point", asked.point, "needs --plan, the run folder that it is a point of")
        return None
    plan: dict[str, Any] = chosen(load(asked.plan), asked.point)["plan"]
    return plan


def _report(asked: Any) -> int:
    """Draws a saved run again."""
    from kvopt.results import load
    from kvopt.run_folder import drawn_again

    result, folder = load(asked.folder), asked.folder if asked.out is None else _out(asked)
    for path in drawn_again(result, folder):
        print(path)
    return 0


def _folder(asked: Any, scenario: Any) -> Path | None:
    """Where the run is written: `--out`, or for pareto a new folder under `kvopt-runs`. Tried before anything is searched."""
    from kvopt.results import writable

    if asked.out is not None:
        return _out(asked)
    if asked.verb != "pareto" or asked.json:
        return None
    base = f"{Path(scenario.model).name}-{Path(scenario.accelerator).name}-x{scenario.gpus}".lower()
    number = 1
    while (Path("kvopt-runs") / f"{base}-{number:03d}").exists():
        number += 1
    return writable(Path("kvopt-runs") / f"{base}-{number:03d}")


def _out(asked: Any) -> Path:
    """The folder of `--out`. Raises `BadInput` where it cannot be written."""
    from kvopt.results import writable

    if not asked.out:
        raise BadInput("out", "''", "must name a folder")
    return writable(asked.out)


def _catalog(asked: Any) -> int:
    if asked.what == "profiles":
        return _profiles(asked)
    if asked.id:
        if asked.what == "models":
            from kvopt.inputs.model_names import resolve

            asked.id = resolve(asked.id) or asked.id
        if asked.what == "accelerators":
            from kvopt.inputs.accelerator_names import resolve_measured

            asked.id = resolve_measured(asked.id) or asked.id
        entry = catalog.read(asked.what, asked.id.lower())
        if asked.json:
            print(json.dumps(entry | _evidence(entry, asked.what), indent=2))
            return 0
        for name, value in entry.items():
            print(f"{name}: {json.dumps(value) if isinstance(value, (dict, list)) else value}")
        if asked.what == "methods":
            from kvopt import method_evidence
            from kvopt.inputs.method import load

            method_evidence.show(load(entry["id"]), wide_console())
        return 0
    if asked.what == "methods":
        return _methods(asked)
    entries = [catalog.read(asked.what, name) for name in catalog.ids(asked.what)]
    if asked.json:
        print(json.dumps([{"id": name, **entry} for name, entry in zip(catalog.ids(asked.what), entries, strict=True)], indent=2))
        return 0
    table = Table("id", "what it is", box=None)
    for name, entry in zip(catalog.ids(asked.what), entries, strict=True):
        table.add_row(name, str(entry.get("about") or entry.get("description") or entry.get("name") or ""))
    Console().print(table)
    return 0


def _evidence(entry: dict[str, Any], what: str) -> dict[str, Any]:
    """What is added to a method's file: the evidence behind it."""
    if what != "methods":
        return {}
    from kvopt import method_evidence
    from kvopt.inputs.method import load

    return {"readings": len(method_evidence.readings(entry["id"])), "evidence": method_evidence.evidence(load(entry["id"]))}


def _methods(asked: Any) -> int:
    """Every method, with what is known of it."""
    from kvopt import method_evidence

    if asked.json:
        entries = [catalog.read("methods", name) for name in catalog.ids("methods")]
        print(json.dumps([{**entry, "readings": len(method_evidence.readings(entry["id"]))} for entry in entries], indent=2))
        return 0
    table = Table("id", "dimension", "kind", "readings", "where", "what it is", box=None)
    for row in method_evidence.listed():
        table.add_row(*row)
    wide_console().print(table)
    return 0


def _profiles(asked: Any) -> int:
    from kvopt import profiles

    if asked.json:
        print(json.dumps(profiles.group(asked.id) if asked.id else profiles.groups(), indent=2))
    else:
        profiles.show(asked.id, wide_console())
    return 0


def wide_console() -> Console:
    """The terminal as it is; a file or a pipe wide enough that no cell is cut."""
    console = Console(soft_wrap=False)
    return console if console.is_terminal or os.environ.get("COLUMNS") else Console(width=180)


def _validate(asked: Any) -> int:
    from kvopt.validation.report import show
    from kvopt.validation.run import validate

    try:
        confidence = float(asked.confidence)
    except ValueError:
        raise BadInput("confidence", asked.confidence, "must be a number above 0 and below 1") from None
    result = validate(asked.kind, asked.file, confidence)
    if asked.predictions is not None:
        result.write_predictions(asked.predictions)
    if asked.json:
        print(result.to_json())
    else:
        show(result, wide_console())
        if asked.predictions is not None:
            print(f"written to {asked.predictions}")
    return 0


def _study(asked: Any) -> int:
    from kvopt import study

    if asked.action == "list":
        table = Table("study", "question", box=None)
        for name in study.names():
            table.add_row(name, study.question(name))
        Console().print(table)
        return 0
    if not asked.name:
        raise BadInput("study", "run", f"needs a name ({', '.join(study.names())}) or a YAML file")
    folder = None if asked.out is None else _out(asked)
    with progress_bar(asked.json) as progress:
        result = study.run(asked.name, out=folder, distributed=asked.distributed, progress=progress)
    if result is None:  # the process that leads says what all have found
        return 0
    if asked.json:
        print(result.to_json())
    else:
        result.print()
    if folder is not None:
        print(f"written to {folder}", file=sys.stderr if asked.json else sys.stdout)
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
