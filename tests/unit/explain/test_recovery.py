"""Recovery: which of the known motifs heads show, and what counts as a match."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from toy_heads import CONFIG, HNF1A, USF1, random_codes, reading_model, with_sites

from bioattn.config import ModelConfig, StemConfig
from bioattn.data.motif import Motif, best_correlation
from bioattn.errors import DataError
from bioattn.explain import head_motifs
from bioattn.explain.recovery import FOUND_CORRELATION, motif_recovery
from bioattn.models import build_model

FAST = CONFIG.model_copy(update={"seqlets_per_head": 100})


# ------------------------------------------------------------------ what a match is


def test_a_matrix_is_found_in_part_shifted_and_turned():
    """A matrix correlates fully with itself, its other strand and an excerpt of it; a flat one with nothing."""
    ppm = HNF1A.ppm
    for other in (ppm, ppm[::-1, ::-1], ppm[:, 3:11], np.concatenate([np.full((4, 5), 0.25), ppm], axis=1)):
        assert best_correlation(other, ppm) == pytest.approx(1)
        assert best_correlation(ppm, other) == pytest.approx(1)
    assert best_correlation(np.full((4, 8), 0.25), ppm) == -1
    assert best_correlation(USF1.ppm, ppm) < 0.8


def test_a_narrow_overlap_does_not_count():
    """Two matrices that share their ends only are no match, though these columns are equal."""
    draw = np.random.default_rng(0)
    first, second = (np.eye(4)[draw.integers(0, 4, 12)].T * 0.9 + 0.025 for _ in range(2))
    second[:, :4] = first[:, -4:]
    assert best_correlation(first, second) < 0.8


# ------------------------------------------------------------------------ recovery


def test_share_of_the_known_motifs_that_a_head_reads():
    """A head made to read one of two motifs shows half of them, on sequences that hold both."""
    given = [
        np.concatenate([with_sites(USF1, n, 40, seed), with_sites(HNF1A, n, 40, seed + 7)], axis=1)
        for n, seed in ((150, 0), (100, 1))
    ]
    model = reading_model(USF1)
    assert motif_recovery(model, *given, [USF1, HNF1A], FAST) == 0.5
    assert motif_recovery(model, *given, [HNF1A], FAST) == 0.0


class FakeSearch:
    """Search whose head 0.0 has the motifs `ppms` with their p-values; the other heads have none."""

    found: list[tuple[np.ndarray, float]] = []

    def __init__(self, model, *given, **settings) -> None:
        self.model = model

    def head(self, layer: int, head: int) -> SimpleNamespace:
        found = self.found if (layer, head) == (0, 0) else []
        motifs = [SimpleNamespace(ppm=ppm, p_value=p, consensus="A", name=f"m{i}") for i, (ppm, p) in enumerate(found)]
        return SimpleNamespace(motifs=motifs, tested=[p for _, p in found])


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch):
    """Function from matrices and p-values to the share of given known motifs that is recovered."""
    model, codes = reading_model(USF1), random_codes(2, 40, 0)
    monkeypatch.setattr(head_motifs, "Search", FakeSearch)

    def share(found: list[tuple[np.ndarray, float]], known: list[Motif]) -> float:
        monkeypatch.setattr(FakeSearch, "found", found)
        return motif_recovery(model, codes, codes, known, CONFIG)

    return share


@pytest.mark.parametrize("p_value, share", [(0.01, 1.0), (0.3, 0.0), (1.0, 0.0)])
def test_only_enriched_motifs_count(made_up, p_value: float, share: float):
    """The very matrix that is known counts if it is enriched in held-out sequences, and not if it may be chance."""
    assert made_up([(USF1.ppm, p_value)], [USF1]) == share


def test_motifs_that_were_tested_in_vain_count_in_the_rate(made_up):
    """A motif of p = 0.04 alone is enriched, and beside two that are none it is not."""
    assert made_up([(USF1.ppm, 0.04)], [USF1]) == 1.0
    assert made_up([(USF1.ppm, 0.04), (HNF1A.ppm, 0.7), (HNF1A.ppm, 0.9)], [USF1]) == 0.0


def test_a_match_is_a_correlation_of_at_least_a_bound(made_up):
    """What is left of a matrix among chance, on its other strand, is the motif as long as it correlates enough."""
    noise = np.random.default_rng(1).dirichlet(np.ones(4), USF1.width).T
    for weight in np.linspace(0, 1, 11):
        ppm = (1 - weight) * USF1.ppm[::-1, ::-1] + weight * noise
        assert made_up([(ppm, 1e-9)], [USF1]) == (best_correlation(ppm, USF1.ppm) >= FOUND_CORRELATION), weight


def test_each_known_motif_counts_once(made_up):
    """The share is of known motifs, however many motifs of heads match one, and one motif may match several."""
    several = [(USF1.ppm, 1e-9), (USF1.ppm[::-1, ::-1], 1e-9), (USF1.ppm[:, 1:], 1e-9)]
    assert made_up(several, [USF1, HNF1A, HNF1A]) == pytest.approx(1 / 3)
    assert made_up(several[:1], [USF1, replace(USF1, name="copy")]) == 1.0
    assert made_up([], [USF1, HNF1A]) == 0.0


def test_where_there_is_nothing_to_recover():
    """Random sequences show no motif; a model without attention has no answer; without known motifs it is refused."""
    model = reading_model(USF1)
    none = [random_codes(n, 60, seed) for n, seed in ((100, 0), (60, 1))]
    assert motif_recovery(model, *none, [HNF1A, USF1], FAST) == 0.0
    config = ModelConfig(encoder="gru", stem=StemConfig(pool=5), d_model=8, n_layers=1)
    assert np.isnan(motif_recovery(build_model(config, n_readouts=1), *none, [HNF1A], FAST))
    with pytest.raises(DataError, match="no motif is known"):
        motif_recovery(model, *none, [], FAST)
