"""What runs on Slurm nodes: the embedding store, the MPI kernel, the read graph."""
