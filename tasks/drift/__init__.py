"""Drift: whether a batch looks like the batches before it."""
