"""Clients of remote systems: Ray Jobs over HTTP, Slurm over SSH."""
