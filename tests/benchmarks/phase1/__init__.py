"""Phase 1 against what else one could use: ``make bench-phase1``, or ``python -m tests.benchmarks.phase1``."""
