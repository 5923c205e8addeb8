"""Asynchronous waiting for remote jobs, in the triggerer."""
