"""Families seen from the sequence whose structure is known."""

import numpy as np
import pytest

from bioattn.data.residues import Alignment, encode_residues
from bioattn.data.structure import Chain
from bioattn.errors import DataError
from bioattn.protein.family import family_of, nearest_row

QUERY = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"


def alignment() -> Alignment:
    """A stranger, the protein of the structure with a gap, a relative, and one that is mostly gaps."""
    stranger = "WPGHCWPNDHHWCGGPPNDYWWHHCCGGPPNNWW"
    own = QUERY[:5] + "-" + QUERY[5:]
    relative = own.replace("K", "R")
    gappy = "-" * 30 + own[30:]
    rows = [stranger, own, relative, gappy]
    return Alignment(["stranger", "own", "relative", "gappy"], np.stack([encode_residues(row) for row in rows]))


def chain() -> Chain:
    sequence = "GS" + QUERY[:20]
    places = np.cumsum(np.random.default_rng(0).normal(size=(22, 3)), axis=0)
    return Chain("x.pdb:A", sequence, [str(i) for i in range(22)], places)


def test_a_family_is_seen_from_the_sequence_of_its_structure():
    """The nearest row is found; its columns, sequences without too many gaps, and distances remain."""
    made = alignment()
    assert nearest_row(made, "AA" + QUERY + "AA") == 1
    family = family_of(made, chain(), query="own", identity=0.95)
    assert family.query == QUERY and family.codes.shape == (3, 33)
    # Three lysines of 33 residues differ between the protein and its relative.
    assert family.weights.tolist() == [1, 1, 1] and family.n_effective == 3
    assert family_of(made, chain(), query="own", identity=0.8).weights.tolist() == [1, 0.5, 0.5]
    assert np.isfinite(family.distances_angstrom[:20, :20]).all() and np.isnan(family.distances_angstrom[20:]).all()
    assert family.distances_angstrom[0, 7] == pytest.approx(chain().distances()[2, 9])


def test_another_protein_is_refused():
    """The stranger is not what the structure shows."""
    with pytest.raises(DataError, match=r"x.pdb:A does not fit the alignment"):
        family_of(alignment(), chain(), query="stranger")
