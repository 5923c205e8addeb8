"""Notifiers: what people are told of a task, beyond its state."""
