"""The simulator: its truth follows from its structural equation, and what it cannot simulate is refused."""

import hashlib

import numpy as np
import pytest

from bioattn.config import MotifsConfig, SimulateConfig, load_config, parse_run
from bioattn.data import alphabet
from bioattn.data.motif import Motif, log_odds, scan_both_strands
from bioattn.data.simulate import GRAMMARS, simulate
from bioattn.data.simulate.causes import crowding
from bioattn.data.simulate.check import similarity
from bioattn.data.simulate.classes import make_pairs
from bioattn.errors import ConfigError
from bioattn.io.motifs import load_motifs

IDS = load_config("config/config.yaml").runs["planted"].motifs.jaspar_ids
MOTIFS = load_motifs(MotifsConfig(jaspar_ids=IDS))
DEFAULT = SimulateConfig().pairs
N = 6000


@pytest.fixture(scope="module", params=["observational", "randomised"])
def simulation(request):
    return request.param, simulate(SimulateConfig(n_sequences=N, regime=request.param), MOTIFS, seed=3)


def pair_index(result, name: str) -> list[int]:
    return result.motifs.index[result.motifs["class"] == name].tolist()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("seed", "regime", "sequences", "readout"),
    [
        (1, "observational", "25977a3d44c7d35d", "916420f004668045"),
        (1, "randomised", "dd9806bc442f6fef", "a87764a5cf32c05b"),
        (2, "observational", "09edf528cf3e1181", "0b9cd472098196e6"),
        (2, "randomised", "e5d13f4671ec77ae", "83781273dcb933bb"),
    ],
)
def test_the_default_never_changes(seed: int, regime: str, sequences: str, readout: str):
    """Default settings give the sequences and readouts that they gave before there were further classes and regimes."""
    result = simulate(SimulateConfig(n_sequences=500, regime=regime), MOTIFS, seed=seed)
    assert digest("\n".join(result.sequences)) == sequences
    assert digest(" ".join(f"{y:.6f}" for y in result.table["y"])) == readout


def test_each_class_has_one_pair(simulation):
    """Two motifs and one pair of every class; no class is tied to a motif."""
    _, result = simulation
    assert sorted(result.motifs["class"]) == sorted([*DEFAULT] * 2)
    named = result.pairs[result.pairs["class"] != "NULL"]["class"]
    assert sorted(named) == sorted(DEFAULT) and len(result.pairs) == 66
    other = simulate(SimulateConfig(n_sequences=50), MOTIFS, seed=4)
    assert other.motifs["class"].tolist() != result.motifs["class"].tolist()


def test_co_occurrence_exists_in_observational_data_only(simulation):
    """Pairs with a common cause co-occur when observed and not when randomised; the AND pair never does."""
    regime, result = simulation
    table = result.pairs.set_index("class")["cooccurrence_logodds"]
    error = 4 * np.sqrt(4 * 9 / N)  # four standard errors of a log odds ratio at rates of a third
    assert abs(table["AND"]) < error and abs(table["DECOY"]) < error
    for name in ("INERT", "ADDITIVE", "HIDDEN"):
        assert table[name] > 0.5 if regime == "observational" else abs(table[name]) < error


def test_readout_is_the_structural_equation(simulation):
    """Regression of y on presence recovers the coefficients, and nothing for inert motifs and decoys."""
    regime, result = simulation
    z = result.presence.astype(float)
    a, b = pair_index(result, "AND")
    features = np.column_stack([z, z[:, a] * z[:, b], result.table["gc"], result.table["hidden_cause"], np.ones(N)])
    coefficient = np.linalg.lstsq(features, result.table["y"], rcond=None)[0]
    expected = np.zeros(features.shape[1])
    expected[pair_index(result, "ADDITIVE")] = 0.7
    expected[[12, 13, 14, 15]] = [2.0, 1.0, 2.4, -0.5]
    np.testing.assert_allclose(coefficient, expected, atol=0.08)


def test_ceiling_is_that_of_the_best_reader_of_the_sequence(simulation):
    """The stated expectation is calibrated: residuals are uncorrelated with every motif and with the AND term."""
    regime, result = simulation
    residual = (result.table["y"] - result.table["expected"]).to_numpy()
    a, b = pair_index(result, "HIDDEN")
    z = result.presence.astype(float)
    for column in (*z.T, z[:, a] * z[:, b]):
        assert abs(np.corrcoef(residual, column)[0, 1]) < 4 / np.sqrt(N)
    assert result.ceiling < result.ceiling_given_hidden < 1


def test_placed_motifs_can_be_found(simulation):
    """A placed motif scores higher than the best window of sequences without it, most of the time."""
    _, result = simulation
    codes = alphabet.encode_batch(result.sequences)
    for m, motif in enumerate(MOTIFS):
        score = scan_both_strands(codes, log_odds(motif.ppm)).max(1)
        with_motif, without = score[result.presence[:, m]], score[~result.presence[:, m]]
        assert np.median(with_motif) > np.quantile(without, 0.97)


@pytest.mark.parametrize("regime", ["observational", "twins"])
def test_sites_are_what_the_sequences_hold(regime: str):
    """Sharpened motifs have one spelling: it stands at every listed site, on the listed strand, and sites are apart."""
    config = SimulateConfig(n_sequences=300, regime=regime, motif_sharpening=400.0)
    result = simulate(config, MOTIFS, seed=5)
    assert len(result.sites) == result.presence.sum()
    found = np.zeros_like(result.presence)
    row_of = {name: i for i, name in enumerate(result.table["name"])}
    number = {motif.motif_id: m for m, motif in enumerate(MOTIFS)}
    previous, end = None, 0
    for site in result.sites.itertuples():
        motif = MOTIFS[number[site.motif_id]]
        letters = result.sequences[row_of[site.sequence]][site.start : site.end]
        if site.strand == "-":
            letters = alphabet.reverse_complement(letters)
        assert letters == motif.consensus and site.motif == motif.name
        assert site.start // config.slot_bp == (site.end - 1) // config.slot_bp
        assert site.sequence != previous or site.start >= end
        previous, end = site.sequence, site.end
        found[row_of[site.sequence], number[site.motif_id]] = True
    assert (found == result.presence).all()
    assert set(result.sites["strand"]) == {"+", "-"}


def test_twins_differ_in_the_two_sites_only():
    """The four cells of a unit share hidden cause, noise, background and all other sites; one of them was observed."""
    config = SimulateConfig(n_sequences=200, regime="twins")
    result = simulate(config, MOTIFS, seed=6)
    plain = simulate(config.model_copy(update={"regime": "observational"}), MOTIFS, seed=6)
    assert result.sequences[:200] == plain.sequences
    assert (result.table["y"][:200] == plain.table["y"]).all() and result.table["cell"][:200].isna().all()

    sites = {name: part for name, part in result.sites.groupby("sequence")}
    sequence = dict(zip(result.table["name"], result.sequences, strict=True))
    readout = result.table.set_index("name")
    assert result.twins is not None and len(result.sequences) == 200 + 4 * len(result.twins) > 900
    for twin in result.twins.itertuples():
        names = {cell: f"{twin.unit}_{cell}" for cell in ("x00", "x01", "x10", "x11")}
        own = {cell: set(sites.get(name, result.sites[:0])["motif"]) for cell, name in names.items()}
        others = own["x00"]
        assert not others & {twin.motif_a, twin.motif_b}
        assert own["x10"] == others | {twin.motif_a} and own["x01"] == others | {twin.motif_b}
        assert own["x11"] == others | {twin.motif_a, twin.motif_b}
        both = sites[names["x11"]].set_index("motif")
        changed = np.zeros(160, dtype=bool)
        for motif in (twin.motif_a, twin.motif_b):
            changed[both.loc[motif, "start"] : both.loc[motif, "end"]] = True
        letters = {cell: np.array(list(sequence[name])) for cell, name in names.items()}
        assert all((letters[cell][~changed] == letters["x00"][~changed]).all() for cell in letters)
        site_of_a = slice(both.loc[twin.motif_a, "start"], both.loc[twin.motif_a, "end"])
        assert (letters["x10"][site_of_a] == letters["x11"][site_of_a]).all()
        assert (letters["x01"][site_of_a] == letters["x00"][site_of_a]).all()
        assert sequence[twin.unit] == sequence[names[twin.observed_cell]]
        assert readout.loc[twin.unit, "y"] == readout.loc[names[twin.observed_cell], "y"]
        for column in ("gc", "hidden_cause"):
            assert (readout.loc[list(names.values()), column] == readout.loc[twin.unit, column]).all()
        assert [getattr(twin, cell) for cell in names] == readout.loc[list(names.values()), "y"].tolist()


def test_twins_are_made_of_designed_and_null_pairs_as_asked():
    """The null fraction holds, every pair has its turn, and a motif that is never placed has no twins."""
    base = SimulateConfig(n_sequences=4000, regime="twins", length=200, pairs=["PARALOG", "AND", "OR"])
    motifs = [jaspar("MA0028.3"), jaspar("MA0098.4"), *MOTIFS[1:5]]
    for fraction in (0.0, 0.25, 1.0):
        twins = simulate(base.model_copy(update={"twin_null_fraction": fraction}), motifs, seed=1).twins
        assert twins is not None and "ETS1" not in {*twins["motif_a"], *twins["motif_b"]}
        share = (twins["class"] == "NULL").mean()
        assert abs(share - fraction) <= 4 * np.sqrt(fraction * (1 - fraction) / 4000)
        assert set(twins["class"]) - {"NULL"} == ({"AND", "OR"} if fraction < 1 else set())


def jaspar(motif_id: str) -> Motif:
    return load_motifs(MotifsConfig(jaspar_ids=[motif_id]))[0]


def test_a_look_alike_is_never_placed():
    """PARALOG keeps its listed motifs whatever the seed; the second has no site, no effect and no co-occurrence."""
    motifs = [*MOTIFS[1:5], jaspar("MA0028.3"), jaspar("MA0098.4")]
    config = SimulateConfig(n_sequences=400, pairs=["AND", "INERT", "PARALOG"])
    for seed in range(4):
        result = simulate(config, motifs, seed=seed)
        table = result.motifs.set_index("motif")
        assert table.loc["ELK1", "class"] == table.loc["ETS1", "class"] == "PARALOG"
        assert table.loc["ETS1", ["rate", "total_effect", "rate_expected"]].tolist() == [0, 0, 0]
        assert table.loc["ELK1", "total_effect"] == config.paralog_effect
        assert "ETS1" not in set(result.sites["motif"])
        with_ets = result.pairs[(result.pairs["motif_a"] == "ETS1") | (result.pairs["motif_b"] == "ETS1")]
        assert with_ets["cooccurrence_logodds"].isna().all() and (with_ets["interaction"] == 0).all()


def test_similarity_knows_strands_and_shifts():
    """A motif is like itself, its reverse complement and itself with a flank, and unlike another."""
    elk = jaspar("MA0028.3")
    even = np.full((4, 3), 0.25)
    assert similarity(elk.ppm, elk.ppm) == pytest.approx(1)
    assert similarity(elk.ppm, elk.reverse_complement().ppm) == pytest.approx(1)
    assert similarity(np.hstack([even, elk.ppm]), elk.ppm) == pytest.approx(1)
    assert similarity(elk.ppm, jaspar("MA0060.4").ppm) < 0.6


def test_listed_assignment_and_own_effects():
    """The run's motifs two by two, in their order and with the effects that the entries name."""
    config = SimulateConfig(
        n_sequences=100, pairs=["AND", "OR", "AND"], pair_effects=[1.0, None, 0.5], assignment="listed"
    )
    result = simulate(config, MOTIFS[:6], seed=9)
    assert result.motifs["class"].tolist() == ["AND", "AND", "OR", "OR", "AND", "AND"]
    designed = result.pairs[result.pairs["class"] != "NULL"]
    assert designed["interaction"].tolist() == [1.0, -config.or_effect, 0.5]
    assert designed["motif_first"].tolist() == [MOTIFS[i].name for i in (0, 2, 4)]


def test_same_seed_same_promoters_and_wrong_input_is_refused():
    """Reproducible; the number of motifs and the slot width are checked."""
    first, again = (simulate(SimulateConfig(n_sequences=40), MOTIFS, seed=1) for _ in range(2))
    assert first.sequences == again.sequences and (first.table["y"] == again.table["y"]).all()
    with pytest.raises(ConfigError, match="needs 12 motifs .* got 5"):
        simulate(SimulateConfig(), MOTIFS[:5], seed=1)
    with pytest.raises(ConfigError, match=r"slot_bp must be at least the widest motif \(SRF, 16 bp\), got 12"):
        simulate(SimulateConfig(slot_bp=12), MOTIFS, seed=1)


@pytest.mark.parametrize("regime", ["mixed", "twins"])
def test_every_regime_is_reproducible(regime: str):
    """One seed gives the same records and truth again, another seed others."""
    config = SimulateConfig(n_sequences=60, regime=regime)
    first, again, other = (simulate(config, MOTIFS, seed=seed) for seed in (1, 1, 2))
    assert first.sequences == again.sequences != other.sequences
    for name in ("table", "motifs", "pairs", "sites"):
        assert getattr(first, name).equals(getattr(again, name))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 100}, r"\d+ % of sequences would have more motifs than the 5 slots of 20 bp, allowed are 5 %"),
        ({"length": 40, "slot_bp": 25}, "length must be at least two slots .50 bp., got 40"),
        (
            {"pairs": ["PARALOG"] + ["AND"] * 5},
            "PARALOG, but its motifs ELK1 and NFYA do not look alike .*, needed 0.8",
        ),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict, message: str):
    """Too many motifs for the slots, too short a sequence, and unlike paralogs name what is allowed."""
    with pytest.raises(ConfigError, match=message):
        simulate(SimulateConfig(n_sequences=20, **settings), MOTIFS, seed=1)


@pytest.mark.parametrize("regime", ["observational", "randomised", "mixed"])
@pytest.mark.parametrize("pairs", [None, ["GC", "GC", "CHAIN", "HIDDEN", "INERT", "SPC"]])
def test_crowding_is_foreseen(regime: str, pairs: list[str] | None):
    """The share of sequences with more motifs than slots, computed beforehand, is that of the sequences drawn."""
    changes = {} if pairs is None else {"pairs": pairs}
    config = SimulateConfig(n_sequences=10_000, regime=regime, length=180 if pairs else 160, **changes)
    foreseen = crowding(config, make_pairs(config, 1))
    assert foreseen > 0.001
    drawn = simulate(config, MOTIFS, seed=1).crowded
    assert abs(drawn - foreseen) < 4.5 * np.sqrt(foreseen / 10_000)


def test_too_many_hidden_causes_are_refused():
    """The best reader weighs all combinations of hidden causes, so their number has a bound."""
    motifs = [Motif(f"M{i}", f"M{i}", MOTIFS[i % 12].ppm) for i in range(18)]
    with pytest.raises(ConfigError, match="at most 8 HIDDEN pairs, got 9"):
        simulate(SimulateConfig(n_sequences=20, length=400, pairs=["HIDDEN"] * 9), motifs, seed=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairs": ["AND", "NAND"]}, "'data.simulate.pairs.1': input should be 'AND', .* found 'NAND'"),
        ({"pairs": []}, "'data.simulate.pairs': list should have at least 1 item"),
        ({"pair_effects": [1.0]}, "pair_effects needs an entry for each of the 6 pairs, got 1"),
        ({"pair_effects": [1.0, 2.0, None, None, None, None]}, "class INERT has no effect, got 2.0: use null"),
        ({"pairs": ["SPC"], "spacing": {"max_bp": 15.0}}, r"spacing.max_bp must be at least slot_bp \(20\).* got 15"),
        (
            {"pairs": ["SPC"], "spacing": {"kind": "preferred", "preferred_bp": 150.0}},
            "spacing.preferred_bp must be at most 140 bp .length - slot_bp., got 150",
        ),
        ({"common_presence": [1.2, 0.1]}, r"common_presence must hold two probabilities, got \[1.2, 0.1\]"),
        ({"regime": "interventional"}, "'data.simulate.regime': input should be 'observational'"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str):
    """A setting that means nothing is a configuration error that names it and what is allowed."""
    with pytest.raises(ConfigError, match=message):
        parse_run({"data": {"simulate": settings}})


def test_every_class_says_what_verdict_is_right():
    """All classes have verdicts for both regimes, and an interaction exactly if one is right to be found."""
    for name, grammar in GRAMMARS.items():
        assert (grammar.both != 0) == ("causal in model" in grammar.randomised), name
        assert not grammar.both or "not supported" not in grammar.observational, name
