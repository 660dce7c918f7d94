"""Answers as pieces of a text: SQuAD's rules, offsets in any script, windows, no answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer

from stages import tokenize
from stages.common import answers as rules
from stages.preparing import squad
from stages.preparing.normalising import normalise, normalised
from stages.tasks import question_answering as task
from tests import tiny

DATA = task.Data(question="question", context="context", answers="answers", unanswerable=True)


def read(rows: list[tuple[str, Any]], **changes: Any) -> tuple[list[Any], dict[int, str]]:
    raw = {
        "question": ["Who?"] * len(rows),
        "context": [context for context, _ in rows],
        "answers": [one if isinstance(one, str) else json.dumps(one) for _, one in rows],
    }
    found, reasons = task.read(raw, DATA.model_copy(update=changes), normalised)
    return [
        (context, json.loads(own))
        for context, own in zip(found["context"], found["answers"], strict=True)
    ], reasons


@pytest.mark.parametrize(
    ("given", "references", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1, 1),
        ("an  apple, a pear", ["apple pear"], 1, 1),
        ("anthem", ["them"], 0, 0),  # articles are words of their own
        ("in Paris", ["Paris", "in the city of Paris"], 0, 2 / 3),
        ("Paris Paris", ["Paris"], 0, 2 / 3),  # a word counts as often as both have it
        ("U.S.", ["us"], 1, 1),
        ("", [], 1, 1),
        ("", ["Paris"], 0, 0),
        ("Paris", [], 0, 0),
        ("the", [""], 1, 1),  # nothing is left of it
        ("", ["the", "Paris"], 0, 0),  # a reference of which nothing is left is none
        ("东京。", ["东京"], 1, 1),
        ("“Paris”", ["Paris"], 0, 0),  # SQuAD's script knows ASCII punctuation alone
        ("x", ["y", "X"], 1, 1),
        ("東京都", ["東京"], 0, 4 / 5),  # each character a word
        ("القاهرة الكبرى", ["القاهرة"], 0, 2 / 3),
        ("ไทย", ["ไทย"], 1, 1),
    ],
)
def test_the_rules_of_squad(given: str, references: list[str], exact: float, f1: float) -> None:
    assert rules.exact(given, references) == exact
    assert rules.f1(given, references) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("context", "answer", "nth"),
    [
        ("Anna met Anna near Bern.", "Anna", 1),
        ("  two\u00a0\u00a0spaces, then  the\tend ", "the\tend", 0),
        ("去年东京和北京，今年东京。", "东京", 1),
        ("وُلِدَ محمّد في القاهرة، ومحمّد عاد.", "محمّد", 1),
        ("กรุงเทพเป็นเมืองหลวงของประเทศไทย", "เมืองหลวง", 0),
        ("Cafe\u0301 Zoe\u0308 and cafe\u0301", "cafe\u0301", 0),
        ("a\u200b\ufeffb \x07c", "c", 0),
    ],
)
def test_the_offset_decides_in_any_script(context: str, answer: str, nth: int) -> None:
    """Also where the answer's words occur twice, and where normalising moves characters."""
    start = -1
    for _ in range(nth + 1):
        start = context.index(answer, start + 1)
    ((clean, (found,)),), reasons = read([(context, [{"text": answer, "answer_start": start}])])
    assert not reasons
    at = found["start"]
    assert clean[at : at + len(found["text"])] == found["text"] == normalise(answer)
    assert clean[:at].count(found["text"]) == nth


def test_bad_answers_are_named() -> None:
    context = "Anna met Bob."
    rows: list[tuple[str, Any]] = [
        (context, [{"text": "Bob", "answer_start": 8}]), (context, [{"text": "Eve", "answer_start": 0}]),
        (context, [{"text": " ", "answer_start": 4}]), (context, [{"text": "Bob"}]), (context, "Bob"),
        (context, [{"text": "Bob", "answer_start": -4}]), (context, ""),
        (context, {"text": ["Bob", "Anna"], "answer_start": [9, 0]}), (context, {"text": [], "answer_start": []}),
        (context, {"text": ["Bob"], "answer_start": []}),
    ]  # fmt: skip
    found, reasons = read(rows)
    assert reasons == {
        0: "answer 'Bob' does not stand at 8 of its context, but ' Bo'",
        1: "answer 'Eve' does not stand at 0 of its context, but 'Ann'",
        2: "an answer is empty",
        3: 'answers: no list of {text, answer_start}: \'[{"text": "Bob"}]\'',
        4: "answers: no list of {text, answer_start}: 'Bob'",
        5: "answer 'Bob' does not stand at -4 of its context, but ''",
        9: 'answers: no list of {text, answer_start}: \'{"text": ["Bob"], "answer_start": []}\'',
    }
    assert found[7][1] == [{"text": "Bob", "start": 9}, {"text": "Anna", "start": 0}]
    assert found[6][1] == found[8][1] == []
    assert read([(context, "")], unanswerable=False)[1] == {0: "no answer"}


def test_squad_files() -> None:
    content = {
        "version": "2.0",
        "data": [
            {
                "title": "T",
                "paragraphs": [
                    {
                        "context": "c",
                        "qas": [
                            {"id": "1", "question": "q", "answers": [{"text": "c", "answer_start": 0}]},
                            {"id": "2", "question": "p", "is_impossible": True, "answers": [],
                             "plausible_answers": [{"text": "c", "answer_start": 0}]},
                            {"id": "3", "question": None, "answers": []},
                        ],
                    }
                ],
            }
        ],
    }  # fmt: skip
    for text in (
        json.dumps(content),
        json.dumps(content, indent=1),
        "\ufeff" + json.dumps(content),
    ):
        found = squad.articles(text)
        assert found is not None
        rows = list(squad.records(found, "x.json", ["question", "answers", "title"]))
        assert rows == [
            (1, ["q", '[{"text": "c", "answer_start": 0}]', "T"]),
            (2, ["p", "[]", "T"]),
            (3, "not SQuAD: a question or context is no text"),
        ]
    assert squad.articles('{"text": "a"}\n{"text": "b"}\n') is None
    assert squad.articles('{"data": "a"}') is None


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    base = tiny.make_base(tmp_path_factory.mktemp("base"))
    return Tokenizer.from_file(str(base / "tokenizer.json"))


def frame(rows: list[tuple[str, list[tuple[str, int]]]]) -> pd.DataFrame:
    found = [
        {
            "question": "is it good ?",
            "context": context,
            "answers": json.dumps([{"text": text, "start": start} for text, start in own]),
        }
        for context, own in rows
    ]
    return pd.DataFrame(found)


def table(tokenizer: Any, rows: pd.DataFrame, max_length: int = 20, stride: int = 6) -> Any:
    params = tokenize.Tokenize(max_length=max_length, max_truncated=0.0, stride=stride)
    return tokenize.windowed(tokenizer, rows, params, task, [])


def certain(examples: Any) -> np.ndarray:
    """Logits that are sure of the gold begin and end."""
    offsets = examples["input_ids"].combine_chunks().offsets.to_numpy()
    logits = np.zeros((offsets[-1], 2), dtype=np.float32)
    for name, column in (("begin", 0), ("end", 1)):
        places = offsets[:-1] + examples[name].to_numpy()
        logits[places, column] = 10.0
    return logits


def test_answers_in_long_contexts_come_back_from_their_windows(tokenizer: Any) -> None:
    """Every answer reaches the loss in a window that holds it whole, and the decision for it is
    the answer at its own place, not where its words stand before."""
    draw, rows = np.random.default_rng(0), []
    for _ in range(40):
        words = draw.choice(tiny.WORDS[:44], int(draw.integers(3, 60))).tolist()
        first = int(draw.integers(0, len(words) - 2))
        text = " ".join(words[first : first + int(draw.integers(1, 3))])
        rows.append((" ".join(words), [(text, len(" ".join(words[:first])) + bool(first))]))
    data = frame(rows)
    examples, counts = table(tokenizer, data)
    assert counts["lost_targets"] == 0 and counts["windows"] > 40
    assert (examples["begin"].to_numpy() > 0).sum() >= 40
    logits = certain(examples)
    assert task.decide(logits, examples, [], {}) == data["answers"].tolist()
    assert task.scores(logits, examples, [], {}).min() == 1.0


SENTENCES = {
    "zh": ("去年东京下了一场大雪，", "今年东京没有下雪。", "东京"),
    "ar": ("وُلِدَ محمّد في القاهرة ", "وعاد محمّد إلى بيته ", "محمّد"),
    "th": ("กรุงเทพเป็นเมืองหลวง ", "คนชอบกรุงเทพมาก ", "กรุงเทพ"),
}


@pytest.mark.parametrize("script", SENTENCES)
def test_long_contexts_of_any_script_come_back_from_their_windows(script: str) -> None:
    """By tokens that are bytes, several a character; the answer's words occur all over."""
    from tokenizers import decoders, models, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(["<s>", "</s>", *letters])}
    bytewise = Tokenizer(models.BPE(vocabulary, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    bytewise.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    first, second, answer = SENTENCES[script]
    context = normalise((first + second) * 6)
    starts = [i for i in range(len(context)) if context.startswith(normalise(answer), i)]
    assert len(starts) >= 12
    rows = frame([(context, [(normalise(answer), start)]) for start in starts])
    examples, counts = table(bytewise, rows, max_length=110, stride=40)
    assert counts["lost_targets"] == 0 and counts["windows"] > 2 * len(starts)
    decided = task.decide(certain(examples), examples, [], {})
    assert [*map(json.loads, decided)] == [*map(json.loads, rows["answers"])]


def test_further_answers_are_counted(tokenizer: Any) -> None:
    rows = frame([("the film is good", [("film", 4), ("good", 12)]), ("bad phone", [])])
    _, counts = table(tokenizer, rows)
    assert counts["further_answers"] == 1 and counts["lost_targets"] == 0
    written = rows["answers"].tolist()
    assert [task.readable(one, {}, []) for one in written] == ["film / good", "(no answer)"]


def test_an_answer_longer_than_what_windows_share_is_counted_as_lost(tokenizer: Any) -> None:
    context = " ".join(["good film"] * 20)
    _, counts = table(tokenizer, frame([(context, [(context[5:80], 5)])]))
    assert counts["lost_targets"] == 1


def test_the_margin_for_no_answer_is_tuned_and_kept(tokenizer: Any) -> None:
    rows = frame([("the film is good", [("film", 4)]), ("phone is bad", [])] * 4)
    examples, _ = table(tokenizer, rows)
    logits = certain(examples)
    offsets = examples["input_ids"].combine_chunks().offsets.to_numpy()
    logits[offsets[:-1]] += 6.0  # no answer looks likely, so a margin of 0 would miss all
    logits[offsets[:-1][::2]] += 7.0
    target = task.targets(rows, [])
    assert target.tolist() == [1, 0] * 4
    assert task.scores(logits, examples, [], {"margin": [0.0]})[:, 1].tolist() == [0, 1] * 4
    settled = task.settle(target, logits, examples, [], {}, task.Loss())
    assert task.scores(logits, examples, [], settled).min() == 1.0
    assert settled["margin"][0] < 0
    answered, silent = task.answers(logits, examples, [], settled, rows)[:2]
    assert answered["answers"] == [{"text": "film", "start": 4}] and silent["answers"] == []
    assert answered["margin"] > 0 > silent["margin"]
    assert task.settle(np.ones(8), logits, examples, [], {}, task.Loss()) == {}


def test_the_loss_is_that_of_each_rows_own_tokens() -> None:
    """Of packs and padded parts alike."""
    draw = torch.Generator().manual_seed(0)
    lengths = [3, 5]
    rows = [torch.randn(n, 2, generator=draw) for n in lengths]
    begin, end = torch.tensor([1, 4]), torch.tensor([2, 4])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1] * 5])
    expected = 0.0
    for row, first, last in zip(rows, begin, end, strict=True):
        losses = -row.log_softmax(dim=0)
        expected += 0.5 * float(losses[first, 0] + losses[last, 1])
    for part in ({"lengths": torch.tensor(lengths)}, {"attention_mask": mask}):
        total, count = task.loss(
            torch.cat(rows), {**part, "begin": begin, "end": end}, task.Loss(), {}
        )
        assert float(total) == pytest.approx(expected, rel=1e-5) and float(count) == 2


def test_the_baseline_takes_the_sentence_of_the_question() -> None:
    rows = pd.DataFrame(
        {
            "question": ["When did the bridge open?"],
            "context": ["It cost a lot. The bridge did open in 1931! Nobody came."],
            "answers": ['[{"text": "1931", "start": 40}]'],
        }
    )
    (predict,) = task.baselines(rows, [], None).values()
    (written,), scores = predict(rows)
    (answer,) = json.loads(written)
    assert answer["text"] == "The bridge did open in 1931!" and answer["start"] == 15
    assert scores[0, 0] == 0 and scores[0, 1] == pytest.approx(2 / 6)


def test_real_squad_files_lose_no_answer(tokenizer: Any, tmp_path: Path) -> None:
    source = Path(__file__).parent.parent.parent / "shared/data/xquad"
    if not source.exists():
        pytest.skip("needs ../shared/data/xquad")
    for language in ("en", "zh", "ar"):
        found = squad.articles((source / f"xquad.{language}.json").read_text(encoding="utf-8"))
        assert found is not None
        records = [*squad.records(found, "x", ["question", "context", "answers"])]
        assert len(records) == 1190
        question, context, answers = (list(of) for of in zip(*(v for _, v in records), strict=True))
        raw = {"question": question, "context": context, "answers": answers}
        rows, reasons = task.read(raw, DATA, normalised)
        assert not reasons, language
        for own, text in zip(rows["answers"], rows["context"], strict=True):
            for one in json.loads(own):
                assert text[one["start"] :].startswith(one["text"])
