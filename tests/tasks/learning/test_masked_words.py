import numpy as np
import pyarrow as pa
import pytest
import torch

from tasks.encoders.sequences import Sequences
from tasks.encoders.transformer import DnaTransformer
from tasks.learning.contrastive import TrainingPlan
from tasks.learning.masked_words import masked_loss, train_masked


def repetitive_reads() -> Sequences:
    """Each read repeats one of 20 words: whoever sees the others knows the hidden one."""
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("ACGT"), 4)) for _ in range(20)]
    return Sequences.from_arrow(pa.array([word * 12 for word in words]))


def quiet(line: str) -> None:
    pass


def test_hidden_words_are_guessed_from_the_others() -> None:
    reads = repetitive_reads()
    model = DnaTransformer.untrained(reads, seed=1)
    plan = TrainingPlan(steps=0, pairs_per_step=16, learning_rate=2e-3, seed=1, masked_steps=40)
    record = train_masked(model, reads, plan, report=quiet)
    assert record.steps == 40 and not model.training
    assert record.first_loss == pytest.approx(np.log(4**5), rel=0.1)  # none more likely than another
    assert record.last_loss < np.log(4 * 20)  # knows which words there are, and more than that


def test_the_loss_is_that_of_hidden_words_alone() -> None:
    reads = repetitive_reads()
    model = DnaTransformer.untrained(reads, seed=1)
    torch.manual_seed(3)
    words = model.prepare(reads)
    first = torch.rand(words.shape) < 0.15 / 5
    hidden = torch.zeros_like(first)
    for row, column in first.nonzero().tolist():
        hidden[row, column : column + 5] = True  # all words that hold one base
    assert 0.05 < hidden.float().mean() < 0.3
    states, _ = model.states(torch.where(hidden, 1, words))
    scores = (states @ model.bert.embeddings.word_embeddings.weight.T).log_softmax(-1)
    expected = -scores.gather(2, words.unsqueeze(-1))[..., 0][hidden].mean()
    torch.manual_seed(3)
    assert masked_loss(model, torch.nn.Identity(), reads).item() == pytest.approx(expected.item(), rel=1e-5)


def test_reads_of_n_alone_teach_nothing() -> None:
    model = DnaTransformer.untrained(repetitive_reads(), seed=1)
    assert masked_loss(model, torch.nn.Identity(), Sequences.from_arrow(pa.array(["NNNN" * 5]))).item() == 0
