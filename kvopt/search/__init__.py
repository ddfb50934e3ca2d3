"""Constrained optimisation on Optax: lanes, augmented Lagrangian, repair to deployable settings, fronts."""
