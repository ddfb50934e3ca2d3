"""What compression costs in accuracy: published measurements, pooled over methods, tasks and models, with the intervals that they support."""
