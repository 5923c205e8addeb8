"""The fault matrix's world: a stack with Slurm, sshd and Ray, a whole Airflow, and faults in between.

Everything that concerns Slurm runs twice, without and with accounting.
"""

from __future__ import annotations

