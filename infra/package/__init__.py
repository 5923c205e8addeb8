"""What Amazon MWAA, Ray and Slurm install: built by ``make package``, uploaded by ``make publish``."""
