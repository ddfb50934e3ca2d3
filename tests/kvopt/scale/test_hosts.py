from __future__ import annotations

import numpy as np
import pytest
from jax.experimental import multihost_utils

from kvopt.errors import BadInput
from kvopt.scale.hosts import ADDRESS, COUNT, NUMBER, Hosts, _settings, agree, join


def test_every_item_is_dealt_with_once():
    shares = [Hosts(process, 3).share(range(10)) for process in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(10))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_environment_goes_before_what_is_detected():
    said = _settings({ADDRESS: "10.0.0.1:1234", COUNT: "4", NUMBER: "3", "SLURM_STEP_NODELIST": "n1"})
    assert said == {"coordinator_address": "10.0.0.1:1234", "num_processes": 4, "process_id": 3, "cluster_detection_method": "deactivate"}
    assert _settings({"SLURM_STEP_NODELIST": "n1", "PMI_RANK": "0"}) == {}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({COUNT: "2"}, f"{ADDRESS} and {NUMBER} must be set"),
        ({ADDRESS: "h:1", COUNT: "two", NUMBER: "0"}, f"{COUNT}: two: must be a whole number"),
        ({ADDRESS: "h:1", COUNT: "2", NUMBER: "2"}, f"{NUMBER}: 2: must be below"),
        ({ADDRESS: "h", COUNT: "2", NUMBER: "0"}, "must be HOST:PORT"),
    ],
)
def test_half_an_environment_is_refused(environment, message):
    with pytest.raises(BadInput, match=message):
        join(environment)


def test_processes_that_would_do_different_things_are_told(monkeypatch):
    def others_say(digest):
        monkeypatch.setattr(multihost_utils, "process_allgather", lambda own: np.stack([own, np.frombuffer(bytes.fromhex(digest), np.uint8)]))

    others_say("00ff")
    agree(Hosts(0, 2), "00ff")
    others_say("00fe")
    with pytest.raises(BadInput, match="process 1 has another question"):
        agree(Hosts(0, 2), "00ff")
