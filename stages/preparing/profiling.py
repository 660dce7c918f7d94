"""What the prepared rows are like, in numbers, and whether they are enough to learn from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import UserError
from stages.preparing.splitting import SPLITS

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = 5
KINDS = 20  # of reasons that a message lists at most
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


def check_enough(
    kept: pd.DataFrame, rejected: pd.DataFrame, labels: list[str], task: Any, path: str
) -> None:
    """Refuse what nothing can be learnt from or measured on.

    Raises:
        UserError: most rows rejected; an empty split; what the task says of the training rows.
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
    train = kept[kept["split"] == "train"]
    if len(train):
        problems += [f"{path}: {problem}" for problem in task.problems(train, labels)]
    if problems:
        raise UserError(*problems)


def profile(
    kept: pd.DataFrame,
    rejected: pd.DataFrame,
    labels: list[str],
    texts: list[str],
    task: Any,
) -> dict[str, Any]:
    """Counts of rows, reasons, splits and labels; lengths in characters; the regime."""
    splits = {}
    for split in SPLITS:
        part = kept[kept["split"] == split]
        splits[split] = {"rows": len(part), "labels": task.balance(part, labels)}
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
    counts = kinds.value_counts()
    for kind, count in counts.head(KINDS).items():
        first = next(rejected[kinds == kind].itertuples())
        lines.append(
            f"  {kind}: {count} row{'s' * (count > 1)}, first in {first.file}, line {first.line}"
        )
    if len(counts) > KINDS:
        lines.append(f"  and {len(counts) - KINDS} other reasons")
    some = rejected.head(EXAMPLES)
    for file, line, reason in zip(some["file"], some["line"], some["reason"], strict=True):
        lines.append(f"  for example {file}, line {line}: {str(reason)[:200]}")
    return lines
