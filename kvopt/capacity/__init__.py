"""Capacity as engines compute it: exact, discrete, for one deployment. `deployed` is the entry; constants are in `kvopt/catalog/capacity`."""

from kvopt.capacity.deployed import Capacity, deployed

__all__ = ["Capacity", "deployed"]
