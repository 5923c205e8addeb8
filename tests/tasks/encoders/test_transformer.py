import json
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from tasks.encoders import transformer
from tasks.encoders.sequences import Sequences
from tasks.encoders.transformer import BpeTransformer, CharacterTransformer, DnaTransformer
from tasks.encoders.words import FixedWords
from tasks.errors import InvalidEncoder


def random_reads(*lengths: int) -> list[str]:
    random = np.random.default_rng(0)
    return ["".join(random.choice(list("ACGT"), length)) for length in lengths]


def sequences(reads: list[str]) -> Sequences:
    return Sequences.from_arrow(pa.array(reads))


@pytest.fixture(scope="module", params=[DnaTransformer, CharacterTransformer, BpeTransformer])
def model(request: pytest.FixtureRequest) -> DnaTransformer:
    return request.param.untrained(sequences(random_reads(*[200] * 300)), seed=1)


def test_padding_does_not_change_a_vector(model: DnaTransformer) -> None:
    reads = [*random_reads(150, 3, 47, 600, 8, 1), "N" * 60]
    with torch.inference_mode():
        padded = model(model.prepare(sequences(reads))).numpy()
    alone = np.concatenate([model.encode_sequences(sequences([read])) for read in reads])
    np.testing.assert_allclose(padded, alone, atol=1e-5)


def test_vectors_come_in_the_order_of_the_reads(
    model: DnaTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformer, "TOKENS_PER_BATCH", 64)
    reads = random_reads(150, 30, 90, 3000, 40, 0)
    together = model.encode_sequences(sequences(reads))
    for read, vector in zip(reads, together, strict=True):
        np.testing.assert_allclose(vector, model.encode_sequences(sequences([read]))[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def spaced(read: str, word_bases: int) -> str:
    return " ".join(read[i : i + word_bases] for i in range(max(1, len(read) - word_bases + 1)))


def test_both_strands_have_one_vector_where_words_overlap(model: DnaTransformer) -> None:
    reads = sequences([*random_reads(150, 48, 5, 3), "ACGTNNNNTTGAC"])
    apart = model.encode_sequences(reads) - model.encode_sequences(reads.reverse_complement())
    assert (np.abs(apart).max() < 1e-5) == model.strand_symmetric == (model.words.word_bases > 1)


@pytest.mark.parametrize("word_bases", [1, 2, 4, 5])
def test_fixed_words_are_cut_as_defined(word_bases: int) -> None:
    reads = [*random_reads(60, 9, word_bases), "ACGTNACGTACnacgtacgt", "A" * (word_bases - 1), "", "N"]
    numbers = {"".join(word): number for number, word in enumerate(product("ACGT", repeat=word_bases), 2)}

    def number(word: str) -> int:
        other_strand = word[::-1].translate(str.maketrans("ACGT", "TGCA"))
        return numbers.get(min(word, other_strand) if word_bases > 1 else word, 1)

    words = FixedWords(word_bases)
    tokens = words.cut(sequences(reads), max_words=30)
    assert words.size == 2 + 4**word_bases
    for row, read in enumerate(reads):
        expected = [number(word) for word in spaced(read.upper(), word_bases).split()][:30]
        assert tokens.take(np.array([row])).tolist() == expected
    assert words.read_as.tolist() == [0, 1, *(number(word) for word in numbers)]


def test_unknown_bases_do_not_reach_a_vector(model: DnaTransformer) -> None:
    read = random_reads(48)[0]
    with_n, longer = model.encode_sequences(sequences([read + "NNNN", read + "NNNNNNNN"]))
    np.testing.assert_allclose(with_n, model.encode_sequences(sequences([read]))[0], atol=1e-5)
    np.testing.assert_allclose(with_n, longer, atol=1e-5)


def test_hugging_face_loads_the_same_encoder(model: DnaTransformer, tmp_path: Path) -> None:
    model.save(tmp_path)
    tokenizer, bert = AutoTokenizer.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)
    reads = ["ACGTACGTNNACGTAC", "TTGACCA", "ACGTC"]
    bases = model.words.word_bases
    texts = [spaced(read, bases) for read in reads] if bases > 1 else reads
    words = tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]
    assert model.words.read_as[words].tolist() == model.prepare(sequences(reads)).tolist()
    known = (words > 1).unsqueeze(-1)
    states = bert.eval()(input_ids=words, attention_mask=known[..., 0].long()).last_hidden_state
    mean = torch.nn.functional.normalize((states * known).sum(1) / known.sum(1), dim=-1)
    loaded = DnaTransformer.load(tmp_path)
    np.testing.assert_allclose(mean.detach().numpy(), loaded.encode_sequences(sequences(reads)), atol=1e-5)
    np.testing.assert_array_equal(
        loaded.encode_sequences(sequences(reads)), model.encode_sequences(sequences(reads))
    )


def test_lower_case_is_read_as_upper_case(model: DnaTransformer) -> None:
    upper, lower = model.encode_sequences(sequences(["ACGTTGCAACGTNACG", "acgttgcaacgtnacg"]))
    np.testing.assert_array_equal(upper, lower)


def test_words_are_learnt_from_reads_the_same_way_each_time() -> None:
    reads = sequences([*random_reads(*[100] * 50), "NNNN" + "GATTACA" * 9, "acgtn" * 5])
    first, again = (BpeTransformer.untrained(reads, seed=1).words.tokenizer().get_vocab() for _ in range(2))
    assert first == again
    assert any(len(word) >= 7 and word in "GATTACA" * 4 for word in first)
    assert set("".join(first.keys() - {"[PAD]", "[UNK]"})) == set("ACGT")
    assert max(len(word) for word in first) <= 16


def test_a_bert_of_other_words_is_refused(model: DnaTransformer, tmp_path: Path) -> None:
    model.save(tmp_path)
    config = BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    BertModel(config).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"dna_word_length": model.words.word_bases}))
    with pytest.raises(InvalidEncoder, match="is of 9 words, but its tokenizer has"):
        DnaTransformer.load(tmp_path)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_damaged_files_are_refused(file: str, tmp_path: Path) -> None:
    DnaTransformer.untrained(sequences(["ACGT"]), seed=1).save(tmp_path)
    (tmp_path / file).write_text("damaged")
    with pytest.raises(InvalidEncoder, match="are no dna-transformer encoder"):
        DnaTransformer.load(tmp_path)
