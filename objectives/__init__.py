"""The mathematics, pure JAX: what a design gives and what it costs. Knows no files, no names, no search."""
