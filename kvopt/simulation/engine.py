"""The engine of one group: which requests a step carries, who is admitted, who is preempted."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import simpy

from kvopt.simulation.blocks import Left, Pool
from kvopt.simulation.host import Host
from kvopt.simulation.meter import Meter
from kvopt.simulation.request import Request
from kvopt.simulation.steps import Part, Steps
from kvopt.simulation.timeline import DECODE, PREFILL, SWITCH, WAITING, Note, silent


@dataclass(frozen=True)
class Limits:
    """Settings of the engine."""

    tokens: int  # max_num_batched_tokens: prompt tokens and decodes of a step
    sequences: int  # max_num_seqs
    caches: bool  # whether blocks that nobody uses are found again
    swaps: bool  # whether a preempted cache goes to host memory; otherwise it is computed again
    parks: bool  # whether the cache of one who thinks goes to host memory when it is evicted; otherwise it is gone
    hands_over: bool = False  # whether a prefilled prompt is decoded elsewhere


class Engine:
    """One group as a SimPy process. The longest waiting is admitted first, the last admitted preempted first (vLLM V1, FCFS policy)."""

    def __init__(
        self, env: simpy.Environment, steps: Steps, pool: Pool, host: Host, limits: Limits, after: Callable[[Request], None], note: Note = silent
    ) -> None:
        self.env, self.steps, self.pool, self.host, self.limits, self.after, self.note = env, steps, pool, host, limits, after, note
        self.meter = Meter(env, pool)
        self.waiting: deque[Request] = deque()
        self.ready: deque[Request] = deque()  # fetched: they hold the room for their whole prompt
        self.running: dict[Request, None] = {}  # in order of admission
        self.filling: list[Request] = []
        self.decodes = 0
        self._kv_s = 0.0  # [s] that the caches of the decoding add to a step
        self._due: dict[int, list[Request]] = {}  # by step
        self._ends: dict[int, list[Request]] = {}
        self._parts: list[tuple[Request, Part]] = []
        self._step = self._admitted = self._fetching = 0
        self._stall_s = 0.0
        self._wake = env.event()
        env.process(self._run())

    def fits(self, tokens: int) -> bool:
        """Whether a sequence of so many tokens can ever be held."""
        return max(self.steps.stored[self.steps.blocks(tokens)], self.steps.filling[self.steps.blocks(tokens)]) <= self.pool.capacity

    def submit(self, request: Request) -> None:
        """Queues a request."""
        self.waiting.append(request)
        self._awake()

    def _awake(self) -> None:
        if not self._wake.triggered:
            self._wake.succeed()

    def _run(self) -> Generator[Any, Any, None]:
        while True:
            seconds = self._schedule()
            if seconds == 0.0:
                self._wake = self.env.event()
                yield self._wake
                continue
            seconds, self._stall_s = seconds + self._stall_s, 0.0
            yield self.env.timeout(seconds)
            self.meter.step(seconds, self.decodes, bool(self._parts))
            self._advance()

    def _schedule(self) -> float:
        """Chooses what the next step carries; how long it takes [s], 0 where there is nothing to do."""
        before = self.meter.preemptions
        for request in sorted(self._due.pop(self._step, ()), key=lambda one: one.order):
            if request.decoding and request.due == self._step:  # not preempted for one before it
                self._next_block(request)
        self._parts = []
        budget = self.limits.tokens - self.decodes
        for request in list(self.filling):
            if request in self.running and budget > 0:
                budget -= self._fill(request, budget)
        if self.meter.preemptions == before:  # none is admitted in a step that preempts
            self._admit(budget)
        if not self.decodes and not self._parts:
            return 0.0
        return self.steps.seconds(self.decodes, self._kv_s, [part for _, part in self._parts])

    def _next_block(self, request: Request) -> None:
        if not self._extend(request, request.blocks + 1, self.steps.stored):
            return
        self._kv_s += self.steps.kv_s[request.blocks] - request.kv_s
        request.kv_s = self.steps.kv_s[request.blocks]
        request.due += self.steps.block
        if request.due < request.ends:
            self._due.setdefault(request.due, []).append(request)

    def _fill(self, request: Request, budget: int) -> int:
        """Puts the next tokens of a prompt into the step, `budget` at most; how many."""
        new = min(budget, request.length - request.computed)
        if not self._extend(request, self.steps.blocks(request.computed + new), self.steps.filling):
            return 0
        self._parts.append((request, Part(request.computed, new, request.computed + new == request.length)))
        return new

    def _extend(self, request: Request, blocks: int, sizes: list[int]) -> bool:
        """Gives a request room for so many blocks, preempting the last admitted for it; false where that was the request itself."""
        need = sizes[blocks] + request.offset - request.bytes
        if need > 0:
            while not self.pool.take(need):
                last = next(reversed(self.running))
                self._preempt(last)
                if last is request:
                    return False
            request.bytes += need
        request.blocks = max(blocks, request.blocks)
        return True

    def _preempt(self, request: Request) -> None:
        self.meter.preemptions += 1
        request.preemptions += 1
        del self.running[request]
        if request.decoding:
            self._stop(request)
            request.generated += self._step - request.entered
            request.computed = request.length + self._step - request.entered
            request.length = request.prompt + request.generated
        else:
            self.filling.remove(request)
            self._parts = [entry for entry in self._parts if entry[0] is not request]
        tokens, held = request.computed, request.bytes
        self._release(request, keep=True)
        self.note(request.session, WAITING)
        if self.limits.swaps and tokens and held:
            self.env.process(self._swap(request, tokens))
        else:
            self.waiting.appendleft(request)

    def _swap(self, request: Request, tokens: int) -> Generator[Any, Any, None]:
        self.note(request.session, SWITCH)
        yield from self.host.write(request.session, tokens)
        self.note(request.session, WAITING)
        self.waiting.appendleft(request)
        self._awake()

    def _stop(self, request: Request) -> None:
        """Takes a request out of the decodes."""
        request.decoding = False
        self.decodes -= 1
        self._kv_s = self._kv_s - request.kv_s if self.decodes else 0.0
        for step, found in ((request.due, self._due), (request.ends, self._ends)):
            if request in found.get(step, ()):
                found[step].remove(request)

    def _release(self, request: Request, keep: bool, parks: bool = False) -> None:
        """Gives a request's blocks back; with `keep`, they are found again as long as nobody needs the room."""
        full = request.computed // self.steps.block
        size = self.steps.stored[full] + request.offset if full else 0
        settled = request.offset == self._shared(request)  # a prompt that is still to be compressed is no cache
        if keep and settled and self.limits.caches and 0 < size <= request.bytes:
            self.pool.give(request.bytes - size)
            self.pool.leave(request.session, Left(full, size, request.offset, full * self.steps.block, parks))
        else:
            self.pool.give(request.bytes)
        request.bytes = request.blocks = request.computed = 0

    def _admit(self, budget: int) -> None:
        """Admits who waits, as long as the whole prompt finds room beside what is held (`scheduler_reserve_full_isl` of vLLM 0.19)."""
        while budget > 0 and len(self.running) + self._fetching < self.limits.sequences:
            if self.ready:
                budget -= self._enter(self.ready.popleft(), budget)
                continue
            if not self.waiting or self._whole(self.waiting[0]) > self.pool.room:
                return
            request = self.waiting.popleft()
            parked = self._claim(request)
            if parked > request.computed:
                self._reserve(request, parked)
                self.env.process(self._fetch(request))
            else:
                self._rebase(request)
                budget -= self._enter(request, budget)

    def _enter(self, request: Request, budget: int) -> int:
        """Lets a request run; how many tokens of the step it takes."""
        self._admitted += 1
        request.order = self._admitted
        if math.isnan(request.admitted_s):
            request.admitted_s = self.env.now
        self.running[request] = None
        if request.delivered:
            request.delivered, request.computed = False, request.length
            self._extend(request, self.steps.blocks(request.length + 1), self.steps.stored)
            self._decode(request)
            return 1
        self.note(request.session, PREFILL)
        self.meter.cached += request.computed
        self.filling.append(request)
        return self._fill(request, budget)

    def _whole(self, request: Request) -> int:
        """[bytes] that a request asks for once its prompt is computed."""
        return self.steps.filling[self.steps.blocks(request.length + request.delivered)] + self._shared(request)

    def _shared(self, request: Request) -> int:
        """[bytes, not above 0] of the shared prefix, which is held for all."""
        blocks = request.shared // self.steps.block
        return self.steps.state - self.steps.stored[blocks] if blocks else 0

    def _claim(self, request: Request) -> int:
        """Takes what is there of a request's cache; [tokens] of it that are in host memory."""
        request.offset = self._shared(request)
        if request.delivered:
            return 0
        block = self.steps.block
        most = (request.length - 1) // block * block  # the last token is always computed
        request.computed = min(request.shared // block * block, most)
        left = self.pool.claim(request.session)
        if left is not None:
            request.bytes, request.blocks = left.bytes, left.blocks
            request.computed = min(max(left.blocks * block, request.computed), most)
        return min(self.host.tokens(request.session) // block * block, most)

    def _rebase(self, request: Request) -> None:
        """What is cached stays at its size while more is prefilled beside it."""
        blocks = request.computed // self.steps.block
        request.offset += self.steps.stored[blocks] - self.steps.filling[blocks]

    def _reserve(self, request: Request, tokens: int) -> None:
        """Takes the room for a whole prompt of which `tokens` tokens are to be fetched."""
        self._fetching += 1
        request.computed = tokens
        self._rebase(request)
        self._extend(request, self.steps.blocks(request.length), self.steps.filling)

    def _fetch(self, request: Request) -> Generator[Any, Any, None]:
        """Brings a parked cache in."""
        self.note(request.session, SWITCH)
        self.host.use(request.session)
        seconds = yield from self.host.fetch(request.computed)
        self.note(request.session, WAITING)
        self._stall_s += self.steps.exposed * seconds
        self._fetching -= 1
        self.ready.append(request)
        self._awake()

    def _advance(self) -> None:
        """What a step leaves behind."""
        self._step += 1
        for request, part in self._parts:
            request.computed += part.new
            if part.completes:
                self.filling.remove(request)
                self._decode(request)
        for request in self._ends.pop(self._step, ()):
            self._stop(request)
            request.generated = request.answer
            request.computed = request.prompt + request.answer - 1
            self._answered(request)

    def _decode(self, request: Request) -> None:
        """The first token after a prefill is out: the others follow step by step."""
        if not self.limits.hands_over or request.answer == 1:
            request.generated += 1
            if math.isnan(request.first_s):
                request.first_s = self.env.now
        self._settle(request)
        if self.limits.hands_over or request.generated >= request.answer:
            self._answered(request)
            return
        self.note(request.session, DECODE)
        self.decodes += 1
        request.decoding, request.entered = True, self._step
        request.ends = self._step + request.answer - request.generated
        request.due = self._step + request.blocks * self.steps.block - request.length
        request.kv_s = self.steps.kv_s[request.blocks]
        self._kv_s += request.kv_s
        self._ends.setdefault(request.ends, []).append(request)
        if request.due < request.ends:
            self._due.setdefault(request.due, []).append(request)

    def _settle(self, request: Request) -> None:
        """From the size while prefilling to the size while decoding."""
        request.offset = self._shared(request)
        size = self.steps.stored[request.blocks] + request.offset
        if size < request.bytes:
            self.pool.give(request.bytes - size)
            request.bytes = size

    def _answered(self, request: Request) -> None:
        del self.running[request]
        request.finished_s = self.env.now
        if request.fate == "park" and not self.limits.hands_over:
            self.env.process(self._park(request))
        else:
            if request.fate == "end":
                self.host.drop(request.session)
            self._release(request, keep=request.fate != "drop" and not self.limits.hands_over, parks=self.limits.parks and request.fate == "stay")
        self.after(request)

    def _park(self, request: Request) -> Generator[Any, Any, None]:
        """Writes a cache out; its blocks are free once it is there."""
        seconds = yield from self.host.write(request.session, request.computed)
        self._stall_s += self.steps.exposed * seconds
        self._release(request, keep=False)
        self._awake()
