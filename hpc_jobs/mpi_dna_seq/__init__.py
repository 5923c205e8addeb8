"""Exact k nearest neighbours of all against all, over MPI."""
