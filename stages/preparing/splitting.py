"""Which split a row belongs to, and which rows may not stand in any: copies and leaks.

Rows are frames as `stages/rows.py` makes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "validation", "test")
NAMED = 5  # examples that a message lists


def reject_copies(rows: pd.DataFrame, target: str) -> None:
    """Write the reasons of texts with several targets, repeated rows and leaks between splits.

    Of a text with one target the first row of its split stays; of a text with several targets,
    none, in whichever splits they are. A text that occurs in two splits stays in the smaller one.
    """
    copies = _copies(rows)
    targets = copies[target].groupby(copies["key"]).transform("nunique")
    _reject(rows, copies.index[targets > 1], "conflicting labels")

    copies = _copies(rows)
    again = copies.duplicated(["split", "key"])
    first = copies.groupby(["split", "key"])["line"].transform("first")[again]
    _reject(rows, first.index, "duplicate of line " + first.astype(str))

    copies = _copies(rows)
    sizes = rows.loc[rows["reason"] == "", "split"].value_counts()
    order = sorted(SPLITS, key=lambda split: (sizes.get(split, 0), -SPLITS.index(split)))
    rank = copies["split"].map({split: i for i, split in enumerate(order)})
    least = rank.groupby(copies["key"]).transform("min")
    stays = least[rank > least].map(dict(enumerate(order)))
    _reject(rows, stays.index, "leak: also in " + stays.astype(str))


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


def _copies(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, not yet rejected, whose texts occur in another such row too."""
    usable = rows[rows["reason"] == ""]
    return usable[usable["key"].duplicated(keep=False)]


def _reject(rows: pd.DataFrame, index: pd.Index, reasons: pd.Series | str) -> None:
    if len(index):
        rows.loc[index, "reason"] = reasons
