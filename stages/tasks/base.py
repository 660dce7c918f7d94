"""What a task is: a module with these names, found by `stages.plugins`.

A task says which raw columns it needs, how a row is read and checked, what the model's head and
loss are, and which numbers measure it. Stages call it and know nothing of labels or spans.
What several tasks share is in `stages/common/`; tasks never import one another.
Imports of torch and scikit-learn belong inside functions: `prepare`, `tokenize` and `report`
load tasks too.

Words used here:
    rows: prepared rows, one for each row of the raw file that is kept; roles are their columns.
    examples: the table that `tokenize` writes, an example being what the model reads at once. A
        row is one example; for a task with `WINDOWED` one or more, and the column `row` says
        whose. Columns of numbers reach the loss as part of a batch: one number an example [n],
        a list of fixed size [n, k], or a list with a number for each token, [tokens] of all.
    logits: [examples, k], or where the head is on tokens [tokens of all examples, k]; in the
        order of the table, without padding. Of a task with `GENERATIVE`, what `kept` makes of
        them.
    learnt: what the task learnt of the targets, lists of numbers by name. Saved beside the
        weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import torch
    from transformers import PreTrainedModel

    from stages.params import Section
    from stages.statistics import Metrics
    from stages.windows import Windows

Raw = dict[str, list[str]]
"""Raw values by role, [n] each; a list or object of JSON, where the role may hold one, as its
text in ASCII."""

Normalised = Callable[[list[str]], list[str]]
"""`stages.preparing.normalising.normalise` of each of many texts."""

Learnt = dict[str, list[float]]

Predict = Callable[["pd.DataFrame"], tuple[list[str], "np.ndarray"]]
"""A fitted baseline: rows to what `Task.decide` and `Task.scores` give of the model."""

Intervals = Callable[["Metrics"], dict[str, Any]]
"""`stages.statistics.bootstrap` of the test rows: metrics to their estimates by name."""


class Task(Protocol):
    """The protocol; `stages/tasks/classification.py` is the model to copy."""

    Params: type[Section]
    """params.yaml: tasks.<name>. Its fields `data` and `loss` are sections themselves: `data`
    is read by `prepare`, `loss` by `finetune`."""
    TEXTS: tuple[str, ...]
    """Roles that hold text; they are checked for duplicates and tokenized. Rows may lack all but
    the first."""
    TARGET: str
    """Role that holds what is to be predicted."""
    OTHERS: tuple[str, ...]
    """Further roles of prepared rows."""
    NESTED: tuple[str, ...]
    """Roles whose raw values may be lists or objects."""
    WINDOWED: bool
    """Is a text longer than the model reads parted into windows? Else it is cut."""
    GENERATIVE: bool
    """Is the prediction a text that the model writes? Then its examples are prompts with their
    responses (`stages/common/prompts.py`), and equal texts may have several targets."""
    MAIN_METRIC: str
    """The metric that heads the report; higher is better."""
    SELECTION_METRIC: str
    """The metric that picks the best epoch, on the validation split; higher is better."""
    LOWER_IS_BETTER: tuple[str, ...]
    """The metrics of which that is true."""
    HUB_TASK: str
    """The task's name on the hub, which is also that of transformers' pipeline."""

    # Of prepare.

    def columns(self, data: Any) -> dict[str, str]:
        """Role to column name in the raw file."""

    def read(
        self, raw: Raw, data: Any, normalised: Normalised
    ) -> tuple[dict[str, list[str]], dict[int, str]]:
        """Values by role as prepared rows have them, and by index why a row cannot be used.

        The roles are `TEXTS`, `TARGET` and what else the task wants in its rows; the same for
        any rows, also for none. Equal targets have equal texts."""

    def labels(self, rows: pd.DataFrame, data: Any) -> list[str]:
        """The labels in their final order, from the parameters or else from the rows; none where
        the task has no labels.

        Raises:
            UserError: the column cannot be one of targets."""

    def check(self, rows: pd.DataFrame, labels: list[str]) -> pd.Series:
        """For each row, why its target cannot be used; an empty string where it can."""

    def balance(self, rows: pd.DataFrame, labels: list[str]) -> dict[str, int]:
        """How often each label occurs in rows, in the order of the labels."""

    def problems(self, train: pd.DataFrame, labels: list[str]) -> list[str]:
        """Why nothing can be learnt from these training rows: what is wrong; what to do."""

    # Of tokenize.

    def targets(self, rows: pd.DataFrame, labels: list[str]) -> np.ndarray:
        """Targets [n] or [n, k] as numbers: the column `target` of the examples, and what
        metrics take."""

    def align(
        self, rows: pd.DataFrame, labels: list[str], windows: Windows
    ) -> tuple[dict[str, pa.Array], dict[str, int]]:
        """Of a windowed task: further columns of the examples, and counts of targets that reach no
        loss, for results/tokens.json: `lost_targets` no token stands for, so they count as
        missed; `further_answers` stand beside the one that is learnt."""

    # Of finetune.

    def build_model(self, base: Path, labels: list[str]) -> tuple[PreTrainedModel, list[str]]:
        """The base with this task's head, and the names of the head's parameters, which every
        method trains and saves: new ones, and those of a head that the base brings.

        New parameters are drawn from torch's global generator; the caller seeds it."""

    def logits(self, output: Any) -> torch.Tensor:
        """Of a model's output, [n, k], or [n, length, k] where the head is on tokens."""

    def learn(self, target: np.ndarray, labels: list[str], loss: Any) -> Learnt:
        """What the loss must know of the training targets, such as weights of classes. Where the
        head's bias should begin at something else than 0, that is `prior` [k]."""

    def arguments(self, part: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the model's forward pass is told of a pack, beside its tokens and their
        positions."""

    def kept(self, logits: torch.Tensor, part: dict[str, torch.Tensor]) -> torch.Tensor:
        """What is kept of a part's logits once the loss is known: [n, k], or [tokens, k] of all
        tokens."""

    def loss(
        self,
        logits: torch.Tensor,
        part: dict[str, torch.Tensor],
        loss: Any,
        learnt: dict[str, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of the loss over a part of a batch, and what to divide it by to get the mean, so
        that a batch may be computed in parts.

        Args:
            part: the numbers of the examples, by column."""

    def settle(
        self,
        target: np.ndarray,
        logits: np.ndarray,
        examples: pa.Table,
        labels: list[str],
        learnt: Learnt,
        loss: Any,
    ) -> Learnt:
        """What is tuned on the validation split after each epoch, such as thresholds. Joins what
        was learnt; that of the best epoch is kept."""

    def fold(self, model: PreTrainedModel, learnt: Learnt) -> Learnt:
        """Put what was learnt into the trained model where a plain transformers model can hold
        it; what is left."""

    def decision(self, learnt: Learnt) -> str:
        """How predictions follow from the model's outputs by what `settle` found, in Markdown: for
        the model card. Empty where nothing was found."""

    # Of evaluate, baseline, export, predict.

    def scores(
        self, logits: np.ndarray, examples: pa.Table | None, labels: list[str], learnt: Learnt
    ) -> np.ndarray:
        """What predictions are stored as, [rows, m]: numbers that, beside the targets, all
        metrics follow from; for classes their probabilities.

        Args:
            examples: None where the task is not windowed."""

    def decide(
        self, logits: np.ndarray, examples: pa.Table | None, labels: list[str], learnt: Learnt
    ) -> list[str]:
        """The predicted target of each row, written as `TARGET` is."""

    def readable(self, target: str, row: Mapping[str, Any], labels: list[str]) -> str:
        """A target, true or predicted, as people read it: for the report's list of the worst.

        Args:
            row: the prepared row."""

    def judged(self, rows: pd.DataFrame, texts: list[str]) -> np.ndarray:
        """Of a task with `GENERATIVE`: numbers [rows, m] that compare the texts that a model wrote
        with the targets; they follow those of `scores`."""

    def request(self, value: Mapping[str, Any]) -> dict[str, str]:
        """Of a task with `GENERATIVE`: what `ask` takes of one row, from an object of JSON in any
        of the forms that training rows have.

        Raises:
            ValueError: there is nothing asked for, and why."""

    def ask(self, raw: Raw, labels: list[str]) -> dict[str, list[str]]:
        """Of a windowed or generative task: the columns of rows whose targets are not known, from
        their texts."""

    def answers(
        self,
        logits: np.ndarray,
        examples: pa.Table | None,
        labels: list[str],
        learnt: Learnt,
        rows: pd.DataFrame,
    ) -> list[dict[str, Any]]:
        """The prediction of each row as JSON, its first key `TARGET`: what
        `python -m stages predict` prints.

        Args:
            rows: their texts, or what `ask` made of them."""

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

    def right(self, target: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
        """Is each row predicted rightly, [n]? None where that is no question of yes or no."""

    def severity(self, target: np.ndarray, scores: np.ndarray) -> tuple[str, np.ndarray]:
        """How bad a mistake each row is, [n], and the name of that number: for the report's list
        of the worst."""

    def details(
        self,
        measures: Any,
        intervals: Intervals,
        target: np.ndarray,
        scores: np.ndarray,
        labels: list[str],
        rows: pd.DataFrame,
    ) -> dict[str, list[dict[str, Any]]]:
        """`tables` ({title, columns, rows, note}), `matrices` ({title, rows, columns, labels,
        values}) and `curves` ({title, x, y, points: [{x, y, rows}], note}) for the report. A cell
        of a table and the y of a point may be an estimate; a note may be left out.

        Args:
            rows: with the column `predicted` beside the roles."""

    def baselines(
        self, train: pd.DataFrame, labels: list[str], baseline: Any
    ) -> dict[str, Predict]:
        """Trivial models, fitted on the training split, by name."""
