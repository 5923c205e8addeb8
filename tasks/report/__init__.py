"""The page that people read about a batch."""
