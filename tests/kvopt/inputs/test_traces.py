import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvopt.errors import BadInput
from kvopt.inputs.atoms import reduce_atoms
from kvopt.inputs.reuse import reuse_curve
from kvopt.inputs.traces import REPLY_S_PER_TOKEN, read_trace

TRACES = Path(__file__).parents[3] / ".." / "shared" / "data" / "traces"
PUBLIC = ("azure_2023_code.csv", "azure_2023_conv.csv", "mooncake_fast25_conversation_first11500.jsonl", "mooncake_fast25_synthetic.jsonl")
REAL = pytest.mark.skipif(not TRACES.exists(), reason="the evidence folder with real traces is not beside the project")


def trace(folder, text, name="trace.csv"):
    path = folder / name
    path.write_text(text)
    return path


def mooncake(folder, *requests):
    """A Mooncake trace of (timestamp ms, prompt, answer, blocks)."""
    keys = ("timestamp", "input_length", "output_length", "hash_ids")
    return trace(folder, "".join(json.dumps(dict(zip(keys, request, strict=True))) + "\n" for request in requests), "trace.jsonl")


def mean(workload, values):
    return float(workload.weight @ values)


def test_azure_requests_are_sessions_of_one_turn(tmp_path):
    path = trace(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04,110,27\n")
    sessions = read_trace(path)
    assert sessions.prompt.tolist() == [4808, 110]
    assert sessions.answer.tolist() == [10, 27]
    assert sessions.turns.tolist() == [1, 1]
    assert sessions.question.tolist() == sessions.think_s.tolist() == sessions.shared_prefix.tolist() == [0, 0]
    assert sessions.weight.tolist() == [0.5, 0.5]
    assert sessions.reuse_hits.max() == 0


def test_ones_own_csv_rebuilds_sessions(tmp_path):
    text = "session,arrival_s,prompt_tokens,answer_tokens\na,0,1000,100\nb,5,300,10\n\na,70,1150,60\n"
    sessions = read_trace(trace(tmp_path, text))
    assert sessions.turns.tolist() == [2, 1]
    assert sessions.question[0] == 50  # 1150 - 1000 - 100
    assert sessions.prompt[0] == 950  # the first question comes with the prompt
    assert sessions.answer[0] == 80
    assert sessions.prompt[0] + 2 * (sessions.question[0] + sessions.answer[0]) == 1150 + 60  # what the session ends at
    assert sessions.think_s[0] == pytest.approx(70 - 100 * REPLY_S_PER_TOKEN)


def test_turn_orders_before_arrival(tmp_path):
    sessions = read_trace(trace(tmp_path, "session,turn,prompt_tokens,answer_tokens\na,2,500,10\na,1,100,10\n"))
    assert sessions.prompt[0] + 2 * sessions.question[0] == 100 + 390


def test_first_prompt_shorter_than_a_question_keeps_the_total(tmp_path):
    sessions = read_trace(trace(tmp_path, "session,arrival_s,prompt_tokens,answer_tokens\na,0,10,5\na,9,1015,5\n"))
    assert sessions.prompt[0] == 1
    assert sessions.prompt[0] + 2 * sessions.question[0] == 1010


def test_shared_prefix_of_ones_own_csv(tmp_path):
    rows = ["arrival_s,prompt_tokens,answer_tokens,shared_prefix_tokens,prefix", "0,100,5,80,x", "1,100,5,40,y", "2,100,5,80,x", "3,100,5,40,y"]
    sessions = read_trace(trace(tmp_path, "\n".join(rows)))
    assert sessions.shared_prefix.tolist() == [80, 40, 80, 40]
    assert np.interp([0, 119, 120], sessions.reuse_tokens, sessions.reuse_hits)[-1] == 0.5  # 120 of 240 tokens are second uses, each 120 tokens back


def test_mooncake_chains(tmp_path):
    path = mooncake(
        tmp_path,
        (0, 1100, 200, [0, 1, 2]),
        (1000, 600, 9, [0, 3]),  # a stranger with the same system prompt
        (60_000, 1600, 100, [0, 1, 4, 5]),  # continues the first, whose last full block is 1
        (90_000, 1600, 100, [0, 1, 4, 5]),  # asked again: a session of its own
        (95_000, 700, 9, [0, 6]),  # the second request fills only the system prompt's block, so this does not continue it
    )
    sessions = read_trace(path)
    assert sessions.turns.tolist() == [2, 1, 1, 1]
    assert sessions.question[0] == 300
    assert sessions.prompt.tolist() == [800, 600, 1600, 700]
    assert sessions.think_s[0] == pytest.approx(60 - 200 * REPLY_S_PER_TOKEN)
    assert sessions.shared_prefix.tolist() == [800, 512, 1600, 512]  # blocks that others send too, not beyond the prompt
    assert sessions.reuse_hits[-1] == pytest.approx(6 / 8)  # of the first prompts' shared blocks 0 1, 0, 0 1 4 5, 0 the first 0 and 1 are misses


def test_reuse_in_a_small_cache_is_less(tmp_path):
    sessions = read_trace(mooncake(tmp_path, *((index * 1000, 1024, 5, [index % 3 * 2, index % 3 * 2 + 1]) for index in range(30))))
    size = 3 * 1024
    assert np.interp(size - 512, sessions.reuse_tokens, sessions.reuse_hits) < 1e-9 or sessions.reuse_tokens[1] >= size
    assert np.interp(size, sessions.reuse_tokens, sessions.reuse_hits) == pytest.approx(27 / 30)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=60))
def test_reuse_is_that_of_an_lru_cache(accesses):
    items = [item for item, _ in accesses]
    length = {item: 10.0 + item for item in items}
    tokens = np.asarray([length[item] for item in items])
    scored = np.asarray([flag for _, flag in accesses])
    sizes, hits = reuse_curve(items, tokens, scored, points=10_000)
    for size in sizes[[0, len(sizes) // 2, -1]]:
        found, stack = 0.0, []
        for item, flag in accesses:
            depth = sum(length[other] for other in stack[: stack.index(item) + 1]) if item in stack else np.inf
            found += length[item] * (flag and depth <= size)
            stack = [item, *(other for other in stack if other != item)]
        total = tokens[scored].sum()
        assert np.interp(size, sizes, hits) == pytest.approx(found / total if total else 0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "workload: .*is empty"),
        ("\n \n", "workload: .*is empty"),
        ("prompt_tokens,answer_tokens\n", "has no requests"),
        ("prompt_tokens\n5\n", r"trace\.csv line 1: .*must have a column answer_tokens \(or GeneratedTokens"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,5,-1\n", r"trace\.csv line 2, answer_tokens: -1: must be a number, 0 or more"),
        ("prompt_tokens,answer_tokens\n1,1\nx,1\n", r"trace\.csv line 3, prompt_tokens: x: must be a number, 1 or more"),
        ("prompt_tokens,answer_tokens\n0,1\n", r"trace\.csv line 2, prompt_tokens: 0: "),
        ("prompt_tokens,answer_tokens\nnan,1\n", r"trace\.csv line 2, prompt_tokens: nan: "),
        ("prompt_tokens,answer_tokens\ninf,1\n", r"trace\.csv line 2, prompt_tokens: inf: "),
        ("prompt_tokens,answer_tokens\n5\n", r"trace\.csv line 2: 5: must have 2 columns or more"),
        ("arrival_s,prompt_tokens,answer_tokens\n18:61,5,5\n", r"trace\.csv line 2, arrival_s: 18:61: must be seconds, or a date"),
        ("shared_prefix_tokens,prompt_tokens,answer_tokens\n9,5,5\n", r"trace\.csv line 2, shared_prefix_tokens: 9: must not be above"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    with pytest.raises(BadInput, match=f"^{message}" if message.startswith(("trace", "workload")) else message) as caught:
        read_trace(trace(tmp_path, text))
    assert "\n" not in str(caught.value)


GOOD = '{"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": [1]}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (GOOD + "{\n", r"trace\.jsonl line 2: .*one JSON object per line"),
        (GOOD + "[1]\n", r"trace\.jsonl line 2: .*must be an object"),
        (GOOD + '{"timestamp": 0, "input_length": 5, "hash_ids": []}\n', "line 2: .*lacks output_length"),
        (GOOD.replace('"input_length": 5', '"input_length": -5'), "line 1, input_length: -5"),
        (GOOD.replace('"output_length": 5', '"output_length": "many"'), "line 1, output_length: many"),
        (GOOD.replace('"timestamp": 0', '"timestamp": null'), "line 1, timestamp: None"),
        (GOOD.replace("[1]", '["a"]'), "line 1, hash_ids"),
        (GOOD.replace("[1]", "7"), "line 1, hash_ids"),
    ],
)
def test_bad_jsonl(tmp_path, text, message):
    with pytest.raises(BadInput, match=message):
        read_trace(trace(tmp_path, text, "trace.jsonl"))


def test_missing_file_and_bytes(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        read_trace(tmp_path / "nowhere.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="cannot be read"):
        read_trace(tmp_path / "b.csv")


def skewed(folder, sessions=3000):
    rng = np.random.default_rng(1)
    rows = ["session,arrival_s,prompt_tokens,answer_tokens,shared_prefix_tokens"]
    for index in range(sessions):
        prompt, when = int(rng.lognormal(7, 1.2)) + 20, rng.uniform(0, 3600)
        for _ in range(rng.geometric(0.6)):
            answer = int(rng.lognormal(5, 1))
            rows.append(f"{index},{when},{prompt},{answer},{20}")
            prompt, when = prompt + answer + int(rng.lognormal(4, 1)), when + rng.exponential(120) + 0.05 * answer
    return read_trace(trace(folder, "\n".join(rows)))


def check_reduction(sessions, reduced):
    assert len(reduced.weight) <= 32
    assert reduced.weight.sum() == pytest.approx(1)
    for quantity in (
        lambda w: w.prompt,
        lambda w: w.turns,
        lambda w: w.turns * w.answer,
        lambda w: w.turns * w.question,
        lambda w: (w.turns - 1) * w.think_s,
        lambda w: w.shared_prefix,
    ):
        assert mean(reduced, quantity(reduced)) == pytest.approx(mean(sessions, quantity(sessions)), rel=1e-9)
    for work in (lambda w: w.prompt, lambda w: w.prompt - w.shared_prefix, lambda w: w.prompt * (1 + w.prompt / 50_000)):
        ratio = mean(reduced, work(reduced) ** 2) / mean(sessions, work(sessions) ** 2)
        assert 0.97 < ratio < 1 + 1e-9  # averaging inside a cell can only lose spread
    assert np.all(reduced.shared_prefix <= reduced.prompt)


def test_reduction_keeps_totals_and_spread(tmp_path):
    sessions = skewed(tmp_path)
    check_reduction(sessions, reduce_atoms(sessions))


def test_reduction_is_repeatable_and_leaves_few_sessions_alone(tmp_path):
    sessions = skewed(tmp_path, 200)
    first, again = reduce_atoms(sessions, 8, seed=3), reduce_atoms(sessions, 8, seed=3)
    np.testing.assert_array_equal(first.prompt, again.prompt)
    assert len(first.weight) <= 8
    assert reduce_atoms(sessions, 1000) is sessions
    assert reduce_atoms(sessions, 1).prompt[0] == pytest.approx(mean(sessions, sessions.prompt))
    with pytest.raises(BadInput, match=r"^atoms: 0"):
        reduce_atoms(sessions, 0)


def test_reduction_of_equal_sessions(tmp_path):
    sessions = read_trace(trace(tmp_path, "prompt_tokens,answer_tokens\n" + "7,5\n" * 100))
    reduced = reduce_atoms(sessions, 8)
    assert reduced.prompt.tolist() == pytest.approx([7.0] * len(reduced.prompt))
    assert reduced.weight.sum() == pytest.approx(1)


@REAL
@pytest.mark.parametrize("name", PUBLIC)
def test_real_traces_reduce(name):
    sessions = read_trace(TRACES / name)
    check_reduction(sessions, reduce_atoms(sessions))


@REAL
def test_azure_means_are_the_published_ones():
    sessions = read_trace(TRACES / "azure_2023_code.csv")
    assert len(sessions.prompt) == 8819
    assert mean(sessions, sessions.prompt) == pytest.approx(2048, abs=0.5)
    assert mean(sessions, sessions.answer) == pytest.approx(28, abs=0.5)


@REAL
def test_mooncake_chains_are_those_found_before():
    """1.48 turns per chain and 25 % of several turns, by an independent reading of the same hash ids over the whole trace."""
    sessions = read_trace(TRACES / "mooncake_fast25_conversation_first11500.jsonl")
    assert mean(sessions, sessions.turns) == pytest.approx(1.48, abs=0.03)
    assert np.mean(sessions.turns > 1) == pytest.approx(0.25, abs=0.015)
    assert round(sessions.turns.sum()) == 11_500
    assert 0.5 < sessions.reuse_hits[-1] < 1
