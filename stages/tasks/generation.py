"""Texts that a causal language model writes: the answer to an instruction, or how a text goes on.
The base's own decoder, cross-entropy on the response's tokens and the one that ends it alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, model_validator

from stages.common import chat, overlap, texts
from stages.common.prompts import NO_GOAL
from stages.errors import UserError, did_you_mean
from stages.params import Section

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import torch
    from transformers import PreTrainedModel

    from stages.tasks.base import Intervals, Learnt, Normalised, Predict, Raw

TEXTS = ("prompt",)
TARGET = "response"
OTHERS = ("messages",)
NESTED = ("messages",)
WINDOWED = False
GENERATIVE = True
MAIN_METRIC = "chrf"
SELECTION_METRIC = "log_likelihood"
LOWER_IS_BETTER = ("loss", "perplexity", "loss_per_byte", "perplexity_per_byte")
HUB_TASK = "text-generation"
NATS, TOKENS, BYTES, JUDGED = 0, 1, 2, 3  # columns of scores; from the last on those of `overlap`
AT_A_TIME = 1000  # rows that are compared with many at once
SHOWN = 5  # samples of a kind in the report
SHOWN_CHARACTERS = 400

_FORMS = (("messages",), ("text",), ("prompt", "response"), ("instruction", "output"))


class Data(Section):
    instruction: str | None = Field(min_length=1, description="column of what is asked for")
    input: str | None = Field(min_length=1, description="column of what it is about; null: none")
    output: str | None = Field(min_length=1, description="column of the answer")
    prompt: str | None = Field(min_length=1, description="column of a prompt")
    response: str | None = Field(min_length=1, description="column of its response")
    messages: str | None = Field(
        min_length=1,
        description="column of chats, [{role, content}]; the last message, the assistant's, is "
        "learnt",
    )
    text: str | None = Field(min_length=1, description="column of plain texts, learnt whole")
    prompt_words: int = Field(
        ge=1, description="of a plain text: words that the model is given when it is measured"
    )

    @model_validator(mode="after")
    def _one_form(self) -> Data:
        names = ("instruction", "output", "prompt", "response", "messages", "text")
        given = tuple(name for name in names if getattr(self, name) is not None)
        if set(given) not in [set(form) for form in _FORMS]:
            forms = ", or ".join(" and ".join(form) for form in _FORMS)
            raise ValueError(
                f"text: columns of no one form, got {', '.join(given) or 'none'}; write {forms}, "
                "and null for the others"
            )
        if self.input is not None and self.instruction is None:
            raise ValueError("input: goes with instruction; write null")
        return self


Loss = texts.NoLoss


class Params(Section):
    data: Data
    loss: Loss


# ---------------------------------------------------------------- rows


def columns(data: Data) -> dict[str, str]:
    roles = ("instruction", "input", "output", "prompt", "response", "messages", "text")
    return {role: getattr(data, role) for role in roles if getattr(data, role) is not None}


def read(
    raw: Raw, data: Data, normalised: Normalised
) -> tuple[dict[str, list[str]], dict[int, str]]:
    """`messages` is the conversation before the response as JSON, `prompt` the same to read; of
    plain texts `messages` is empty and `prompt` their first words. Line ends and indentation stay,
    for they are part of what is learnt."""
    found: dict[str, list[str]] = {"prompt": [], "response": [], "messages": []}
    reasons = {}
    for i in range(len(next(iter(raw.values())))):
        row = {role: chat.clean(values[i]) for role, values in raw.items()}
        prompt = response = messages = ""
        try:
            if "text" in row:
                prompt, response = _parted(row["text"], data.prompt_words)
            else:
                turns, response = _turns(row)
                prompt, messages = _told(turns), json.dumps(turns, ensure_ascii=False)
        except ValueError as error:
            reasons[i] = str(error)
        for role, value in (("prompt", prompt), ("response", response), ("messages", messages)):
            found[role].append(value)
    return found, reasons


def _turns(row: dict[str, str]) -> tuple[list[dict[str, str]], str]:
    """The messages before the response, and it."""
    if "messages" in row:
        turns = _messages(row["messages"])
        if not turns or turns[-1]["role"] != "assistant":
            raise ValueError("no response: the last message is not the assistant's")
        if not any(turn["role"] == "user" for turn in turns[:-1]):
            raise ValueError("no prompt: no message of the user before the last")
        return turns[:-1], turns[-1]["content"]
    asked = _asked(row)
    if not (answered := row["response" if "prompt" in row else "output"]):
        raise ValueError("no response")
    return [{"role": "user", "content": asked}], answered


def _asked(row: Mapping[str, str]) -> str:
    if "prompt" in row:
        asked = row["prompt"]
    elif not row["instruction"]:
        raise ValueError("no instruction")
    else:
        asked = "\n\n".join(filter(None, (row["instruction"], row.get("input", ""))))
    if not asked:
        raise ValueError("no prompt")
    return asked


def _messages(text: str) -> list[dict[str, str]]:
    try:
        values = json.loads(text) if text else []
    except ValueError:
        values = None
    if not isinstance(values, list):
        raise ValueError(f"messages: no list: {text[:60]!r}")
    turns = []
    for number, one in enumerate(values, 1):
        role, content = (
            (one.get(key) for key in ("role", "content")) if isinstance(one, dict) else (None, None)
        )
        if not isinstance(role, str) or not isinstance(content, str):
            raise ValueError(f"message {number} is no {{role, content}} of texts")
        if role not in chat.ROLES:
            advice = did_you_mean(role, chat.ROLES)
            raise ValueError(f"unknown role {role!r} of message {number}; {advice}")
        if not (clean := chat.clean(content)):
            answers = role == "assistant" and number == len(values)
            raise ValueError("no response" if answers else f"message {number} is empty")
        turns.append({"role": role, "content": clean})
    return turns


def _told(turns: list[dict[str, str]]) -> str:
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def _parted(text: str, words: int) -> tuple[str, str]:
    """The first words of a plain text, and how it goes on."""
    if not text:
        raise ValueError("no text")
    found = re.match(rf"\S+(?:\s+\S+){{{words - 1}}}(?=\s+\S)", text)
    if not found:
        raise ValueError(f"fewer than {words + 1} words, so nothing follows the prompt")
    return found[0], text[found.end() :]


def request(value: Mapping[str, Any]) -> dict[str, str]:
    """Of `messages` that end with the user's, of `instruction` and perhaps `input`, or of
    `prompt`."""
    if value.get("messages") is not None:
        turns = _messages(json.dumps(value["messages"], ensure_ascii=False))
        if not turns or turns[-1]["role"] != "user":
            raise ValueError("no prompt: the last message is not the user's")
        messages = json.dumps(turns, ensure_ascii=False)
        return {"prompt": _told(turns), "messages": messages}
    names = ("prompt",) if value.get("prompt") is not None else ("instruction", "input")
    row = {name: value[name] for name in names if value.get(name) is not None}
    if not row:
        raise ValueError("no key 'prompt', 'instruction' or 'messages'")
    for name, text in row.items():
        if not isinstance(text, str):
            raise ValueError(f"no key {name!r} that holds a text")
    clean = {name: chat.clean(text) for name, text in row.items()}
    return {"prompt": _asked({"instruction": "", **clean})}


def ask(raw: Raw, labels: list[str]) -> dict[str, list[str]]:
    """The prompts, by `messages` where they have some."""
    turns = [json.dumps([{"role": "user", "content": text}]) for text in raw["prompt"]]
    given = raw.get("messages", turns)
    return {
        "prompt": raw["prompt"],
        "response": [""] * len(turns),
        "messages": [own or plain for own, plain in zip(given, turns, strict=True)],
    }


labels = texts.no_labels
check = texts.check_nothing
balance = texts.no_balance


def problems(train: pd.DataFrame, labels: list[str]) -> list[str]:
    return []


# ---------------------------------------------------------------- numbers


def targets(rows: pd.DataFrame, labels: list[str]) -> np.ndarray:
    """Bytes of each response, [n]: what it is made of is in the examples."""
    return np.array([len(text.encode()) for text in rows["response"]], dtype=np.int32)


def build_model(base: Path, labels: list[str]) -> tuple[PreTrainedModel, list[str]]:
    """
    Raises:
        UserError: the base is no causal language model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    found: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, local_files_only=True, output_loading_info=True
    )
    model, info = found
    if info["missing_keys"] or getattr(model.config, "is_decoder", None) is False:
        raise UserError(
            f"{base}: a {model.config.model_type} that reads texts, not one that writes them; name "
            "a causal language model in fetch_model, such as a GPT-2 or a Llama"
        )
    return model, []


logits = texts.logits
learn = texts.learn_nothing
settle = texts.settle_nothing
decision = texts.no_decision
fold = texts.fold_nothing
readable = texts.as_it_is


def arguments(part: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Words are scored at the places that have a goal alone: a vocabulary is wide."""
    return {"logits_to_keep": (part["goal"] != NO_GOAL).nonzero()[:, 0]}


def _nats(logits: torch.Tensor, part: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of each token that has a goal, [goals]: minus the logarithm of its probability."""
    import torch

    learnt = part["goal"] != NO_GOAL
    if len(logits) == len(learnt):  # padded rows have the logits of all tokens
        logits = logits[learnt]
    return torch.nn.functional.cross_entropy(logits.float(), part["goal"][learnt], reduction="none")


def loss(
    logits: torch.Tensor, part: dict[str, torch.Tensor], loss: Loss, learnt: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    nats = _nats(logits, part)
    return nats.sum(), nats.new_tensor(float(len(nats)))


def kept(logits: torch.Tensor, part: dict[str, torch.Tensor]) -> torch.Tensor:
    """`_nats` of each token, [tokens, 1]; 0 where there is no goal."""
    nats = _nats(logits, part)
    found = nats.new_zeros(len(part["goal"]), 1)
    found[part["goal"] != NO_GOAL] = nats[:, None]
    return found


def scores(
    logits: np.ndarray, examples: pa.Table | None, labels: list[str], learnt: Learnt
) -> np.ndarray:
    """Of each row the nats, tokens and bytes of its response, [n, 3]."""
    assert examples is not None
    lists = examples["goal"].combine_chunks()
    starts = lists.offsets.to_numpy()[:-1]
    goals = lists.values.to_numpy(zero_copy_only=False) != NO_GOAL
    sums = [np.add.reduceat(values.astype(np.float64), starts) for values in (logits[:, 0], goals)]
    return np.stack([*sums, examples["bytes"].to_numpy()], axis=1)


def judged(rows: pd.DataFrame, texts: list[str]) -> np.ndarray:
    return overlap.judged(
        [text.strip() for text in texts], [text.strip() for text in rows["response"]]
    )


def decide(
    logits: np.ndarray, examples: pa.Table | None, labels: list[str], learnt: Learnt
) -> list[str]:
    raise AssertionError("the model writes them")


def answers(
    logits: np.ndarray,
    examples: pa.Table | None,
    labels: list[str],
    learnt: Learnt,
    rows: pd.DataFrame,
) -> list[dict[str, Any]]:
    return [{"response": text} for text in rows["predicted"]]


def metrics(target: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Likelihood of the references (NaN for who gives none); where texts were written, chrF and
    the share of those that are the reference to the letter."""
    nats, tokens, size = (weights @ scores[:, :JUDGED]).T
    per_byte = nats / np.where(size > 0, size, np.nan)
    found = {
        "log_likelihood": -nats / tokens,
        "perplexity": np.exp(nats / tokens),
        "perplexity_per_byte": np.exp(per_byte),
    }
    if scores.shape[1] == JUDGED:
        return found
    judged = scores[:, JUDGED:]
    exact = weights @ judged[:, overlap.EXACT] / weights.sum(axis=1)
    return {"chrf": overlap.chrf(judged, weights), "exact_match": exact, **found}


def evaluation(
    measures: Any, target: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """And the loss in nats a token and a byte, BLEU, and the mean of the rows' ROUGE."""
    nats, tokens, size = (weights @ scores[:, :JUDGED]).T
    judged = scores[:, JUDGED:]
    rows = weights.sum(axis=1)
    return metrics(target, scores, weights) | {
        "loss": nats / tokens,
        "loss_per_byte": nats / np.where(size > 0, size, np.nan),
        "bleu": overlap.bleu(judged, weights),
        **{name: weights @ judged[:, column] / rows for name, column in overlap.ROUGE.items()},
    }


def right(target: np.ndarray, scores: np.ndarray) -> None:
    return None


def severity(target: np.ndarray, scores: np.ndarray) -> tuple[str, np.ndarray]:
    return "distance from 100 in chrF", 100 - _row_chrf(scores)


def _row_chrf(scores: np.ndarray) -> np.ndarray:
    parts = [scores[part, JUDGED:] for part in _parts(len(scores))]
    return np.concatenate([overlap.chrf(part, np.eye(len(part))) for part in parts])


def _parts(rows: int) -> list[slice]:
    """Rows a few at a time, one part at least: what is made of pairs of rows would be large."""
    return [slice(start, start + AT_A_TIME) for start in range(0, max(rows, 1), AT_A_TIME)]


def details(
    measures: Any,
    intervals: Intervals,
    target: np.ndarray,
    scores: np.ndarray,
    labels: list[str],
    rows: pd.DataFrame,
) -> dict[str, list[dict[str, Any]]]:
    """Texts beside their references: the best, the worst, and a fixed choice of the others."""
    found = _row_chrf(scores)
    order = np.argsort(-found, kind="stable")
    count = min(SHOWN, len(order))
    ends = max(0, min(SHOWN, len(order) - count))
    middle = order[count : len(order) - ends]
    drawn = np.random.default_rng(0).permutation(len(middle))[:SHOWN]
    kinds = {
        "best": order[:count],
        "worst": order[len(order) - ends :][::-1],
        "drawn": middle[np.sort(drawn)],
    }
    columns = ["chosen", "prompt", "written", "reference", "chrF"]
    lines = [
        [kind, *(_short(rows[name].iloc[i]) for name in ("prompt", "predicted", "response")),
         float(found[i])]
        for kind, places in kinds.items()
        for i in places
    ]  # fmt: skip
    note = (
        "The best and the worst by the chrF of a row, and rows drawn from the others, always the "
        "same ones."
    )
    table = {"title": "Written texts", "columns": columns, "rows": lines, "note": note}
    return {"tables": [table]}


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def baselines(train: pd.DataFrame, labels: list[str], baseline: Any) -> dict[str, Predict]:
    """The response to the training prompt that is nearest by the cosine of TF-IDF."""
    vectors = texts.tfidf(baseline, words=r"(?u)\S+")
    known = vectors.fit_transform(train["prompt"])
    responses = train["response"].tolist()

    def predict(rows: pd.DataFrame) -> tuple[list[str], np.ndarray]:
        asked = vectors.transform(rows["prompt"])
        near = [(asked[part] @ known.T).toarray().argmax(axis=1) for part in _parts(len(rows))]
        found = [responses[i] for i in np.concatenate(near)]
        return found, np.hstack([np.full((len(rows), JUDGED), np.nan), judged(rows, found)])

    return {"response to the nearest training prompt": predict}
