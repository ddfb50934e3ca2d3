"""The verb `calibrate`: measurements, a start-up log, a benchmark's result or a probe of this machine as an accelerator file; accuracies as evidence."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvopt.calibration import accelerator_file, bench_json, from_rows, vllm_log
from kvopt.calibration.measurement import QUANTITIES
from kvopt.calibration.outcome import Calibrated
from kvopt.errors import BadInput
from kvopt.validation.rows import read_table

KINDS = {
    "measurements": "a CSV of measurements",
    "log": "a vLLM start-up log",
    "benchmark": "the result of vllm bench serve",
}
"""Kinds of file, as they are stated."""
SHOWN = 20  # refused rows that are printed one by one; --json has them all


def run(asked: Any) -> int:
    """Calibrates, prints and writes. Raises `BadInput`."""
    options = {name: getattr(asked, name) for name in ("accelerator", "model", "tp", "engine")}
    if options["tp"] is not None and not (options["tp"].isdecimal() and int(options["tp"]) > 0):
        raise BadInput("tp", options["tp"], "must be a whole number, 1 or more")
    if sum(map(bool, (asked.file, asked.probe, asked.accuracy))) != 1:
        raise BadInput("calibrate", asked.file or asked.accuracy or "nothing", "takes a FILE, --accuracy FILE or --probe, one of them")
    if asked.accuracy:
        return _accuracy(asked)
    told = [name for name in ("accelerator", "model", "tp", "engine") if getattr(asked, name, None)]
    if asked.probe and told:
        raise BadInput(told[0], getattr(asked, told[0]), "says nothing of a probe, which measures this machine's own device")
    found, path = _probed(asked) if asked.probe else _read(asked, options)
    if found.spec is not None:
        accelerator_file.write(found.spec, found.source, path)
    written = path if found.spec is not None else None
    if asked.json:
        print(json.dumps(_object(found, written), indent=2, allow_nan=False))
    else:
        _show(found, written, Console(soft_wrap=False), "--accelerator {} --model ID --context TOKENS")
    return 0


def _accuracy(asked: Any) -> int:
    """Accuracies of one's own, for --accuracy-evidence. Where the new file would go is tried before anything is fitted."""
    from kvopt.calibration import accuracy

    told = next((name for name in ("accelerator", "tp", "engine", "name") if getattr(asked, name)), None)
    if told is not None:
        raise BadInput(told, getattr(asked, told), "says nothing of accuracies")
    path = accelerator_file.free_path(asked.out, f"{Path(asked.accuracy).stem}-evidence.yaml", asked.force)
    found, own = accuracy.calibrated(asked.accuracy, asked.model)
    accuracy.write(own, path)
    if asked.json:
        data = _object(found, path)
        del data["accelerator"]
        print(json.dumps(data, indent=2, allow_nan=False))
    else:
        from kvopt.cli import wide_console

        _show(found, path, wide_console(), "--accuracy-evidence {} --model ID --methods METHOD:KEPT --context TOKENS")
    return 0


def _probed(asked: Any) -> tuple[Calibrated, Path]:
    """The device that JAX uses. Where the file would go is tried before anything is measured."""
    from kvopt.calibration import probe, probe_device

    device = probe_device.device()
    known = device.catalogued
    path = accelerator_file.free_path(asked.out, f"{known.id if known else device.id}-probed.yaml", asked.force)
    print(f"kvopt: measuring {device.name}, about a minute", file=sys.stderr)
    return probe_device.calibrated(probe.probe(largest_bytes=device.largest_bytes), device, asked.name), path


def _read(asked: Any, options: Mapping[str, str | None]) -> tuple[Calibrated, Path]:
    """A file, by what is in it. Where the new file would go is tried before anything is fitted."""
    file = Path(asked.file)
    path = accelerator_file.free_path(asked.out, f"{file.stem}-calibrated.yaml", asked.force)
    text = _text(file)
    kind = kind_of(text, file)
    print(f"kvopt: {file.name}: {KINDS[kind]}", file=sys.stderr)
    if kind == "log":
        from kvopt.calibration import from_log

        found = from_log.calibrated(text, file.name, options)
    elif kind == "measurements":
        rows = [(row.line, row.cells) for row in read_table(file).rows]
        found = from_rows.calibrated(kind, file.name, rows, options)
    else:
        found = from_rows.calibrated(kind, file.name, bench_json.rows(text, file.name, _benchmarked(options)), options)
    if found.spec is not None and asked.name:
        found = replace(found, spec=found.spec.model_copy(update={"name": asked.name}))
    return found, path


def kind_of(text: str, file: Path) -> str:
    """What a file is, by its content. Raises `BadInput` where it is none of `KINDS`."""
    if bench_json.is_bench(text):
        return "benchmark"
    header = {name.strip().strip('"') for name in next((line for line in text.splitlines() if line.strip()), "").split(",")}
    if "model" in header and header & set(QUANTITIES):
        return "measurements"
    if vllm_log.is_log(text):
        return "log"
    columns = ", ".join(QUANTITIES)
    raise BadInput("file", file, f"is none of: {'; '.join(KINDS.values())}. A CSV needs the columns model, gpu, engine and one of {columns}")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise BadInput("file", file, f"cannot be read ({error.strerror or error.__class__.__name__})") from None


def _benchmarked(options: Mapping[str, str | None]) -> dict[str, str]:
    """What the command line says of a benchmark, which names neither GPU nor tensor parallelism. Raises `BadInput` where it does not either."""
    for name, flag in (("accelerator", "--accelerator ID"), ("tp", "--tp N")):
        if not options[name]:
            raise BadInput(name, "missing", f"the result of a benchmark does not say; give {flag}")
    return from_rows.given(options)


def _object(found: Calibrated, written: Path | None) -> dict[str, Any]:
    """What --json prints."""
    spec = None if found.spec is None else found.spec.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    refused = [{"row": row.row, "why": row.why} for row in found.refused]
    return {
        "kind": found.kind,
        "source": found.source,
        "written": None if written is None else str(written),
        "accelerator": spec,
        "refused": refused,
        "notes": list(found.notes),
        **found.data,
    }


def _show(found: Calibrated, written: Path | None, console: Console, use: str) -> None:
    """The table, what was refused, and the line that uses the file: `use` has a place for its name."""
    table = Table(*found.columns, box=None)
    for row in found.rows:
        table.add_row(*map(Text, row))
    console.print(table)
    for note in found.notes:
        console.print(note, highlight=False, markup=False)
    if found.refused:
        console.print(f"{len(found.refused)} row{'s' if len(found.refused) > 1 else ''} not used:")
        for refused in found.refused[:SHOWN]:
            console.print(f"  line {refused.row}: {refused.why}", highlight=False, markup=False)
        if len(found.refused) > SHOWN:
            console.print(f"  and {len(found.refused) - SHOWN} more; --json lists all")
    if written is not None:
        print(f"written to {written}; use it:\n  kvopt analyze {use.format(written)}")
