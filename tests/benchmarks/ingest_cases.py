"""What the benchmark of reading data measures; each function runs in a process of its own."""

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pysam
import torch
from measure import Peak, interleaved_seconds, timed
from numpy.typing import NDArray
from scipy.stats import chisquare

from bioattn.config import SplitConfig, TaskConfig
from bioattn.data import alphabet
from bioattn.data.audit import audit
from bioattn.data.edits import dinucleotide_shuffle_codes
from bioattn.data.regions import Region
from bioattn.data.splits import assign_groups
from bioattn.io.genome import Genome
from bioattn.io.regions import sequences_of
from bioattn.tokens import tokenizer_for
from bioattn.tokens.bpe import train_bpe

LETTERS = np.frombuffer(b"ACGT", dtype=np.uint8)
#: Sequences that are encoded, shuffled or tokenized at a time.
BLOCK = 10_000
OURS = "bioattn"
#: Begins the name of what does less than is asked for: a yardstick, no competitor.
LIMIT = "limit"
Step = Callable[[], object]
#: Packages to compare with, where they are installed.
PEERS = {name: importlib.util.find_spec(name) is not None for name in ("pyfaidx", "tangermeme", "edlib", "tokenizers")}


class Timed(NamedTuple):
    """Seconds of each way, scaled to all of the work, and ways of ours whose results are not those of the others."""

    seconds: dict[str, list[float]]
    different: list[str]


def compare(ways: Mapping[str, tuple[Step, float]], *, repetitions: int) -> dict[str, list[float]]:
    """Seconds of steps in turns, each times its factor: how much more work there is than the step does."""
    found = interleaved_seconds({name: step for name, (step, _) in ways.items()}, repetitions=repetitions)
    return {name: [seconds * ways[name][1] for seconds in each] for name, each in found.items()}


def random_texts(n: int, length: int, seed: int = 1) -> list[str]:
    """Sequences of random bases."""
    letters = LETTERS[np.random.default_rng(seed).integers(0, 4, (n, length))]
    return [row.tobytes().decode("ascii") for row in letters]


def blocks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """A block of items at a time."""
    for start in range(0, len(items), BLOCK):
        yield items[start : start + BLOCK]


# -------------------------------------------------------------------- extraction


class Place(NamedTuple):
    """A window of the genome."""

    contig: str
    start: int
    end: int


def write_genome(folder: str, n_bases: int) -> dict[str, str]:
    """A random genome of three contigs as FASTA and bgzip, both with an index; returns the paths."""
    rng = np.random.default_rng(1)
    plain = Path(folder, "genome.fa")
    with plain.open("wb") as file:
        for i in range(1, 4):
            letters = LETTERS[rng.integers(0, 4, n_bases // 3)]
            file.write(f">chr{i}\n".encode())
            whole = len(letters) // 60 * 60
            lines = np.full((whole // 60, 61), ord("\n"), dtype=np.uint8)
            lines[:, :60] = letters[:whole].reshape(-1, 60)
            file.write(lines.tobytes() + letters[whole:].tobytes() + b"\n")
    packed = Path(folder, "genome.fa.gz")
    pysam.tabix_compress(str(plain), str(packed), force=True)
    for path in (plain, packed):
        pysam.faidx(str(path))
    return {"FASTA": str(plain), "bgzip": str(packed)}


def random_places(path: str, n: int, length: int) -> list[Place]:
    """Windows in the order of the genome."""
    rng = np.random.default_rng(2)
    lengths = Genome(path).lengths
    contigs = np.sort(rng.integers(0, len(lengths), n))
    names = list(lengths)
    starts = (rng.random(n) * (np.array(list(lengths.values()))[contigs] - length)).astype(int)
    order = np.lexsort((starts, contigs))
    return [Place(names[contigs[i]], int(starts[i]), int(starts[i]) + length) for i in order]


def extraction(path: str, n: int, length: int, *, repetitions: int) -> Timed:
    """Windows of a genome, from opening the file to letters, codes or one-hot."""
    places = random_places(path, n, length)
    regions = [Region(*place, "+", "", "", 0, {}) for place in places]
    few = places[:: max(n // 10_000, 1)]
    starts = _starts(places)
    ways: dict[str, tuple[Step, float]] = {
        f"{OURS}: Genome.windows, codes": (lambda: _windows(path, starts, length), 1),
        f"{OURS}: sequences_of, text": (lambda: sequences_of(regions, Genome(path)), 1),
        "pysam: fetch, text": (lambda: _fetched(pysam.FastaFile(path), places), 1),
        "as kipoiseq: fetch and one-hot each, text": (lambda: _one_by_one(path, few), n / len(few)),
    }
    if PEERS["pyfaidx"]:
        ways["pyfaidx: Fasta, text"] = (lambda: _pyfaidx(path, few), n / len(few))
    expected = [text.upper() for text in _fetched(pysam.FastaFile(path), few)]
    decoded = [alphabet.decode(row) for rows in _windows(path, _starts(few), length) for row in rows]
    texts = {
        f"{OURS}: Genome.windows, codes": decoded,
        f"{OURS}: sequences_of, text": sequences_of(
            [Region(*place, "+", "", "", 0, {}) for place in few], Genome(path)
        ),
    }
    return Timed(
        compare(ways, repetitions=repetitions), [name for name, found in texts.items() if list(found) != expected]
    )


def _starts(places: Sequence[Place]) -> dict[str, NDArray[np.int64]]:
    table = pd.DataFrame(places)
    return {str(contig): starts.to_numpy() for contig, starts in table.groupby("contig", sort=False)["start"]}


def _windows(path: str, starts: Mapping[str, NDArray[np.int64]], length: int) -> list[NDArray[np.uint8]]:
    genome = Genome(path)
    return [genome.windows(contig, each, length) for contig, each in starts.items()]


def _fetched(file: pysam.FastaFile, places: Sequence[Place]) -> list[str]:
    return [file.fetch(*place) for place in places]


def _pyfaidx(path: str, places: Sequence[Place]) -> list[str]:
    import pyfaidx

    file = pyfaidx.Fasta(path, as_raw=True)
    return [file[place.contig][place.start : place.end] for place in places]


_IDENTITY = np.vstack([np.eye(4, dtype=np.float32), np.zeros((1, 4), np.float32)])
_LOOKUP = np.full(256, 4, dtype=np.uint8)
_LOOKUP[np.frombuffer(b"ACGTacgt", dtype=np.uint8)] = [0, 1, 2, 3, 0, 1, 2, 3]


def _one_by_one(path: str, places: Sequence[Place]) -> None:
    file = pysam.FastaFile(path)
    for place in places:
        one_hot_each(file.fetch(*place))


def one_hot_each(text: str) -> NDArray[np.float32]:
    """One-hot (L, A) of one sequence by a table of bytes, as data loaders do that take one region at a time."""
    return _IDENTITY[_LOOKUP[np.frombuffer(text.encode("ascii"), dtype=np.uint8)]]


# ---------------------------------------------------------------------- encoding


def encoding(n: int, length: int, *, repetitions: int) -> Timed:
    """Text to one-hot of all sequences, a block at a time."""
    texts = random_texts(n, length)
    few = texts[: max(n // 20, 10)]
    scale = n / len(few)

    def ours() -> None:
        for block in blocks(texts):
            alphabet.one_hot(alphabet.encode_batch(block))

    def at_once() -> None:
        for block in blocks(texts):
            _compared(block)

    ways: dict[str, tuple[Step, float]] = {
        f"{OURS}: encode_batch, one_hot": (ours, 1),
        f"{LIMIT}, NumPy: upper case of one length only": (at_once, 1),
        "NumPy: a table, one by one, (L, A)": (lambda: [one_hot_each(text) for text in few], scale),
        "Python: a dictionary, base by base": (lambda: _dictionary(few[: len(few) // 10]), scale * 10),
    }
    if PEERS["tangermeme"]:
        from tangermeme.utils import one_hot_encode

        ways["tangermeme: one_hot_encode, one by one"] = (
            lambda: [one_hot_encode(text, dtype=torch.float32) for text in few],
            scale,
        )
    found, expected = alphabet.one_hot(alphabet.encode_batch(few)), np.stack([one_hot_each(text).T for text in few])
    different = [OURS] if not (found == expected).all() or not (_compared(few) == expected).all() else []
    return Timed(compare(ways, repetitions=repetitions), different)


def _compared(texts: Sequence[str]) -> NDArray[np.float32]:
    letters = np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint8).reshape(len(texts), 1, -1)
    return (letters == LETTERS[:, None]).astype(np.float32)


def _dictionary(texts: Sequence[str]) -> NDArray[np.float32]:
    rows = {"A": (1, 0, 0, 0), "C": (0, 1, 0, 0), "G": (0, 0, 1, 0), "T": (0, 0, 0, 1)}
    return np.array([[rows[letter] for letter in text] for text in texts], dtype=np.float32)


# ---------------------------------------------------------------------- shuffles


#: It has 72 shuffles with its dinucleotides.
SHUFFLED = "ACCCACGATGATA"
N_SHUFFLES = 72


def shuffles(n: int, length: int, *, repetitions: int) -> Timed:
    """One dinucleotide shuffle of each sequence; ours from codes to codes, tangermeme's from one-hot to one-hot."""
    codes = alphabet.encode_batch(random_texts(n, length))
    ways: dict[str, tuple[Step, float]] = {
        f"{OURS}: dinucleotide_shuffle_codes": (
            lambda: dinucleotide_shuffle_codes(codes, np.random.default_rng(1)),
            1,
        )
    }
    if PEERS["tangermeme"]:
        from tangermeme.ersatz import dinucleotide_shuffle

        one_hot = torch.from_numpy(alphabet.one_hot(codes)).to(torch.int8)
        ways["tangermeme: dinucleotide_shuffle"] = (lambda: dinucleotide_shuffle(one_hot, n=1, random_state=1), 1)
    return Timed(compare(ways, repetitions=repetitions), [])


def shuffle_uniformity(n: int) -> dict[str, tuple[int, float]]:
    """How many of the 72 shuffles come up in `n` draws, and the p-value of equal rates, of each way."""
    codes = np.tile(alphabet.encode(SHUFFLED), (n, 1))
    drawn = {OURS: dinucleotide_shuffle_codes(codes, np.random.default_rng(7))}
    if PEERS["tangermeme"]:
        from tangermeme.ersatz import dinucleotide_shuffle

        one_hot = torch.from_numpy(alphabet.one_hot(codes[:1])).to(torch.int8)
        drawn["tangermeme"] = dinucleotide_shuffle(one_hot, n=n, random_state=7)[0].argmax(1).numpy()
    found = {}
    for name, rows in drawn.items():
        counts = Counter(map(bytes, np.ascontiguousarray(rows.astype(np.uint8))))
        observed = [*counts.values(), *[0] * (N_SHUFFLES - len(counts))]
        found[name] = len(counts), float(chisquare(observed).pvalue)
    return found


# ------------------------------------------------------------------------- tokens


def kmers(n: int, length: int, k: int, stride: int, *, repetitions: int) -> Timed:
    """Codes to k-mer ids; the others start from text."""
    texts = random_texts(n, length)
    codes = torch.from_numpy(alphabet.encode_batch(texts))
    tokenizer = tokenizer_for("kmer", k, stride)
    few = texts[: max(n // 20, 10)]
    scale = n / len(few)
    ids = {tokenizer.word(i): i for i in range(3, tokenizer.n_tokens)}

    def ours() -> None:
        for block in codes.split(BLOCK // 10):
            tokenizer.encode(block)

    def in_python(texts: Sequence[str]) -> list[list[int]]:
        return [[ids[text[i : i + k]] for i in range(0, length - k + 1, stride)] for text in texts]

    ways: dict[str, tuple[Step, float]] = {
        f"{OURS}: KmerTokenizer": (ours, 1),
        "Python: a dictionary, word by word": (lambda: in_python(few), scale),
    }
    if PEERS["tokenizers"]:
        library = _word_level(ids)

        def joined() -> list[list[int]]:
            return [library.encode(" ".join(t[i : i + k] for i in range(0, length - k + 1, stride))).ids for t in few]

        ways["as DNABERT: joined words, tokenizers"] = (joined, scale)
    found = tokenizer.encode(codes[:10]).ids.tolist()
    expected = in_python(texts[:10])
    same = all(row[: len(other)] == other for row, other in zip(found, expected, strict=True))
    return Timed(compare(ways, repetitions=repetitions), [] if same else [OURS])


def _word_level(ids: Mapping[str, int]) -> Any:
    import tokenizers

    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, **ids}, unk_token="[UNK]"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return library


def bpe(n: int, length: int, vocabulary: int, *, repetitions: int) -> Timed:
    """Codes to ids of byte pairs; the library itself starts from text."""
    import tokenizers

    texts = random_texts(n, length)
    codes = torch.from_numpy(alphabet.encode_batch(texts))
    tokenizer = train_bpe(texts[:1000], vocabulary=vocabulary)
    words = ["<pad>", "N", "<mask>", *tokenizer.words]
    library = tokenizers.Tokenizer(
        tokenizers.models.BPE({word: i for i, word in enumerate(words)}, [tuple(merge) for merge in tokenizer.merges])
    )
    rank = {merge: i for i, merge in enumerate(tokenizer.merges)}
    ids = {word: i for i, word in enumerate(words)}
    few = texts[: max(n // 1000, 5)]

    def ours() -> None:
        for block in codes.split(BLOCK // 10):
            tokenizer.encode(block)

    def one_by_one(texts: Sequence[str]) -> list[list[int]]:
        return [library.encode(text).ids for text in texts]

    def slow() -> list[list[int]]:
        return [_merged(text, rank, ids) for text in few]

    ways: dict[str, tuple[Step, float]] = {
        f"{OURS}: BpeTokenizer": (ours, 1),
        "tokenizers: encode, one by one": (lambda: one_by_one(texts), 1),
        "tokenizers: encode_batch": (lambda: [found.ids for found in library.encode_batch(texts)], 1),
        "Python: merge the best pair, again and again": (
            lambda: [_merged(text, rank, ids) for text in few],
            n / len(few),
        ),
    }
    expected = one_by_one(few)
    found = tokenizer.encode(codes[: len(few)]).ids.tolist()
    same = all(row[: len(other)] == other for row, other in zip(found, expected, strict=True))
    return Timed(compare(ways, repetitions=repetitions), [] if same and slow() == expected else [OURS])


def _merged(text: str, rank: Mapping[tuple[str, str], int], ids: Mapping[str, int]) -> list[int]:
    words = list(text)
    while len(words) > 1:
        best = min(zip(words, words[1:], strict=False), key=lambda pair: rank.get(pair, len(rank)))
        if best not in rank:
            break
        merged, i = [], 0
        while i < len(words):
            if i + 1 < len(words) and (words[i], words[i + 1]) == best:
                merged.append(words[i] + words[i + 1])
                i += 2
            else:
                merged.append(words[i])
                i += 1
        words = merged
    return [ids[word] for word in words]


# ----------------------------------------------------------------------- homology


class Planted(NamedTuple):
    """Sequences and their families: planted relatives share a number, others have one of their own."""

    texts: list[str]
    family: NDArray[np.int64]
    #: "", "copy", "reverse complement", "overlap" or "mutated" of each.
    kind: NDArray[np.str_]


KINDS = ("copy", "reverse complement", "overlap", "mutated")


def planted(n: int, length: int) -> Planted:
    """Random sequences, of which a tenth each is a copy, a reverse complement, a shifted or a mutated copy of another.

    Shifted copies share 90 % of their bases, half of them on the other strand; mutated ones have 10 % substitutions.
    """
    rng = np.random.default_rng(3)
    n_each = n // 10
    codes = rng.integers(0, 4, (n, length)).astype(np.uint8)
    family, kind = np.arange(n), np.full(n, "", dtype="U20")
    for i, name in enumerate(KINDS):
        children = np.arange(n - (i + 1) * n_each, n - i * n_each)
        parents = rng.choice(n - len(KINDS) * n_each, len(children), replace=False)
        child = codes[parents].copy()
        if name == "reverse complement":
            child = alphabet.reverse_complement_codes(child)
        elif name == "overlap":
            shift = length // 10
            child = np.concatenate([child[:, shift:], rng.integers(0, 4, (len(child), shift)).astype(np.uint8)], axis=1)
            child[::2] = alphabet.reverse_complement_codes(child[::2])
        elif name == "mutated":
            places = rng.random(child.shape).argsort(axis=1)[:, : length // 10]
            rows = np.arange(len(child))[:, None]
            child[rows, places] = (child[rows, places] + rng.integers(1, 4, places.shape)) % 4
        codes[children], family[children], kind[children] = child, parents, name
    order = rng.permutation(n)
    return Planted([alphabet.decode(row) for row in codes[order]], family[order], kind[order])


def grouping(n: int, length: int) -> dict[str, dict[str, float]]:
    """Seconds, precision and recall of pairs in one group, of each way to group."""
    data = planted(n, length)
    table = pd.DataFrame({"sequence": data.texts})
    rules = {
        f"{OURS}: homology, identity 0.8": SplitConfig(group_by=["homology"], identity=0.8),
        f"{OURS}: shared_kmer, k = 20": SplitConfig(group_by=["shared_kmer"], kmer=20),
        f"{OURS}: identical or reverse complement only": SplitConfig(),
    }
    found: dict[str, dict[str, float]] = {}
    for name, rule in rules.items():
        groups: list[NDArray[np.int64]] = []
        seconds = timed(lambda rule=rule, groups=groups: groups.append(assign_groups(table, rule)))
        found[name] = {"seconds": seconds, **_pairs(groups[0], data)}
    return found


def _pairs(groups: NDArray[np.int64], data: Planted) -> dict[str, float]:
    """Precision and recall over pairs, and the recall of each kind of relative to its parent."""
    both = pd.DataFrame({"group": groups, "family": data.family})

    def count(columns: list[str]) -> int:
        sizes = both.groupby(columns).size().to_numpy()
        return int((sizes * (sizes - 1) // 2).sum())

    true = count(["group", "family"])
    scores = {"precision": true / max(count(["group"]), 1), "recall": true / count(["family"])}
    group_of_parent = pd.Series(groups, index=data.family)[data.kind == ""]
    for kind in KINDS:
        children = data.kind == kind
        parents = group_of_parent.loc[data.family[children]].to_numpy()
        scores[kind] = float((groups[children] == parents).mean())
    return scores


def leakage(n: int, length: int) -> dict[str, float]:
    """Seconds, precision and recall of the audit of a split that ignores all relations."""
    data = planted(n, length)
    rng = np.random.default_rng(4)
    names = [f"s{i}" for i in range(n)]
    table = pd.DataFrame({"name": names, "sequence": data.texts, "label": rng.integers(0, 2, n).astype(float)})
    subsets = rng.choice(["train", "validation", "test"], n, p=[0.7, 0.15, 0.15]).astype(object)
    split = pd.DataFrame({"name": names, "group": np.arange(n), "fold_0": subsets})
    made: list[pd.DataFrame] = []
    seconds = timed(lambda: made.append(audit(table, split, SplitConfig(), TaskConfig(), seed=1).neighbours))
    found = made[0].set_index("name")
    held = subsets != "train"
    family_in_train = pd.Series(data.family).isin(data.family[~held]).to_numpy()[held]
    leaks = (found.loc[np.array(names)[held], "identity"].to_numpy(dtype=float)) >= 0.8
    return {
        "seconds": seconds,
        "precision": float(family_in_train[leaks].mean()),
        "recall": float(leaks[family_in_train].mean()),
        "n": int(held.sum()),
        "n_leaks": int(family_in_train.sum()),
    }


def all_pairs_seconds(n: int, length: int, n_few: int) -> float:
    """Seconds of edlib on all pairs and both strands of `n` sequences, scaled from all pairs of a few."""
    import edlib

    texts = random_texts(n_few, length)
    other = [alphabet.reverse_complement(text) for text in texts]

    def step() -> None:
        for i, text in enumerate(texts):
            for j in range(i):
                edlib.align(text, texts[j], mode="HW", k=length // 5)
                edlib.align(text, other[j], mode="HW", k=length // 5)

    return timed(step) * (n / n_few) ** 2


# ------------------------------------------------------------------------ loading


def write_examples(folder: str, n: int, length: int) -> dict[str, str]:
    """Sequences with a label as parquet, and a split of them; returns the paths."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(5)
    sequences, split = Path(folder, "sequences.parquet"), Path(folder, "split.parquet")
    schema = pa.schema([("name", pa.string()), ("sequence", pa.string()), ("label", pa.float64())])
    with pq.ParquetWriter(sequences, schema) as writer:
        for start in range(0, n, BLOCK):
            stop = min(start + BLOCK, n)
            letters = LETTERS[rng.integers(0, 4, (stop - start, length))]
            columns = {
                "name": [f"s{i}" for i in range(start, stop)],
                "sequence": [row.tobytes().decode("ascii") for row in letters],
                "label": rng.integers(0, 2, stop - start).astype(float),
            }
            writer.write_table(pa.table(columns, schema=schema))
    subsets = rng.choice(["train", "validation", "test"], n, p=[0.7, 0.15, 0.15])
    pd.DataFrame({"name": [f"s{i}" for i in range(n)], "group": np.arange(n), "fold_0": subsets}).to_parquet(split)
    return {"sequences": str(sequences), "split": str(split)}


class Loaded(NamedTuple):
    """Peak memory above the start, seconds until the first batch is there, and seconds of an epoch (scaled)."""

    peak_mib: float
    load_seconds: float
    epoch_seconds: float


def load_ours(paths: Mapping[str, str], batch_size: int) -> Loaded:
    """`load_examples` and one epoch of shuffled training batches."""
    from bioattn.train.batches import Batches
    from bioattn.train.data import load_examples

    parts: list[Any] = []
    with Peak() as peak:
        load = timed(
            lambda: parts.append(
                load_examples(paths["sequences"], pd.read_parquet(paths["split"]), TaskConfig(), fold=0)
            )
        )
        batches = Batches(parts[0]["train"], batch_size, seed=1)
        epoch = timed(lambda: _drain(batches))
        batches.close()
    return Loaded(peak.mib, load, epoch)


def load_pandas(paths: Mapping[str, str], batch_size: int, n_items: int) -> Loaded:
    """The usual data set: a table in memory, one-hot of one sequence at a time, collated by a DataLoader."""

    class Items(torch.utils.data.Dataset):
        def __init__(self, table: pd.DataFrame) -> None:
            self.texts, self.labels = table["sequence"].tolist(), table["label"].to_numpy()

        def __len__(self) -> int:
            return len(self.texts)

        def __getitem__(self, i: int) -> tuple[NDArray[np.float32], np.float32]:
            return one_hot_each(self.texts[i]).T, np.float32(self.labels[i])

    parts: list[Items] = []

    def load() -> None:
        split = pd.read_parquet(paths["split"])
        table = pd.read_parquet(paths["sequences"])
        parts.append(Items(table[(split["fold_0"] == "train").to_numpy()]))

    with Peak() as peak:
        load_seconds = timed(load)
        n = min(n_items, len(parts[0]))
        few = torch.utils.data.Subset(parts[0], np.random.default_rng(1).permutation(len(parts[0]))[:n].tolist())
        epoch = timed(lambda: _drain(torch.utils.data.DataLoader(few, batch_size)))
    return Loaded(peak.mib, load_seconds, epoch * len(parts[0]) / n)


def _drain(batches: Any) -> None:
    for _ in batches:
        pass
