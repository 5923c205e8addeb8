from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest

from tasks.encoders.kmer import KmerMlp
from tasks.encoders.sequences import Sequences
from tasks.learning.contrastive import TrainingPlan, train
from tasks.learning.evaluation import Retrieval, SpeciesPrecision, retrieval, species_precision
from tasks.learning.pairs import PairSource, ReadPairs, ReadWindows
from tasks.learning.panel import Panel
from tasks.learning.promotion import MAX_SPECIES_LOSS, Decision, decide
from tasks.reads.simulate import Genome, Library, random_genomes, simulate


def ranks(*counts: tuple[int, int]) -> Retrieval:
    """Templates whose two sequences have the same rank: (rank, how many)."""
    return Retrieval(np.concatenate([np.full((many, 2), rank) for rank, many in counts]))


WORSE, BETTER = ranks((50, 100)), ranks((5, 30), (50, 70))


@pytest.mark.parametrize(
    ("parent", "candidate", "better", "k"),
    [
        (WORSE, BETTER, True, 10),
        (ranks((50, 100)), ranks((50, 100)), False, 10),
        (ranks((50, 100)), ranks((5, 2), (50, 98)), False, 10),
        (BETTER, WORSE, False, 10),
        (ranks((5, 100)), ranks((0, 60), (5, 40)), True, 1),
        (ranks((50, 10)), ranks((0, 10)), False, 10),
    ],
    ids=["better", "equal", "within chance", "worse", "saturated at ten", "too few"],
)
def test_only_what_is_measurably_better_passes(
    parent: Retrieval, candidate: Retrieval, better: bool, k: int
) -> None:
    decision = decide(parent, candidate)
    assert (decision.better, decision.k) == (better, k)


def test_the_reason_has_the_numbers() -> None:
    reason = decide(WORSE, BETTER).reason
    assert "is better: recall@10 of 100 held-out templates 0.0000 before, 0.3000 after" in reason
    assert "+0.3000 (95 % interval +0.2" in reason


def test_nothing_held_out_is_said_so() -> None:
    nothing = Retrieval(np.zeros((0, 2), dtype=np.int64))
    assert "0 held-out templates are too few" in decide(nothing, nothing).reason


@pytest.mark.parametrize(
    ("chains", "better", "told"),
    [
        ((BETTER, WORSE), False, "is worse: recall@10 of 100 pairs of reads on one chain 0.3000 before, 0.0"),
        ((WORSE, WORSE), True, "; not worse in 1 other comparison(s)"),
        ((ranks((5, 2), (50, 98)), WORSE), True, "; not worse in 1 other comparison(s)"),
        ((ranks((0, 19)), ranks((50, 19))), True, "; 19 pairs of reads on one chain are too few to count"),
        ((ranks((0, 40)), ranks((5, 40))), False, "is worse: recall@1 of 40 pairs of reads on one chain 1.0"),
    ],
    ids=["worse", "equal", "within chance", "too few", "worse at one"],
)
def test_what_loses_the_far_ones_of_a_chain_is_refused(
    chains: tuple[Retrieval, Retrieval], better: bool, told: str
) -> None:
    decision = decide(WORSE, BETTER, chains=chains)
    assert decision.better == better
    assert told in decision.reason


def precision(**shares: np.ndarray) -> SpeciesPrecision:
    """A panel of the species that are named, with these shares."""
    species = np.repeat(list(shares), [len(each) for each in shares.values()])
    return SpeciesPrecision(10, np.concatenate(list(shares.values())), species)


def noisy(mean: float, *, reads: int = 200) -> np.ndarray:
    """Shares in tenths about the mean, the same deviations in every call."""
    deviations = np.random.default_rng(3).integers(-1, 2, reads // 2) / 10
    return mean + np.concatenate([deviations, -deviations])


def test_a_species_that_is_lost_refuses_although_the_mean_rises() -> None:
    before = precision(ash=noisy(0.5), birch=noisy(0.5), cedar=noisy(0.5))
    after = precision(ash=noisy(0.7), birch=noisy(0.4), cedar=noisy(0.7))
    decision = decide(WORSE, BETTER, panels={"trees": (before, after)})
    assert not decision.better
    assert (
        "is worse: precision@10 of 200 reads of birch in panel trees 0.5000 before, 0.4000" in decision.reason
    )
    verdicts = {check.of: check.verdict for check in decision.checks}
    assert verdicts == {
        "held-out templates": "passed",
        "reads of panel trees": "passed",
        "reads of ash in panel trees": "passed",
        "reads of birch in panel trees": "refused",
        "reads of cedar in panel trees": "passed",
    }


def test_a_small_loss_of_one_species_is_let_pass_and_of_all_is_not() -> None:
    before = precision(ash=noisy(0.5), birch=noisy(0.5))
    one = decide(WORSE, BETTER, panels={"trees": (before, precision(ash=noisy(0.515), birch=noisy(0.485)))})
    assert one.better
    assert one.reason.endswith("; not worse in 3 other comparison(s)")
    both = decide(WORSE, BETTER, panels={"trees": (before, precision(ash=noisy(0.485), birch=noisy(0.485)))})
    assert "is worse: precision@10 of 400 reads of panel trees 0.5000 before, 0.4850" in both.reason


@pytest.mark.parametrize(("loss", "refused"), [(0.0, 0), (MAX_SPECIES_LOSS / 2, 0), (0.1, 15)])
def test_what_200_reads_cannot_tell_from_chance_is_let_pass(loss: float, refused: int) -> None:
    """Shares that differ by 0.2 from read to read; between real encoders they did by 0.1 to 0.3."""
    random = np.random.default_rng(5)
    decisions = []
    for _ in range(15):
        before = {name: random.integers(3, 8, 200) / 10 for name in ("ash", "elm")}
        after = {name: shares + random.integers(-3, 4, 200) / 10 for name, shares in before.items()}
        after["elm"] -= loss
        decisions.append(decide(WORSE, BETTER, panels={"trees": (precision(**before), precision(**after))}))
    lost = [
        check for decision in decisions for check in decision.checks if check.of.startswith("reads of elm")
    ]
    assert [check.verdict for check in lost].count("refused") == refused


def test_every_panel_is_asked() -> None:
    fine, lost = precision(ash=noisy(0.5), birch=noisy(0.5)), precision(ash=noisy(0.5), birch=noisy(0.4))
    decision = decide(WORSE, BETTER, panels={"a": (fine, fine), "b": (fine, lost)})
    assert "panel b " in decision.reason
    assert "; 1 other comparison(s) refuse it too" in decision.reason  # the species


def test_what_was_compared_is_json() -> None:
    shares = precision(ash=noisy(0.5), birch=noisy(0.5, reads=10))
    decision = decide(WORSE, BETTER, chains=(WORSE, WORSE), panels={"trees": (shares, shares)})
    told = json.loads(json.dumps(asdict(decision), allow_nan=False))
    assert [check["verdict"] for check in told["checks"]] == ["passed"] * 4 + ["too few"]
    assert told["checks"][0] | {"difference": 0} == {
        "of": "held-out templates",
        "count": 100,
        "measure": "recall@10",
        "before": 0.0,
        "after": 0.3,
        "difference": 0,
        "verdict": "passed",
    }


LENGTH = 100
Gate = Callable[[PairSource, Sequences, Sequences], Decision]


@pytest.fixture(scope="module")
def genomes() -> list[Genome]:
    return random_genomes(4, 20_000, seed=2)


def reads_of(genome: Genome, count: int, *, seed: int) -> Sequences:
    (reads,) = simulate([genome], Library(templates=count, read_length=LENGTH, seed=seed))
    return Sequences(reads.sequences.ravel(), LENGTH * np.arange(count + 1))


def halves(reads: Sequences) -> tuple[Sequences, Sequences]:
    rows, half = np.arange(len(reads)), np.full(len(reads), LENGTH // 2)
    forward = np.zeros(len(reads), dtype=bool)
    return reads.windows(rows, 0 * half, half, forward), reads.windows(rows, half, half, forward)


@pytest.fixture(scope="module")
def parent(genomes: list[Genome]) -> KmerMlp:
    """An encoder that has learnt a little of all four genomes."""
    reads = Sequences.concatenate([reads_of(genome, 200, seed=1) for genome in genomes])
    model = KmerMlp.untrained(reads, seed=1)
    plan = TrainingPlan(steps=4, pairs_per_step=128, learning_rate=1e-3, temperature=0.1, seed=1)
    train(model, ReadWindows(reads), plan, report=lambda line: None)
    return model


@pytest.fixture
def gate(genomes: list[Genome], parent: KmerMlp) -> Gate:
    """Train a copy of the parent on pairs, and decide on held-out pairs and a panel of all four genomes."""
    panel = Panel(
        "zoo",
        Sequences.concatenate([reads_of(genome, 150, seed=2) for genome in genomes]),
        np.repeat([genome.name for genome in genomes], 150),
    )

    def decided(pairs: PairSource, left: Sequences, right: Sequences) -> Decision:
        candidate = copy.deepcopy(parent)
        plan = TrainingPlan(steps=40, pairs_per_step=128, learning_rate=1e-3, temperature=0.1, seed=2)
        train(candidate, pairs, plan, report=lambda line: None)
        before, after = (
            (retrieval(m, left, right), species_precision(m, panel)) for m in (parent, candidate)
        )
        return decide(before[0], after[0], panels={"zoo": (before[1], after[1])})

    return decided


def test_a_good_batch_is_promoted(genomes: list[Genome], gate: Gate) -> None:
    reads = Sequences.concatenate([reads_of(genome, 300, seed=3) for genome in genomes])
    decision = gate(ReadWindows(reads), *halves(reads))
    assert decision.better, decision.reason
    assert "not worse in 5 other comparison(s)" in decision.reason


def test_shuffled_pairs_are_refused(genomes: list[Genome], gate: Gate) -> None:
    reads = Sequences.concatenate([reads_of(genome, 300, seed=3) for genome in genomes])
    shuffled = np.random.default_rng(0).permutation(len(reads))
    decision = gate(ReadPairs(reads, np.arange(len(reads)), shuffled, names=("shuffled",)), *halves(reads))
    assert not decision.better
    assert decision.reason.startswith("the candidate is not measurably better: recall@10 of 1200 held-out")


def test_a_batch_that_mixes_two_species_is_refused_by_the_panel(genomes: list[Genome], gate: Gate) -> None:
    """Its held-out pairs are mixed as its training pairs are, so without labels the candidate looks better."""
    first, second, *_ = genomes
    training, held_out = (
        Sequences.concatenate([reads_of(first, 300, seed=seed), reads_of(second, 300, seed=seed)])
        for seed in (3, 4)
    )
    left, right = np.arange(300), np.arange(300, 600)
    mixed = ReadPairs(training, left, right, names=("mates of two species",))
    decision = gate(mixed, held_out.take(left), held_out.take(right))
    assert decision.checks[0].verdict == "passed"
    assert not decision.better
    assert "in panel zoo" in decision.reason or "of panel zoo" in decision.reason
    refused = {check.of for check in decision.checks if check.verdict == "refused"}
    assert {f"reads of {genome.name} in panel zoo" for genome in (first, second)} <= refused
