"""Tags of words: entities as seqeval counts them, every word in one window, bad rows named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import seqeval.metrics as sq
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from tokenizers import Tokenizer

from stages import measures, tokenize, windows
from stages.artifacts import read_arrow
from stages.common import tagging
from stages.errors import UserError
from stages.preparing import conll
from stages.preparing.normalising import normalised
from stages.statistics import bootstrap, once
from stages.tasks import token_classification as task
from tests import running, tiny

TAGS = [f"{mark}-{kind}" for mark in "BIES" for kind in ("per", "a-b")] + ["O"]
LABELS = ["O", "B-a-b", "I-a-b", "B-per", "I-per"]


def data(**changes: Any) -> task.Data:
    values = {"text": None, "entities": None, "tokens": "tokens", "tags": "tags"}
    return task.Data(**{**values, "scheme": "iob2", "labels": [], **changes})


def read(pairs: list[tuple[Any, Any]], **changes: Any) -> tuple[list[Any], dict[int, str]]:
    """Text, words and tags of each row, and the reasons."""
    section = data(**changes)
    roles = list(task.columns(section))
    raw = {
        role: [value if isinstance(value, str) else json.dumps(value) for value in of]
        for role, of in zip(roles, zip(*pairs, strict=True), strict=True)
    }
    found, reasons = task.read(raw, section, normalised)
    rows = [
        (text, [text[a:b] for a, b in np.array(json.loads(words)).reshape(-1, 2)], json.loads(tags))
        for text, words, tags in zip(found["text"], found["words"], found["tags"], strict=True)
    ]
    return rows, reasons


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(TAGS), max_size=12))
def test_entities_are_those_of_seqeval(tags: list[str]) -> None:
    """Of any sequence, legal in a scheme or in none."""
    expected = [(kind, start, end + 1) for kind, start, end in get_entities(tags)]
    assert tagging.entities(tags) == expected


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6))
def test_metrics_are_those_of_seqeval(seed: int) -> None:
    """Also in a resample; adversarial: I- after O, another label in mid-entity, nothing right."""
    draw = np.random.default_rng(seed)
    rows = int(draw.integers(1, 8))
    gold = [draw.choice(LABELS, draw.integers(1, 9)).tolist() for _ in range(rows)]
    given = [
        [tag if draw.random() < 0.6 else str(draw.choice(LABELS)) for tag in of] for of in gold
    ]
    frame = pd.DataFrame({"tags": [json.dumps(of) for of in gold]})
    target, scores = task.targets(frame, LABELS), task.measured(gold, given, LABELS)
    weights = np.stack([np.ones(rows), np.bincount(draw.integers(0, rows, rows), minlength=rows)])
    found = measures.of(task)(target, scores, weights)
    for number, of in enumerate(weights.astype(int)):
        true = [gold[i] for i in range(rows) for _ in range(of[i])]
        guess = [given[i] for i in range(rows) for _ in range(of[i])]
        expected = {
            "f1": sq.f1_score(true, guess, zero_division=0),
            "precision": sq.precision_score(true, guess, zero_division=0),
            "recall": sq.recall_score(true, guess, zero_division=0),
            "accuracy": sq.accuracy_score(true, guess),
        }
        if any(tag != "O" for one in true + guess for tag in one):
            expected["macro_f1"] = sq.f1_score(true, guess, average="macro", zero_division=0)
        for name, value in expected.items():
            assert found[name][number] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("iob1", ["I-per", "I-per", "B-per", "O", "I-a-b"]),
        ("iob2", ["B-per", "I-per", "B-per", "O", "B-a-b"]),
        ("bioes", ["B-per", "E-per", "S-per", "O", "S-a-b"]),
    ],
)
def test_schemes_say_the_same(scheme: str, tags: list[str]) -> None:
    ((_, _, found),), reasons = read([(list("abcde"), tags)], scheme=scheme)
    assert not reasons and found == ["B-per", "I-per", "B-per", "O", "B-a-b"]


def test_io_joins_what_stands_together() -> None:
    for tags in (["I-per", "I-per", "O", "I-x"], ["per", "per", "O", "x"]):
        ((_, _, found),), _ = read([(list("abcd"), tags)], scheme="io")
        assert found == ["B-per", "I-per", "O", "B-x"]


def test_plain_tags_stay() -> None:
    ((text, words, tags),), _ = read([(["it", "is  so"], ["PRON", "B-x"])], scheme="plain")
    assert (text, words, tags) == ("it is so", ["it", "is so"], ["PRON", "B-x"])
    assert task.kinds(["PRON", "VERB"]) == ["PRON", "VERB"]


def test_bad_lists_are_named() -> None:
    pairs: list[tuple[Any, Any]] = [
        (["a", "b"], ["O"]), (["a", " "], ["O", "O"]), (["a"], ["I-per"]), (["a"], ["X-per"]), (["a"], [""]),
        ("a b", ["O"]), ("", ""), ([["a"]], ["O"]), (["a"], ["O"]),
    ]  # fmt: skip
    _, reasons = read(pairs)
    assert reasons == {
        0: "ragged: 2 tokens, 1 tags",
        1: "token 2 is empty",
        2: "tag 'I-per' of word 1 goes on with no entity, in iob2",
        3: "tag 'X-per' of word 1 is none of iob2 (O, B-, I-)",
        4: "tag of token 1 is empty",
        5: "tokens: no list of texts: 'a b'",
        6: "no tokens",
        7: "tokens: no list of texts: '[[\"a\"]]'",
    }
    _, reasons = read([(["a", "b"], ["B-per", "O"])], scheme="bioes")
    assert reasons == {0: "the entity before word 2 is not ended, in bioes"}


SPANS = {"text": "text", "entities": "entities", "tokens": None, "tags": None}


def entity(start: int, end: int, label: str = "p") -> dict[str, Any]:
    return {"start": start, "end": end, "label": label}


def test_entities_by_characters_find_their_words() -> None:
    """In scripts without spaces, too, and where normalising moves characters."""
    text = "\u200b Zoe\u0308's\u00a0\u00a0Café, in 東京都 or ประเทศไทย!"
    places = {name: text.index(name) for name in ("Zoe\u0308", "Café", "東京", "ไทย")}
    spans = [entity(at, at + len(name), "x y") for name, at in places.items()]
    ((clean, words, tags),), reasons = read([(text, spans)], **SPANS)
    assert not reasons
    assert clean.startswith("Zoë's Café, in 東京都")
    named = ["".join(words[a:b]) for _, a, b in tagging.entities(tags)]
    assert named == ["Zoë", "Café", "東京", "ไทย"] and set(tags) == {"O", "B-x y", "I-x y"}


def test_bad_entities_are_named() -> None:
    text = "Anna met Bob."
    pairs: list[tuple[Any, Any]] = [
        (text, [entity(1, 4)]), (text, [entity(0, 5)]), (text, [entity(0, 8), entity(5, 8)]),
        (text, [entity(9, 99)]), (text, [{"start": 0, "end": 4}]), (text, "Anna"), (text, [entity(9, 9)]),
        (text, [[0, 4, "p"]]), (text, []), (text, ""),
    ]  # fmt: skip
    _, reasons = read(pairs, **SPANS)
    assert reasons == {
        0: "entity 'nna' (1 to 4) begins within a word or in space",
        1: "entity 'Anna ' (0 to 5) ends within a word or in space",
        2: "entities overlap: 'Anna met' and 'met'",
        3: "entity outside of the text, or without label: {'start': 9, 'end': 99, 'label': 'p'}",
        4: "entity is no {start, end, label}: {'start': 0, 'end': 4}",
        5: "entities: no list: 'Anna'",
        6: "entity outside of the text, or without label: {'start': 9, 'end': 9, 'label': 'p'}",
    }


@pytest.mark.parametrize(("label", "advice"), [("B-PER", "'PER'"), ("O", "it not")])
def test_labels_are_names_of_entities(label: str, advice: str) -> None:
    form = {"text": None, "entities": None, "tokens": "tokens", "tags": "tags"}
    with pytest.raises(ValueError, match=f"names of entities alone, got '{label}'; write {advice}"):
        task.Data(**form, scheme="iob2", labels=["LOC", "I-PER", label])
    task.Data(**form, scheme="iob2", labels=["E-mail", "S-Bahn", "I-95"])


def test_an_unknown_label_is_named() -> None:
    rows = pd.DataFrame({"tags": ['["O", "B-pers"]', '["O"]', "[]"]})
    assert task.check(rows, LABELS).tolist() == [
        "unknown label 'pers'; did you mean 'per'?", "", "no word",
    ]  # fmt: skip


def test_entities_are_no_plain_tags() -> None:
    """They would be scored word by word under the name of another number."""
    plain = task.Data(
        text=None, entities=None, tokens="tokens", tags="tags", scheme="plain", labels=LABELS
    )
    rows = pd.DataFrame({"tags": ['["O"]']})
    with pytest.raises(
        UserError, match=r"data.scheme: got 'plain', but the labels O, B-a-b, I-a-b"
    ):
        task.labels(rows, plain)
    found = plain.model_copy(update={"labels": []})
    rows = pd.DataFrame({"tags": ['["O", "I-x"]', '["B-x"]']})
    with pytest.raises(UserError, match="the labels B-x, I-x, O"):
        task.labels(rows, found)
    kinds = found.model_copy(update={"labels": ["O", "B-x", "NOUN"]})
    assert task.labels(rows, kinds) == ["O", "B-x", "NOUN"]


def frame(texts: list[str]) -> pd.DataFrame:
    """Each word has the tag of its first letter."""
    rows = task.ask({"text": texts}, ["O"])
    tags = [
        json.dumps([text[a].upper() for a, _ in np.array(json.loads(of)).reshape(-1, 2)])
        for text, of in zip(texts, rows["words"], strict=True)
    ]
    return pd.DataFrame(rows | {"tags": tags})


@pytest.mark.parametrize("stride", [0, 3, 8])
def test_every_word_counts_once_however_long_the_text(tmp_path: Any, stride: int) -> None:
    """No gold label is cut off or counted twice, and decisions come back to their words."""
    draw = np.random.default_rng(stride)
    tokenizer = Tokenizer.from_file(str(tiny.make_base(tmp_path) / "tokenizer.json"))
    texts = [
        " ".join(draw.choice(tiny.WORDS[:44], size).tolist()) for size in (1, 9, 10, 11, 60, 97)
    ]
    texts.append("it's film-s very-bad, good!ly " * 9)
    rows = frame([" ".join(text.split()) for text in texts])
    labels = sorted({tag for of in rows["tags"] for tag in json.loads(of)})
    params = tokenize.Tokenize(max_length=12, max_truncated=0.0, stride=stride)
    table, counts = tokenize.windowed(tokenizer, rows, params, task, labels)
    assert counts["lost_targets"] == 0 and counts["windows"] > len(rows)
    assert max(len(ids) for ids in table["input_ids"].to_pylist()) <= 12
    reached = [tag for of in table["tag"].to_pylist() for tag in of if tag != task.NO_LOSS]
    assert len(reached) == sum(len(json.loads(of)) for of in rows["tags"])
    flat = np.array([tag for of in table["tag"].to_pylist() for tag in of])
    logits = np.eye(len(labels))[np.maximum(flat, 0)]
    assert task.decide(logits, table, labels, {}) == rows["tags"].tolist()
    scores = task.scores(logits, table, labels, {})
    assert once(measures.of(task), task.targets(rows, labels), scores)["f1"] == 1.0


def test_windows_share_their_stride_and_count_the_middle_once(tmp_path: Any) -> None:
    tokenizer = Tokenizer.from_file(str(tiny.make_base(tmp_path) / "tokenizer.json"))
    found = windows.make(tokenizer, [["good " * 25]], max_length=12, stride=4)
    sizes = np.diff(found.offsets)
    assert sizes.tolist() == [12, 12, 12, 9]
    owned = [
        int(found.own[a:b].sum()) for a, b in zip(found.offsets, found.offsets[1:], strict=False)
    ]
    assert sum(owned) == 25 and owned == [8, 6, 6, 5]


def test_words_that_no_token_stands_for_are_counted_and_missed(tmp_path: Any) -> None:
    """The tokenizer of this base drops accents that stand alone."""
    tokenizer = Tokenizer.from_file(str(tiny.make_base(tmp_path) / "tokenizer.json"))
    ((text, words, tags),), _ = read([(["good", "\u0301", "film"], ["O", "B-per", "O"])])
    assert words == ["good", "\u0301", "film"]
    row = {"text": text, "words": json.dumps([0, 4, 5, 6, 7, 11]), "tags": json.dumps(tags)}
    params = tokenize.Tokenize(max_length=12, max_truncated=0.0, stride=0)
    table, counts = tokenize.windowed(tokenizer, pd.DataFrame([row]), params, task, LABELS)
    assert counts["lost_targets"] == 1
    flat = np.array([tag for of in table["tag"].to_pylist() for tag in of])
    scores = task.scores(np.eye(5)[np.maximum(flat, 0)], table, LABELS, {})
    found = once(measures.of(task), task.targets(pd.DataFrame([row]), LABELS), scores)
    assert found["recall"] == 0.0 and found["accuracy"] == pytest.approx(2 / 3)


def test_conll_files() -> None:
    lines = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\n\t\nPeter NNP B-PER\n\nodd one\n"
    lines += "-DOCSTART- O\nnext to\nit O\n"  # which not every file parts from its first sentence
    found = list(conll.records(iter(lines.splitlines(True)), "x.conll", ["tokens", "tags"], False))
    assert found == [
        (3, ['["EU", "rejects"]', '["B-ORG", "O"]']),
        (6, ['["Peter"]', '["B-PER"]']),
        (8, ['["odd"]', '["one"]']),
        (10, ['["next", "it"]', '["to", "O"]']),
    ]
    (record,) = conll.records(iter("a 1 x\nb 2\n".splitlines(True)), "x.conll", ["1"], False)
    assert record == (1, "field count: word 2 of the sentence has 2 fields, the first has 3")
    universal = (
        "# text = vámonos\n1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_\n1\tvamos\tir\tVERB\t_\t_\t0\troot\t_\t_\n"
        "2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_\n2.1\tx\t_\tX\t_\t_\t_\t_\t_\t_\n\n"
    )
    (record,) = conll.records(iter(universal.splitlines(True)), "x", ["form", "upos"], True)
    assert record == (3, ['["vamos", "nos"]', '["VERB", "PRON"]'])


def test_details_say_what_was_taken_for_what() -> None:
    gold = [["B-per", "I-per", "O", "B-a-b"], ["O", "O"]]
    given = [["B-a-b", "I-a-b", "O", "O"], ["O", "B-per"]]
    rows = pd.DataFrame(
        {
            "text": ["Anna Lee met Rome", "Bob met"],
            "words": [json.dumps([0, 4, 5, 8, 9, 12, 13, 17]), json.dumps([0, 3, 4, 7])],
            "tags": [json.dumps(of) for of in gold],
            "predicted": [json.dumps(of) for of in given],
        }
    )
    target, scores = task.targets(rows, LABELS), task.measured(gold, given, LABELS)
    found = task.details(
        measures,
        lambda metrics: bootstrap(metrics, target, scores, 100, 0),
        target,
        scores,
        LABELS,
        rows,
    )
    (matrix,) = found["matrices"]
    assert matrix["labels"] == ["a-b", "per", "(none)"]
    assert matrix["values"] == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert found["tables"][0]["rows"][0][:2] == ["a-b", 1]
    assert found["tables"][1]["rows"] == [
        ["Anna Lee", "per", "a-b", 1], ["Rome", "a-b", "(none)", 1], ["met", "(none)", "per", 1],
    ]  # fmt: skip
    read = [
        task.readable(row[of], row, LABELS)
        for of in ("tags", "predicted")
        for row in [dict(row) for _, row in rows.iterrows()]
    ]
    assert read == ["Anna Lee (per); Rome (a-b)", "(none)", "Anna Lee (a-b)", "met (per)"]
    assert task.right(target, scores).tolist() == [False, False]
    assert task.severity(target, scores)[1].tolist() == [3, 1]


def test_the_baseline_knows_the_most_frequent_tag() -> None:
    train = frame(["good bad", "good great"])
    (predict,) = task.baselines(train, ["B", "G"], None).values()
    decided, scores = predict(frame(["good zzz bad"]))
    assert decided == ['["G", "G", "B"]'] and scores[0, -2:].tolist() == [2, 3]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_windows_without_a_target_leave_numbers(
    accumulate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one long word all windows but the first have nothing to learn, so whole batches may."""
    rows = [{"tokens": ["love" + "ly" * 40, "good"], "tags": ["O", "B-X"]} for _ in range(40)]
    for number, row in enumerate(rows):
        row["tokens"].append("film" * (number % 9 + 1) + str(number))
        row["tags"].append("O")
    form = dict.fromkeys(("text", "entities")) | {"tokens": "tokens", "tags": "tags"}
    keys = {f"tasks__token_classification__data__{key}": value for key, value in form.items()}
    content = "".join(json.dumps(row) + "\n" for row in rows)
    running.ready(
        tmp_path, "token_classification", content, "x.jsonl", **keys,
        finetune__batch_size=1, finetune__accumulate=accumulate,
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    running.run("fetch_model", "prepare", "tokenize", "finetune")
    tags = read_arrow("data/tokenized/train.arrow")["tag"].to_pylist()
    empty = sum(all(tag == task.NO_LOSS for tag in of) for of in tags)
    assert empty > len(tags) / 4
    curve = pd.read_csv("results/learning_curve.csv")
    assert np.isfinite(curve["train_loss"]).all() and np.isfinite(curve["validation_loss"]).all()
