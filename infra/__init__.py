"""Everything that makes machines, and the local stack."""
