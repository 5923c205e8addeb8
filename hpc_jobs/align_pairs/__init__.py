"""From similar reads to overlapping ones: the pairs of a k-NN graph, aligned."""
