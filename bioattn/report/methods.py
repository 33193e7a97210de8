"""Methods text with the numbers of this run, to paste into a paper."""

from bioattn.config import AugmentConfig, MaskConfig, NegativesConfig, RunConfig
from bioattn.report.numbers import count, listing, percent, setting
from bioattn.report.split import split_sentence

_POSITIONS = {
    "none": "no position information",
    "sinusoidal": "sinusoidal positions",
    "learned": "learned positions",
    "rope": "rotary positions",
    "relative": "a learned relative position bias",
    "alibi": "scores that fall linearly with distance (ALiBi)",
}
_POOLING = {
    "mean": "mean pooling",
    "sum": "sum pooling",
    "attention": "attention pooling",
    "cls": "a readout from a learned first token",
}
_BASELINES = {
    "composition": "a linear model of letter composition and length",
    "onehot": "a linear model of one-hot letters",
    "kmer": "a linear model of k-mer counts (k up to {kmer_max})",
    "cnn": "a small convolutional network",
    "rnn": "a bidirectional recurrent network (GRU) of equal size with the model's stem and readout",
    "uniform": "the model itself with uniform attention",
}


def methods(run: RunConfig, *, version: str) -> list[str]:
    """Paragraphs: data and split, model, training, evaluation, heads, interactions."""
    return [
        _data(run),
        _model(run),
        _training(run),
        _evaluation(run),
        *([_heads(run), _candidates(run), _interventions(run)] if run.model.has_attention else []),
        f"All analyses were run with bioattn {version}; the settings and random seeds are given in full below.",
    ]


def _data(run: RunConfig) -> str:
    simulate = run.data.simulate
    if simulate is not None:
        twins = " and, for each, four copies with one pair of motifs set" if simulate.regime == "twins" else ""
        source = (
            f"{simulate.n_sequences:,} promoters of {simulate.length} bp{twins} were simulated from a structural "
            f"causal model ({simulate.regime} regime)."
        )
    else:
        source = f"Sequences were read from the files of {run.data.samples or 'the sample sheet'} and checked."
    source += _negatives(run.data.negatives)
    targets = listing(run.task.targets)
    return f"{source} The target ({run.task.kind}) was {targets}. {split_sentence(run)}"


def _negatives(rules: NegativesConfig) -> str:
    if rules.kind == "none":
        return ""
    made = {
        "dinucleotide_shuffle": "shuffles that keep dinucleotide counts, uniform over all such shuffles",
        "mononucleotide_shuffle": "shuffles that keep letter counts",
        "markov": f"a Markov chain of order {rules.markov_order} fitted to the positives",
        "genomic": "the genome, away from positives"
        + (" and excluded regions" if rules.exclude else "")
        + f", matched in length and GC content (within {setting(rules.gc_tolerance)})"
        + (" and share of repeats" if rules.match_repeats else ""),
    }[rules.kind]
    return f" {count(rules.per_positive, 'negative')} per positive came from {made}."


def _model(run: RunConfig) -> str:
    model, stem = run.model, run.model.stem
    words = model.tokenizer
    tokens = {
        "nucleotide": "one token per base",
        "kmer": f"words of {words.k} bases, {count(words.stride, 'base')} from one to the next",
        "bpe": f"up to {words.vocabulary:,} words of byte pair encoding learned from the training sequences",
    }[words.kind]
    if stem.kind != "none":
        start = " besides those that start as the run's motif matrices" if stem.kind == "pwm" else ""
        tokens = (
            f"a convolutional stem (width {stem.width} bp, {stem.n_filters} learned filters{start}; max pooling over "
            f"{stem.pool} bp)"
        )
    both = " Predictions are the mean of both strands." if model.reverse_complement == "average" else ""
    if not model.has_attention:
        return (
            f"The model was a bidirectional recurrent network ({model.encoder.upper()}) on {tokens}, with "
            f"{count(model.n_layers, 'layer')} of width {model.d_model}, dropout {setting(model.dropout)} and "
            f"{_POOLING[model.pooling]}.{both}"
        )
    return (
        f"The model was a pre-norm Transformer encoder on {tokens}, with {count(model.n_layers, 'layer')} of "
        f"{count(model.n_heads, 'attention head')}, width {model.d_model}, feed-forward width {model.d_feedforward} "
        f"({model.feedforward}), {_POSITIONS[model.positions]}, dropout {setting(model.dropout)} and "
        f"{_POOLING[model.pooling]}.{_mask(model.mask)}{both}"
    )


def _mask(mask: MaskConfig) -> str:
    if not mask.restricted:
        return ""
    read = []
    if mask.window is not None:
        read.append(f"{mask.window} tokens on either side")
    if mask.dilated_step is not None:
        read.append(f"every {mask.dilated_step}th token, {mask.dilated_reach} of them on either side")
    if mask.random_blocks:
        read.append(f"{count(mask.random_blocks, 'fixed random block')} of {mask.block} tokens")
    if mask.global_tokens:
        read.append(f"the first {mask.global_tokens} tokens (which read all)")
    what = f" A token read {listing(read)}." if read else ""
    return f"{what} No token read later ones." if mask.causal else what


def _training(run: RunConfig) -> str:
    train = run.train
    resample = ", each on a bootstrap resample of the split groups" if train.resample == "bootstrap" else ""
    first = ""
    if run.pretrain:
        first = (
            f" Stem and encoder had first learned to predict hidden bases ({percent(run.pretrain.masked_fraction)}, in "
            f"spans of {run.pretrain.span_bp}) of unlabelled sequences, without those that share 20 bases with a "
            f"held-out sequence."
        )
    permuted = " Targets were permuted among training examples (negative control)." if train.permute_labels else ""
    return (
        f"{count(len(train.seeds), 'model')} per fold ({count(run.split.n_folds, 'fold')}) were trained with different "
        f"seeds{resample}: AdamW, peak learning rate {setting(train.learning_rate)}, weight decay "
        f"{setting(train.weight_decay)}, linear warm-up over {percent(train.warmup_fraction)} of the steps and cosine "
        f"decay, batches of {train.batch_size}, at most {count(train.epochs, 'epoch')}, stopped after {train.patience} "
        f"of the second half without a better validation loss.{first}{_augmentation(train.augment)}{permuted}"
    )


def _augmentation(rules: AugmentConfig) -> str:
    done = []
    if rules.reverse_complement:
        done.append("turned to a random strand")
    if rules.shift_bp:
        done.append(f"moved by up to {rules.shift_bp} bp")
    if rules.mutation_rate:
        done.append(f"mutated at {percent(rules.mutation_rate)} of their bases")
    if rules.deletion_bp:
        done.append(f"shortened by deletions of up to {rules.deletion_bp} bp")
    if rules.insertion_bp:
        done.append(f"given insertions of up to {rules.insertion_bp} bp")
    if not done:
        return ""
    only = ""
    if rules.changes_letters and rules.only_labels:
        only = f" Letters were changed only in examples with target {listing([f'{v:g}' for v in rules.only_labels])}."
    clean = ""
    if rules.changes_letters and rules.clean_epochs:
        clean = f" The last {count(rules.clean_epochs, 'epoch')} left letters alone."
    return f" In each epoch, training sequences were {listing(done)}.{only}{clean}"


def _evaluation(run: RunConfig) -> str:
    evaluate = run.evaluate
    names = [_BASELINES[name].format(kmer_max=evaluate.kmer_max) for name in evaluate.baselines]
    against = f" They are compared with {listing(names)}, trained on the same split." if names else ""
    return (
        f"Scores are of held-out test sequences with 95 % confidence intervals from {evaluate.bootstrap:,} bootstrap "
        f"draws of split groups.{against}"
    )


def _heads(run: RunConfig) -> str:
    explain = run.explain
    matched = ""
    if run.motifs.naming_tax_group:
        group = run.motifs.naming_tax_group
        matched = (
            f" Motifs were compared with JASPAR ({group}) by TomTom, with p-values corrected by motifs of shuffled "
            f"columns, at q ≤ {setting(explain.match_q_value)}; the best of each family is shown."
        )
    positives = " (positives)" if run.task.kind == "binary" else ""
    return (
        "For each head, two tracks were taken: the attention that every token receives, and the product of attention "
        "and its gradient, each less what place and composition explain in dinucleotide shuffles. In up to "
        f"{explain.n_sequences:,} training and validation sequences{positives}, peaks that pass a false discovery rate "
        f"of {setting(explain.seqlet_fdr)} against the shuffles are seqlets (at most {explain.seqlets_per_head:,} per "
        f"head and track, windows of {explain.window_bp} bp), and motifs of up to {explain.motif_width_bp} bp were "
        "sought in them (enriched hexamers refined by expectation-maximisation). Enrichment was tested in held-out "
        "sequences, both against other places of the same sequences and against shuffled sequences; the weaker of the "
        f"two counts (Fisher's exact test, Benjamini-Hochberg over all motifs).{matched} Each head's output was "
        "replaced by zero, by its mean and by that in other sequences, in up to "
        f"{explain.scored_sequences:,} test sequences; a head matters if mean ablation raises the loss more than that "
        "of 95 % of the heads of models with random weights. Attribution is saturation mutagenesis of up to "
        f"{explain.ism_sequences:,} test sequences, by which gradients and attention are judged."
    )


def _candidates(run: RunConfig) -> str:
    inter = run.interactions
    hits = f"Motif sites were matches with p ≤ {setting(inter.hit_p_value)}."
    if run.motifs.sites:
        hits = f"Sites were fixed intervals ({listing([site.name for site in run.motifs.sites])})."
    return (
        f"{hits} For every pair of motifs, co-attention in bits is the log2 attention between their sites beyond what "
        "the two motifs, their distance and the sequence explain; its null permutes motif labels among the sites of a "
        f"sequence ({inter.permutations} permutations). Pairs with q < {setting(inter.q_value)} and at least "
        f"{setting(inter.attention_floor_bits)} bits are candidates."
    )


def _interventions(run: RunConfig) -> str:
    inter = run.interactions
    minimum = (
        f"of at least {setting(inter.minimum_effect)}"
        if inter.minimum_effect is not None
        else "beyond a minimum set from main effects, the spread of readouts, and decoys"
    )
    knocked_out = (
        f"In up to {inter.instances_per_pair} held-out sequences each, either site and both were replaced by shuffles "
        f"of their letters that hold no motif ({inter.draws} draws)"
    )
    formula = f"epistasis, f(ab) - f(a) - f(b) + f(neither), was measured on the {run.task.scale} scale"
    if run.inserts_pairs:
        kind = "shuffled held-out sequences"
        if inter.background_kind == "natural":
            kind = "held-out sequences of the lowest quarter of the target"
        chosen = (
            f"All pairs of motifs were put into {inter.screen_backgrounds} backgrounds ({kind}), alone and together; "
            f"candidates, pairs with {setting(inter.screen_floor_bits)} bits or half of the effect that counts, and "
            f"{inter.n_noncandidates} random others into {inter.backgrounds} more, and {formula}, with orders, strands "
            "and distances that take turns. Inserted sites are hits of held-out sequences. Distances, strands and "
            f"orders were compared in {inter.syntax_backgrounds} backgrounds. {knocked_out}, for comparison."
        )
        control = "with a decoy (columns of the second motif in another order) in its place"
    else:
        chosen = (
            f"All candidates and {inter.n_noncandidates} random other pairs were tested. {knocked_out}, and {formula}."
        )
        control = "with a control locus of the same width"
    return (
        f"{chosen} A pair is "
        f"supported if epistasis {minimum} has q < {setting(inter.q_value)} (t-test over replicates, "
        f"Benjamini-Hochberg), exceeds the epistasis {control} (sign-flip permutation p < "
        f"{setting(inter.q_value)}) and recurs in {percent(inter.support)} of the replicates; 'causal in model' also "
        f"needs {percent(inter.mediated_floor)} of "
        "it to vanish when attention between the two sites is blocked, and no co-occurrence beyond "
        f"{setting(inter.cooccurrence_floor)} log odds unless interventional data agree."
    )
