"""One unit of the benchmark: data of one structural causal model, models trained on it, verdicts, and rivals."""

import copy
import itertools
import shutil
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from bioattn import rng
from bioattn.bench.rivals import WITH_MODEL, WITHOUT_MODEL, Looked, Rated, all_pairs
from bioattn.causal import pair_tests
from bioattn.causal.decide import CAUSAL, CONFOUNDED, HIDDEN
from bioattn.causal.environments import balanced_tables
from bioattn.causal.interactions import Interventions, interactions
from bioattn.config import RunConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif
from bioattn.data.simulate import Simulation, beside_truth, simulate
from bioattn.data.simulate.classes import make_pairs
from bioattn.data.splits import split, subset_of
from bioattn.explain.coattention import CoAttention
from bioattn.explain.library import scan_library
from bioattn.explain.pairs import Geometry, PairData, pair_data
from bioattn.explain.predict import predict
from bioattn.io.motifs import load_motifs
from bioattn.models import SequenceModel, build_model, load_model, save_model
from bioattn.train.fit import fit

_PAIR = ["tf_a", "tf_b"]
#: Sequences with motifs at random on which all models are scored.
_PROBE = 2000
#: Name of our own scores and of the verdict, beside those of rivals.
OURS = (
    "bioattn, verdict", "bioattn, epistasis", "bioattn, co-attention", "bioattn, edge knock-out",
    "bioattn, epistasis unless confounded",
)  # fmt: skip
#: Co-attention of models that cannot know: queries and keys drawn anew, and nothing trained.
SANITY = ("sanity: co-attention, random queries and keys", "sanity: co-attention, untrained model")


class Unit(NamedTuple):
    """What a unit gives.

    Attributes
    ----------
    pairs : DataFrame
        The table of interactions, with the truth (class, interaction, ...) of each pair.
    scores : DataFrame
        method, tf_a, tf_b, class, interaction, score, called (NaN where a method makes no calls).
    costs : DataFrame
        step, seconds; summed over replicates.
    summary : dict
        Pearson r of the models on test sequences and on randomised ones, and what a perfect reader reaches.
    """

    pairs: pd.DataFrame
    scores: pd.DataFrame
    costs: pd.DataFrame
    summary: dict[str, float]


class _Clock:
    """Seconds of named steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = self.seconds.get(step, 0.0) + now - self._last
        self._last = now


def run_unit(run: RunConfig, *, training: str = "plain", work_dir: Path, rivals: bool = True) -> Unit:
    """Simulate, train, test and score.

    Parameters
    ----------
    run : RunConfig
        From `bioattn.bench.suites.run_of`.
    training : {"plain", "balanced", "permuted"}
        balanced: training sequences are drawn with weights that make motifs that co-occur independent.
    work_dir : path
        Trained models are kept there until the unit is done: what a kill leaves is not trained again.
    """
    assert run.data.simulate is not None
    clock = _Clock()
    motifs = load_motifs(run.motifs)
    made = simulate(run.data.simulate, motifs, seed=run.seed)
    table = made.table.assign(sequence=made.sequences)
    parts = split(table, run.split, run.task, seed=run.seed)
    clock.lap("simulate")
    trained_on = table, parts
    if training == "balanced":
        trained_on = balanced_tables(
            "cooccurrence", table, parts, made.presence, fold=0, config=run.interactions, seed=run.seed
        )[:2]
    models = [_trained(run, motifs, *trained_on, seed, work_dir) for seed in run.train.seeds]
    clock.lap("train")
    library = scan_library(run, table, parts, fold=0)
    data = pair_data(run, table, parts, library, fold=0, geometry=Geometry.of(models[0]))
    clock.lap("hits")
    pairs, attention = _tested(run, models, data, table, clock)
    pairs = beside_truth(pairs, made.pairs.rename(columns={"cooccurrence_logodds": "truth_logodds"}))
    scores = [_rows(name, rated, pairs, data) for name, rated in _ours(pairs, data).items()]
    if rivals:
        scores += _rivals(run, models, data, table, pairs, clock)
        scores += [_rows(name, rated, pairs, data) for name, rated in _sanity(run, motifs, models[0], data).items()]
        clock.lap("sanity")
    costs = pd.DataFrame({"step": clock.seconds.keys(), "seconds": clock.seconds.values()})
    summary = _summary(run, motifs, models, made, table, parts) | _agreement(pairs, data, attention)
    return Unit(pairs, pd.concat(scores, ignore_index=True), costs, summary)


# ------------------------------------------------------------------------ training


def _trained(
    run: RunConfig, motifs: Sequence[Motif], table: pd.DataFrame, parts: pd.DataFrame, seed: int, work_dir: Path
) -> SequenceModel:
    """Model of one replicate, from the work folder if it is there."""
    folder = work_dir / f"seed{seed}"
    if (folder / "model.json").exists():
        return load_model(folder)[0]
    result = fit(run, table, parts, seed=seed, motifs=motifs, work_dir=work_dir / f"seed{seed}.work", progress=False)
    save_model(folder, result.model, config=run.model, motifs=motifs, record=result.record)
    shutil.rmtree(work_dir / f"seed{seed}.work", ignore_errors=True)
    return result.model.eval()


# --------------------------------------------------------------------------- tests


def _tested(
    run: RunConfig, models: Sequence[SequenceModel], data: PairData, table: pd.DataFrame, clock: _Clock
) -> tuple[pd.DataFrame, list[CoAttention]]:
    """The table of interactions, as the workflow makes it."""
    attention = [pair_tests.measure_coattention(run, model, data) for model in models]
    clock.lap("bioattn: co-attention")
    rules = run.interactions
    screens = []
    for model in models:
        made = pair_tests.knock_in(run, model, data, table, n=rules.screen_backgrounds)
        screens.append(made.pairs(pair_tests.screen_pairs(data, made)))
    clock.lap("bioattn: screen")
    chosen = pair_tests.pairs_to_test(run, data, attention, screens)
    wanted = pair_tests.tested(chosen)
    knock_ins, syntaxes, knockouts = [], [], []
    for model in models:
        made = pair_tests.knock_in(run, model, data, table, n=rules.backgrounds)
        knock_ins.append(pd.concat([made.pairs(wanted, edges=True), made.pairs(made.decoy_pairs())]))
        clock.lap("bioattn: knock-in")
        syntaxes.append(pair_tests.syntax(run, model, data, table).pairs(wanted))
        clock.lap("bioattn: syntax")
        knockouts.append(pair_tests.knock_outs(run, model, data, chosen))
        clock.lap("bioattn: knock-out")
    found = interactions(run, table, data, chosen, attention, Interventions(knockouts, screens, knock_ins, syntaxes))
    clock.lap("bioattn: statistics")
    return found, attention


# -------------------------------------------------------------------------- scores


def _ours(pairs: pd.DataFrame, data: PairData) -> dict[str, Rated]:
    """Our scores in the order of `all_pairs`.

    The verdict's score is the epistasis where it claims an interaction. For ranking, what it makes no claim on counts
    too, unless it says that a common cause may be behind it.
    """
    ordered = _in_order(pairs, data)
    claims = ordered["verdict"].isin([CAUSAL, HIDDEN]).to_numpy()
    size = ordered["epistasis_effect"].abs().to_numpy(np.float64)
    nothing = np.full(len(ordered), np.nan)
    return {
        OURS[0]: Rated(np.where(claims, size, 0.0), claims.astype(np.float64)),
        OURS[1]: Rated(size, nothing),
        OURS[2]: Rated(ordered["attention_effect"].to_numpy(np.float64), ordered["candidate"].to_numpy(np.float64)),
        OURS[3]: Rated(ordered["edge_knockout_effect"].abs().to_numpy(np.float64), nothing),
        OURS[4]: Rated(np.where(ordered["verdict"] == CONFOUNDED, 0.0, size), nothing),
    }


def _in_order(pairs: pd.DataFrame, data: PairData) -> pd.DataFrame:
    """Rows of the table in the order of `all_pairs`."""
    ids = [motif.motif_id for motif in data.motifs]
    keys = pd.MultiIndex.from_tuples([(ids[a], ids[b]) for a, b in all_pairs(data.n_motifs)])
    return pairs.set_index(["motif_id_a", "motif_id_b"]).loc[keys].reset_index()


def _rows(method: str, rated: Rated, pairs: pd.DataFrame, data: PairData) -> pd.DataFrame:
    ordered = _in_order(pairs, data)
    kept = ordered[[*_PAIR, "class", "interaction"]]
    return kept.assign(method=method, score=rated.score, called=rated.called)


def _rivals(
    run: RunConfig,
    models: Sequence[SequenceModel],
    data: PairData,
    table: pd.DataFrame,
    pairs: pd.DataFrame,
    clock: _Clock,
) -> list[pd.DataFrame]:
    """What rivals say: scores are means over the models, and a pair is called if most models' tests call it."""
    targets = table[run.task.targets[0]].to_numpy(np.float64)
    everything = alphabet.encode_batch(table["sequence"].tolist())
    looked = [
        Looked(model, data, targets[data.rows], everything, targets, run.interactions.hit_p_value, run.seed)
        for model in models
    ]
    found = []
    for name, way in {**WITH_MODEL, **WITHOUT_MODEL}.items():
        rated = [way(each) for each in (looked if name in WITH_MODEL else looked[:1])]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # pairs that never occur have no score in any model
            score = np.nanmean([each.score for each in rated], axis=0)
            called = np.mean([each.called for each in rated], axis=0)
        called = np.where(np.isfinite(called), (called > 0.5).astype(np.float64), np.nan)
        found.append(_rows(name, Rated(score, called), pairs, data))
        clock.lap(name)
    return found


def _sanity(run: RunConfig, motifs: Sequence[Motif], model: SequenceModel, data: PairData) -> dict[str, Rated]:
    """Co-attention of models whose attention was not learned: it must not rank true interactions first.

    Source: Adebayo et al. 2018, model parameter randomisation.
    """
    untrained = build_model(
        run.model, n_readouts=run.task.n_readouts, motifs=motifs, seed=rng.stream_seed(run.seed, "bench", "sanity")
    ).eval()
    forgetful, fresh = copy.deepcopy(model), dict(untrained.named_parameters())
    with torch.no_grad():
        for name, parameter in forgetful.named_parameters():
            if ".attn.project_in." in name:
                both = 2 * len(parameter) // 3  # queries and keys; values come last
                parameter[:both] = fresh[name][:both]
    found = {}
    for name, network in zip(SANITY, (forgetful, untrained), strict=True):
        strongest = pair_tests.measure_coattention(run, network, data).strongest
        score = np.array([strongest[a, b] for a, b in all_pairs(data.n_motifs)])
        found[name] = Rated(score, np.full(len(score), np.nan))
    return found


# ------------------------------------------------------------------------- summary


def _summary(
    run: RunConfig,
    motifs: Sequence[Motif],
    models: Sequence[SequenceModel],
    made: Simulation,
    table: pd.DataFrame,
    parts: pd.DataFrame,
) -> dict[str, float]:
    """Mean Pearson r of the models on test sequences and on sequences of the same causes with motifs at random."""
    target = run.task.targets[0]
    test = subset_of(table, parts, fold=0) == "test"
    codes = alphabet.encode_batch(table.loc[test, "sequence"].tolist())
    other = _probe(run, motifs)
    probe = alphabet.encode_batch(other.sequences)
    y, y_probe = table.loc[test, target].to_numpy(), other.table[target].to_numpy()
    return {
        "r_test": _mean_r(models, codes, y),
        "r_randomised": _mean_r(models, probe, y_probe),
        "ceiling": made.ceilings[target]["ceiling"],
    }


def _probe(run: RunConfig, motifs: Sequence[Motif]) -> Simulation:
    """Sequences of the same pairs with motifs at random; drawn from another seed than those that were trained on."""
    assert run.data.simulate is not None
    # The seed also says which motifs form which pair, so these are listed as they are.
    listed = [motifs[m] for pair in make_pairs(run.data.simulate, run.seed) for m in (pair.first, pair.second)]
    settings = run.data.simulate.model_copy(
        update={"regime": "randomised", "n_sequences": _PROBE, "assignment": "listed"}
    )
    return simulate(settings, listed, seed=rng.stream_seed(run.seed, "bench", "probe"))


def _mean_r(models: Sequence[SequenceModel], codes: NDArray[np.uint8], y: NDArray[np.float64]) -> float:
    return float(np.mean([np.corrcoef(predict(model, codes)[:, 0], y)[0, 1] for model in models]))


def _agreement(pairs: pd.DataFrame, data: PairData, attention: Sequence[CoAttention]) -> dict[str, float]:
    """Correlations over pairs: of attention and of epistasis with the truth, and with each other."""
    known = pairs.dropna(subset=["attention_effect", "epistasis_effect"])
    bits, size = known["attention_effect"].to_numpy(), known["epistasis_effect"].abs().to_numpy()
    truth = known["interaction"].abs().to_numpy()
    hidden = known["class"] == "HIDDEN"
    stable = [each.strongest[np.triu_indices(data.n_motifs, 1)] for each in attention]
    summary = {
        "r_attention_truth": _r(bits, truth),
        "r_epistasis_truth": _r(size, truth),
        "r_attention_epistasis": _r(bits, size),
        "hidden_epistasis": float(size[hidden].mean()) if hidden.any() else float("nan"),
    }
    if len(stable) > 1:
        between = [_r(x, y) for x, y in itertools.combinations(np.nan_to_num(stable), 2)]
        summary["r_attention_replicates"] = float(np.mean(between))
    return summary


def _r(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(np.corrcoef(x, y)[0, 1]) if len(x) > 2 and x.std() > 0 and y.std() > 0 else float("nan")
