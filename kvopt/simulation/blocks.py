"""The paged memory of one group: what requests hold, and the caches of the absent, which go when the room is needed."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Left:
    """A cache that nobody uses at the moment."""

    blocks: int
    bytes: int
    offset: int  # bytes beside those of its blocks: below 0 where a prefix is held by all
    tokens: int  # computed
    parks: bool = False  # whether it goes to host memory when it is evicted


@dataclass
class Pool:
    """Bytes for caches. Caches of the absent are evicted least recently used first, each from its end (vLLM V1, vllm/v1/core/block_pool.py)."""

    capacity: int
    sizes: list[int]  # bytes by blocks
    park: Callable[[int, int], None] = lambda session, tokens: None  # called before a cache that parks is evicted
    gone: Callable[[int], None] = lambda session: None  # called once nothing of a session's cache is left

    def __post_init__(self) -> None:
        self.free = self.capacity
        self.idle = 0
        self._left: OrderedDict[int, Left] = OrderedDict()

    @property
    def held(self) -> int:
        """[bytes] in use by requests."""
        return self.capacity - self.free - self.idle

    @property
    def room(self) -> int:
        """[bytes] that can be had without taking any from a request."""
        return self.free + self.idle

    def take(self, need: int) -> bool:
        """Hands out `need` bytes, evicting what it must; false, and nothing done, where there is no room."""
        if need > self.free + self.idle:
            return False
        while self.free < need:
            self._evict(need - self.free)
        self.free -= need
        return True

    def give(self, size: int) -> None:
        """Takes bytes back."""
        self.free += size

    def leave(self, session: int, left: Left) -> None:
        """Keeps what a session held until the room is needed."""
        self._left[session] = left
        self.idle += left.bytes

    def blocks(self, session: int) -> int:
        """How many blocks of a session's cache are left."""
        return self._left[session].blocks if session in self._left else 0

    def knows(self, session: int) -> bool:
        """Whether anything of a session's cache is left."""
        return session in self._left

    def claim(self, session: int) -> Left | None:
        """What is still there of a session's cache; its bytes are held again."""
        left = self._left.pop(session, None)
        if left is not None:
            self.idle -= left.bytes
        return left

    def _evict(self, need: int) -> None:
        session, left = next(iter(self._left.items()))
        if left.parks:
            self.park(session, left.tokens)
        blocks = bisect_right(self.sizes, left.bytes - left.offset - need, hi=left.blocks) - 1 if left.bytes > need else 0
        kept = max(self.sizes[blocks] + left.offset, 0) if blocks > 0 else 0
        if kept:
            self._left[session] = replace(left, blocks=blocks, bytes=kept, parks=False)
        else:
            del self._left[session]
            self.gone(session)
        self.idle -= left.bytes - kept
        self.free += left.bytes - kept
