"""What a person writes, and what they have: names, files, traces, each validated and read into the pytrees of `objectives`."""
