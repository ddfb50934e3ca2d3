"""The command line's grammar, made from the fields of `Scenario`: every field is a flag, its description the help."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from kvopt.catalog import KINDS, read_yaml
from kvopt.errors import BadInput, unknown
from kvopt.inputs.scenario import Scenario
from kvopt.results import load
from kvopt.simulation.traffic import OPTIONS

VERBS = {
    "analyze": "what one plan gives: uncompressed, or with --methods",
    "optimize": "the plan that serves most within memory, latency targets and accuracy floor",
    "pareto": "the front of plans over two or three objectives, and the best plan on it",
    "simulate": "what a plan gives when every step is played: latency percentiles, throughput, preemptions, beside the closed form",
    "sensitivity": "what one percent more of each input is worth to the best plan",
    "explain": "the arithmetic of one plan with numbers filled in: each metric's formula, what it starts from, and which term dominates",
    "next": "the measurements of accuracy that would most reduce what the choice of a method may lose, with how to run them",
    "export": "a plan of a run folder as an engine takes it: a command, a YAML file, code",
    "report": "the plots, the launch files and report.html of a run folder once more, without running anything",
    "validate": "how far predictions lie from your own measurements: KIND is latency, capacity, accuracy or composition",
    "calibrate": "an accelerator file from your own measurements, a vLLM log, a benchmark's result, or a probe of this machine; or evidence from your "
    "own accuracies",
    "catalog": "what kvopt knows: models, accelerators, methods, engines, workloads, profiles",
    "study": "named questions: list, or run NAME|FILE.yaml",
    "cache": "clear: forget compiled programs",
}
QUESTIONS = ("analyze", "optimize", "pareto", "simulate", "sensitivity", "explain", "next")


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors."""

    def error(self, message: str) -> NoReturn:
        """Raises `BadInput` instead of printing a usage and exiting."""
        if message.startswith("unrecognized arguments: "):
            word = message.removeprefix("unrecognized arguments: ").split()[0]
            raise unknown("argument", word, [option for action in self._actions for option in action.option_strings])
        if "invalid choice: " in message:
            word = message.split("invalid choice: ")[1].split("'")[1]
            raise unknown(
                message.split("argument ")[1].split(":")[0], word, message.split("(choose from ")[1].rstrip(")").replace("'", "").split(", ")
            )
        raise BadInput("command line", message, "see kvopt --help")


def parser() -> Parser:
    """The whole grammar."""
    top = Parser(prog="kvopt", description="Which KV-cache settings serve the most users on your accelerators?", allow_abbrev=False)
    top.add_argument("--version", action="store_true", help="print the version")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
    for verb in QUESTIONS:
        _question(verbs.add_parser(verb, help=VERBS[verb], description=VERBS[verb], allow_abbrev=False), verb)
    _export(verbs.add_parser("export", help=VERBS["export"], description=VERBS["export"], allow_abbrev=False))
    again = verbs.add_parser("report", help=VERBS["report"], description=VERBS["report"], allow_abbrev=False)
    again.add_argument("folder", metavar="RUN_FOLDER", help="a folder that --out wrote")
    again.add_argument("--out", metavar="DIR", help="folder for what is drawn (default: the run folder)")
    _validate(verbs.add_parser("validate", help=VERBS["validate"], description=VERBS["validate"], allow_abbrev=False))
    _calibrate(verbs.add_parser("calibrate", help=VERBS["calibrate"], description=VERBS["calibrate"], allow_abbrev=False))
    catalog = verbs.add_parser("catalog", help=VERBS["catalog"], allow_abbrev=False)
    catalog.add_argument("what", choices=KINDS)
    catalog.add_argument("id", nargs="?", help="show this entry")
    catalog.add_argument("--json", action="store_true")
    study = verbs.add_parser("study", help=VERBS["study"], allow_abbrev=False)
    study.add_argument("action", choices=("list", "run"))
    study.add_argument("name", nargs="?", help="a study's name, or a YAML file with study: NAME and its options")
    study.add_argument("--out", help="folder for the results")
    study.add_argument("--distributed", action="store_true", help="share the work with the other processes of this job (Slurm, MPI, Kubernetes, ...)")
    study.add_argument("--json", action="store_true")
    cache = verbs.add_parser("cache", help=VERBS["cache"], allow_abbrev=False)
    cache.add_argument("action", choices=("clear",))
    return top


def _question(verb: argparse.ArgumentParser, name: str) -> None:
    for field, info in Scenario.model_fields.items():
        default = "" if info.default is None else f" (default {info.default})"
        verb.add_argument(
            f"--{field.replace('_', '-')}", dest=field, metavar="X", default=None, help=f"{info.description}{default}".replace("%", "%%")
        )
    if name == "optimize":
        verb.add_argument("--objective", default="sessions_per_gpu_hour", metavar="X", help="what to optimise (default sessions_per_gpu_hour)")
        verb.add_argument("--verify", action="store_true", help="simulate the plan: whether it holds its latency targets at the 95th percentile")
    if name == "simulate":
        for option, said in OPTIONS.items():
            verb.add_argument(f"--{option.replace('_', '-')}", dest=option, metavar="X", default=None, help=said)
    if name in ("simulate", "explain"):
        verb.add_argument("--plan", metavar="DIR", help="a run folder whose plan and scenario are taken (default: the plan of analyze)")
        verb.add_argument("--point", metavar="K", type=int, help="with --plan: a point of its front, from 0 (default: the recommended one)")
    if name == "pareto":
        verb.add_argument(
            "--objectives",
            default="sessions_per_gpu_hour,accuracy_retained",
            metavar="X,Y",
            help="two to four (default sessions_per_gpu_hour,accuracy_retained)",
        )
        verb.add_argument(
            "--chance", metavar="DRAWS", type=int, help="draws of the fitted quantities in which all limits must hold together, e.g. 256"
        )
    verb.add_argument("--config", metavar="FILE.yaml", help="fields of the scenario; the command line goes before it")
    verb.add_argument("--out", metavar="DIR", help="folder for the results")
    verb.add_argument("--json", action="store_true", help="print one JSON object to standard output and nothing else there")


def _export(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("engine", metavar="ENGINE", help="vllm, vllm-bench, sglang, trtllm, lmcache, kvpress, kvtuner or duoattention")
    verb.add_argument("folder", metavar="RUN_FOLDER", help="a folder that --out wrote")
    verb.add_argument("--point", metavar="K", type=int, help="a point of its front, from 0 (default: the recommended one)")
    verb.add_argument("--out", metavar="DIR", help="folder for the files (default: the main one is printed)")
    verb.add_argument("--json", action="store_true", help="print one JSON object with files, notes and what the engine cannot be told")


def _validate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("kind", metavar="KIND", help="latency, capacity, accuracy, or composition: what was measured")
    verb.add_argument("file", metavar="FILE.csv", help="the measurements, one a row, with a header")
    verb.add_argument("--predictions", metavar="OUT.csv", help="writes the file's own rows with predicted, lower and upper values of each quantity")
    verb.add_argument("--confidence", metavar="C", default="0.5", help="0.5 predicts the middle (default), 0.9 what a plan would quote")
    verb.add_argument("--json", action="store_true", help="print one JSON object to standard output and nothing else there")


def _calibrate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "file", metavar="FILE", nargs="?", help="a CSV of measurements, a vLLM start-up log, or the JSON of vllm bench serve --save-result"
    )
    verb.add_argument(
        "--accuracy",
        metavar="FILE",
        help="a CSV of accuracies measured by oneself: refits what is predicted of their methods, for --accuracy-evidence",
    )
    verb.add_argument("--probe", action="store_true", help="measure the device that JAX uses on this machine, in about a minute")
    verb.add_argument("--accelerator", metavar="X", help="catalog id or file: what the file was measured on, where it does not say")
    verb.add_argument("--model", metavar="X", help="catalog id or config.json, where the file does not say")
    verb.add_argument("--tp", metavar="N", help="tensor-parallel GPUs, where the file does not say")
    verb.add_argument("--engine", metavar="X", help="engine, where the file does not say")
    verb.add_argument("--name", metavar="NAME", help="name of the accelerator in the file written")
    verb.add_argument("--out", metavar="FILE.yaml", help="the file to write (default: named after FILE or the device)")
    verb.add_argument("--force", action="store_true", help="write over a file that is there")
    verb.add_argument("--json", action="store_true", help="print one JSON object to standard output and nothing else there")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The parsed command line. Raises `BadInput`."""
    known, rest = parser().parse_known_args(words)
    if rest:
        verbs = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
        verb = verbs.choices.get(known.verb, parser())
        raise unknown("argument", rest[0].split("=")[0], [option for action in verb._actions for option in action.option_strings])
    return known


def scenario(arguments: argparse.Namespace) -> Scenario:
    """The question asked: command line before file before default. Raises `BadInput`."""
    return Scenario.of(**{name: value for name, value in _written(arguments, Scenario.model_fields).items() if not _is_option(arguments, name)})


def options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `simulate` is asked besides the scenario: command line before file."""
    return {name: value for name, value in _written(arguments, OPTIONS).items() if name in OPTIONS}


def _is_option(arguments: argparse.Namespace, name: str) -> bool:
    return arguments.verb == "simulate" and name in OPTIONS


def _written(arguments: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    if arguments.config:
        fields: dict[str, Any] = read_yaml(Path(arguments.config), "config")
    else:
        fields = load(arguments.plan).question if getattr(arguments, "plan", None) else {}
    fields = {str(name).replace("-", "_"): value for name, value in fields.items()}
    return fields | {name: value for name in names if (value := getattr(arguments, name)) is not None}
