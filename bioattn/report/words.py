"""Fixed texts of the report: what verdicts and metrics mean, and what the method cannot say."""

#: What each verdict says, in the order of how much it claims.
VERDICT_MEANING = {
    "causal in model": (
        "One motif changes what the other one does to the prediction, more than chance and noise explain, in "
        "most replicates. At evidence level L3, blocking attention between the two removes most of that change; at "
        "level L4b, measurements of a randomised library show an interaction of the same sign."
    ),
    "hidden (causal without attention)": (
        "The two motifs depend on each other in the model, but not through attention between them: the attention map "
        "alone would have missed this pair, or shown the wrong route."
    ),
    "co-occurrence confounded": (
        "The two motifs appear together more (or less) often than chance, so a common cause can explain the pair as "
        "well as an interaction can. These data cannot tell which; an experiment that sets the motifs apart could."
    ),
    "attention-only (correlational)": (
        "The model looks from one motif to the other, yet removing them shows no dependence. Attention is not evidence "
        "of an interaction here."
    ),
    "not supported": "Tested, and no interaction of a size that counts was found.",
    "insufficient data": "Too few sequences hold both motifs apart from each other, or too few models were trained.",
    "not tested": "Attention gave no reason to test the pair, and it is not in the random sample of tested pairs.",
}

VERDICT_BOX = (
    "Attention is correlation: a high weight says that the model read one place while describing another, not that the "
    "first place causes anything. Every candidate from attention is therefore put to experiments on the model: its "
    "motifs are put alone and together into many backgrounds, and removed one by one and together from real held-out "
    "sequences, and the prediction is read again. Random pairs that attention did not point to, and pairs with a decoy "
    "(a motif with its columns in another order), are tested the same way.",
    "'Causal in model' means that such interventions change the model's output as an interaction. It does not mean "
    "that the two proteins touch, nor that the cell behaves like the model: the model learned from observations, and a "
    "cause that is not in the sequence can look like an interaction of motifs. Only data in which the motifs "
    "themselves were varied (a randomised library, a reporter assay) can carry the claim into the world; the evidence "
    "level says where that was done.",
)

#: Verdicts on attention heads, in order of how much they claim: a few words, and what was found.
HEAD_VERDICTS = {
    "motif": (
        "reads a motif, matters",
        "A motif in what it reads is enriched in held-out sequences (q < 0.05), and without the head the held-out loss "
        "rises more than without 95 % of the heads of models with random weights.",
    ),
    "weak": (
        "motif, matters little",
        "A motif is enriched and predictions are worse without the head, but heads of models with random weights are "
        "worth as much. The motif is there; that this head is needed for it is not shown.",
    ),
    "redundant": (
        "same as another head",
        "Taken away alone it costs no more than a head of a random model. Another head has nearly the same attention, "
        "and once that one is gone this head does cost more: it can stand in for the other.",
    ),
    "positional": (
        "reads a place",
        "More than half of what varies in the attention that tokens receive is explained by their place in the "
        "sequence. A motif in such a head may only be what usually stands there.",
    ),
    "diffuse": (
        "no single motif",
        "Predictions are worse without it, or that was not measured, but no motif is enriched in what it reads: it may "
        "gather over many places, or read composition or something that a motif cannot hold.",
    ),
    "dead": (
        "not needed",
        "Without it the held-out loss does not rise and the score does not fall: both intervals reach zero. Whatever "
        "its logo shows, the prediction does not need it.",
    ),
}

#: Tracks of a head in which seqlets are sought.
TRACKS = {"received": "attention received", "gradient": "attention × gradient"}

#: What was compared with what, for the verdicts on heads.
HEAD_BOX = (
    "What a head reads. The attention that each token receives is compared with what tokens of the same place and "
    "composition receive in shuffled sequences (dinucleotides kept). Places that stand out beyond that (seqlets) are "
    "aligned and summed up as motifs. The same is done with attention weighted by its gradient, which marks what "
    "the reading does to the prediction.",
    "Whether the motif is real. It is found in training and validation sequences and counted in held-out ones: seqlets "
    "that hold it against other windows of the same sequences, and sequences with such a seqlet against shuffled ones. "
    "The weaker of the two comparisons counts.",
    "Whether the head matters. Its output is replaced by its mean (also by zero, and by that in another sequence), and "
    "the held-out loss and score are taken again. The rise of the loss is held against that of heads of models of the "
    "same build with random weights, which by construction do not know the task.",
    "Whether a motif is causal in the model. Its sites in held-out sequences are replaced letter by letter, and only "
    "the head that reads them gets to see that (path patching). If the prediction changes more than when other places "
    "of the same sequences are replaced (q < 0.05), the motif is causal in the model through this head; else it is "
    "read and no more. That holds for the model: a motif that always comes with the true cause acts in it as well.",
    "How to read a card. What is read: letters in bits. Its contribution: the same sites, each letter as high as it "
    "raises (or, below the line, lowers) the prediction. Around its readers: what the tokens that read the motif have "
    "in common. How far away: share of the reading at each distance of motif and reader, negative where the motif lies "
    "to the left; the dashed line is what it were if all tokens read alike.",
)

#: Why no head may read anything.
NO_MOTIF_REASONS = (
    "Usual reasons: the model predicts little more than composition does (compare its score with the baselines); too "
    "few sequences, so that too few places stand out (the notes below give the numbers); or the layers before "
    "attention have already summed up the motifs, so that heads only gather what is there."
)

#: Lower-case metric name -> how it is written. Unknown ones are shown as they are.
METRIC_NAMES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "mcc": "MCC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "brier": "Brier score",
    "ece": "calibration error",
    "calibration_error": "calibration error",
    "log_loss": "log loss",
    "cross_entropy": "cross entropy",
    "pearson": "Pearson r",
    "pearson_r": "Pearson r",
    "spearman": "Spearman ρ",
    "r2": "R²",
    "mse": "mean squared error",
    "rmse": "root mean squared error",
    "poisson_deviance": "Poisson deviance",
}

#: Metrics where less is better.
LOWER_IS_BETTER = {
    "brier", "ece", "calibration_error", "log_loss", "cross_entropy", "mse", "rmse", "poisson_deviance", "loss",
}  # fmt: skip

#: The metric of the headline by task, first one present.
HEADLINE_METRICS = {
    "binary": ("auroc", "mcc", "accuracy"),
    "multilabel": ("auroc", "auprc"),
    "multiclass": ("accuracy", "mcc", "auroc"),
    "regression": ("pearson", "pearson_r", "spearman", "r2"),
    "count": ("spearman", "pearson", "pearson_r", "poisson_deviance"),
}

MODEL_NAMES = {
    # The run's own model, whatever it is: the table calls it by what it is in nearly every run.
    "transformer": "trained model",
    "ensemble": "trained models, averaged",
    "composition": "composition only",
    "onehot": "linear, one-hot",
    "kmer": "linear, k-mers",
    "cnn": "small CNN",
    "rnn": "GRU network",
    "uniform": "same model, uniform attention",
}

#: Kinds of `model.encoder`, at the beginning of a sentence.
MODEL_KINDS = {
    "attention": "A Transformer",
    "gru": "A recurrent network (GRU)",
    "lstm": "A recurrent network (LSTM)",
}

#: Short titles of interaction columns; the data dictionary gives the definitions.
COLUMN_TITLES = {
    "tf_a": "motif A",
    "tf_b": "motif B",
    "verdict": "verdict",
    "epistasis_effect": "epistasis",
    "epistasis_q": "q",
    "attention_effect": "attention (bits)",
    "attention_q": "q, attention",
    "cooccurrence_logodds": "co-occurrence (log odds)",
    "mediated_fraction": "through attention",
    "seeds_supporting": "replicates",
    "evidence_level": "evidence",
    "n_pairs": "instances",
}

LIMITS = (
    "Interventions here act on sequences given to the model. They show what the model computes; they show what the "
    "cell does only as far as the model is right about it, and a held-out score does not prove that.",
    "A cause that is not in the sequence (cell state, chromatin, a neighbouring gene) and that makes motifs and "
    "readout go together is invisible to the model. That is why a pair that co-occurs is never called causal from "
    "observational data alone, even if it is: true interactions between co-occurring motifs are lost to this rule.",
    "A motif stands for all factors that bind sequences like it. Naming a family member is beyond these data.",
    "Motifs are put into shuffled sequences, and removed sites are replaced by their own letters in another order that "
    "matches no motif. Such sequences may be unlike anything the model was trained on; that both designs agree (column "
    "design_agreement) speaks against it.",
    "Pairs whose sites overlap, or that lie within the reach of one filter, cannot be separated and are not tested.",
    "'Not supported' is the absence of evidence for an effect of a size that counts, not proof that there is none.",
    "Replicates share one data set unless they were resampled; agreement between them does not remove what the data "
    "themselves have in common.",
)
