"""kvpress and transformers: a Python file that builds the presses and the cache of a plan and answers a question with them.

Presses come from the catalog's `runs_in`. Their `compression_ratio` is the share that is removed, where a plan says what is kept.
"""

from __future__ import annotations

import ast
from dataclasses import replace

from kvopt.export import remarks
from kvopt.export.commands import comments
from kvopt.export.exported import Exported
from kvopt.export.layers import bit_tables
from kvopt.export.presses import ALONE, PATTERNS, Press, entry_of, own_heads, press_of, put
from kvopt.export.settings import Settings

VERSIONS = "kvpress 0.5.5, which needs transformers below 5.3"


def export(found: Settings) -> Exported:
    """`kvpress_plan.py`."""
    presses, cannot = _presses(found)
    cannot = [*remarks.unread(found), *cannot]
    cache, lines = _cache(found)
    cannot += lines
    notes = [f"for {VERSIONS}; compression_ratio is the share removed", *_serving(found), *_notes(found)]
    about = [*remarks.heading(found)[:1], f"For {VERSIONS}.", *notes[1:], *(f"Cannot be told: {line}" for line in cannot)]
    return Exported("kvpress", {"kvpress_plan.py": _file(found, about, presses, cache)}, tuple(notes), tuple(cannot))


def _presses(found: Settings) -> tuple[list[Press], list[str]]:
    """The presses of the plan's methods, and what there is no press for."""
    made, cannot = [], []
    for method in found.used:
        if method.dimension == "bits":
            continue
        entry = entry_of(method)
        if entry is None or method.reselects:
            why = "a press drops for good, and this method selects anew for each question" if method.reselects else "kvpress has no press for it"
            cannot.append(f"{method.id}: {why}")
            continue
        press, why = press_of(found, method, entry)
        if press is None:
            cannot.append(f"{method.id}: {why}")
            continue
        made.append(replace(press, masks=bool(entry.masks_only)))
        if method.id == "duoattention" and own_heads(found):
            cannot.append(
                f"{method.id}: the press takes heads that kvpress knows or scores, not the plan's own; kvopt export duoattention writes those"
            )
        if entry.masks_only:
            cannot.append(f"{method.id}: the press only masks what it drops and frees no memory ({entry.masks_only.split(':')[0]})")
    alone = [press for press in made if set(press.names) & set(ALONE)] if len(made) > 1 else []
    cannot += [f"{press.names[0]}: kvpress composes it with no other press, so it is left out" for press in alone]
    return sorted((press for press in made if press not in alone), key=lambda press: press.masks), cannot


def _cache(found: Settings) -> tuple[str, list[str]]:
    """The quantised cache as code, empty in 16 bit; and what it cannot do."""
    method = next((method for method in found.used if method.dimension == "bits"), None)
    if method is None:
        return "", []
    key, value = found.plan["key_bits"], found.plan["value_bits"]
    entry = next((entry for entry in method.runs_in if entry.version.startswith("transformers")), None)
    if entry is None:
        return "", [f"{method.id}: transformers has no cache for it; the cache stays in 16 bit"]
    if bit_tables(found) is not None or key != value or key != int(key):
        return "", [f"{method.id}: QuantizedCache has one nbits for K and V of all layers; the cache stays in 16 bit"]
    call = ast.parse(entry.setting, mode="eval").body
    assert isinstance(call, ast.Call)
    put(call, "nbits", int(key))
    call.keywords.insert(1, ast.keyword("config", ast.Name("config")))
    return ast.unparse(ast.fix_missing_locations(call)), []


def _serving(found: Settings) -> list[str]:
    """What a library that runs one request at a time is not told."""
    lines = []
    if found.gpus * found.replicas > 1:
        lines.append(
            "tp, pp, replicas, dcp, attention_dp, expert_parallel, prefill_groups: device_map places layers on GPUs in turn, one request at a time"
        )
    lines.append("max_num_seqs, chunk, idle caches: kvpress answers one context at a time and serves nobody else")
    weights = remarks.checkpoint(found)
    return [*lines, *remarks.unnamed(found), *([weights.replace("set MODEL to", "put its name in MODEL:")] if weights else [])]


def _notes(found: Settings) -> list[str]:
    lines = []
    if any(method.id == "duoattention" for method in found.used) and found.problem and found.model not in PATTERNS:
        lines.append(f"duoattention: kvpress has no published heads of {found.model} and scores them on the fly")
    needs = {method.id: method.needs for method in found.used if method.needs != "none"}
    return [*lines, *(f"{name} needs {what}" for name, what in needs.items())]


def _file(found: Settings, about: list[str], presses: list[Press], cache: str) -> str:
    composed, unnamed = len(presses) > 1, remarks.unnamed(found)
    names = sorted({name for press in presses for name in press.names} | ({"ComposedPress"} if composed else set()))
    codes = [press.code for press in presses]
    press = f"ComposedPress([{', '.join(codes)}])" if composed else codes[0] if codes else "None"
    eager = any("ObservedAttentionPress" in press.names for press in presses)
    attention = ', model_kwargs={"attn_implementation": "eager"}' if eager else ""
    longest = found.problem.sessions.answer.max() if found.problem else 256
    imports = [f"from kvpress import {', '.join(names)}" if names else "import kvpress  # noqa: F401  registers the pipeline"]
    imports.append(f"from transformers import {'QuantizedCache, ' if cache else ''}pipeline")
    return "\n".join(
        [
            comments(about) + "#",
            f"#   {'MODEL=CHECKPOINT ' if unnamed else ''}python kvpress_plan.py CONTEXT.txt QUESTION",
            "",
            *(["import os"] if unnamed else []),
            "import sys",
            "from pathlib import Path",
            "",
            *imports,
            "",
            'MODEL = os.environ["MODEL"]' if unnamed else f"MODEL = {found.model!r}",
            f"MAX_NEW_TOKENS = {max(1, int(longest))}",
            "",
            "",
            "def build_press():",
            '    """What is dropped from the cache once the context is read."""',
            f"    return {press}",
            "",
            "",
            "def build_cache(config):",
            '    """The cache and its precision; None is the 16-bit one."""',
            f"    return {cache or 'None'}",
            "",
            "",
            "def answer(pipe, context, question):",
            '    """The answer to a question about a context, with the compressed cache."""',
            "    cache = build_cache(pipe.model.config)",
            '    return pipe(context, question=question, press=build_press(), cache=cache, max_new_tokens=MAX_NEW_TOKENS)["answer"]',
            "",
            "",
            'if __name__ == "__main__":',
            f'    pipe = pipeline("kv-press-text-generation", model=MODEL, device_map="auto", dtype="auto"{attention})',
            "    print(answer(pipe, Path(sys.argv[1]).read_text(), sys.argv[2]))",
            "",
        ]
    )
