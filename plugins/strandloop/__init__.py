"""The Airflow side of remote work: hooks, operators, sensors, triggers and links for Ray and Slurm."""
