"""A tag for each word: entities, or tags of every word such as parts of speech. Linear head on the
first token of each word, softmax, cross-entropy; long texts are read in windows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from stages.common import tagging, texts
from stages.errors import UserError, did_you_mean
from stages.params import Section

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import torch
    from transformers import PreTrainedModel

    from stages.tasks.base import Intervals, Learnt, Normalised, Predict, Raw
    from stages.windows import Windows

TEXTS = ("text",)
TARGET = "tags"
OTHERS = ("words",)
NESTED = ("tokens", "tags", "entities")
WINDOWED = True
GENERATIVE = False
MAIN_METRIC = SELECTION_METRIC = "f1"
LOWER_IS_BETTER = ()
HUB_TASK = "token-classification"
NO_LOSS = -100  # of tokens that are no word's first, and of words that count in another window


class Data(Section):
    text: str | None = Field(min_length=1, description="column of a text; null: `tokens`")
    entities: str | None = Field(
        min_length=1, description="column of its entities: [{start, end, label}], by characters"
    )
    tokens: str | None = Field(min_length=1, description="column of a list of words; null: `text`")
    tags: str | None = Field(min_length=1, description="column of a list of their tags")
    scheme: Literal["iob1", "iob2", "bioes", "io", "plain"] = Field(
        description="how tags spell entities; plain: a tag is of its word alone"
    )
    labels: list[str] = Field(description="of entities, or plain tags; []: those found, sorted")

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: list[str]) -> list[str]:
        return texts.distinct(labels)

    @model_validator(mode="after")
    def _one_form(self) -> Data:
        given = [name for name in ("text", "entities", "tokens", "tags") if getattr(self, name)]
        if given not in (["text", "entities"], ["tokens", "tags"]):
            raise ValueError(
                f"text: columns are named for {', '.join(given) or 'nothing'}; name those of text "
                "and entities, or those of tokens and tags, and write null for the others"
            )
        if self.entities and self.scheme == "plain":
            raise ValueError("scheme: entities are not plain tags; write iob2")
        spelt = [tagging.OUTSIDE, *(f"B-{name[2:]}" for name in self.labels if name[:2] == "I-")]
        tag = next((name for name in self.labels if name in spelt), None)
        if tag is not None and self.scheme != "plain":
            raise ValueError(
                f"labels: names of entities alone, got {tag!r}; write "
                + (repr(tag[2:]) if tag[2:] else "it not, for it is no entity")
            )
        return self


Loss = texts.NoLoss


class Params(Section):
    data: Data
    loss: Loss


# ---------------------------------------------------------------- rows


def columns(data: Data) -> dict[str, str]:
    names = {role: getattr(data, role) for role in ("text", "entities", "tokens", "tags")}
    return {role: name for role, name in names.items() if name}


def read(
    raw: Raw, data: Data, normalised: Normalised
) -> tuple[dict[str, list[str]], dict[int, str]]:
    """`words` holds where each word of the text begins and ends, `tags` their tags in IOB2 (or
    plain ones), both as JSON; `text` has single spaces at most between words."""
    rows: list[tuple[str, list[tuple[int, int]], list[str]]] = []
    reasons = {}
    first, second = (raw[role] for role in columns(data))
    for i, pair in enumerate(zip(first, second, strict=True)):
        try:
            rows.append((_of_entities if data.entities else _of_tokens)(*pair, data, normalised))
        except ValueError as error:
            rows.append(("", [], []))
            reasons[i] = str(error)
    found, places, tags = zip(*rows, strict=True) if rows else ((), (), ())
    return {
        "text": list(found),
        "words": [json.dumps([end for place in of for end in place]) for of in places],
        "tags": [json.dumps(of, ensure_ascii=False) for of in tags],
    }, reasons


def _of_tokens(
    tokens: str, tags: str, data: Data, normalised: Normalised
) -> tuple[str, list[tuple[int, int]], list[str]]:
    words, own = _list(tokens, "tokens"), normalised(_list(tags, "tags"))
    if len(words) != len(own):
        raise ValueError(f"ragged: {len(words)} tokens, {len(own)} tags")
    clean = normalised(words)
    if "" in clean:
        raise ValueError(f"token {clean.index('') + 1} is empty")
    if "" in own:
        raise ValueError(f"tag of token {own.index('') + 1} is empty")
    ends = np.cumsum([len(word) + 1 for word in clean]) - 1
    places = [(int(end) - len(word), int(end)) for word, end in zip(clean, ends, strict=True)]
    if data.scheme != "plain":
        own = tagging.iob2(tagging.spans(own, data.scheme), len(own))
    return " ".join(clean), places, own


def _list(text: str, what: str) -> list[str]:
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, list) or any(isinstance(one, list | dict | None) for one in values):
        raise ValueError(f"{what}: no list of texts: {text[:60]!r}" if text else f"no {what}")
    return [one if isinstance(one, str) else json.dumps(one) for one in values]


def _of_entities(
    text: str, entities: str, data: Data, normalised: Normalised
) -> tuple[str, list[tuple[int, int]], list[str]]:
    places = tagging.words(text)
    found = sorted(_entity(one, text) for one in _objects(entities))
    for one, other in pairwise(found):
        if other[0] < one[1]:
            named = " and ".join(repr(text[of[0] : of[1]]) for of in (one, other))
            raise ValueError(f"entities overlap: {named}")
    begins = {start: i for i, (start, _) in enumerate(places)}
    ends = {end: i + 1 for i, (_, end) in enumerate(places)}
    spans = []
    for start, end, label in found:
        if start not in begins or end not in ends:
            where = "begins" if start not in begins else "ends"
            raise ValueError(
                f"entity {text[start:end]!r} ({start} to {end}) {where} within a word or in space"
            )
        (clean,) = normalised([label])
        spans.append((clean, begins[start], ends[end]))
    words = normalised([text[start:end] for start, end in places])
    clean_text, moved = "", []
    for i, word in enumerate(words):
        if i and places[i][0] > places[i - 1][1]:
            clean_text += " "
        moved.append((len(clean_text), len(clean_text) + len(word)))
        clean_text += word
    return clean_text, moved, tagging.iob2(spans, len(words))


def _objects(text: str) -> list[Any]:
    try:
        values = json.loads(text) if text else []
    except ValueError:
        values = None
    if not isinstance(values, list):
        raise ValueError(f"entities: no list: {text[:60]!r}")
    return values


def _entity(one: Any, text: str) -> tuple[int, int, str]:
    """Of an object, or of a list of three."""
    values = [one.get(key) for key in ("start", "end", "label")] if isinstance(one, dict) else one
    if not isinstance(values, list) or [type(value) for value in values] != [int, int, str]:
        raise ValueError(f"entity is no {{start, end, label}}: {str(one)[:60]}")
    start, end, label = values
    if not 0 <= start < end <= len(text) or not label.strip():
        raise ValueError(f"entity outside of the text, or without label: {str(one)[:60]}")
    return start, end, label


def ask(raw: Raw, labels: list[str]) -> dict[str, list[str]]:
    places = [tagging.words(text) for text in raw["text"]]
    return {
        "text": raw["text"],
        "words": [json.dumps([end for place in of for end in place]) for of in places],
        "tags": [json.dumps([labels[0]] * len(of)) for of in places],
    }


def _tags(rows: pd.DataFrame) -> list[list[str]]:
    return [json.loads(text) for text in rows["tags"]]


def labels(rows: pd.DataFrame, data: Data) -> list[str]:
    """Of entities O, and two for each; their names are those of IOB2."""
    tags = {tag for of in _tags(rows) for tag in of}
    if data.scheme == "plain":
        if len(tags) > texts.MANY_LABELS and len(tags) > len(rows):
            raise UserError(f"column {data.tags!r} has {len(tags)} different tags; name another")
        names = list(data.labels) or sorted(tags)
        others = [name for name in names if name != tagging.OUTSIDE]
        if others and all(name[:2] in ("B-", "I-") for name in others):
            raise UserError(
                "params.yaml: tasks.token_classification.data.scheme: got 'plain', but the labels "
                f"{', '.join(names[:3])} ... spell entities; write iob2, and their names alone in "
                "labels"
            )
        return names
    kinds = list(data.labels) or sorted({tag[2:] for tag in tags - {tagging.OUTSIDE}})
    return [tagging.OUTSIDE, *(f"{mark}-{kind}" for kind in kinds for mark in "BI")]


def kinds(labels: list[str]) -> list[str]:
    """What is counted: entities, or where labels are plain tags these."""
    return [label[2:] for label in labels[1::2]] if _spelt(labels) else labels


def _spelt(labels: list[str]) -> bool:
    """Do the labels spell entities?"""
    of = [label[2:] for label in labels[1::2]]
    spelt = [f"{mark}-{kind}" for kind in of for mark in "BI"]
    return labels == [tagging.OUTSIDE, *spelt]


def check(rows: pd.DataFrame, labels: list[str]) -> pd.Series:
    known = set(labels)
    reasons = {}
    for text in rows["tags"].unique():
        tags = json.loads(text)
        strange = next((tag for tag in tags if tag not in known), None)
        reasons[text] = "" if tags else "no word"
        if strange is not None:
            name = strange[2:] if _spelt(labels) else strange
            reasons[text] = f"unknown label {name!r}; {did_you_mean(name, kinds(labels))}"
    return rows["tags"].map(reasons)


def balance(rows: pd.DataFrame, labels: list[str]) -> dict[str, int]:
    counts = Counter(tag for of in _tags(rows) for tag in of)
    return {label: counts[label] for label in labels}


def problems(train: pd.DataFrame, labels: list[str]) -> list[str]:
    if len(labels) < 2:
        return ["no entity at all, or one tag only; add rows"]
    counts = balance(train, labels)
    counted = {name: counts[f"B-{name}"] for name in kinds(labels)} if _spelt(labels) else counts
    return texts.untrained(counted)


# ---------------------------------------------------------------- numbers


def _counts(tags: Iterable[list[str]], labels: list[str]) -> np.ndarray:
    """How many of each kind, [n, kinds]."""
    place = {kind: i for i, kind in enumerate(kinds(labels))}
    rows = list(tags)
    found = np.zeros((len(rows), len(place)), dtype=np.int32)
    for row, of in enumerate(rows):
        for kind, _, _ in _units(of, labels):
            found[row, place[kind]] += 1
    return found


def _units(tags: list[str], labels: list[str]) -> list[tagging.Span]:
    """Entities, or each word with its plain tag."""
    if _spelt(labels):
        return tagging.entities(tags)
    return [(tag, i, i + 1) for i, tag in enumerate(tags)]


def targets(rows: pd.DataFrame, labels: list[str]) -> np.ndarray:
    """How many entities (or words) of each kind a row has, [n, kinds]."""
    return _counts(_tags(rows), labels)


def align(
    rows: pd.DataFrame, labels: list[str], windows: Windows
) -> tuple[dict[str, Any], dict[str, int]]:
    """Of each token, `word`: the number in its row of the word that it is the first of, and `tag`,
    that word's; of the first example of a row, `gold`: all of its tags. And how many words no
    token stands for, such as of characters that the tokenizer drops."""
    import pyarrow as pa

    index = {label: number for number, label in enumerate(labels)}
    gold = [[index[tag] for tag in of] for of in _tags(rows)]
    starts = [np.array(json.loads(of)).reshape(-1, 2) for of in rows["words"]]
    word = np.full(len(windows.ids), -1, dtype=np.int32)
    tag = np.full(len(windows.ids), NO_LOSS, dtype=np.int32)
    reached = 0
    for number, row in enumerate(windows.row):
        at = slice(*windows.offsets[number : number + 2])
        found, places = _words_of(windows.spans[at], windows.own[at], starts[row])
        word[at][places] = found
        tag[at][places] = np.array(gold[row], dtype=np.int32)[found]
        reached += len(found)
    firsts = np.diff(windows.row, prepend=-1) > 0
    lists = [gold[row] if first else [] for row, first in zip(windows.row, firsts, strict=True)]
    columns = {
        "word": pa.LargeListArray.from_arrays(windows.offsets, word),
        "tag": pa.LargeListArray.from_arrays(windows.offsets, tag),
        "gold": pa.array(lists, pa.list_(pa.int32())),
    }
    return columns, {"lost_targets": sum(map(len, gold)) - reached}


def _words_of(
    spans: np.ndarray, own: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The words that begin with a token of a window that counts there, and these tokens. A token
    is the first of the word that holds its first character that is in a word."""
    tokens = np.flatnonzero((spans[:, 1] > spans[:, 0]) & own)
    if not len(tokens) or not len(places):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # The first word that ends after the token begins, if it begins before the token ends.
    word = np.searchsorted(places[:, 1], spans[tokens, 0], side="right")
    inside = word < len(places)
    word, tokens = word[inside], tokens[inside]
    meets = places[word, 0] < spans[tokens, 1]
    word, tokens = word[meets], tokens[meets]
    # Of a word begun in the window before, the other tokens are not its first.
    begins = spans[tokens, 0] <= places[word, 0]
    found, first = np.unique(word, return_index=True)
    whole = begins[first]
    return found[whole], tokens[first[whole]]


def build_model(base: Path, labels: list[str]) -> tuple[PreTrainedModel, list[str]]:
    import torch
    from transformers import AutoModelForTokenClassification

    model, info = AutoModelForTokenClassification.from_pretrained(
        base,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        dtype=torch.float32,
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # of a head for other labels
    )
    return model, texts.head(model, info)


logits = texts.logits
arguments = texts.no_arguments
kept = texts.all_logits
learn = texts.learn_nothing
settle = texts.settle_nothing
decision = texts.no_decision
fold = texts.fold_nothing


def loss(
    logits: torch.Tensor, part: dict[str, torch.Tensor], loss: Loss, learnt: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    total = torch.nn.functional.cross_entropy(
        logits.float(), part["tag"], ignore_index=NO_LOSS, reduction="sum"
    )
    return total, (part["tag"] != NO_LOSS).sum().float()


def _decided(logits: np.ndarray, examples: pa.Table, labels: list[str]) -> list[list[str]]:
    """The tag of each word of each row; the first label for words that no token stands for."""
    gold = _gold(examples)
    bounds = np.concatenate([[0], np.cumsum([len(of) for of in gold])])
    tokens = examples["input_ids"].combine_chunks().offsets.to_numpy()
    word = examples["word"].combine_chunks().values.to_numpy(zero_copy_only=False)
    row = np.repeat(examples["row"].to_numpy(), np.diff(tokens))
    is_first = word >= 0
    flat = np.zeros(bounds[-1], dtype=np.int64)
    flat[bounds[row[is_first]] + word[is_first]] = logits[is_first].argmax(axis=1)
    return [[labels[i] for i in flat[a:b]] for a, b in pairwise(bounds)]


def _gold(examples: pa.Table) -> list[list[int]]:
    lists = examples["gold"].to_pylist()
    return [lists[i] for i in np.flatnonzero(np.diff(examples["row"].to_numpy(), prepend=-1))]


def scores(
    logits: np.ndarray, examples: pa.Table | None, labels: list[str], learnt: Learnt
) -> np.ndarray:
    assert examples is not None
    gold = [[labels[i] for i in of] for of in _gold(examples)]
    return measured(gold, _decided(logits, examples, labels), labels)


def measured(gold: list[list[str]], given: list[list[str]], labels: list[str]) -> np.ndarray:
    """Of each row, how many of each kind are right and how many are given, and how many words are
    right and how many there are: [n, 2 kinds + 2]."""
    right = _counts([[]] * len(gold), labels)
    place = {kind: i for i, kind in enumerate(kinds(labels))}
    for row, (true, found) in enumerate(zip(gold, given, strict=True)):
        for kind, _, _ in set(_units(true, labels)) & set(_units(found, labels)):
            right[row, place[kind]] += 1
    words = [
        [sum(a == b for a, b in zip(true, found, strict=True)), len(true)]
        for true, found in zip(gold, given, strict=True)
    ]
    of_words = np.array(words, dtype=np.float64).reshape(-1, 2)
    return np.concatenate([right, _counts(given, labels), of_words], axis=1)


def decide(
    logits: np.ndarray, examples: pa.Table | None, labels: list[str], learnt: Learnt
) -> list[str]:
    assert examples is not None
    return [json.dumps(of, ensure_ascii=False) for of in _decided(logits, examples, labels)]


def readable(target: str, row: Mapping[str, Any], labels: list[str]) -> str:
    """The entities; of plain tags each word with its own."""
    tags, words = json.loads(target), _words(row["text"], row["words"])
    if not _spelt(labels):
        return " ".join(f"{word}/{tag}" for word, tag in zip(words, tags, strict=True))
    told = [f"{' '.join(words[start:end])} ({kind})" for kind, start, end in tagging.entities(tags)]
    return "; ".join(told) or "(none)"


def answers(
    logits: np.ndarray,
    examples: pa.Table | None,
    labels: list[str],
    learnt: Learnt,
    rows: pd.DataFrame,
) -> list[dict[str, Any]]:
    """And the words; where tags spell entities also these, by characters of the normalised text."""
    assert examples is not None
    found = []
    for (_, row), tags in zip(rows.iterrows(), _decided(logits, examples, labels), strict=True):
        text, places = row["text"], np.array(json.loads(row["words"])).reshape(-1, 2).tolist()
        answer = {"tags": tags, "words": [text[a:b] for a, b in places]}
        if _spelt(labels):
            spans = [
                (kind, places[start][0], places[end - 1][1])
                for kind, start, end in tagging.entities(tags)
            ]
            answer["entities"] = [
                {"start": a, "end": b, "label": kind, "text": text[a:b]} for kind, a, b in spans
            ]
        found.append(answer)
    return found


def _sums(
    target: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right, given and true of each kind in each resample, [b, kinds] each."""
    k = target.shape[1]
    return weights @ scores[:, :k], weights @ scores[:, k : 2 * k], weights @ target


def _share(over: np.ndarray, of: np.ndarray) -> np.ndarray:
    return over / np.maximum(of, 1e-300)


def metrics(target: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 over all entities (or words), 0 for 0 / 0, as seqeval has them."""
    right, given, true = (of.sum(axis=1) for of in _sums(target, scores, weights))
    return {
        "f1": _share(2 * right, given + true),
        "precision": _share(right, given),
        "recall": _share(right, true),
    }


def evaluation(
    measures: Any, target: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """And the mean of F1 over the kinds that occur, given or true, and the share of words that are
    tagged rightly."""
    right, given, true = _sums(target, scores, weights)
    seen = (given + true) > 0
    words = weights @ scores[:, -2:]
    return metrics(target, scores, weights) | {
        "macro_f1": _share(_share(2 * right, given + true).sum(axis=1), seen.sum(axis=1)),
        "accuracy": words[:, 0] / words[:, 1],
    }


def right(target: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Are all entities (or words) given, and no others?"""
    k = target.shape[1]
    hits, given = scores[:, :k].sum(axis=1), scores[:, k : 2 * k].sum(axis=1)
    return (hits == target.sum(axis=1)) & (hits == given)


def severity(target: np.ndarray, scores: np.ndarray) -> tuple[str, np.ndarray]:
    return "number of wrong words", scores[:, -1] - scores[:, -2]


def details(
    measures: Any,
    intervals: Intervals,
    target: np.ndarray,
    scores: np.ndarray,
    labels: list[str],
    rows: pd.DataFrame,
) -> dict[str, list[dict[str, Any]]]:
    names = kinds(labels)
    tags = zip(_tags(rows), map(json.loads, rows["predicted"]), strict=True)
    pairs = [(_units(true, labels), _units(found, labels)) for true, found in tags]
    return {
        "tables": [
            measures.by_kind(intervals, target, names),
            measures.spans_mistaken(pairs, _written(rows)),
        ],
        "matrices": [measures.spans_confused(pairs, names)],
    }


def baselines(train: pd.DataFrame, labels: list[str], baseline: Any) -> dict[str, Predict]:
    """The tag that a word has most often in training; of unknown words the most frequent tag."""
    seen: dict[str, Counter[str]] = {}
    for words, tags in zip(_written(train), _tags(train), strict=True):
        for word, tag in zip(words, tags, strict=True):
            seen.setdefault(word, Counter())[tag] += 1
    overall = sum(seen.values(), Counter())
    most, best = _most(overall), {word: _most(counts) for word, counts in seen.items()}

    def predict(rows: pd.DataFrame) -> tuple[list[str], np.ndarray]:
        given = [[best.get(word, most) for word in words] for words in _written(rows)]
        decided = [json.dumps(of, ensure_ascii=False) for of in given]
        return decided, measured(_tags(rows), given, labels)

    return {"most frequent tag of each word": predict}


def _written(rows: pd.DataFrame) -> list[list[str]]:
    """The words of each row."""
    return [_words(*row) for row in zip(rows["text"], rows["words"], strict=True)]


def _words(text: str, places: str) -> list[str]:
    ends = iter(json.loads(places))
    return [text[start:end] for start, end in zip(ends, ends, strict=True)]


def _most(counts: Counter[str]) -> str:
    return min(counts, key=lambda tag: (-counts[tag], tag))
