"""Efficiencies and overheads fitted to measurements: what was measured, the hierarchical model, the profiles that come of it."""
