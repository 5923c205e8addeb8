"""How well each way to embed reads tells species apart and finds overlaps: ``make bench-accuracy``."""
