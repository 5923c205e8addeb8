"""Models in Hugging Face layout: DNABERT-2 and -S, Nucleotide Transformer, BERT-like DNA models, ProtBERT and ESM.

A read's vector is the mean of the last layer's states over the read's tokens (not special tokens, not padding),
as a unit vector. What is longer than the longest input of the model is cut there: after 512 tokens for most BERTs
(DNABERT: 512 bases), 1,000 for Nucleotide Transformer (6,000 bases) and 2,048 for its version 2, 1,024 amino acids
for ESM, and 2,048 tokens for DNABERT-2 (about 10,000 bases).

==========================  ==========================================================================
``translate=longest-orf``   a model of proteins reads the longest open reading frame of the six frames
``trust_remote_code=true``  network and tokenizer are the Python code that the model's files bring along
==========================  ==========================================================================

Without the second option no code from a model's files is ever executed; weights are read as safetensors, or with
``torch.load(weights_only=True)``.
"""

from tasks.encoders.hf.encoder import load
from tasks.encoders.hf.hub import fetch

__all__ = ["fetch", "load"]
