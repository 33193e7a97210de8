"""Co-attention on attention whose answer is planted."""

import numpy as np
import pandas as pd
import pytest
import torch

from bioattn.config import ModelConfig, StemConfig
from bioattn.data import alphabet
from bioattn.errors import DataError
from bioattn.explain.coattention import (
    candidate_table,
    coattention,
    load_coattention,
    pair_attention,
    save_coattention,
    strongest,
)
from bioattn.explain.hits import pair_instances
from bioattn.models import build_model
from bioattn.nn import taps

M, HEADS, TOKEN_BP = 5, 3, 10


def made_up(seed: int, *, boost: tuple[int, int, int] | None, n: int = 400):
    """Hits at random places, and attention that is random but for how attentive and how attended a motif is.

    `boost` = (head, query motif, key motif) multiplies that attention by eight.
    """
    draw = np.random.default_rng(seed)
    present = draw.random((n, M)) < 0.6
    sequence, motif = np.nonzero(present)
    start = draw.permuted(np.tile(np.arange(M) * 29, (n, 1)), axis=1)[sequence, motif]
    hits = pd.DataFrame({"sequence": sequence, "motif": motif, "start": start, "end": start + 9, "copy": 0})
    hits = hits.sort_values(["sequence", "start"], ignore_index=True)
    instances = pair_instances(hits, margin_bp=5, token_bp=1)
    a, b = instances["motif_a"].to_numpy(), instances["motif_b"].to_numpy()
    log_query, log_key = draw.normal(0, 1, (HEADS, M)), draw.normal(0, 1, (HEADS, M))
    attention = np.empty((len(instances), HEADS, 2))
    for h in range(HEADS):
        attention[:, h, 0] = log_query[h, a] + log_key[h, b]
        attention[:, h, 1] = log_query[h, b] + log_key[h, a]
    attention = np.exp(attention - 4 + draw.normal(0, 0.5, attention.shape))
    if boost:
        head, query, key = boost
        direction = 0 if query < key else 1
        rows = (a == min(query, key)) & (b == max(query, key))
        attention[rows, head, direction] *= 8
    return attention, hits, instances


def measure(attention, hits, instances, seed: int = 0):
    return coattention(
        attention, hits, instances,
        n_motifs=M, n_heads=HEADS, n_tokens=15, token_bp=TOKEN_BP, permutations=99, seed=seed,
    )  # fmt: skip


def test_planted_pair_is_the_only_candidate_and_its_head_and_direction_are_found():
    """An eightfold attention of motif 3 to motif 1 in head 2 is found; attentive motifs alone are no candidates."""
    result = measure(*made_up(0, boost=(2, 3, 1)))
    table = candidate_table([result], floor_bits=1.0, q_value=0.05)
    assert table.loc[table["candidate"], ["motif_a", "motif_b"]].to_numpy().tolist() == [[1, 3]]
    effect = result.effect
    assert np.unravel_index(np.nanargmax(effect), effect.shape) == (2, 3, 1)
    p_max = table.set_index(["motif_a", "motif_b"])["attention_maxt_p"]
    assert p_max[1, 3] == 1 / 100
    # Double centring spreads part of the three bits over the rest of the row and the column.
    assert 1.5 < effect[2, 3, 1] <= 3.2


def test_without_a_planted_pair_p_values_are_uniform():
    """A tenth of p-values is below one tenth, and in a tenth of the sets the least of those that hold for all."""
    sets = [
        candidate_table([measure(*made_up(seed, boost=None, n=120))], floor_bits=0, q_value=0.05)
        for seed in range(1, 31)
    ]
    p = np.concatenate([table["attention_p"] for table in sets])
    error = 4 * np.sqrt(0.1 * 0.9 / 30)  # pairs of one set share motifs: count sets, not pairs
    assert abs((p < 0.1).mean() - 0.1) < error
    least = np.array([table["attention_maxt_p"].min() for table in sets])
    assert abs((least <= 0.1).mean() - 0.1) < error


@pytest.mark.parametrize("boost", [1.0, 8.0])
def test_a_motif_that_attends_to_its_second_hit_is_found(boost: float):
    """Two motifs stand twice in some sequences; the one whose hits attend to each other is the only candidate."""
    draw = np.random.default_rng(3)
    _, hits, _ = made_up(0, boost=None)
    some = hits[hits["motif"].isin([1, 2]) & (hits["sequence"] % 2 == 0)]
    again = some.assign(start=160 + 29 * some["motif"], end=169 + 29 * some["motif"], copy=1)
    hits = pd.concat([hits, again]).sort_values(["sequence", "start"], ignore_index=True)
    instances = pair_instances(hits, margin_bp=5, token_bp=1)
    own = (instances["motif_a"] == instances["motif_b"]).to_numpy()
    assert own.sum() == len(again)
    attention = np.exp(draw.normal(-4, 0.5, (len(instances), HEADS, 2)))
    attention[own & (instances["motif_a"] == 2).to_numpy(), 1] *= boost
    table = candidate_table([measure(attention, hits, instances)], floor_bits=0.5, q_value=0.05)
    found = table.loc[table["candidate"], ["motif_a", "motif_b"]].to_numpy().tolist()
    assert found == ([[2, 2]] if boost > 1 else [])
    assert table.loc[table["motif_a"] == table["motif_b"], "attention_p"].notna().tolist() == [
        False,
        True,
        True,
        False,
        False,
    ]


def test_flavours_have_effects_that_do_not_depend_on_their_unit():
    """A flavour in other units has the same effect; so has one of the other sign."""
    attention, hits, instances = made_up(0, boost=(2, 3, 1))
    flavours = {"norm": 1000 * attention, "attr": -attention}
    result = coattention(
        attention, hits, instances,
        n_motifs=M, n_heads=HEADS, n_tokens=15, token_bp=TOKEN_BP, permutations=9, seed=0, flavours=flavours,
    )  # fmt: skip
    np.testing.assert_allclose(result.flavours["norm"], result.flavours["attr"], rtol=1e-9)
    assert strongest(result.flavours["norm"])[1, 3] == pytest.approx(result.strongest[1, 3], rel=0.1)


@pytest.mark.filterwarnings("error")
def test_pair_that_never_occurs_has_no_statistic():
    """NaN for that pair, numbers for the others, and no warning about empty means."""
    attention, hits, instances = made_up(0, boost=None, n=60)
    absent = (instances["motif_a"] == 1) & (instances["motif_b"] == 3)
    lonely = instances["sequence"].isin(instances.loc[absent, "sequence"])
    kept = np.flatnonzero(~lonely)
    hits = hits[hits["sequence"].isin(instances.loc[kept, "sequence"])]
    table = candidate_table(
        [measure(attention[kept], hits.reset_index(drop=True), _renumbered(instances.loc[kept], hits))],
        floor_bits=1.0,
        q_value=0.05,
    ).set_index(["motif_a", "motif_b"])
    assert np.isnan(table.loc[(1, 3), "attention_p"]) and not table.loc[(1, 3), "candidate"]
    assert table["attention_p"].notna().sum() >= 5


def _renumbered(instances: pd.DataFrame, hits: pd.DataFrame) -> pd.DataFrame:
    """Instances that point to the rows of `hits` as they are numbered from zero."""
    row = pd.Series(np.arange(len(hits)), index=hits.index)
    return instances.assign(hit_a=row[instances["hit_a"]].to_numpy(), hit_b=row[instances["hit_b"]].to_numpy())


def test_replicates_are_averaged_under_the_null_too():
    """The mean of two replicates is compared with the mean of their nulls."""
    first, second = (measure(*made_up(0, boost=boost)) for boost in ((2, 3, 1), None))
    both = candidate_table([first, second], floor_bits=0.0, q_value=0.05).set_index(["motif_a", "motif_b"])
    expected = (first.strongest[1, 3] + second.strongest[1, 3]) / 2
    assert both.loc[(1, 3), "attention_effect_bits"] == pytest.approx(expected)


def test_pair_attention_is_the_largest_entry_between_the_footprints():
    """Gathered values equal a loop over the recorded pattern, in both directions and for every head."""
    model, codes, hits, instances = small()
    got = pair_attention(model, codes, hits, instances)
    names = ["layer.0.attn.pattern", "layer.1.attn.pattern"]
    with taps.record(model, names) as store, torch.inference_mode():
        model(torch.from_numpy(codes.astype(int)))
    pattern = torch.cat([store[n] for n in names], dim=1)
    assert len(instances) == 5
    np.testing.assert_allclose(got, by_loops(pattern, hits, instances, max), rtol=1e-6)


def test_flavours_weigh_entries_by_value_and_by_gradient():
    """norm: the largest entry times the length of the key's projected value; attr: the sum of entry times gradient."""
    model, codes, hits, instances = small()
    tokens = torch.from_numpy(codes.astype(int))
    names = [f"layer.{i}.attn.{tap}" for i in range(2) for tap in ("pattern", "value")]
    with taps.record(model, names) as store:
        readout = model(tokens)[:, 1].sum()
    patterns = [store[name] for name in names[::2]]
    lengths = []
    for i in range(2):
        weight = model.encoder.layer[i].attn.project_out.weight
        parts = [store[names[2 * i + 1]][:, h] @ weight[:, 4 * h : 4 * h + 4].T for h in range(3)]
        lengths.append(torch.stack(parts, 1).norm(dim=-1)[:, :, None])
    weighted = torch.cat([p * length for p, length in zip(patterns, lengths, strict=True)], 1).detach()
    got = pair_attention(model, codes, hits, instances, flavour="norm")
    np.testing.assert_allclose(got, by_loops(weighted, hits, instances, max), rtol=1e-5)
    gradients = torch.autograd.grad(readout, patterns)
    weighted = torch.cat([p * g for p, g in zip(patterns, gradients, strict=True)], 1).detach()
    got = pair_attention(model, codes, hits, instances, flavour="attr", readout=1)
    np.testing.assert_allclose(got, by_loops(weighted, hits, instances, sum), rtol=1e-4, atol=1e-7)
    assert np.abs(got).max() > 1e-4 and (got < 0).any()


def small():
    """A model of two layers, sequences, hits and instances."""
    config = ModelConfig(
        stem=StemConfig(n_filters=4, width=5, pool=4), d_model=12, n_layers=2, n_heads=3, d_feedforward=8, dropout=0.0
    )
    model = build_model(config, n_readouts=2, seed=1).eval()
    codes = np.random.default_rng(0).integers(0, 4, (7, 53)).astype(np.uint8)
    codes[3, 44:] = alphabet.PAD
    hits = pd.DataFrame(
        {"sequence": [0, 0, 3, 3, 6, 6, 6], "motif": [0, 1, 0, 2, 0, 1, 2], "start": [1, 30, 3, 25, 0, 20, 40]}
    )
    hits["end"], hits["copy"] = hits["start"] + [9, 6, 9, 11, 9, 6, 11], 0
    instances = pair_instances(hits, margin_bp=2, token_bp=1)
    return model, codes, hits, instances


def by_loops(entries: torch.Tensor, hits: pd.DataFrame, instances: pd.DataFrame, reduce) -> np.ndarray:
    """Entries (N, C, Q, K) between the footprints of each instance, reduced, (P, C, 2)."""
    result = np.zeros((len(instances), 6, 2))
    for p, row in enumerate(instances.itertuples()):
        spans = [range(hits.start[h] // 4, (hits.end[h] - 1) // 4 + 1) for h in (row.hit_a, row.hit_b)]
        for c in range(6):
            for d, (q, k) in enumerate([(0, 1), (1, 0)]):
                result[p, c, d] = reduce(float(entries[row.sequence, c, i, j]) for i in spans[q] for j in spans[k])
    return result


def test_result_survives_the_disk_and_half_a_file_is_refused(tmp_path):
    """What is loaded equals what was saved; a cut file is named."""
    result = measure(*made_up(0, boost=None, n=50))
    path = tmp_path / "coattention.npz"
    save_coattention(path, result, {"seed": 3})
    again, record = load_coattention(path)
    assert record == {"seed": 3} and again.n_heads == HEADS
    np.testing.assert_array_equal(again.effect, result.effect)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match="coattention.npz: not a whole co-attention file"):
        load_coattention(path)
