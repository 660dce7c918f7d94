"""How alike a text that a model wrote and its reference are: chrF, BLEU and ROUGE by the field's
own libraries.

Corpus scores follow from sums over rows, so each row keeps its own counts, and any resample of
rows has its exact score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.common.tagging import words

CHRF = slice(0, 18)  # of six orders of characters: n-grams written, of the reference, and in both
BLEU = slice(18, 28)  # words written, of the reference, then right and written n-grams of 4 orders
ROUGE = {"rouge1": 28, "rouge2": 29, "rouge_l": 30}  # F of a row
EXACT = 31
SIZE = 32
BETA = 2  # of chrF: recall counts twice


def judged(texts: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """The counts and scores of each row, [n, SIZE]."""
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu import metrics

    found = np.zeros((len(texts), SIZE))
    if not len(texts):
        return found
    for where, metric in ((CHRF, metrics.CHRF()), (BLEU, metrics.BLEU(force=True))):
        found[:, where] = metric._extract_corpus_statistics([*texts], [[*references]])
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Words())
    for row, (text, reference) in enumerate(zip(texts, references, strict=True)):
        of = scorer.score(reference, text)
        for name, key in (("rouge1", "rouge1"), ("rouge2", "rouge2"), ("rouge_l", "rougeL")):
            found[row, ROUGE[name]] = of[key].fmeasure
        found[row, EXACT] = text == reference
    return found


class _Words:
    """The words of ROUGE: on ASCII those of the library, whose own drop all other letters."""

    def tokenize(self, text: str) -> list[str]:
        lower = text.lower()
        return [lower[begin:end] for begin, end in words(lower) if lower[begin].isalnum()]


def chrf(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """chrF2 of the whole corpus from 0 to 100 (Popović, 2015), in each resample: sacrebleu's
    formula, on many at once.

    Args:
        scores: as `judged` gives them. weights: [b, n].
    """
    sums = (weights @ scores[:, CHRF]).reshape(len(weights), -1, 3)
    given, true, both = sums[..., 0], sums[..., 1], sums[..., 2]
    counted = (given > 0) & (true > 0)
    orders = np.maximum(counted.sum(axis=1), 1)
    precision = np.where(counted, both / np.maximum(given, 1), 0).sum(axis=1) / orders
    recall = np.where(counted, both / np.maximum(true, 1), 0).sum(axis=1) / orders
    below = BETA**2 * precision + recall
    return 100 * (1 + BETA**2) * precision * recall / np.where(below > 0, below, 1)


def bleu(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """BLEU of the whole corpus from 0 to 100 by sacrebleu, in each resample."""
    from sacrebleu import metrics

    metric = metrics.BLEU(force=True)
    sums = np.rint(weights @ scores[:, BLEU]).astype(int)
    return np.array([metric._compute_score_from_stats(row).score for row in sums.tolist()])
