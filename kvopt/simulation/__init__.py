"""Discrete events of one serving group: the plan's steps one after another, with a queue, blocks, preemption and a host link.

The scheduler is that of vLLM V1 (vllm/v1/core/sched/scheduler.py, 0.19): decodes first, then chunks of prompts within one token budget, first come first
served, blocks of a few tokens, the request that was admitted last preempted when they run out. Step times are those of `objectives.serving`, so that what
differs from the closed form is queueing, packing and memory, never the hardware.
"""
