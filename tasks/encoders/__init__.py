"""Encoders turn reads into vectors; a URI names one, the registry keeps the trained ones."""
