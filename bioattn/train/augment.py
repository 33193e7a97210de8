"""Changed copies of training sequences: other strand, shift, mutations, deletions, insertions.

Everything works on a whole batch of padded codes (B, L) at once. Lengths are kept
and padding is never touched: bases that fall out at an end are lost, and places that
become free hold unknown bases (N). What is drawn depends on the seed, the epoch and
the number of the batch only, and each kind of change has a random stream of its own.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bioattn.config import AugmentConfig
from bioattn.data import alphabet
from bioattn.rng import stream

Codes_BL = NDArray[np.uint8]
Lengths_B = NDArray[np.int64]


def augmented(
    codes_BL: Codes_BL,
    lengths_B: Lengths_B,
    first_target_B: NDArray[np.float32],
    rules: AugmentConfig,
    *,
    seed: int,
    epoch: int,
    batch: int,
    change_letters: bool,
) -> Codes_BL:
    """Codes with the deletions, insertions, mutations and shifts that `rules` ask for, in this order.

    Strands are left to the caller, which turns sequences last, so "the end" here is
    that of the strand as given.

    Parameters
    ----------
    first_target_B : ndarray
        Which examples `rules.only_labels` means.
    seed, epoch, batch : int
        All that the draws depend on.
    change_letters : bool
        Whether bases are deleted, inserted and mutated, or only shifted.
    """
    draws = {
        kind: stream(seed, "augment", kind, epoch, batch) for kind in ("deletion", "insertion", "mutation", "shift")
    }
    if change_letters:
        chosen_B = _chosen(first_target_B, rules.only_labels)
        if rules.deletion_bp:
            codes_BL = deleted(codes_BL, lengths_B, chosen_B, rules.deletion_bp, draws["deletion"])
        if rules.insertion_bp:
            codes_BL = inserted(codes_BL, lengths_B, chosen_B, rules.insertion_bp, draws["insertion"])
        if rules.mutation_rate:
            codes_BL = mutated(codes_BL, chosen_B, rules.mutation_rate, draws["mutation"])
    if rules.shift_bp:
        codes_BL = shifted(codes_BL, lengths_B, rules.shift_bp, draws["shift"])
    return codes_BL


def _chosen(first_target_B: NDArray[np.float32], only_labels: list[float]) -> NDArray[np.bool_]:
    if not only_labels:
        return np.ones(len(first_target_B), dtype=bool)
    # In the precision of the targets, or 0.1 would not be found.
    return np.isin(first_target_B, np.asarray(only_labels, dtype=first_target_B.dtype))


def deleted(
    codes_BL: Codes_BL, lengths_B: Lengths_B, chosen_B: NDArray[np.bool_], most: int, draw: np.random.Generator
) -> Codes_BL:
    """0 to `most` consecutive bases deleted, each number as likely, at a place drawn evenly; N fill up the end.

    At least one base is left of every sequence.
    """
    n_B, start_B = _numbers_and_places(lengths_B, np.maximum(lengths_B - 1, 0), chosen_B, most, draw)
    behind_BL = np.arange(codes_BL.shape[1]) >= start_B[:, None]
    return _padded(np.where(behind_BL, _moved(codes_BL, -n_B), codes_BL), lengths_B)


def inserted(
    codes_BL: Codes_BL, lengths_B: Lengths_B, chosen_B: NDArray[np.bool_], most: int, draw: np.random.Generator
) -> Codes_BL:
    """0 to `most` random bases inserted at a place drawn evenly of those where they fit; as many are cut at the end."""
    n_B, start_B = _numbers_and_places(lengths_B, lengths_B, chosen_B, most, draw)
    new_BL = draw.integers(alphabet.N_LETTERS, size=codes_BL.shape, dtype=np.uint8)
    column_L = np.arange(codes_BL.shape[1])
    before_BL, new_until_BL = column_L < start_B[:, None], column_L < (start_B + n_B)[:, None]
    return _padded(np.where(before_BL, codes_BL, np.where(new_until_BL, new_BL, _moved(codes_BL, n_B))), lengths_B)


def mutated(codes_BL: Codes_BL, chosen_B: NDArray[np.bool_], rate: float, draw: np.random.Generator) -> Codes_BL:
    """Each base becomes one of the other three with probability `rate`; N and padding stay."""
    changed_BL = (draw.random(codes_BL.shape) < rate) & (codes_BL < alphabet.N_LETTERS) & chosen_B[:, None]
    steps_BL = draw.integers(1, alphabet.N_LETTERS, size=codes_BL.shape, dtype=np.uint8)
    return np.where(changed_BL, (codes_BL + steps_BL) % alphabet.N_LETTERS, codes_BL)


def shifted(codes_BL: Codes_BL, lengths_B: Lengths_B, most: int, draw: np.random.Generator) -> Codes_BL:
    """Each sequence moved by -`most` to `most` bases, each number as likely; N fill up the end that becomes free.

    At least one base is left of every sequence.
    """
    steps_B = draw.integers(-most, most, size=len(codes_BL), endpoint=True)
    furthest_B = np.maximum(lengths_B - 1, 0)
    return _padded(_moved(codes_BL, np.clip(steps_B, -furthest_B, furthest_B)), lengths_B)


def reverse_complement_padded(codes_BL: Codes_BL, lengths_B: Lengths_B) -> Codes_BL:
    """Other strand of padded codes; the padding stays on the right."""
    turned_BL = alphabet.reverse_complement_codes(codes_BL)
    return _padded(_moved(turned_BL, lengths_B - codes_BL.shape[1]), lengths_B)


def _numbers_and_places(
    lengths_B: Lengths_B, most_B: Lengths_B, chosen_B: NDArray[np.bool_], most: int, draw: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A number 0 to `most` for each sequence, at most `most_B`, 0 if it is not chosen; and where so many bases fit."""
    n_B = draw.integers(0, most, size=len(lengths_B), endpoint=True)
    n_B = np.where(chosen_B, np.minimum(n_B, most_B), 0)
    return n_B, (draw.random(len(lengths_B)) * (lengths_B - n_B + 1)).astype(np.int64)


def _moved(codes_BL: Codes_BL, steps_B: NDArray[np.int64]) -> Codes_BL:
    """Each row moved to the right by its number of steps; N where nothing comes from, and where padding does."""
    (n, length), most = codes_BL.shape, int(np.abs(steps_B).max(initial=0))
    wide = np.full((n, length + 2 * most), alphabet.UNKNOWN, dtype=np.uint8)
    np.minimum(codes_BL, alphabet.UNKNOWN, out=wide[:, most : most + length])
    # Rows are copied whole, which costs a tenth of looking up base by base.
    return sliding_window_view(wide, length, axis=1)[np.arange(n), most - steps_B]


def _padded(codes_BL: Codes_BL, lengths_B: Lengths_B) -> Codes_BL:
    """Codes with padding behind the end of each sequence."""
    if (lengths_B == codes_BL.shape[1]).all():
        return codes_BL
    return np.where(np.arange(codes_BL.shape[1]) < lengths_B[:, None], codes_BL, np.uint8(alphabet.PAD))
