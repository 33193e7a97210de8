"""Networks over chains: padding, batches, learning, files, and what each leaves out."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_protein import TINY, network, proteins

from bioattn.data.residues import AMINO_ACIDS
from bioattn.errors import ConfigError, DataError
from bioattn.nn.pair.network import WindowNetwork
from bioattn.protein.batches import ProteinBatches, ProteinData, collate, substitution_table, told_nothing
from bioattn.protein.network import (
    EDGES_ANGSTROM,
    LEFT_OUT,
    build_network,
    contact_loss,
    distogram_loss,
    fit_distances,
    load_network,
    predict_logits,
    save_network,
)
from bioattn.protein.plan import bytes_per_square, check_memory
from bioattn.train.memory import PROCESS_BYTES, track_memory


def window() -> WindowNetwork:
    torch.manual_seed(0)
    return WindowNetwork(20, 0, EDGES_ANGSTROM, reach=3, d_hidden=7).eval()


@pytest.mark.parametrize("name", ["trunk", "window"])
def test_batch_mates_and_padding_change_nothing(name: str):
    """A protein alone and beside a longer one; logits of (i, j) and (j, i) are the same."""
    made = network() if name == "trunk" else window()
    some = proteins(11, 23, 17)
    together = predict_logits(made, some)
    for protein, found in zip(some, together, strict=True):
        alone = predict_logits(made, [protein])[0]
        np.testing.assert_allclose(found, alone, atol=2e-5)
        np.testing.assert_allclose(found, found.transpose(1, 0, 2), atol=2e-5)


def test_a_window_network_sees_the_window_alone():
    """A residue beyond the reach of both ends changes nothing for a pair; in a trunk it does."""
    protein = proteins(29)[0]
    changed = protein._replace(single=np.roll(protein.single, 1, axis=1) * (np.arange(29) == 14)[:, None]
                               + protein.single * (np.arange(29) != 14)[:, None])  # fmt: skip
    before, after = (predict_logits(window(), [p])[0] for p in (protein, changed))
    same = np.abs(before - after).max(-1) == 0
    far = np.abs(np.arange(29) - 14) > 3
    assert same[np.ix_(far, far)].all() and not same[13].any()
    before, after = (predict_logits(network(), [p])[0] for p in (protein, changed))
    assert np.abs(before - after).max(-1)[0, 28] > 0


def test_crops_are_stretches_with_their_numbers():
    """The same protein in two epochs: other stretches; residue numbers and distances are those of the stretch."""
    some = proteins(31, 29, 11)
    batches = ProteinBatches(some, 3, crop=13, seed=5)
    seen = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        (batch,) = list(batches)
        seen.append(batch.residue_index[:, 0].tolist())
        assert batch.keep.sum(1).tolist() == sorted([13, 13, 11]) and batch.single.shape == (3, 13, 20)
        for row in range(3):
            start, n = int(batch.residue_index[row, 0]), int(batch.keep[row].sum())
            fitting = [
                p for p in some
                if np.array_equal(p.single[start : start + n], batch.single[row, :n].numpy())
            ]  # fmt: skip
            assert len(fitting) == 1
            expected = fitting[0].distances_angstrom[start : start + n, start : start + n]
            assert np.array_equal(batch.distances_angstrom[row, :n, :n].numpy(), expected)
            assert batch.distances_angstrom[row, n:].isnan().all()
    assert seen[0] == seen[2] != seen[1]


def test_substitutions_replace_residues_by_similar_ones():
    """About the asked share, other ones in each epoch and the same again; leucine more often by isoleucine than by
    aspartate; rows of the table sum to one without a diagonal; chains of evaluation stay as they are."""
    some = proteins(*[40] * 60)
    batches = ProteinBatches(some, 60, seed=2, substitutions=0.2)
    kept = {p.single.tobytes() for p in some}
    seen = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        (batch,) = list(batches)
        assert (batch.single.sum(-1) == 1).all()
        places = batch.distances_angstrom.numpy()
        order = [next(i for i, p in enumerate(some) if (p.distances_angstrom == d).all()) for d in places]
        was = np.stack([some[i].single for i in order]).argmax(-1)
        seen.append((was != batch.single.argmax(-1).numpy())[np.argsort(order)])
    assert seen[0].mean() == pytest.approx(0.2, abs=0.03)
    assert (seen[0] == seen[2]).all() and (seen[0] != seen[1]).any()
    assert {p.single.tobytes() for p in some} == kept
    table = substitution_table()
    assert np.allclose(table.sum(1), 1) and (np.diag(table) == 0).all()
    leucine = table[AMINO_ACIDS.index("L")]
    assert leucine[AMINO_ACIDS.index("I")] > 5 * leucine[AMINO_ACIDS.index("D")]


def test_contacts_are_told_to_half_of_the_chains():
    """True contacts six or more apart in both orders, up to the asked share, as the last feature of pairs.

    Other ones in each epoch and the same again; validation chains are told once; other networks have no such feature.
    """
    some = proteins(*[40] * 80)
    batches = ProteinBatches(some, 80, seed=2, most_told=0.4)
    seen = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        (batch,) = list(batches)
        assert batch.pair.shape == (80, 40, 40, 1) and (batch.pair == batch.pair.transpose(1, 2)).all()
        told, apart = batch.pair[..., 0] == 1, torch.ones(40, 40).triu(6).bool()
        assert (batch.distances_angstrom[told] < 8).all() and not told.tril(5).triu(-5).any()
        contacts = ((batch.distances_angstrom < 8) & apart).sum((1, 2))
        seen.append(((told & apart).sum((1, 2)) / contacts).numpy())
    assert 0.3 < (seen[0] > 0).mean() < 0.6 and seen[0].max() < 0.6
    assert seen[0][seen[0] > 0].mean() == pytest.approx(0.2, abs=0.06)
    assert (seen[0] == seen[2]).all() and (seen[0] != seen[1]).any()
    data = ProteinData(some, some, batch_size=80, crop=None, seed=2, most_told=0.4)
    (first,), (again,) = list(data.val_dataloader()), list(data.val_dataloader())
    assert torch.equal(first.pair, again.pair) and 0.3 < first.pair.amax((1, 2, 3)).mean() < 0.6
    assert next(iter(ProteinBatches(some, 80, seed=2))).pair is None


def test_what_is_told_stands_beside_couplings_and_is_cropped_with_them():
    """The last feature; a network without triangles takes it for the pair itself and for no other, a trunk does not."""
    plain = proteins(20)[0]
    couplings = np.random.default_rng(0).normal(size=(20, 20, 2)).astype(np.float32)
    told = np.zeros((20, 20), dtype=bool)
    told[3, 12] = told[12, 3] = True
    protein = plain._replace(pair=couplings, told=told)
    batch = collate([protein], [2], 11)
    assert protein.n_pair_features == 3
    assert np.array_equal(batch.pair[0, :, :, :2].numpy(), couplings[2:13, 2:13])
    assert batch.pair[0, :, :, 2].nonzero().tolist() == [[1, 10], [10, 1]]
    for variant, others in (("window", False), ("no_triangles", False), ("told", True)):
        made = build_network(variant, TINY, n_single=20, n_pair=1, seed=1).eval()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        before, after = (predict_logits(made, [p])[0] for p in (told_nothing(plain), plain._replace(told=told)))
        changed = np.abs(before - after).max(-1) > 1e-6
        assert changed[3, 12] and changed[12, 3] and (changed.sum() > 2) == others


def test_every_chain_is_seen_once_in_an_epoch():
    """Whatever the batch size; batches hold chains of like length."""
    some = proteins(*[10 + 3 * (i % 7) for i in range(37)])
    batches = ProteinBatches(some, 4, seed=1)
    rows = [row for batch in batches for row in batch.single]
    assert len(rows) == 37 and len(batches) == 10
    spread = [batch.keep.sum(1).float().std().item() for batch in batches if len(batch.single) > 1]
    assert np.mean(spread) < 3


def test_the_loss_is_that_of_known_pairs():
    """By a loop over pairs: the diagonal, padding and unresolved residues take no part."""
    some = proteins(7, 5)
    some[0].distances_angstrom[3] = some[0].distances_angstrom[:, 3] = np.nan
    batch = collate(some)
    logits = torch.randn(2, 7, 7, len(EDGES_ANGSTROM) + 1, generator=torch.Generator().manual_seed(0))
    total, n = distogram_loss(logits, batch.distances_angstrom, EDGES_ANGSTROM)
    expected, count = 0.0, 0
    for b, protein in enumerate(some):
        for i in range(len(protein.single)):
            for j in range(len(protein.single)):
                d = protein.distances_angstrom[i, j]
                if i != j and np.isfinite(d):
                    place = sum(d >= edge for edge in EDGES_ANGSTROM.tolist())
                    expected -= logits[b, i, j].log_softmax(0)[place].item()
                    count += 1
    assert n == count == 6 * 5 + 5 * 4 and total.item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_contacts_is_that_of_pairs_far_apart_in_the_sequence():
    """By a loop over pairs: cross-entropy of contact or none; neighbours, padding, unresolved residues take no part."""
    some = proteins(9, 8)
    some[0].distances_angstrom[3] = some[0].distances_angstrom[:, 3] = np.nan
    some[0].distances_angstrom[8, 1] = some[0].distances_angstrom[1, 8] = 5.0
    batch = collate(some)
    logits = torch.randn(2, 9, 9, len(EDGES_ANGSTROM) + 1, generator=torch.Generator().manual_seed(0))
    total = contact_loss(logits, batch.distances_angstrom, EDGES_ANGSTROM, batch.residue_index)
    expected, touching = 0.0, 0
    for b, protein in enumerate(some):
        for i in range(len(protein.single)):
            for j in range(len(protein.single)):
                d = protein.distances_angstrom[i, j]
                if abs(i - j) >= 6 and np.isfinite(d):
                    below = logits[b, i, j].softmax(0)[: sum(edge <= 8 for edge in EDGES_ANGSTROM.tolist())].sum()
                    expected -= (below if d < 8 else 1 - below).log().item()
                    touching += d < 8
    assert touching and total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("variant", list(LEFT_OUT))
def test_variants_lack_what_they_say(variant: str):
    """Parameters of a part are there or not; all others start from the same seed."""
    made = build_network(variant, TINY, n_single=20, n_pair=0, seed=1)
    names = {name.split(".")[3] for name, _ in made.named_parameters() if name.startswith("trunk.block")}
    gone = LEFT_OUT[variant]
    if gone is None:
        assert isinstance(made, WindowNetwork)
        return
    parts = {"outgoing", "incoming", "starting", "ending", "transition"} - set(gone)
    assert parts <= names and not names & set(gone) and ("attn" in names) == ("single" not in gone)


def test_training_learns_resumes_and_is_saved(tmp_path: Path):
    """Loss falls; cut off after an epoch and called again, the weights are the same; files give the same network."""
    some = proteins(*[12 + i % 5 for i in range(24)])
    config = TINY.model_copy(update={"epochs": 4, "learning_rate": 0.01})
    whole = fit_distances("trunk", config, some[:18], some[18:], work_dir=tmp_path / "whole")
    assert whole.history["train_loss"].iloc[-1] < whole.history["train_loss"].iloc[0]
    assert whole.record["n_chains"] == {"train": 18, "validation": 6}

    import bioattn.train.loop as loop

    done = loop.RunKeeper.on_train_epoch_end

    class Cut(Exception):
        """A kill."""

    def cut(self, trainer, module):
        done(self, trainer, module)
        if trainer.current_epoch == 1:
            raise Cut

    loop.RunKeeper.on_train_epoch_end = cut
    try:
        with pytest.raises(Cut):
            fit_distances("trunk", config, some[:18], some[18:], work_dir=tmp_path / "cut")
    finally:
        loop.RunKeeper.on_train_epoch_end = done
    resumed = fit_distances("trunk", config, some[:18], some[18:], work_dir=tmp_path / "cut")
    assert resumed.record["resumed"] and len(resumed.history) == 4
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    save_network(tmp_path / "saved", whole.network, whole.record)
    loaded, record = load_network(tmp_path / "saved")
    assert record["variant"] == "trunk"
    for one, other in zip(predict_logits(whole.network, some[:3]), predict_logits(loaded, some[:3]), strict=True):
        assert np.array_equal(one, other)


def test_mistakes_are_named(tmp_path: Path):
    """No such network; fewer chains than a batch; a folder that holds something else."""
    with pytest.raises(ConfigError, match="no network 'trunks'; there are trunk, told, no_triangles"):
        build_network("trunks", TINY, n_single=20, n_pair=0, seed=1)
    some = proteins(12, 13, 14)
    with pytest.raises(ConfigError, match="protein.trunk.batch_size is 4 but there are 3 training chains"):
        fit_distances("window", TINY, some, some, work_dir=tmp_path)
    save_network(
        tmp_path / "other", build_network("window", TINY, n_single=20, n_pair=0, seed=1), {"variant": "window"}
    )
    with pytest.raises(DataError, match="not a network over chains"):
        load_network(tmp_path / "other")


def test_features_of_pairs_must_be_given():
    """A network built for couplings refuses chains without, and one that is told nothing does not let contacts drop."""
    made = build_network("trunk", TINY, n_single=20, n_pair=1, seed=1)
    with pytest.raises(ConfigError, match="built for 1 features of pairs, and was given 0"):
        predict_logits(made.eval(), proteins(9))
    with pytest.raises(ConfigError, match="built for 0 features of pairs, and was given 1"):
        predict_logits(network(), [told_nothing(proteins(9)[0])])


def test_memory_is_asked_for_beforehand():
    """What is measured on a stretch holds for twice its length; too little memory names what would fit, which does."""
    some = proteins(96, 40, 40, 40)
    config = TINY.model_copy(update={"crop": 96, "batch_size": 4})
    made = build_network("trunk", config, n_single=20, n_pair=0, seed=1)
    forecast = bytes_per_square(made, some[0], gradients=True) * 96**2
    batch = collate([some[0]])
    held = [*made.parameters(), *(x for x in batch if x is not None)]
    with track_memory(held) as memory:
        before = memory.live_bytes
        made(batch.single, batch.residue_index, batch.keep).square().mean().backward()
    assert forecast == pytest.approx(memory.peak_bytes - before, rel=0.15)
    limit = PROCESS_BYTES + int(forecast * 6)  # gaps of the heap take 2.5 times as much
    with pytest.raises(ConfigError, match="a batch of 4 stretches of 96 residues takes about") as told:
        check_memory(made, config, some, some, accelerator="cpu", limit_bytes=limit)
    crop = int(re.search(r"crop to at most (\d+)", str(told.value))[1])
    assert 65 < crop < 80
    check_memory(made, config.model_copy(update={"crop": crop}), some, some[1:], accelerator="cpu", limit_bytes=limit)
    with pytest.raises(ConfigError, match="whole chains of 4000 residues"):
        long = some[0]._replace(single=np.zeros((4000, 20), dtype=np.float32))
        check_memory(made, TINY, some, [long], accelerator="cpu", limit_bytes=limit)
