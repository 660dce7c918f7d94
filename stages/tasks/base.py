"""What a task is: a module with these names, found by `stages.plugins`.

A task says which raw columns it needs, how a row is checked, what the model's head and loss
are, and which numbers measure it. Stages call it and know nothing of labels or spans.
Imports of torch and scikit-learn belong inside functions: `prepare`, `tokenize` and `report`
load tasks too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from transformers import PreTrainedModel

    from stages.params import Section
    from stages.statistics import Metrics

Scores = Callable[[list[str]], "np.ndarray"]
"""A fitted baseline: texts [n] to scores [n, k], of the shape that `Task.scores` gives."""

Intervals = Callable[["Metrics"], dict[str, Any]]
"""`stages.statistics.bootstrap` of the test rows: metrics to their estimates by name."""


class Task(Protocol):
    """The protocol; `stages/tasks/classification.py` is the model to copy."""

    Params: type[Section]
    """params.yaml: tasks.<name>. Its fields `data` and `loss` are sections themselves: `data`
    is read by `prepare`, `loss` by `finetune`."""
    TEXTS: tuple[str, ...]
    """Roles that hold text; they are normalised, checked for duplicates and tokenized."""
    TARGET: str
    """Role that holds what is to be predicted."""
    MAIN_METRIC: str
    """The metric that picks the best epoch and heads the report; higher is better."""
    LOWER_IS_BETTER: tuple[str, ...]
    """The metrics of which that is true."""

    HUB_TASK: str
    """The task's name on the hub, which is also that of transformers' pipeline."""

    def columns(self, data: Any) -> dict[str, str]:
        """Role to column name in the raw file. Prepared rows have the roles as columns."""

    def raw_targets(self, targets: pd.Series, data: Any) -> pd.Series:
        """The values of the raw target column as the other functions take them, [n]."""

    def labels(self, rows: pd.DataFrame, data: Any) -> list[str]:
        """The labels in their final order, from the parameters or else from the rows."""

    def check(self, rows: pd.DataFrame, labels: list[str]) -> pd.Series:
        """For each row, why its target cannot be used; an empty string where it can."""

    def targets(self, rows: pd.DataFrame, labels: list[str]) -> np.ndarray:
        """Targets [n] as numbers, as the loss takes them."""

    def build_model(self, base: Path, labels: list[str]) -> tuple[PreTrainedModel, list[str]]:
        """The base with this task's head, and the names of the parameters that are new.

        New parameters are drawn from torch's global generator; the caller seeds it."""

    def loss(
        self, logits: torch.Tensor, target: torch.Tensor, loss: Any, weight: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of the loss over the rows of `logits` [n, k], and what to divide it by to get
        the mean, so that a batch may be computed in parts."""

    def class_weight(self, targets: np.ndarray, labels: list[str], loss: Any) -> np.ndarray | None:
        """Weights [k] of the classes in the loss, or None."""

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """What predictions are stored as, [n, k]: for classes their probabilities."""

    def decide(self, scores: np.ndarray, labels: list[str]) -> list[Any]:
        """The predicted target of each row, in the user's words."""

    def answers(self, scores: np.ndarray, labels: list[str]) -> list[dict[str, Any]]:
        """The prediction of each row as JSON, its first key `TARGET`: what
        `python -m stages predict` prints."""

    def metrics(
        self, target: np.ndarray, scores: np.ndarray, weights: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The few metrics, by name, that are computed after each epoch and for each slice, the
        main metric among them; shapes as in `stages.statistics.Metrics`."""

    def evaluation(
        self, measures: Any, target: np.ndarray, scores: np.ndarray, weights: np.ndarray
    ) -> dict[str, np.ndarray]:
        """`metrics` and all others of results/metrics.json.

        `measures` is the module stages.measures. It is handed over, not imported, so that a
        changed formula does not change the key of the stages that measure nothing."""

    def details(
        self,
        measures: Any,
        intervals: Intervals,
        target: np.ndarray,
        scores: np.ndarray,
        labels: list[str],
    ) -> dict[str, list[dict[str, Any]]]:
        """`tables` ({title, columns, rows, note}), `matrices` ({title, rows, columns, labels,
        values}) and `curves` ({title, x, y, points: [{x, y, rows}], note}) for the report. A cell
        of a table and the y of a point may be an estimate; a note may be left out."""

    def baselines(
        self, texts: list[str], target: np.ndarray, labels: list[str], baseline: Any
    ) -> dict[str, Scores]:
        """Trivial models, fitted on the training split, by name."""
