from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kvopt.scale.checkpoint import answers, read, write
from kvopt.scale.hosts import Hosts


@dataclass(frozen=True)
class Question:
    name: str
    key: str = "1"


WORKS = [Question(f"q{n}") for n in range(6)]


def solver():
    asked: list[str] = []

    def solve(work):
        asked.append(work.name)
        return {"name": work.name, "version": work.key}

    return asked, solve


def test_kept_answers_are_read_and_not_solved_again(tmp_path):
    asked, solve = solver()
    first = answers(WORKS, solve, tmp_path)
    assert asked == [work.name for work in WORKS]
    assert answers(WORKS, solve, tmp_path) == first
    assert len(asked) == len(WORKS)


@pytest.mark.parametrize(
    "spoil", [lambda path: path.unlink(), lambda path: path.write_text(path.read_text()[:20]), lambda path: path.write_text("[]")]
)
def test_what_is_missing_or_broken_is_solved_again(tmp_path, spoil):
    asked, solve = solver()
    first = answers(WORKS, solve, tmp_path)
    spoil(tmp_path / "q3.json")
    asked.clear()
    assert answers(WORKS, solve, tmp_path) == first
    assert asked == ["q3"]


def test_an_answer_to_another_question_is_not_reused(tmp_path):
    asked, solve = solver()
    answers(WORKS, solve, tmp_path)
    asked.clear()
    changed = [replace(work, key="2") if work.name in ("q1", "q4") else work for work in WORKS]
    assert [answer["version"] for answer in answers(changed, solve, tmp_path)] == ["1", "2", "1", "1", "2", "1"]
    assert asked == ["q1", "q4"]


def test_processes_share_the_work_and_each_knows_all_of_it(tmp_path):
    asked, found = [solver() for _ in range(3)], {}

    def process(number):
        found[number] = answers(WORKS, asked[number][1], tmp_path, Hosts(number, 3))

    threads = [threading.Thread(target=process, args=(number,)) for number in range(3)]
    [thread.start() for thread in threads]
    [thread.join(timeout=30) for thread in threads]
    assert found[0] == found[1] == found[2]
    assert [names for names, _ in asked] == [["q0", "q3"], ["q1", "q4"], ["q2", "q5"]]


def test_what_cannot_be_written_as_json_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path, WORKS[0], {"value": float("nan")})
    assert read(tmp_path, WORKS[0]) is None
    assert not list(tmp_path.iterdir())


RUN = """
import sys, time
from pathlib import Path
from kvopt.scale.checkpoint import answers, write_whole
from tests_question import Question
def solve(work):
    time.sleep(0.004)
    return {"name": work.name, "values": list(range(2000))}
folder = Path(sys.argv[1])
print("begun", flush=True)
found = answers([Question(f"q{n}") for n in range(60)], solve, folder / "cells")
write_whole(folder / "table.csv", "".join(f"{answer['name']},{sum(answer['values'])}\\n" for answer in found))
print("done", flush=True)
"""
QUESTION = "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Question:\n    name: str\n    key: str = '1'\n"


def run(folder: Path, scratch: Path, kill_after_s: float | None = None) -> bool:
    """Runs the work in a process of its own, killed so long after it began; whether it finished."""
    process = subprocess.Popen([sys.executable, "-c", RUN, str(folder)], cwd=scratch, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            process.send_signal(signal.SIGKILL)
        return process.stdout.read() == "done\n"


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_killed_ten_times_ends_as_an_unbroken_one(tmp_path):
    (tmp_path / "tests_question.py").write_text(QUESTION)
    started = time.perf_counter()
    assert run(tmp_path / "whole", tmp_path)
    least_s = 60 * 0.004
    kills, broken = random.Random(0), 0
    for _ in range(10):
        broken += not run(tmp_path / "killed", tmp_path, kills.uniform(0, least_s / 2))
        for path in (tmp_path / "killed").rglob("*.json"):
            json.loads(path.read_text())
    assert broken, f"no run was killed before its end, in {time.perf_counter() - started:.0f} s"
    assert run(tmp_path / "killed", tmp_path)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
