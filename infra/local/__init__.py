"""The local stack: S3 server, Ray, Slurm and sshd on loopback."""
