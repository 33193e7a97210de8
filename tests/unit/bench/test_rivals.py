"""Rivals: what each says about models and data whose answer is built in."""

import numpy as np
import pytest
from toy_heads import random_codes

from bioattn.bench import rivals
from bioattn.bench.rivals import Looked, all_pairs
from bioattn.config import ModelConfig, StemConfig
from bioattn.data import alphabet
from bioattn.explain.hits import find_hits, pair_instances
from bioattn.explain.pairs import Geometry, PairData
from bioattn.explain.predict import predict
from bioattn.io.motifs import jaspar_motif
from bioattn.models import SequenceModel, build_model

MOTIFS = [jaspar_motif("MA0060.4"), jaspar_motif("MA0090.4"), jaspar_motif("MA0093.4")]


def model_of(*, attention: bool) -> SequenceModel:
    config = ModelConfig(
        stem=StemConfig(kind="pwm", n_filters=3, width=5, pool=7), d_model=12, n_layers=1, n_heads=3,
        d_feedforward=16, dropout=0.0, pooling="sum",
    )  # fmt: skip
    model = build_model(config, n_readouts=1, motifs=MOTIFS, seed=5).eval()
    if not attention:
        for parameter in model.encoder.layer[0].attn.project_out.parameters():
            parameter.data.zero_()
    return model


def looked(model: SequenceModel, n: int = 200) -> Looked:
    """Sequences that hold motifs 0 and 1 together more often than apart; the target has 2 more for both."""
    draw = np.random.default_rng(0)
    codes, presence = random_codes(n, 130, 1), np.zeros((n, 3), dtype=bool)
    common = draw.random(n) < 0.5
    for m, slot in ((0, 4), (1, 50), (2, 95)):
        presence[:, m] = draw.random(n) < (np.where(common, 0.9, 0.1) if m < 2 else 0.5)
        site = alphabet.encode(MOTIFS[m].consensus)
        codes[presence[:, m], slot : slot + len(site)] = site
    hits = find_hits(codes, MOTIFS, p_value=1e-4)
    margin = 2 + model.receptive_field_bp // 2
    instances = pair_instances(hits, margin_bp=margin, token_bp=model.token_bp)
    members = [(motif.name,) for motif in MOTIFS]
    nowhere = np.zeros_like(presence)
    data = PairData(
        codes, np.arange(n), MOTIFS, members, hits, instances, hits, [False] * 3, presence, nowhere, 2,
        Geometry.of(model), [],
    )  # fmt: skip
    target = predict(model, codes)[:, 0].astype(float)
    target = target / target.std() + 2.0 * (presence[:, 0] & presence[:, 1]) + draw.normal(0, 0.1, n)
    return Looked(model, data, target, codes, target, 1e-4, 0)


@pytest.fixture(scope="module")
def plain() -> Looked:
    return looked(model_of(attention=True))


@pytest.mark.parametrize("name", [*rivals.WITH_MODEL, *rivals.WITHOUT_MODEL])
def test_every_way_rates_every_pair(name: str, plain: Looked):
    """A finite score for each pair that occurs; calls are 0 or 1, or nothing at all."""
    rated = {**rivals.WITH_MODEL, **rivals.WITHOUT_MODEL}[name](plain)
    assert rated.score.shape == rated.called.shape == (3,) and np.isfinite(rated.score).all()
    assert np.isnan(rated.called).all() or set(rated.called) <= {0.0, 1.0}


def test_interventions_of_rivals_are_zero_without_attention():
    """Tokens that never meet: no double difference; the attribution of one site does not know the other."""
    it = looked(model_of(attention=False), n=60)
    for way in (rivals.pairwise_ablation, rivals.mutagenesis, rivals.dfim):
        assert np.abs(way(it).score).max() < 1e-4
    assert rivals.pairwise_ablation(looked(model_of(attention=True), n=60)).score.max() > 1e-3


def test_ways_without_a_model_find_what_the_data_hold(plain: Looked):
    """Motifs 0 and 1 co-occur and act together: both tests call that pair, and regression no other."""
    odds, product = rivals.cooccurrence_odds(plain), rivals.regression(plain)
    assert all_pairs(3)[0] == (0, 1)
    assert odds.called[0] == 1 and odds.score.argmax() == 0
    assert product.called[0] == 1 and product.score.argmax() == 0
    assert product.score[0] == pytest.approx(2.0, abs=0.4)


def test_satori_gives_zeros_to_pairs_that_the_background_lacks(plain: Looked):
    """A pair that only high sequences hold is compared with zeros, and called if its attention is high enough."""
    high = plain.target > np.median(plain.target)
    instances = plain.data.instances
    only = instances[high[instances["sequence"]] | ((instances["motif_a"] > 0) | (instances["motif_b"] > 1))]
    it = plain._replace(data=PairData(**{**vars(plain.data), "instances": only.reset_index(drop=True)}))
    rated = rivals.satori(it, background="low")
    assert rated.score[0] > 5


def test_satori_leaves_out_pairs_of_low_attention(plain: Looked, monkeypatch: pytest.MonkeyPatch):
    """Below 0.12 no pair is called, however sure the test is."""
    monkeypatch.setattr(rivals, "_largest", lambda model, codes, hits, instances: np.full(len(instances), 0.1))
    assert (rivals.satori(plain, background="low").called == 0).all()


def test_substitutions_change_one_letter(plain: Looked):
    """Each site loses its most informative letter, on the strand on which it lies."""
    seen: list[np.ndarray] = []
    keep = rivals.predict

    def record(model, codes):
        seen.append(codes)
        return keep(model, codes)

    rivals.predict, before = record, keep
    try:
        rivals.mutagenesis(plain)
    finally:
        rivals.predict = before
    for both, no_b, no_a, neither in zip(*(seen[i::4] for i in range(4)), strict=True):
        assert ((both != no_a).sum(1) == 1).all() and ((both != no_b).sum(1) == 1).all()
        assert ((both != neither).sum(1) == 2).all()


def test_instances_of_a_pair_are_found_in_any_row(plain: Looked):
    """Rows of each pair, in the order of all pairs."""
    rows = dict(rivals._by_pair(plain, plain.data.instances))
    table = plain.data.instances
    for i, (a, b) in enumerate(all_pairs(3)):
        expected = np.flatnonzero((table["motif_a"] == a) & (table["motif_b"] == b))
        assert rows[i].tolist() == expected.tolist()
