"""What a batch cost, from recorded times and a dated price table."""
