"""The simulator against its structural causal model, written down a second time, slowly and class by class."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from bioattn.config import MotifsConfig, SaturationConfig, SimulateConfig, SpacingConfig
from bioattn.data.simulate import simulate
from bioattn.data.simulate.classes import make_pairs
from bioattn.data.simulate.readout import hidden_posterior
from bioattn.data.simulate.twins import twinned_shares
from bioattn.io.motifs import load_motifs

IDS = [
    "MA0028.3", "MA0060.4", "MA0148.5", "MA0046.3", "MA0102.5", "MA0090.4", "MA0093.4", "MA0592.4", "MA0083.3",
    "MA0785.2", "MA0091.2", "MA0496.4", "MA0052.5", "MA0101.1", "MA0509.3", "MA0833.3", "MA0143.5", "MA0069.1",
    "MA0079.5", "MA0162.5",
]  # fmt: skip
MOTIFS = load_motifs(MotifsConfig(jaspar_ids=IDS))
MODIFIED = load_motifs(MotifsConfig(jaspar_ids=["MA0028.3", "MA0098.4", *IDS[1:19]]))
TEN = ["AND", "AND_COOC", "OR", "REP", "XOR", "SPC", "ORI", "INERT", "CHAIN", "HIDDEN"]
OTHERS = ["PARALOG", "ORD", "ADDITIVE", "GC", "DECOY", "HIDDEN", "AND", "SPC", "ORI", "OR"]


def effect_of(kind: str, e: float, a, b, spacing: SpacingConfig) -> float:  # type: ignore[no-untyped-def]
    """Readout of one pair, from its two sites (or None), as the classes are defined."""
    d = abs((a.start + a.end) - (b.start + b.end)) / 2 if a and b else math.nan
    if kind in ("AND", "AND_COOC"):
        return e if a and b else 0.0
    if kind == "OR":
        return e * max(bool(a), bool(b))
    if kind == "REP":
        return e if a and not b else 0.0
    if kind == "XOR":
        return e * abs(bool(a) - bool(b))
    if kind == "ADDITIVE":
        return e * bool(a) + e * bool(b)
    if kind in ("CHAIN", "PARALOG"):
        return e * bool(a)
    if not (a and b) or kind in ("INERT", "HIDDEN", "GC", "DECOY"):
        return 0.0
    if kind == "ORI":
        return e if a.strand == b.strand else 0.0
    if kind == "ORD":
        return e if a.end <= b.start else 0.0
    assert kind == "SPC"
    if spacing.kind == "within":
        return e if d <= spacing.max_bp else 0.0
    if spacing.kind == "preferred":
        return e * math.exp(-0.5 * ((d - spacing.preferred_bp) / spacing.width_bp) ** 2)
    phase = math.cos(math.pi * d / spacing.period_bp) ** 2
    return e * phase if d <= spacing.max_bp else 0.0


def designed_pairs(result) -> list[tuple[str, float, str, str]]:  # type: ignore[no-untyped-def]
    """Class, effect, first and second motif of each designed pair."""
    found = []
    for row in result.pairs[result.pairs["class"] != "NULL"].itertuples():
        second = row.motif_b if row.motif_first == row.motif_a else row.motif_a
        found.append((row[result.pairs.columns.get_loc("class") + 1], row.effect, row.motif_first, second))
    return found


def sites_of(result, *, ending: str = "") -> dict[str, dict]:  # type: ignore[no-untyped-def, type-arg]
    """Sites by sequence and motif, of the sequences whose name has the given end."""
    found: dict[str, dict] = {name: {} for name in result.table["name"] if name.endswith(ending)}  # type: ignore[type-arg]
    for site in result.sites[result.sites["sequence"].str.endswith(ending)].itertuples():
        found[site.sequence][site.motif] = site
    return found


def slow_readout(result, config: SimulateConfig) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Latent readout of every record from the tables of truth, one pair at a time."""
    sites = sites_of(result)
    pairs = designed_pairs(result)
    causes = [name for name in result.table if name.startswith("hidden_cause")]
    # Hidden causes are numbered in the order of the run's pairs.
    weights = own_effects(config, "HIDDEN", config.hidden_effect)
    values = []
    for record in result.table.to_dict("records"):
        here = sites[record["name"]]
        total = config.gc_effect * (record["gc"] - 0.5)
        total += sum(effect_of(kind, e, here.get(a), here.get(b), config.spacing) for kind, e, a, b in pairs)
        total += sum(w * record[cause] for w, cause in zip(weights, causes, strict=False))
        values.append(total)
    return np.array(values)


def own_effects(config: SimulateConfig, kind: str, default: float) -> list[float]:
    listed = config.pair_effects or [None] * len(config.pairs)
    return [default if e is None else e for name, e in zip(config.pairs, listed, strict=True) if name == kind]


# ----------------------------------------------------------- one structural equation


@settings(max_examples=25, deadline=None)
@given(
    pairs=st.lists(st.sampled_from([*TEN, *OTHERS[1:]]), min_size=1, max_size=8),
    regime=st.sampled_from(["observational", "randomised", "mixed", "twins"]),
    spacing=st.sampled_from(["within", "preferred", "helical"]),
    seed=st.integers(0, 1000),
)
def test_readout_is_the_structural_equation_in_every_regime(pairs, regime, spacing, seed):
    """Whatever classes and regime: without noise y is the slow equation of the sites, GC and hidden causes."""
    config = SimulateConfig(
        n_sequences=30, length=320, pairs=pairs, regime=regime, noise_sd=0.0, gc_effect=0.8,
        spacing=SpacingConfig(kind=spacing, max_bp=120.0, preferred_bp=60.0, width_bp=40.0),
    )  # fmt: skip
    result = simulate(config, MOTIFS[: 2 * len(pairs)], seed=seed)
    np.testing.assert_allclose(result.table["y"], slow_readout(result, config), atol=1e-12)
    assert (result.presence.sum(1) <= 16).all() and all(len(s) == 320 for s in result.sequences)


def test_several_hidden_causes_and_effects_of_single_pairs():
    """Each hidden cause has its own weight, and so does each entry of the list."""
    config = SimulateConfig(
        n_sequences=200, length=320, noise_sd=0.0,
        pairs=["HIDDEN", "AND", "HIDDEN", "OR", "AND"], pair_effects=[2.5, 1.0, 0.7, None, 0.3],
    )  # fmt: skip
    result = simulate(config, MOTIFS[:10], seed=1)
    assert [c for c in result.table if c.startswith("hidden")] == ["hidden_cause", "hidden_cause_2"]
    np.testing.assert_allclose(result.table["y"], slow_readout(result, config), atol=1e-12)


def test_one_seed_has_the_same_causes_and_noise_in_every_regime():
    """Regimes differ in presence alone: GC, hidden cause and noise of a sequence are the same."""
    base = SimulateConfig(n_sequences=300, length=240, pairs=TEN)
    noises = []
    for regime in ("observational", "randomised", "mixed", "twins"):
        result = simulate(base.model_copy(update={"regime": regime}), MOTIFS, seed=2)
        table = result.table[:300]
        noises.append(
            np.column_stack([table["y"] - table["expected_given_hidden"], table["gc"], table["hidden_cause"]])
        )
    for other in noises[1:]:
        np.testing.assert_allclose(other, noises[0], atol=1e-12)


# --------------------------------------------------------------------- interactions


@pytest.fixture(scope="module")
def twins():
    """Both halves of the classes, with and without a rule, without noise."""
    config = SimulateConfig(
        n_sequences=2500, length=260, regime="twins", noise_sd=0.0, twin_null_fraction=0.3,
        saturation=SaturationConfig(middle=1.0),
    )  # fmt: skip
    made = []
    for pairs, motifs in ((TEN, MOTIFS), (OTHERS, MODIFIED)):
        chosen = config.model_copy(update={"pairs": pairs})
        made.append((chosen, simulate(chosen, motifs, seed=4)))
    return made


def test_double_difference_of_twins_is_the_stated_interaction(twins):
    """Unit by unit: exact for classes without a rule, 0 or the largest value by the rule, 0 for all null pairs."""
    seen = set()
    for config, result in twins:
        stated = result.pairs.set_index(["motif_a", "motif_b"]).to_dict("index")
        sites = sites_of(result, ending="_x11")
        for twin in result.twins.to_dict("records"):
            truth = stated[twin["motif_a"], twin["motif_b"]]
            difference = twin["x11"] - twin["x10"] - twin["x01"] + twin["x00"]
            seen.add(twin["class"])
            assert twin["double_difference"] == pytest.approx(difference, abs=1e-11)
            if truth["depends_on"] == "":
                expected = truth["interaction"]
                assert expected == truth["interaction_largest"]
            else:
                both = sites[f"{twin['unit']}_x11"]
                a, b = truth["motif_first"], {twin["motif_a"], twin["motif_b"]} - {truth["motif_first"]}
                expected = effect_of(twin["class"], truth["effect"], both[a], both[b.pop()], config.spacing)
            assert difference == pytest.approx(expected, abs=1e-9), twin["class"]
    assert seen == {*TEN, *OTHERS, "NULL"} - {"PARALOG"}


def test_stated_interactions_are_those_of_the_definitions(twins):
    """The double difference of each class, from its definition at both sites present or not."""

    class Site:
        start, end, strand = 10, 20, "+"

    class Near:
        start, end, strand = 50, 60, "+"

    for config, result in twins:
        for kind, effect, first, second in designed_pairs(result):
            cells = [effect_of(kind, effect, a, b, config.spacing) for a in (Site, None) for b in (Near, None)]
            row = result.pairs[
                result.pairs["motif_a"].isin([first, second]) & result.pairs["motif_b"].isin([first, second])
            ].iloc[0]
            assert row["interaction_largest"] == pytest.approx(cells[0] - cells[1] - cells[2] + cells[3]), kind
        assert (result.pairs.loc[result.pairs["class"] == "NULL", "interaction"] == 0).all()


def test_average_interaction_is_that_of_the_twins(twins):
    """Where it depends on place or strand, the mean over random sites is the stated one."""
    for _, result in twins:
        stated = result.pairs.groupby("class")["interaction"].first()
        for kind, part in result.twins.groupby("class"):
            error = part["double_difference"].std() / np.sqrt(len(part))
            assert abs(part["double_difference"].mean() - stated[kind]) <= 4.5 * error + 1e-9, kind


@pytest.mark.parametrize("kind", ["within", "preferred", "helical"])
def test_average_of_a_spacing_rule_is_exact(kind: str):
    """Four slots, all placements of two sites one by one: the stated interaction is their mean."""
    spacing = SpacingConfig(kind=kind, max_bp=30.0, preferred_bp=25.0, width_bp=8.0)
    config = SimulateConfig(n_sequences=20, length=80, slot_bp=16, pairs=["SPC"], assignment="listed", spacing=spacing)
    first, second = MOTIFS[3], MOTIFS[1]  # 13 and 8 bp

    class Placed:
        def __init__(self, start: int, width: int):
            self.start, self.end, self.strand = start, start + width, "+"

    values = [
        effect_of("SPC", 1.8, Placed(16 * i + s, first.width), Placed(16 * j + t, second.width), spacing)
        for i in range(5) for j in range(5) if i != j
        for s in range(17 - first.width) for t in range(17 - second.width)
    ]  # fmt: skip
    result = simulate(config, [first, second], seed=1)
    assert result.pairs["interaction"].item() == pytest.approx(np.mean(values), abs=1e-12)
    assert result.pairs["interaction_largest"].item() == pytest.approx(max(values), abs=1e-12)


def test_saturation_makes_additive_motifs_interact_on_its_scale_only(twins):
    """y_sat is the stated curve of the latent readout; additive pairs interact there and not on the latent scale."""
    config, result = twins[1]
    table = result.table
    np.testing.assert_allclose(table["y_sat"], 4 / (1 + np.exp(-1.5 * (table["y"] - 1))), atol=1e-12)
    for _, other in twins:
        pairs = other.pairs.groupby("class")[["interaction_sat", "interaction_sat_se"]].first()
        for kind, part in other.twins.groupby("class"):
            if kind == "NULL":
                continue
            # Units with twins are those with free slots, so their mean is off by a little more than chance.
            error = np.hypot(
                part["double_difference_sat"].std() / np.sqrt(len(part)), pairs.loc[kind, "interaction_sat_se"]
            )
            assert abs(part["double_difference_sat"].mean() - pairs.loc[kind, "interaction_sat"]) <= 5 * error + 0.01, (
                kind
            )
    additive = result.pairs[result.pairs["class"] == "ADDITIVE"].iloc[0]
    assert additive["interaction"] == 0 and abs(additive["interaction_sat"]) > 10 * additive["interaction_sat_se"] > 0


def test_total_effect_is_that_of_setting_one_motif(twins):
    """E[y | do(1)] - E[y | do(0)] of a motif is the mean difference over twins in which it was set."""
    for _, result in twins:
        stated = result.motifs.set_index("motif")
        for name, truth in stated.iterrows():
            if truth["rate_expected"] == 0:
                continue
            differences = []
            for a, b in (("motif_a", ("x10", "x00")), ("motif_b", ("x01", "x00"))):
                # The partner keeps its own presence only where another motif was set beside it.
                part = result.twins[(result.twins[a] == name) & (result.twins["class"] == "NULL")]
                differences.append(part[b[0]] - part[b[1]])
            effect = pd.concat(differences)
            error = np.hypot(effect.std() / np.sqrt(len(effect)), truth["total_effect_se"])
            assert len(effect) > 20 and abs(effect.mean() - truth["total_effect"]) <= 4.5 * error + 1e-9, name


# ------------------------------------------------------------------------- presence


def odds(p11: float, p10: float, p01: float, p00: float) -> float:
    return math.log(p11 * p00 / (p10 * p01))


def mixture(weight: float, with_cause: float, without: float) -> float:
    """Log odds ratio of two motifs with a common binary cause."""
    cells = [
        weight * (with_cause if x else 1 - with_cause) * (with_cause if y else 1 - with_cause)
        + (1 - weight) * (without if x else 1 - without) * (without if y else 1 - without)
        for x in (1, 0) for y in (1, 0)
    ]  # fmt: skip
    return odds(*cells)


N = 20_000


@pytest.fixture(scope="module")
def regimes():
    """The same model observed, randomised, and half of each."""
    pairs = [*TEN[:9], "GC"]
    config = SimulateConfig(n_sequences=N, length=300, pairs=pairs, gc_effect=3.0, common_presence=[0.8, 0.1])
    names = ("observational", "randomised", "mixed")
    return {name: simulate(config.model_copy(update={"regime": name}), MOTIFS, seed=8) for name in names}


def counted_error(result, a: int, b: int) -> float:  # type: ignore[no-untyped-def]
    """Standard error of a log odds ratio (Woolf)."""
    za, zb = result.presence[:, a], result.presence[:, b]
    return math.sqrt(sum(1 / (np.sum((za == x) & (zb == y)) + 0.5) for x in (0, 1) for y in (0, 1)))


def test_observational_odds_ratios_are_those_of_the_model(regimes):
    """Stated log odds ratios follow from the causes by hand, and the sequences have them."""
    by_class = regimes["observational"].pairs.groupby("class")["cooccurrence_expected"].first()
    for kind in ("AND", "OR", "REP", "XOR", "SPC", "ORI", "NULL"):
        assert by_class[kind] == 0
    for kind in ("AND_COOC", "INERT"):
        assert by_class[kind] == pytest.approx(mixture(0.35, 0.8, 0.1), abs=1e-9)
    assert by_class["CHAIN"] == pytest.approx(odds(0.85, 0.15, 0.08, 0.92), abs=1e-9)
    gc = np.random.default_rng(0).beta(8, 8, 400_000)
    p = 1 / (1 + np.exp(-12 * (gc - 0.55)))
    assert by_class["GC"] == pytest.approx(
        odds((p * p).mean(), *[(p * (1 - p)).mean()] * 2, ((1 - p) ** 2).mean()), abs=0.01
    )
    hidden = simulate(SimulateConfig(n_sequences=20, pairs=["HIDDEN"]), MOTIFS[:2], seed=1)
    assert hidden.pairs["cooccurrence_expected"].item() == pytest.approx(mixture(0.25, 0.9, 0.2), abs=1e-9)
    for result in regimes.values():
        number = {name: m for m, name in enumerate(result.motifs["motif"])}
        for row in result.pairs.itertuples():
            error = counted_error(result, number[row.motif_a], number[row.motif_b])
            assert abs(row.cooccurrence_logodds - row.cooccurrence_expected) < 4.5 * error


def test_randomisation_removes_every_association(regimes):
    """190 pairs, GC, hidden causes: no association beyond chance, and none is stated."""
    result = regimes["randomised"]
    assert (result.pairs["cooccurrence_expected"] == 0).all()
    z = result.presence.astype(float)
    r = np.corrcoef(z.T)[np.triu_indices(20, 1)] * math.sqrt(N)
    assert np.abs(r).max() < 4.5 and 0.8 < r.std() < 1.2
    with_gc = [np.corrcoef(z[:, m], result.table["gc"])[0, 1] for m in range(20)]
    assert np.abs(with_gc).max() * math.sqrt(N) < 4.5
    observed = regimes["observational"].presence.astype(float)
    assert np.abs(np.corrcoef(observed.T)[np.triu_indices(20, 1)]).max() * math.sqrt(N) > 50


def test_marginal_rates_are_equal_across_regimes(regimes):
    """Randomisation changes which motifs meet, not how many there are of each."""
    rates = [result.motifs["rate"] for result in regimes.values()]
    expected = regimes["observational"].motifs["rate_expected"]
    for result, rate in zip(regimes.values(), rates, strict=True):
        assert (result.motifs["rate_expected"] == expected).all()
        assert result.crowded < 0.001
        error = np.sqrt(expected * (1 - expected) / N)
        assert (np.abs(rate - expected) < 4.5 * error + result.crowded).all()


def test_gc_drives_the_presence_of_gc_motifs(regimes):
    """Logistic regression of presence on GC has the model's slope and middle, and none after randomisation."""
    for name, slope in (("observational", 12.0), ("randomised", 0.0)):
        result = regimes[name]
        gc = result.table[["gc"]].to_numpy()
        for m in result.motifs.index[result.motifs["class"] == "GC"]:
            fitted = LogisticRegression(C=1e6).fit(gc, result.presence[:, m])
            assert abs(fitted.coef_.item() - slope) < 0.8  # four standard errors
            if slope:
                assert abs(-fitted.intercept_.item() / fitted.coef_.item() - 0.55) < 0.01


def test_mixed_sequences_are_some_of_each(regimes):
    """The share is the asked one, and within each part presence is that of its regime."""
    result = regimes["mixed"]
    randomised = result.table["randomised"].to_numpy()
    assert abs(randomised.mean() - 0.5) < 4.5 * 0.5 / math.sqrt(N)
    for name, part in (("observational", ~randomised), ("randomised", randomised)):
        assert (result.presence[part] == regimes[name].presence[part]).all()


# ------------------------------------------------------------------------- ceilings


def cell_means(result, target: str) -> pd.DataFrame:  # type: ignore[no-untyped-def]
    """Readout and stated expectation by the combination of motifs present."""
    cell = result.presence @ (1 << np.arange(result.presence.shape[1]))
    suffix = target.removeprefix("y")
    residual = result.table[target] - result.table[f"expected{suffix}"]
    return residual.groupby(cell).agg(["mean", "std", "count"])


@pytest.mark.parametrize("regime", ["observational", "randomised", "mixed", "twins"])
def test_expectation_is_the_mean_of_all_sequences_with_these_motifs(regime: str):
    """In each of 64 combinations of motifs the mean readout is the stated expectation: Bayes, whatever the regime."""
    config = SimulateConfig(
        n_sequences=15_000, length=200, regime=regime, pairs=["HIDDEN", "INERT", "HIDDEN"],
        pair_effects=[2.4, None, 1.0], gc_effect=0.1, saturation=SaturationConfig(middle=1.0),
        randomised_fraction=0.4, twin_null_fraction=0.6,
    )  # fmt: skip
    result = simulate(config, MOTIFS[:6], seed=11)
    for target in ("y", "y_sat"):
        means = cell_means(result, target)
        usable = means[means["count"] >= 30]
        # Twins of a unit share noise and hidden cause: up to five records count as one.
        independent = usable["count"] / (5 if regime == "twins" else 1)
        z = usable["mean"] / (usable["std"] / np.sqrt(independent))
        assert len(usable) > 30 and z.abs().max() < 4.5
        r = np.corrcoef(result.table["expected" + target.removeprefix("y")], result.table[target])[0, 1]
        assert result.ceilings[target]["ceiling"] == pytest.approx(r)


@pytest.mark.parametrize("regime", ["observational", "randomised", "mixed", "twins"])
def test_posterior_of_hidden_causes_is_that_of_full_enumeration(regime: str):
    """All causes, motifs and designs of six motifs summed one by one give the same posterior to 1e-12."""
    config = SimulateConfig(
        n_sequences=20, regime=regime, pairs=["HIDDEN", "CHAIN", "HIDDEN"], randomised_fraction=0.3,
        twin_null_fraction=0.7,
    )  # fmt: skip
    pairs = make_pairs(config, 5)
    bits = list(itertools.product([0, 1], repeat=6))
    causes = list(itertools.product([0, 1], repeat=2))
    hidden = [pair for pair in pairs if pair.kind == "HIDDEN"]
    (chain,) = [pair for pair in pairs if pair.kind == "CHAIN"]

    def bernoulli(p: float, x: int) -> float:
        return p if x else 1 - p

    def natural(u: tuple[int, ...], z: tuple[int, ...]) -> float:
        p = bernoulli(1 / 3, z[chain.first]) * bernoulli((0.08, 0.85)[z[chain.first]], z[chain.second])
        for cause, pair in zip(u, hidden, strict=True):
            p *= bernoulli(0.25, cause)
            p *= bernoulli((0.2, 0.9)[cause], z[pair.first]) * bernoulli((0.2, 0.9)[cause], z[pair.second])
        return p

    observed = {(u, z): natural(u, z) for u in causes for z in bits}
    rates = [sum(p for (_, z), p in observed.items() if z[m]) for m in range(6)]
    prior = {u: sum(observed[u, z] for z in bits) for u in causes}
    alone = {z: math.prod(bernoulli(rates[m], z[m]) for m in range(6)) for z in bits}
    share = {"randomised": 1.0, "mixed": 0.3}.get(regime, 0.0)
    total = {(u, z): share * prior[u] * alone[z] + (1 - share) * p for (u, z), p in observed.items()}
    twinned = twinned_shares(config, pairs, 100, 90) if regime == "twins" else []
    if regime == "twins":
        assert sum(part.share for part in twinned) == pytest.approx(360 / 460)
        designed = [{pair.first, pair.second} for pair in pairs]
        chance = {True: 0.3 / 3, False: 0.7 / 12}
        total = {key: p * 100 / 460 for key, p in observed.items()}
        for a, b in itertools.combinations(range(6), 2):
            weight = 360 / 460 * chance[{a, b} in designed]
            for (u, z), p in observed.items():
                for x, y in itertools.product([0, 1], repeat=2):
                    now = tuple(x if m == a else y if m == b else z[m] for m in range(6))
                    total[u, now] += weight * p / 4

    found = hidden_posterior(config, pairs, np.array(bits, dtype=bool), np.full(64, 0.5), twinned)
    expected = [[total[u, z] / sum(total[v, z] for v in causes) for u in causes] for z in bits]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert sum(total.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", ["observational", "randomised"])
def test_ceiling_is_reached_by_regression_on_the_true_features(regimes, name):
    """Least squares on four cells of each pair, times its rule, reaches the ceiling and no more."""
    result = regimes[name]
    z = result.presence
    columns = [result.table["gc"].to_numpy()]
    number = {motif: m for m, motif in enumerate(result.motifs["motif"])}
    centre, strand = np.full(z.shape, np.nan), np.zeros(z.shape)
    row = result.sites["sequence"].str[3:].astype(int).to_numpy()
    column = result.sites["motif"].map(number).to_numpy()
    centre[row, column] = (result.sites["start"] + result.sites["end"]) / 2
    strand[row, column] = result.sites["strand"] == "+"
    for _, _, first, second in designed_pairs(result):
        a, b = number[first], number[second]
        both = z[:, a] & z[:, b]
        columns += [z[:, a], z[:, b], both, both & (np.abs(centre[:, a] - centre[:, b]) <= 60)]
        columns += [both & (strand[:, a] == strand[:, b])]
    features = np.column_stack([*columns, np.ones(N)]).astype(float)
    y = result.table["y"].to_numpy()
    reached = np.corrcoef(features @ np.linalg.lstsq(features, y, rcond=None)[0], y)[0, 1]
    assert abs(reached - result.ceiling) < 0.002
    assert result.ceiling == pytest.approx(result.ceiling_given_hidden)  # no class here has a cause outside
    assert math.sqrt(1 - result.ceiling**2) * y.std() == pytest.approx(0.3, abs=0.005)  # what is left is the noise


def test_without_effects_there_is_no_ceiling():
    """If nothing in the sequence matters, no correlation is stated."""
    result = simulate(SimulateConfig(n_sequences=30, pairs=["DECOY"], gc_effect=0.0), MOTIFS[:2], seed=1)
    assert math.isnan(result.ceiling)
