"""What `make setup` does: system packages, virtual environments and sample reads. Standard library only."""
