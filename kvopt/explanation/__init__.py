"""The arithmetic of one plan with the numbers filled in: what `kvopt explain` says."""
