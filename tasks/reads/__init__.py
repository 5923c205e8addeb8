"""From landed files to clean reads: parsing, base quality, and the accounting of every record."""
