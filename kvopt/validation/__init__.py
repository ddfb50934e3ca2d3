"""Predicting what a person measured: `kvopt validate KIND FILE`. Kinds are in `kvopt.validation.run.KINDS`."""
