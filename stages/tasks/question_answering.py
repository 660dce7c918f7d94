"""Questions whose answer is a piece of a text, or is not in it: linear head on each token for the
begin and the end, softmax over the tokens, cross-entropy; long texts are read in windows."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from stages.common import answers as rules
from stages.common import texts
from stages.params import Section

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import torch
    from transformers import PreTrainedModel

    from stages.tasks.base import Intervals, Learnt, Normalised, Predict, Raw
    from stages.windows import Windows

TEXTS = ("question", "context")
TARGET = "answers"
OTHERS = ()
NESTED = ("answers",)
WINDOWED = True
GENERATIVE = False
MAIN_METRIC = SELECTION_METRIC = "f1"
LOWER_IS_BETTER = ()
HUB_TASK = "question-answering"
LONGEST = 50  # tokens of an answer that is looked for
STARTS = 20  # best begins and ends of a window that are combined
_SENTENCES = re.compile(r"[^.!?。！？؟]+[.!?。！？؟]*")


class Data(Section):
    question: str = Field("question", min_length=1, description="column of the question")
    context: str = Field("context", min_length=1, description="column of the text that answers it")
    answers: str = Field(
        "answers",
        min_length=1,
        description="column of the answers: [{text, answer_start}] by characters of the context, "
        "or {text: [...], answer_start: [...]}; none where the context has none",
    )
    unanswerable: bool = Field(description="may a question have no answer?")


Loss = texts.NoLoss


class Params(Section):
    data: Data
    loss: Loss


# ---------------------------------------------------------------- rows


def columns(data: Data) -> dict[str, str]:
    return {"question": data.question, "context": data.context, "answers": data.answers}


def read(
    raw: Raw, data: Data, normalised: Normalised
) -> tuple[dict[str, list[str]], dict[int, str]]:
    """`answers` is a list of {text, start} in JSON, by characters of the normalised context."""
    found, reasons = [], {}
    contexts = normalised(raw["context"])
    for i, text in enumerate(raw["answers"]):
        try:
            answers = [
                _moved(words, start, raw["context"][i], contexts[i], normalised)
                for words, start in _pairs(text)
            ]
            if not answers and not data.unanswerable:
                raise ValueError("no answer")
        except ValueError as error:
            answers, reasons[i] = [], str(error)
        found.append(json.dumps(answers, ensure_ascii=False))
    roles = {"question": normalised(raw["question"]), "context": contexts, "answers": found}
    return roles, reasons


def _pairs(text: str) -> list[tuple[str, int]]:
    """Text and first character of each answer, as SQuAD or the hub's data sets write them."""
    try:
        values = json.loads(text) if text else []
        if isinstance(values, dict):
            columns = (values["text"], values["answer_start"])
            values = [
                {"text": words, "answer_start": start}
                for words, start in zip(*columns, strict=True)
            ]
        pairs = [(one["text"], one["answer_start"]) for one in values]
        if all(isinstance(words, str) and type(start) is int for words, start in pairs):
            return pairs
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"answers: no list of {{text, answer_start}}: {text[:60]!r}")


def _moved(
    words: str, start: int, context: str, clean: str, normalised: Normalised
) -> dict[str, Any]:
    """An answer in the normalised context."""
    if not words.strip():
        raise ValueError("an answer is empty")
    stands = context[start : start + len(words)] if start >= 0 else ""
    if stands != words:
        raise ValueError(
            f"answer {words[:60]!r} does not stand at {start} of its context, but {stands[:60]!r}"
        )
    (before, wanted) = normalised([context[:start], words])
    at = len(before)
    while clean[at : at + 1] == " ":
        at += 1
    if clean[at : at + len(wanted)] != wanted:
        raise ValueError(f"answer {words[:60]!r} begins or ends within a character")
    return {"text": wanted, "start": at}


def ask(raw: Raw, labels: list[str]) -> dict[str, list[str]]:
    return {**raw, "answers": ["[]"] * len(raw["question"])}


labels = texts.no_labels
check = texts.check_nothing
balance = texts.no_balance


def problems(train: pd.DataFrame, labels: list[str]) -> list[str]:
    answered = (train["answers"] != "[]").any()
    return [] if answered else ["no training row has an answer; add rows that have one"]


# ---------------------------------------------------------------- numbers


def targets(rows: pd.DataFrame, labels: list[str]) -> np.ndarray:
    """1 where the context has an answer, [n]."""
    return (rows["answers"] != "[]").to_numpy(dtype=np.int32)


def align(
    rows: pd.DataFrame, labels: list[str], windows: Windows
) -> tuple[dict[str, Any], dict[str, int]]:
    """Of each example `begin` and `end`: the tokens where the first answer begins and ends, or 0
    for both where it is not whole in the window; of each token `chars` and `chars_end`: what it
    stands for in the context; of the first example of a row its `context` and `answers`. And how
    many first answers are whole in no window, and how many answers there are beside the first."""
    import pyarrow as pa

    bounds = np.zeros((len(windows.row), 2), dtype=np.int32)
    answers = [json.loads(one) for one in rows["answers"]]
    reached = set()
    for number, row in enumerate(windows.row.tolist()):
        if not answers[row]:
            continue
        at = slice(*windows.offsets[number : number + 2])
        found = _tokens(windows.spans[at], answers[row][0])
        if found:
            bounds[number] = found
            reached.add(row)
    firsts = np.diff(windows.row, prepend=-1) > 0
    own = {
        name: [
            rows[name].iloc[row] if first else ""
            for row, first in zip(windows.row, firsts, strict=True)
        ]
        for name in ("context", "answers")
    }
    found_columns = {
        "begin": pa.array(bounds[:, 0]),
        "end": pa.array(bounds[:, 1]),
        "chars": pa.LargeListArray.from_arrays(windows.offsets, windows.spans[:, 0].copy()),
        "chars_end": pa.LargeListArray.from_arrays(windows.offsets, windows.spans[:, 1].copy()),
        **{name: pa.array(values, pa.string()) for name, values in own.items()},
    }
    first = sum(map(bool, answers))
    counts = {"lost_targets": first - len(reached)}
    return found_columns, counts | {"further_answers": sum(map(len, answers)) - first}


def _tokens(spans: np.ndarray, answer: dict[str, Any]) -> tuple[int, int] | None:
    """The first and the last token of an answer that is whole in a window, else None."""
    start, end = answer["start"], answer["start"] + len(answer["text"])
    inside = np.flatnonzero((spans[:, 1] > start) & (spans[:, 0] < end))
    if not len(inside):
        return None
    first, last = int(inside[0]), int(inside[-1])
    known = np.flatnonzero(spans[:, 1] > spans[:, 0])
    # A window that begins or ends in mid-answer has no token that reaches its edge.
    if (first == known[0] and spans[first, 0] > start) or (
        last == known[-1] and spans[last, 1] < end
    ):
        return None
    return first, last


def build_model(base: Path, labels: list[str]) -> tuple[PreTrainedModel, list[str]]:
    import torch
    from transformers import AutoModelForQuestionAnswering

    model, info = AutoModelForQuestionAnswering.from_pretrained(
        base, dtype=torch.float32, local_files_only=True, output_loading_info=True
    )
    return model, texts.head(model, info)


def logits(output: Any) -> torch.Tensor:
    import torch

    return torch.stack([output.start_logits, output.end_logits], dim=-1)


arguments = texts.no_arguments
kept = texts.all_logits
learn = texts.learn_nothing
fold = texts.fold_nothing


def loss(
    logits: torch.Tensor, part: dict[str, torch.Tensor], loss: Loss, learnt: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Half of the sum of begin's and end's; token 0 stands for no answer in the window."""
    import torch
    from torch.nn.functional import cross_entropy
    from torch.nn.utils.rnn import pad_sequence

    lengths = part["lengths"] if "lengths" in part else part["attention_mask"].sum(dim=1)
    rows = [*torch.split(logits.float(), lengths.tolist())]
    wide = pad_sequence(rows, batch_first=True, padding_value=-1e30)
    begins, ends = wide.unbind(dim=-1)
    total = cross_entropy(begins, part["begin"], reduction="sum")
    total = 0.5 * (total + cross_entropy(ends, part["end"], reduction="sum"))
    return total, total.new_tensor(float(len(rows)))


def _best(logits: np.ndarray, examples: pa.Table) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The best answer of each row, over its windows, and the margin by which it is above none."""
    offsets = examples["input_ids"].combine_chunks().offsets.to_numpy()
    chars, chars_end = (
        examples[name].combine_chunks().values.to_numpy(zero_copy_only=False)
        for name in ("chars", "chars_end")
    )
    rows, contexts = examples["row"].to_pylist(), examples["context"].to_pylist()
    best: list[tuple[float, int, int]] = []
    none: list[float] = []
    whole: list[str] = []
    for number, row in enumerate(rows):
        at = slice(*offsets[number : number + 2])
        if row == len(best):
            best.append((-np.inf, 0, 0))
            none.append(np.inf)
            whole.append(contexts[number])
        none[row] = min(none[row], float(logits[at][0].sum()))
        best[row] = max(
            best[row], _span(logits[at], chars[at], chars_end[at]), key=lambda one: one[0]
        )
    found = [
        {"text": text[start:end], "start": start}
        for text, (_, start, end) in zip(whole, best, strict=True)
    ]
    return found, np.array([score for score, *_ in best]) - np.array(none)


def _span(logits: np.ndarray, chars: np.ndarray, ends: np.ndarray) -> tuple[float, int, int]:
    """The best pair of a window's tokens of the context: its score, and its characters."""
    inside = np.flatnonzero(ends > chars)
    if not len(inside):
        return -np.inf, 0, 0
    scores = logits[inside].astype(np.float64)
    begins, stops = (np.argsort(-scores[:, k], kind="stable")[:STARTS] for k in (0, 1))
    sums = scores[begins, 0][:, None] + scores[stops, 1][None]
    sizes = stops[None] - begins[:, None] + 1
    sums = np.where((sizes >= 1) & (sizes <= LONGEST), sums, -np.inf)
    begin, stop = np.unravel_index(int(sums.argmax()), sums.shape)
    first, last = inside[begins[begin]], inside[stops[stop]]
    return float(sums[begin, stop]), int(chars[first]), int(ends[last])


def _references(examples: pa.Table) -> list[list[str]]:
    """The texts of each row's answers."""
    firsts = np.flatnonzero(np.diff(examples["row"].to_numpy(), prepend=-1))
    written = examples["answers"].to_pylist()
    return [[one["text"] for one in json.loads(written[i])] for i in firsts]


def settle(
    target: np.ndarray,
    logits: np.ndarray,
    examples: pa.Table,
    labels: list[str],
    learnt: Learnt,
    loss: Loss,
) -> Learnt:
    """The margin below which there is no answer: the one of highest F1; where all questions have
    an answer there is none."""
    if target.all():
        return {}
    found, margin = _best(logits, examples)
    references = _references(examples)
    gain = np.array(
        [
            rules.f1(one["text"], of) - rules.f1("", of)
            for one, of in zip(found, references, strict=True)
        ]
    )
    order = np.argsort(margin, kind="stable")
    usable = np.nan_to_num(margin[order], neginf=-1e9)
    # Answered are all from a place of the order on.
    after = np.concatenate([np.cumsum(gain[order][::-1])[::-1], [0.0]])
    place = int(after.argmax())
    bounds = np.concatenate([[usable[0] - 1], (usable[1:] + usable[:-1]) / 2, [usable[-1] + 1]])
    return {"margin": [float(bounds[place])]}


def decision(learnt: Learnt) -> str:
    if "margin" not in learnt:
        return ""
    return (
        "The best piece of the text is the answer where its two logits exceed those of the first "
        f"token by {learnt['margin'][0]:.4g} or more, else there is none; that margin is tuned on "
        "the validation split."
    )


def _given(
    logits: np.ndarray, examples: pa.Table, learnt: Learnt
) -> tuple[list[list[dict[str, Any]]], np.ndarray]:
    """The answer of each row, or none, and its margin above that bound."""
    found, margin = _best(logits, examples)
    above = margin - learnt["margin"][0] if "margin" in learnt else margin
    least = 0.0 if "margin" in learnt else -np.inf
    pairs = zip(found, above, strict=True)
    return [[one] if value >= least and one["text"] else [] for one, value in pairs], above


def scores(
    logits: np.ndarray, examples: pa.Table | None, labels: list[str], learnt: Learnt
) -> np.ndarray:
    assert examples is not None
    given, _ = _given(logits, examples, learnt)
    return measured([one[0]["text"] if one else "" for one in given], _references(examples))


def measured(given: list[str], references: list[list[str]]) -> np.ndarray:
    """Exact match and F1 of each row, [n, 2]."""
    return np.array(
        [
            [rules.exact(one, of), rules.f1(one, of)]
            for one, of in zip(given, references, strict=True)
        ]
    ).reshape(-1, 2)


def decide(
    logits: np.ndarray, examples: pa.Table | None, labels: list[str], learnt: Learnt
) -> list[str]:
    assert examples is not None
    return [json.dumps(one, ensure_ascii=False) for one in _given(logits, examples, learnt)[0]]


def readable(target: str, row: Mapping[str, Any], labels: list[str]) -> str:
    return " / ".join(dict.fromkeys(one["text"] for one in json.loads(target))) or "(no answer)"


def answers(
    logits: np.ndarray,
    examples: pa.Table | None,
    labels: list[str],
    learnt: Learnt,
    rows: pd.DataFrame,
) -> list[dict[str, Any]]:
    """And by how much the best piece of the context is above no answer, in logits."""
    assert examples is not None
    given, above = _given(logits, examples, learnt)
    return [{"answers": one, "margin": float(by)} for one, by in zip(given, above, strict=True)]


def metrics(target: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Means over questions of SQuAD's F1 and exact match."""
    exact, f1 = (weights @ scores / weights.sum(axis=1, keepdims=True)).T
    return {"f1": f1, "exact_match": exact}


def evaluation(
    measures: Any, target: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    return metrics(target, scores, weights)


def right(target: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return scores[:, 0] > 0


def severity(target: np.ndarray, scores: np.ndarray) -> tuple[str, np.ndarray]:
    return "share of words missed", 1 - scores[:, 1]


def details(
    measures: Any,
    intervals: Intervals,
    target: np.ndarray,
    scores: np.ndarray,
    labels: list[str],
    rows: pd.DataFrame,
) -> dict[str, list[dict[str, Any]]]:
    parts = {"with an answer": target > 0, "without an answer": target == 0}
    tables = []
    for name, part in parts.items():
        if part.any() and not part.all():
            found = intervals(lambda t, s, w, part=part: metrics(t, s, w * part))  # type: ignore[misc]
            tables.append([name, int(part.sum()), *found.values()])
    columns = ["questions", "rows", "F1", "exact match"]
    return (
        {"tables": [{"title": "By answer", "columns": columns, "rows": tables}]} if tables else {}
    )


def baselines(train: pd.DataFrame, labels: list[str], baseline: Any) -> dict[str, Predict]:
    """The sentence of the context that has most words of the question."""

    def best(question: str, context: str) -> dict[str, Any]:
        wanted = Counter(rules.words(question))
        pieces = [*_SENTENCES.finditer(context)]
        shared = [sum((wanted & Counter(rules.words(one[0]))).values()) for one in pieces]
        if not pieces:
            return {"text": context, "start": 0}
        chosen = pieces[int(np.argmax(shared))]
        text = chosen[0].strip()
        return {"text": text, "start": chosen.start() + chosen[0].index(text)}

    def predict(rows: pd.DataFrame) -> tuple[list[str], np.ndarray]:
        found = [best(q, c) for q, c in zip(rows["question"], rows["context"], strict=True)]
        references = [[one["text"] for one in json.loads(of)] for of in rows["answers"]]
        written = [json.dumps([one], ensure_ascii=False) for one in found]
        return written, measured([one["text"] for one in found], references)

    return {"sentence with most words of the question": predict}
