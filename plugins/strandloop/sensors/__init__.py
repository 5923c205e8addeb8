"""Sensors that wait for a remote job submitted elsewhere."""
