"""``?trust_remote_code=true``: network and tokenizer as the Python code in a model's files defines them."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from tasks.encoders.hf.network import Network
from tasks.encoders.hf.tokens import Tokens
from tasks.encoders.sequences import Sequences
from tasks.errors import InvalidEncoder

NO_LIMIT = 100_000  # transformers writes 10**30 for a tokenizer without a longest input


class RemoteNetwork(Network):
    """A network that need not know attention masks: only equally long rows share a call."""

    def __init__(self, model: Any, max_tokens: int) -> None:
        super().__init__()
        self.model = model
        self.dim = int(getattr(model.config, "hidden_size", None) or model.config.d_model)
        self.max_tokens = max_tokens

    def forward(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """See :class:`tasks.encoders.hf.network.Network`."""
        states, start = [], 0
        for length, rows in ((length, len(list(rows))) for length, rows in groupby(lengths)):
            stop = start + length * rows
            states.append(self.model(input_ids=ids[start:stop].view(rows, length))[0].flatten(0, 1))
            start = stop
        return torch.cat(states)


class RemoteCutter:
    """A tokenizer of transformers, one sequence at a time."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.special = np.zeros(max(len(tokenizer), *tokenizer.all_special_ids) + 1, dtype=bool)
        self.special[tokenizer.all_special_ids] = True

    def cut(self, sequences: Sequences, *, max_tokens: int) -> Tokens:
        """See :meth:`tasks.encoders.hf.tokens.Cutter.cut`."""
        texts = sequences.to_arrow().to_pylist()
        lists = self._tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"] if texts else []
        return Tokens.from_lists(lists)


def load_remote(directory: Path, dtype: torch.dtype) -> tuple[RemoteNetwork, RemoteCutter]:
    """Run the code in ``directory``; raises InvalidEncoder where it cannot be run or finds no weights."""
    try:
        options = {"trust_remote_code": True, "local_files_only": True}
        tokenizer = AutoTokenizer.from_pretrained(directory, **options)
        model = AutoModel.from_pretrained(directory, dtype=dtype, **options)
    except Exception as error:  # other people's code may raise anything
        raise InvalidEncoder(f"the model's own code in {directory} failed: {error!r}") from error
    limit = int(min(tokenizer.model_max_length, NO_LIMIT))
    return RemoteNetwork(model, limit), RemoteCutter(tokenizer)
