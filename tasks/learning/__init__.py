"""The loop: an encoder retrained on what a batch found, evaluated, and promoted only if it is better."""
