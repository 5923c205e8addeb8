"""The k-NN kernel against what else one could use, and how it grows: ``make bench-kernel``."""
