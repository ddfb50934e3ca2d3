"""Named questions, each one file, run by `kvopt study run`."""
