"""What tasks on one text, or on a pair of texts, have in common: roles, labels, head, TF-IDF."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from stages.errors import UserError
from stages.params import Section

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from transformers import PreTrainedModel

    from stages.tasks.base import Learnt, Normalised, Raw

TEXTS = ("text", "text_pair")
MANY_LABELS = 100  # more than this, and in most rows another: a column of texts, not of labels


class TextData(Section):
    """Which columns hold the texts: the start of a task's section `data`."""

    text: str = Field("text", min_length=1, description="column that holds the text")
    text_pair: str | None = Field(
        default=None,
        min_length=1,
        description="column of a second text, for pairs; null: single texts",
    )


def columns(data: TextData) -> dict[str, str]:
    """Role to raw column of the texts."""
    single = {"text": data.text}
    return single | {"text_pair": data.text_pair} if data.text_pair else single


def present(texts: Sequence[str], names: Iterable[str]) -> list[str]:
    """Those of a task's roles of text that prepared rows have: `text_pair` is not always there."""
    known = set(names)
    return [role for role in texts if role in known]


def normalised_texts(raw: Raw, normalised: Normalised) -> dict[str, list[str]]:
    """The texts of raw rows, normalised, by role."""
    return {role: normalised(raw[role]) for role in present(TEXTS, raw)}


def distinct(labels: list[str]) -> list[str]:
    """The labels of a section `data`, once none is listed twice.

    Raises:
        ValueError: one is.
    """
    if len(set(labels)) < len(labels):
        raise ValueError("a label is listed twice; write each label once")
    return labels


def refuse_texts_as_labels(targets: Sequence[str], column: str, listed: Iterable[str]) -> None:
    """Refuse a target column that cannot be one of labels, before anything is made of it.

    Args:
        targets: the label of each row, or all labels of all rows.
        listed: the labels that the parameters list.

    Raises:
        UserError: more than half of them are different ones, and none is listed.
    """
    distinct = set(targets)
    count = len(distinct)
    if count > MANY_LABELS and 2 * count > len(targets) and distinct.isdisjoint(listed):
        raise UserError(
            f"column {column!r} has {count} different labels among {len(targets)}, such as "
            f"{targets[0][:60]!r}; name the column that holds the labels in the task's `data`, or "
            "list them there in `labels`"
        )


def untrained(balance: Mapping[str, int]) -> list[str]:
    """A line for each label that no training row has.

    Args:
        balance: training rows of each label.
    """
    return [
        f"label {label!r} has no training row; add rows of it, or remove it"
        for label, count in balance.items()
        if not count
    ]


def sequence_model(
    base: Path, labels: Sequence[str], problem: str
) -> tuple[PreTrainedModel, list[str]]:
    """The base with a head on the whole text, and the names of the parameters that are new.

    Args:
        labels: names of the outputs.
        problem: transformers' `problem_type`, which its pipeline goes by.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    model, info = AutoModelForSequenceClassification.from_pretrained(
        base,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        problem_type=problem,
        dtype=torch.float32,
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # of a head for other labels, see `head`
    )
    return model, head(model, info)


def head(model: PreTrainedModel, info: Mapping[str, Any]) -> list[str]:
    """The names of the head's parameters, also where the base brings a head of its own, and of what
    else is new.

    Args:
        info: what transformers says of the loading.

    Raises:
        UserError: the base's own weights have other sizes than its config says.
    """
    own = f"{model.base_model_prefix}."
    strange = sorted(str(one[0]) for one in info["mismatched_keys"] if one[0].startswith(own))
    if strange:
        raise UserError(
            f"data/base: {strange[0]} has another size than config.json says; get both files from "
            "one revision of the base"
        )
    outside = [name for name, _ in model.named_parameters() if not name.startswith(own)]
    return sorted({*outside, *info["missing_keys"]})


def logits(output: Any) -> torch.Tensor:
    """`Task.logits` where the model's output has one tensor of them."""
    return output.logits


def no_arguments(part: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`Task.arguments` where the model needs no others."""
    return {}


def as_it_is(target: str, row: Mapping[str, Any], labels: list[str]) -> str:
    """`Task.readable` where targets are labels, numbers or texts."""
    return target


def all_logits(logits: torch.Tensor, part: dict[str, torch.Tensor]) -> torch.Tensor:
    """`Task.kept` where these are few."""
    return logits


class NoLoss(Section):
    """`Params.loss` where there is nothing to set."""


def no_labels(rows: pd.DataFrame, data: Any) -> list[str]:
    """`Task.labels` of a task without."""
    return []


def check_nothing(rows: pd.DataFrame, labels: list[str]) -> pd.Series:
    """`Task.check` where `read` has refused what cannot be used."""
    import pandas as pd

    return pd.Series("", rows.index)


def no_balance(rows: pd.DataFrame, labels: list[str]) -> dict[str, int]:
    """`Task.balance` of a task without labels."""
    return {}


def learn_nothing(target: np.ndarray, labels: list[str], loss: Any) -> Learnt:
    """`Task.learn` where the loss needs to know nothing of the targets."""
    return {}


def settle_nothing(*_: Any) -> Learnt:
    """`Task.settle` where nothing is tuned after training."""
    return {}


def no_decision(learnt: Learnt) -> str:
    """`Task.decision` where the outputs alone say what is predicted."""
    return ""


def fold_nothing(model: PreTrainedModel, learnt: Learnt) -> Learnt:
    """`Task.fold` where what was learnt stays beside the weights."""
    return learnt


def joined(rows: pd.DataFrame) -> list[str]:
    """The texts of each row as one, a line each."""
    return rows[present(TEXTS, rows.columns)].agg("\n".join, axis=1).tolist()


def tfidf(baseline: Any, words: str = r"(?u)\b\w\w+\b") -> Any:
    """The vectors of words that baselines of texts rest on. Where no word is in `min_df` of the
    rows they are of all words, and where the texts have none (emojis), of characters.

    Args:
        baseline: its section.
        words: pattern of a word; scikit-learn's own has two letters or more.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    class Vectors(TfidfVectorizer):
        def fit_transform(self, raw_documents: Any, y: Any = None) -> Any:
            known = [*raw_documents]
            self.set_params(min_df=min(baseline.min_df, len(known)))
            for change in ({"min_df": 1}, {"token_pattern": r"\S"}):
                try:
                    return super().fit_transform(known, y)
                except ValueError:  # no term remains
                    self.set_params(**change)
            return super().fit_transform(known, y)

    return Vectors(
        ngram_range=(1, baseline.ngrams),
        min_df=baseline.min_df,
        sublinear_tf=True,
        token_pattern=words,
    )
