"""Accuracy kept under compression: one smooth proxy per dimension, how they compose, and how wide their intervals are."""
