"""How a sample's reads lie in its files, in the words of the landing manifest."""

FILES_OF_LAYOUT = {"single": 1, "paired": 2, "interleaved": 1}
"""``paired``: two files, record by record; ``interleaved``: in one file, mates follow each other."""

QUALITY_OFFSETS = {"phred+33": 33, "phred+64": 64}
"""What is to be taken off a FASTQ quality character to get Phred."""
