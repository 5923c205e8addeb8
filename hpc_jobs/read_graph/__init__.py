"""From k-NN edges to clusters of reads."""
