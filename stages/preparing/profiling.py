"""What the prepared rows are like, in numbers, and whether they are enough to learn from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import UserError
from stages.preparing.splitting import SPLITS

if TYPE_CHECKING:
    import pandas as pd

MANY_LABELS = 100  # more than this, and in most rows another: a column of texts, not of labels
EXAMPLES = 5
REGIMES: tuple[tuple[float, str, str], ...] = (  # training rows up to which it holds, name, advice
    (
        50,
        "few",
        "Fewer than 50 labelled training rows: results will swing with the seed; label more rows, "
        "or prompt a large model with the examples you have.",
    ),
    (
        100,
        "some",
        "50 to 99 labelled training rows: fine-tuning begins to work; try several seeds, compare "
        "with the baseline, and expect the most from more labels.",
    ),
    (
        100_000,
        "fine-tuning",
        "100 labelled training rows or more: fine-tuning a small pre-trained model is the usual "
        "choice; the learning curve says whether more labels would help.",
    ),
    (
        float("inf"),
        "very many",
        "100,000 labelled training rows or more: one or two epochs may do, a larger base model may "
        "pay, and a simple baseline may come close.",
    ),
)


def check_labels(rows: pd.DataFrame, labels: list[str], target: str, column: str) -> None:
    """Refuse a target column that cannot be one of labels, before anything is made of it.

    Raises:
        UserError: more than half of the rows have a label of their own.
    """
    distinct = int(rows[target].nunique()) if labels else 0
    if distinct > MANY_LABELS and 2 * distinct > len(rows):
        raise UserError(
            f"column {column!r} has {distinct} different values in {len(rows)} rows, such as "
            f"{rows[target].iloc[0][:60]!r}; name the column that holds the labels in the task's "
            "`data`"
        )


def check_enough(
    kept: pd.DataFrame, rejected: pd.DataFrame, labels: list[str], target: str, path: str
) -> None:
    """Refuse what nothing can be learnt from or measured on.

    Raises:
        UserError: most rows rejected; an empty split; one label only; a label never trained on.
    """
    read = len(kept) + len(rejected)
    if 2 * len(rejected) > read:
        raise UserError(*_most_rejected(rejected, read, path))
    problems = []
    sizes = kept["split"].value_counts()
    counts = ", ".join(f"{split} {sizes.get(split, 0)}" for split in SPLITS)
    for split in SPLITS:
        if split not in sizes:
            problems.append(
                f"{path}: the {split} split is empty (rows: {counts}); add rows, or change "
                "prepare.validation, prepare.test or prepare.seed"
            )
    if len(labels) == 1:
        problems.append(f"{path}: one label only, {labels[0]!r}; add rows of at least another one")
    elif "train" in sizes:
        trained = set(kept.loc[kept["split"] == "train", target].unique())
        problems += [
            f"{path}: label {label!r} has no training row; add rows of it, or remove it"
            for label in labels
            if label not in trained
        ]
    if problems:
        raise UserError(*problems)


def profile(
    kept: pd.DataFrame,
    rejected: pd.DataFrame,
    labels: list[str],
    texts: tuple[str, ...],
    target: str,
) -> dict[str, Any]:
    """Counts of rows, reasons, splits and labels; lengths in characters; the regime."""
    splits = {}
    for split in SPLITS:
        targets = kept.loc[kept["split"] == split, target]
        found = targets.value_counts()
        balance = {label: int(found.get(label, 0)) for label in labels}
        splits[split] = {"rows": len(targets), "labels": balance}
    lengths = np.sum([kept[role].str.len().to_numpy() for role in texts], axis=0)
    at = {"min": 0, "median": 0.5, "p95": 0.95, "max": 1}
    counts = short(rejected["reason"]).value_counts()
    training = int((kept["split"] == "train").sum())
    name, advice = next((name, text) for limit, name, text in REGIMES if training < limit)
    return {
        "rows": {"read": len(kept) + len(rejected), "kept": len(kept), "rejected": len(rejected)},
        "rejected": dict(sorted((reason, int(count)) for reason, count in counts.items())),
        "splits": splits,
        "characters": {
            name: int(np.quantile(lengths, q, method="inverted_cdf")) for name, q in at.items()
        },
        "regime": {"name": name, "rows": training, "advice": advice},
    }


def short(reasons: pd.Series) -> pd.Series:
    """Reasons without what differs from row to row: "duplicate of line 7" is a "duplicate"."""
    distinct = {
        reason: re.split(r"[:;'\"(]| of line ", reason)[0].strip() for reason in reasons.unique()
    }
    return reasons.map(distinct)


def _most_rejected(rejected: pd.DataFrame, read: int, path: str) -> list[str]:
    kinds = short(rejected["reason"])
    lines = [f"{path}: {len(rejected)} of {read} rows cannot be used; mend them, or params.yaml:"]
    for kind, count in kinds.value_counts().items():
        first = next(rejected[kinds == kind].itertuples())
        lines.append(
            f"  {kind}: {count} row{'s' * (count > 1)}, first in {first.file}, line {first.line}"
        )
    some = rejected.head(EXAMPLES)
    for file, line, reason in zip(some["file"], some["line"], some["reason"], strict=True):
        lines.append(f"  for example {file}, line {line}: {str(reason)[:200]}")
    return lines
