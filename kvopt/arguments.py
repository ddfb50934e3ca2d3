"""The command line's grammar, made from the fields of `Scenario`: every field is a flag, its description the help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from kvopt.catalog import KINDS, read_yaml
from kvopt.errors import BadInput, unknown
from kvopt.inputs.scenario import Scenario

VERBS = {
    "analyze": "what one plan gives: uncompressed, or with --methods",
    "optimize": "the plan that serves most within memory, latency targets and accuracy floor",
    "pareto": "the front of plans over two or three objectives, and the best plan on it",
    "sensitivity": "what one percent more of each input is worth to the best plan",
    "catalog": "what kvopt knows: models, accelerators, methods, engines, workloads, profiles",
    "study": "named questions: list, or run NAME|FILE.yaml",
    "cache": "clear: forget compiled programs",
}
QUESTIONS = ("analyze", "optimize", "pareto", "sensitivity")


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
    catalog = verbs.add_parser("catalog", help=VERBS["catalog"], allow_abbrev=False)
    catalog.add_argument("what", choices=KINDS)
    catalog.add_argument("id", nargs="?", help="show this entry")
    catalog.add_argument("--json", action="store_true")
    study = verbs.add_parser("study", help=VERBS["study"], allow_abbrev=False)
    study.add_argument("action", choices=("list", "run"))
    study.add_argument("name", nargs="?", help="a study's name, or a YAML file with study: NAME and its options")
    study.add_argument("--out", help="folder for the results")
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
    if name == "pareto":
        verb.add_argument(
            "--objectives",
            default="sessions_per_gpu_hour,accuracy_retained",
            metavar="X,Y",
            help="two or three (default sessions_per_gpu_hour,accuracy_retained)",
        )
    verb.add_argument("--config", metavar="FILE.yaml", help="fields of the scenario; the command line goes before it")
    verb.add_argument("--out", metavar="DIR", help="folder for the results")
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
    fields: dict[str, Any] = read_yaml(Path(arguments.config), "config") if arguments.config else {}
    fields = {str(name).replace("-", "_"): value for name, value in fields.items()}
    fields |= {name: value for name in Scenario.model_fields if (value := getattr(arguments, name)) is not None}
    return Scenario.of(**fields)
