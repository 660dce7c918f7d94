"""Which split a row belongs to, and which rows may not stand in any: copies and leaks.

Rows are frames as `stages/rows.py` makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import UserError
from stages.preparing import near

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "validation", "test")
NAMED = 5  # examples that a message lists


def reject_copies(rows: pd.DataFrame, target: str, *, several: bool = False) -> None:
    """Write the reasons of texts with several targets, repeated rows and leaks between splits.

    Of a text with one target the first row of its split stays; of a text with several targets,
    none, in whichever splits they are. A text that occurs in two splits stays in the smaller one.

    Args:
        several: a text may have several targets; rows that repeat both are copies.
    """
    copies = _copies(rows, target)
    targets = copies[target].groupby(copies["key"]).transform("nunique")
    if not several:
        _reject(rows, copies.index[targets > 1], "conflicting labels")

    copies = _copies(rows, "line", target)
    same = ["split", "key", target] if several else ["split", "key"]
    again = copies.duplicated(same)
    first = copies.groupby(same)["line"].transform("first")[again]
    _reject(rows, first.index, "duplicate of line " + first.astype(str))

    copies = _copies(rows)
    sizes = rows.loc[rows["reason"] == "", "split"].value_counts()
    order = sorted(SPLITS, key=lambda split: (sizes.get(split, 0), -SPLITS.index(split)))
    rank = copies["split"].map({split: i for i, split in enumerate(order)})
    least = rank.groupby(copies["key"]).transform("min")
    stays = least[rank > least].map(dict(enumerate(order)))
    _reject(rows, stays.index, "leak: also in " + stays.astype(str))


def reject_near(
    rows: pd.DataFrame, texts: Sequence[str], threshold: float
) -> dict[str, Any] | None:
    """Write the reasons of near duplicates within a split; of a cluster the first row stays.

    Args:
        texts: the columns that hold text.

    Returns:
        What is left of leaks between splits: the clusters that stand in several, and how many
        rows of each split are in one of them; None where the threshold is 0, for never.
    """
    if not threshold:
        return None
    import pandas as pd

    usable = rows.loc[rows["reason"] == "", ["split", "line", *texts]]
    contents = usable[texts[0]].tolist()
    for role in texts[1:]:
        contents = [f"{a}\0{b}" for a, b in zip(contents, usable[role], strict=True)]
    signature = near.signatures(contents, threshold)
    split, line = usable["split"].to_numpy(), usable["line"].to_numpy()
    stays = np.ones(len(usable), dtype=bool)

    def first_of(part: np.ndarray) -> np.ndarray:
        found = near.clusters([contents[i] for i in part], signature[part], threshold)
        return part[found]

    for name in SPLITS:
        part = np.flatnonzero(split == name)
        first = first_of(part)
        again, first = part[first != part], first[first != part]
        stays[again] = False
        reasons = pd.Series([f"near duplicate of line {number}" for number in line[first]])
        _reject(rows, usable.index[again], reasons.set_axis(usable.index[again]))
    left = np.flatnonzero(stays)
    clusters = pd.DataFrame({"first": first_of(left), "split": split[left]})
    leaks = clusters[clusters.groupby("first")["split"].transform("nunique") > 1]
    sizes = leaks["split"].value_counts()
    return {
        "clusters": int(leaks["first"].nunique()),
        "rows": {name: int(sizes.get(name, 0)) for name in SPLITS},
    }


def assign(rows: pd.DataFrame, validation: float, test: float, notes: list[str]) -> pd.Series:
    """The split of each row: the given one, or drawn.

    With u = draw / 2^64, a row that is in no split, or in train while another one is missing, goes
    to test where u < test, to validation where u < test + validation, else to train. So a row's
    split depends on nothing but its own hash and the shares.
    """
    given = set(rows["split"].unique()) - {""}
    missing = [split for split in SPLITS[1:] if split not in given]
    if given and missing:
        notes.append(f"no {' and no '.join(missing)} split is given: drawn from train")
    u = rows["draw"].to_numpy() / 2.0**64
    free = rows["split"].isin(["", "train"]).to_numpy()
    split = rows["split"].mask(free, "train")
    if "test" in missing:
        split = split.mask(free & (u < test), "test")
    if "validation" in missing:
        inside = (u >= test) & (u < test + validation)
        split = split.mask(free & inside, "validation")
    return split


def check_groups(rows: pd.DataFrame, column: str) -> None:
    """Refuse given splits that tear a group apart.

    Raises:
        UserError: naming some of the groups.
    """
    grouped = rows[(rows["group"] != "") & (rows["split"] != "")]
    splits = grouped.groupby("group")["split"].nunique()
    torn = [repr(name[:60]) for name in splits.index[splits > 1]]
    if torn:
        raise UserError(
            f"params.yaml: prepare.group: {len(torn)} groups of {column!r} occur in several of the "
            f"given splits ({', '.join(torn[:NAMED])}); mend the splits, or write null"
        )


def _copies(rows: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Of the rows, not yet rejected, whose texts occur in another such row too: `split`, `key`
    and `columns`."""
    usable = rows.loc[rows["reason"] == "", ["split", "key", *columns]]
    return usable[usable["key"].duplicated(keep=False)]


def _reject(rows: pd.DataFrame, index: pd.Index, reasons: pd.Series | str) -> None:
    if len(index):
        rows.loc[index, "reason"] = reasons
