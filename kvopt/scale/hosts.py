"""The processes of one run, joined through `jax.distributed`: as Slurm, MPI, Kubernetes or a TPU pod started them, or as the environment says.

JAX detects who started the processes. Where nobody did that it knows, three variables say it: `JAX_COORDINATOR_ADDRESS` (host and port of process 0),
`JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` (from 0). Once joined, JAX ends all processes when one of them dies.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeVar

import numpy as np

from kvopt.errors import BadInput

Item = TypeVar("Item")
ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
DETECTED = "Slurm (srun), MPI (mpirun), an indexed Kubernetes job, a TPU pod"
MPI_RANKS = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK")
OPEN_MPI_4 = "OMPI_MCA_orte_hnp_uri"  # what JAX knows Open MPI by; version 5 and other MPIs do not set it


@dataclass(frozen=True)
class Hosts:
    """This process among those of the run."""

    process: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes what all have found."""
        return self.process == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """The items that this process deals with: every `count`-th, so that each item is dealt with by one."""
        return list(items[self.process :: self.count])


ALONE = Hosts()


def join(environment: Mapping[str, str] = os.environ) -> Hosts:
    """Joins the processes of this run; to be called before anything is computed, by all of them.

    Raises `BadInput` where nothing says who the others are, or they cannot be reached.
    """
    import jax

    settings = _settings(environment)
    try:
        jax.distributed.initialize(**settings)
        jax.devices()  # processes tell each other their devices, which waits for all: now, and not when the first of them computes
    except (ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        if "should be defined" in said or "must be defined" in said:
            said = f"no cluster found: start it through {DETECTED}, or set {ADDRESS}, {COUNT} and {NUMBER}"
        raise BadInput("distributed", environment.get(ADDRESS, "detected"), said) from None
    return Hosts(jax.process_index(), jax.process_count())


def agree(hosts: Hosts, digest: str) -> None:
    """Compares a hexadecimal digest of what each process is about to do: they would wait for each other in vain where it differs, and raise `BadInput`."""
    if hosts.count == 1:
        return
    from jax.experimental import multihost_utils

    with _answers_only():
        found = multihost_utils.process_allgather(np.frombuffer(bytes.fromhex(digest), np.uint8))
    others = [number for number in range(hosts.count) if not np.array_equal(found[number], found[0])]
    if others:
        known = f"process {others[0]} has another question, other files or another version of kvopt than process 0"
        raise BadInput("distributed", f"{hosts.count} processes", known)


@contextlib.contextmanager
def _answers_only() -> Iterator[None]:
    """Sends what libraries print to standard error: Gloo greets on standard output, which belongs to the answer."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def leave() -> None:
    """Parts from the others, once all are done: whoever left early would be taken for dead."""
    import jax

    jax.distributed.shutdown()


def _settings(environment: Mapping[str, str]) -> dict[str, Any]:
    """How `jax.distributed.initialize` is called: what the environment says outright goes before what JAX detects."""
    said = [name for name in (ADDRESS, COUNT, NUMBER) if environment.get(name)]
    if len(said) == 3:
        count, number = _whole(environment, COUNT, 1), _whole(environment, NUMBER, 0)
        if number >= count:
            raise BadInput(NUMBER, number, f"must be below {COUNT}, which is {count}")
        host, _, port = environment[ADDRESS].rpartition(":")
        if not host or not port.isdigit():
            raise BadInput(ADDRESS, environment[ADDRESS], "must be HOST:PORT of process 0")
        return {"coordinator_address": environment[ADDRESS], "num_processes": count, "process_id": number, "cluster_detection_method": "deactivate"}
    if COUNT in said or NUMBER in said:
        missing = [name for name in (ADDRESS, COUNT, NUMBER) if name not in said]
        raise BadInput("distributed", ", ".join(said), f"{' and '.join(missing)} must be set as well")
    by_mpi = OPEN_MPI_4 not in environment and any(rank in environment for rank in MPI_RANKS) and "SLURM_STEP_NODELIST" not in environment
    return {"cluster_detection_method": "mpi4py"} if by_mpi and find_spec("mpi4py") else {}


def _whole(environment: Mapping[str, str], name: str, least: int) -> int:
    try:
        value = int(environment[name])
    except ValueError:
        value = least - 1
    if value < least:
        raise BadInput(name, environment[name], f"must be a whole number, {least} or more")
    return value
