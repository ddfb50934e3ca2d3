import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvopt.errors import BadInput
from kvopt.inputs.quantities import LatencyTarget, parse_bytes, parse_duration, parse_latency, parse_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("50k", 50_000),
        ("50K", 51_200),
        ("1m", 1_000_000),
        ("1M", 1_048_576),
        ("131072", 131_072),
        ("1.5k", 1_500),
        ("1.5K", 1_536),
        (".5k", 500),
        (" 4 k ", 4_000),
        ("1e6", 1_000_000),
        (50_000, 50_000),
        (50_000.0, 50_000),
    ],
)
def test_tokens(text, tokens):
    assert parse_tokens(text) == tokens
    assert isinstance(parse_tokens(text), int)


@pytest.mark.parametrize(
    "text", ["0", "-5", "nan", "inf", "", "k", "5 tokens", "1.5", "0.0001k", "50kk", "50,000", "1e99", "٣", True, float("nan"), -1, None, "9" * 50]
)
def test_tokens_refused(text):
    with pytest.raises(BadInput, match=r"^context: .*: must be a whole number of tokens from 1") as caught:
        parse_tokens(text, "context")
    assert "\n" not in str(caught.value)


def test_zero_tokens_where_allowed():
    assert parse_tokens("0", least=0) == 0


@given(st.integers(1, 10**12))
def test_tokens_round_trip(tokens):
    assert parse_tokens(str(tokens)) == tokens


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("50ms", 0.05), ("2min", 120), ("1h", 3600), ("7", 7), ("0.5", 0.5), (2, 2), ("250us", 250e-6)]
)
def test_duration(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-15)


@pytest.mark.parametrize("text", ["0", "0s", "-1s", "nan", "inf", "s", "", "10 parsecs", "10S", "1:30", True])
def test_duration_refused(text):
    with pytest.raises(BadInput, match=r"^ttft: .*must be a time above zero"):
        parse_duration(text, "ttft")


def test_zero_duration_where_allowed():
    assert parse_duration("0", zero=True) == 0


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("p95:2s", LatencyTarget(2.0, 95.0)),
        ("P99.9:200ms", LatencyTarget(0.2, 99.9)),
        ("2s", LatencyTarget(2.0, None)),
        ("p50: 1min", LatencyTarget(60.0, 50.0)),
        (0.1, LatencyTarget(0.1)),
    ],
)
def test_latency(text, target):
    assert parse_latency(text) == target


@pytest.mark.parametrize("text", ["p0:2s", "p100:2s", "p-5:2s", "95:2s", "p95:", "p95:0s", ":2s", "p95:2s:3s", "mean:2s", "pnan:1s"])
def test_latency_refused_with_what_was_written(text):
    with pytest.raises(BadInput) as caught:
        parse_latency(text, "ttft")
    assert caught.value.field == "ttft"
    assert caught.value.value == text


@pytest.mark.parametrize(
    ("text", "amount"),
    [("80GB", 80e9), ("80GiB", 80 * 2**30), ("80", 80e9), (0.5, 0.5e9), ("1.5TB", 1.5e12), ("512mib", 512 * 2**20), ("100B", 100)],
)
def test_bytes(text, amount):
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["0", "-1GB", "nan", "inf", "GB", "80Gbit", "8 apples"])
def test_bytes_refused(text):
    with pytest.raises(BadInput, match=r"^host memory: .*must be an amount of memory"):
        parse_bytes(text, "host memory")
