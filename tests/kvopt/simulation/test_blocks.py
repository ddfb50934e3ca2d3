"""The pool: eviction from the end of what was used longest ago."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvopt.simulation.blocks import Left, Pool

SIZES = [16 * count for count in range(100)]


def left(blocks: int) -> Left:
    return Left(blocks, SIZES[blocks], 0, 16 * blocks)


def test_the_least_recently_left_goes_first_and_from_its_end() -> None:
    pool = Pool(160, SIZES)
    for session in (1, 2):
        assert pool.take(80)
        pool.leave(session, left(5))
    assert pool.take(40)
    kept = pool.claim(1)
    assert kept is not None
    assert kept.blocks == 2
    assert pool.claim(2) == left(5)
    assert pool.free == 8


def test_no_room_changes_nothing() -> None:
    pool = Pool(160, SIZES)
    assert pool.take(100)
    assert not pool.take(61)
    assert (pool.free, pool.held) == (60, 100)


def test_what_parks_is_told_before_it_goes() -> None:
    parked = []
    pool = Pool(160, SIZES, lambda session, tokens: parked.append((session, tokens)))
    assert pool.take(160)
    pool.leave(7, Left(10, 160, 0, 160, parks=True))
    assert pool.take(16)
    assert pool.take(16)
    assert parked == [(7, 160)]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 20)), max_size=60))
def test_bytes_are_never_lost(wanted: list[tuple[int, int]]) -> None:
    pool = Pool(1000, SIZES)
    for session, blocks in wanted:
        own = pool.claim(session)
        held = own.bytes if own else 0
        if pool.take(max(SIZES[blocks] - held, 0)):
            held = max(SIZES[blocks], held)
        pool.leave(session, Left(held // 16, held, 0, held)) if held else None
        assert pool.free >= 0
        assert pool.idle >= 0
        assert pool.held == 0
        assert pool.free + pool.idle == pool.capacity
