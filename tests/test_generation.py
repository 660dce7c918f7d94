"""The generation task: what bears loss, what is written, how it is measured, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import transformers

from stages import __main__, check, plugins, tokenize
from stages.adaptation import Start, positions
from stages.artifacts import read_arrow
from stages.common import chat, overlap, prompts
from stages.errors import UserError
from stages.params import Run
from stages.tasks import generation as task
from stages.training import generating
from stages.training.batching import Rows
from stages.training.module import FineTuning
from stages.training.schedule import Optimization
from tests import running, tiny
from tests.running import ROOT, json_of

FORM: dict[str, Any] = dict.fromkeys(task.Data.model_fields) | {"prompt_words": 3}
SPECIAL = {"bos_token": None, "eos_token": tiny.END}
GREEDY = generating.Decoding(max_new_tokens=12, temperature=0.0, top_p=1.0, seed=0)
SAMPLED = GREEDY.model_copy(update={"temperature": 1.5, "top_p": 0.9})
PAIRS = [
    ("hi", "ho"),
    ("what is it ?", "a line\n  and another"),
    ("good " * 10, "é ü 漢字 🙂 " * 3 + "end"),
    ("z", "y" * 60),
]


def data(**columns: Any) -> task.Data:
    return task.Data(**FORM | columns)


def read(raw: dict[str, list[str]], of: task.Data) -> tuple[pd.DataFrame, dict[int, str]]:
    roles, reasons = task.read(raw, of, lambda values: values)
    return pd.DataFrame(roles), reasons


def rows(pairs: list[tuple[str, str]]) -> pd.DataFrame:
    columns = {"prompt": [a for a, _ in pairs], "response": [b for _, b in pairs]}
    found, reasons = read(columns, data(prompt="prompt", response="response"))
    assert not reasons
    return found


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.make_causal(tmp_path / "base")


def examples(base: Path, pairs: list[tuple[str, str]], most: int = 256) -> prompts.Examples:
    tokenizer = tokenize.load_tokenizer(base / "tokenizer.json")
    return prompts.make(tokenizer, rows(pairs), most, chat.PLAIN, SPECIAL)


def table(found: prompts.Examples) -> pa.Table:
    return pa.table(found.columns() | {"target": pa.array(found.bytes)})


def engine(model: Any) -> FineTuning:
    run = Run(
        "generation",
        "full",
        task,
        None,
        task.Params(data=data(text="t"), loss=task.Loss()),
        None,
        None,
    )
    return FineTuning(model, run, [], {}, Optimization(1e-3, 0.0, 0, 1, "constant", 0))


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"prompt": "", "response": "a"}, "no prompt"),
        ({"prompt": "a", "response": " \n"}, "no response"),
        ({"instruction": "", "input": "x", "output": "a"}, "no instruction"),
        ({"text": "three words only"}, "fewer than 4 words, so nothing follows the prompt"),
        ({"messages": '{"role": 1}'}, "messages: no list: '{\"role\": 1}'"),
        ({"messages": '[{"role": "user"}]'}, "message 1 is no {role, content} of texts"),
        (
            {"messages": '[{"role": "usr", "content": "a"}, {"role": "assistant", "content": "b"}]'},
            "unknown role 'usr' of message 1; did you mean 'user'?",
        ),
        (
            {"messages": '[{"role": "user", "content": "a"}]'},
            "no response: the last message is not the assistant's",
        ),
        (
            {"messages": '[{"role": "assistant", "content": "a"}]'},
            "no prompt: no message of the user before the last",
        ),
        (
            {"messages": '[{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]'},
            "no response",
        ),
    ],
)  # fmt: skip
def test_rows_that_teach_nothing_are_named(raw: dict[str, str], reason: str) -> None:
    _, reasons = read({name: [one] for name, one in raw.items()}, data(**{n: n for n in raw}))
    assert reasons == {0: reason}


def test_each_form_gives_prompt_and_response() -> None:
    found, _ = read(
        {"instruction": ["Add."], "input": ["1\r\n  2"], "output": [" 3\n"]},
        data(instruction="i", input="in", output="o"),
    )
    assert found[["prompt", "response"]].to_numpy()[0].tolist() == ["Add.\n\n1\n  2", "3"]
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    found, _ = read({"messages": [json.dumps(turns)]}, data(messages="m"))
    assert json.loads(found["messages"].iloc[0]) == turns[:-1]
    assert found["response"].iloc[0] == "d"
    found, _ = read({"text": ["one two three\nfour five"]}, data(text="t"))
    assert found.to_numpy()[0].tolist() == ["one two three", "\nfour five", ""]


def test_columns_of_two_forms_are_refused() -> None:
    with pytest.raises(ValueError, match="columns of no one form, got prompt, text"):
        data(prompt="a", text="b")
    with pytest.raises(ValueError, match="goes with instruction"):
        data(text="b", input="c")


# ---------------------------------------------------------------- tokens and loss


MARKED = (
    "{%- for message in messages %}\n{%- if message['role'] == 'assistant' %}\n"
    "  {% generation %}\n{{ message['content'] }}\n  {%- endgeneration %}\n{%- else %}\n"
    "{{ message['role'] }}: {{ message['content'] }}\n{% endif %}\n{%- endfor %}"
)
"""With the block that tells training what the assistant says."""


def test_a_template_that_writes_the_date_is_refused() -> None:
    """But where it has another date for those that give none, as Llama's."""
    dated = "{{ strftime_now('%d') }}"
    kind = f"{{% if strftime_now is defined %}}{dated}{{% else %}}26{{% endif %}}"
    messages = [{"role": "user", "content": "a"}]
    assert chat.render(kind, messages, {}, prompting=True) == "26"
    with pytest.raises(UserError, match=r"the day's date .* tokenize.chat_template: plain"):
        chat.render(dated, messages, {}, prompting=True)


def test_a_row_that_the_template_refuses_is_named(base: Path) -> None:
    tokenizer = tokenize.load_tokenizer(base / "tokenizer.json")
    template = "{{ raise_exception('no system') if messages[0]['role'] == 'system' }}a"
    turns = [[{"role": role, "content": "b"}] for role in ("user", "system")]
    rows = pd.DataFrame(
        {
            "prompt": "b",
            "response": "c",
            "messages": [json.dumps(of) for of in turns],
            "file": "x.jsonl",
            "line": [3, 9],
        }
    )
    with pytest.raises(UserError, match=r"^x\.jsonl, line 9: chat template of the base: no system"):
        prompts.make(tokenizer, rows, 64, template, chat.of_base(base))


@pytest.mark.parametrize("template", [chat.PLAIN, tiny.CHATML, MARKED])
def test_prompts_are_those_of_transformers(template: str, tmp_path: Path) -> None:
    tiny.make_causal(tmp_path, template=template)
    about = chat.of_base(tmp_path)
    assert about["template"] == template and about["causal"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for messages in ([{"role": "user", "content": "é <b> 'q'"}],
                     [{"role": "system", "content": "s"}, {"role": "user", "content": "a\nb"},
                      {"role": "assistant", "content": "c\n d"}]):  # fmt: skip
        for prompting in (True, False):
            theirs = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=prompting
            )
            assert chat.render(template, messages, about, prompting=prompting) == theirs


@pytest.mark.parametrize("most", [256, 60])
def test_no_target_token_is_lost_in_silence(base: Path, most: int) -> None:
    """What the responses have, in bytes, which are this tokenizer's tokens, and the end of each
    is learnt or counted as cut; the loss of a batch is over as many."""
    found = examples(base, PAIRS, most)
    expected = sum(len(response.encode()) + 1 for _, response in PAIRS)
    counts = found.counts
    assert counts["target_tokens"] == expected
    assert counts["learnt_tokens"] + counts["cut_target_tokens"] == expected
    assert (counts["cut_target_tokens"] > 0) == (most == 60)
    assert counts["cut_prompts"] == (0 if most == 256 else 3)
    assert counts["cut_responses"] == (0 if most == 256 else 1)
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    for first_position in (0, None):
        batch = Rows(table(found), 0, 2, first_position)[np.arange(len(PAIRS))]
        _, count, _ = engine(model).losses(batch)
        assert int(count) == counts["learnt_tokens"], first_position


def test_the_loss_is_that_of_transformers_on_masked_labels(base: Path) -> None:
    """Also of the token that ends a response, where padding has the same number; packed and
    padded."""
    from stages.training import packing

    found = examples(base, PAIRS)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    total = 0.0
    for start, stop, begin in zip(found.offsets[:-1], found.offsets[1:], found.prompt, strict=True):
        ids = torch.from_numpy(found.ids[start:stop]).long()[None]
        assert int(ids[0, -1]) == found.end
        labels = ids.clone()
        labels[:, :begin] = -100
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=labels).loss) * int((labels >= 0).sum())
    parts = Rows(table(found), found.end, 2)[np.arange(4)]
    padded, count, _ = engine(model).losses(parts)
    assert float(padded) == pytest.approx(total, rel=1e-5)
    first_position = packing.prepare(model)
    (pack,) = Rows(table(found), found.end, 2, first_position)[np.arange(4)]
    packed, _, (logits,) = engine(model).losses([pack])
    assert float(packed) == pytest.approx(total, rel=1e-5)
    assert len(logits) == int(count), "no logits but those of target tokens"


def test_likelihood_is_per_token_and_byte(base: Path) -> None:
    from stages.training.predicting import predict

    found = examples(base, PAIRS)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    logits = predict(model, table(found), 3, "cpu", task)
    scores = task.scores(logits, table(found), [], {})
    sizes = [len(response.encode()) for _, response in PAIRS]
    assert scores[:, task.BYTES].tolist() == sizes
    assert scores[:, task.TOKENS].tolist() == [size + 1 for size in sizes]
    values = task.metrics(found.bytes, scores, np.ones((1, 4)))
    nats = scores[:, task.NATS].sum()
    assert values["perplexity"][0] == pytest.approx(np.exp(nats / (sum(sizes) + 4)))
    assert values["perplexity_per_byte"][0] == pytest.approx(np.exp(nats / sum(sizes)))


# ---------------------------------------------------------------- writing


def causal(kind: str, base: Path) -> Any:
    torch.manual_seed(1)
    if kind == "gpt2":
        return transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=260, max_position_embeddings=256, initializer_range=0.3,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_text_depends_on_its_prompt_alone(kind: str, base: Path) -> None:
    """Written together, filled up on the left, or alone; and greedy, what transformers writes."""
    found = table(examples(base, PAIRS))
    model = causal(kind, base)
    reference = [
        model.generate(
            torch.from_numpy(one).long()[None], max_new_tokens=12, do_sample=False,
            eos_token_id=256, pad_token_id=256,
        )[0, len(one) :].tolist()
        for one in generating.prompts(found)
    ]  # fmt: skip
    from stages.training import packing

    for prepared in (False, True):
        if prepared:
            packing.prepare(model)
        for decoding in (GREEDY, SAMPLED):
            together = generating.write(model, found, decoding, 4, "cpu")
            alone = generating.write(model, found, decoding, 1, "cpu")
            assert together == alone
            if decoding is GREEDY:
                assert together == [[one for one in text if one != 256] for text in reference]
    other = SAMPLED.model_copy(update={"seed": 1})
    assert generating.write(model, found, SAMPLED, 4, "cpu") == together
    assert generating.write(model, found, other, 4, "cpu") != together


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("adapter", {"kind": "houlsby", "size": 4}),
        ("adapter", {"kind": "pfeiffer", "size": 4}),
        ("prefix", {"length": 5, "deviation": 1.0}),
        ("prompt", {"length": 5}),
    ],
)
def test_a_method_writes_what_its_whole_rows_say(
    kind: str, method: str, values: dict[str, Any], base: Path
) -> None:
    """Token by token from kept keys and values, filled up on the left, as by a pass over all that
    was written; and until the positions that the method leaves are full."""
    model, of = causal(kind, base), plugins.load("methods", method)
    of.apply(model, [], of.Params(**values))
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    with torch.no_grad():
        for weight in trained:
            weight.add_(0.3 * torch.randn_like(weight))
    found = table(examples(base, PAIRS))
    together = generating.write(model, found, GREEDY, 4, "cpu")
    assert together == generating.write(model, found, GREEDY, 1, "cpu")
    assert together != generating.write(causal(kind, base), found, GREEDY, 4, "cpu")
    for given, text in zip(generating.prompts(found), together, strict=True):
        ids = given.tolist()
        for token in text:
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits
            assert logits.shape[1] == len(ids)
            assert int(logits[0, -1].argmax()) == token
            ids.append(token)
    long = GREEDY.model_copy(update={"max_new_tokens": 400})
    texts, room = generating.write(model, found, long, 4, "cpu"), positions(model)
    sizes = [
        len(given) + len(text) for given, text in zip(generating.prompts(found), texts, strict=True)
    ]
    assert room and max(sizes) <= room + 1


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_examples_stand_in_the_context(kind: str, base: Path) -> None:
    """As many whole ones as there is room for; what follows is what the plain model makes of
    examples and row, and what is written is what it would write."""
    of, found = plugins.load("methods", "few_shot"), table(examples(base, PAIRS))
    values = check.read(ROOT / "params.yaml")["methods"]["few_shot"] | {"context": 90}
    model, params = causal(kind, base), of.Params(**values)
    adapted = of.apply(model, [], params)
    assert adapted.start and not adapted.steps
    adapted.start(Start(Rows(found, 0, 1), np.zeros(len(found)), None, 0, "cpu"))
    own = {name for name, weight in model.named_parameters() if weight.requires_grad}
    context = model.base_model.context
    shown = context[context >= 0].long().tolist()
    assert own == {"transformer.context" if kind == "gpt2" else "model.context"}
    whole = [row for row in found["input_ids"].to_pylist() if len(row) <= 90]
    while shown:
        row = next(row for row in whole if shown[: len(row)] == row)
        shown = shown[len(row) :]
    shown = context[context >= 0].long().tolist()
    assert 0 < len(shown) <= 90
    plain = causal(kind, base)
    written = generating.write(model, found, GREEDY, 4, "cpu")
    for given, text in zip(generating.prompts(found), written, strict=True):
        ids = given.tolist()
        with torch.no_grad():
            expected = plain(torch.tensor([shown + ids])).logits[:, len(shown) :]
            torch.testing.assert_close(
                model(torch.tensor([ids])).logits, expected, atol=1e-4, rtol=1e-4
            )
        reference = plain.generate(
            torch.tensor([shown + ids]), max_new_tokens=12, do_sample=False,
            eos_token_id=256, pad_token_id=256,
        )[0, len(shown) + len(ids) :].tolist()  # fmt: skip
        assert text == [one for one in reference if one != 256]
    small = of.apply(causal(kind, base), [], params.model_copy(update={"context": 3}))
    with pytest.raises(UserError, match=r"few_shot\.context: the shortest example has .* write at"):
        small.start(Start(Rows(found, 0, 1), np.zeros(len(found)), None, 0, "cpu"))


def test_a_small_share_of_the_likeliest_is_greedy() -> None:
    logits = np.random.default_rng(0).normal(size=50)
    decoding = GREEDY.model_copy(update={"temperature": 1.0, "top_p": 1e-9})
    assert generating._choose(logits, decoding, np.random.default_rng(0)) == logits.argmax()
    free = decoding.model_copy(update={"top_p": 1.0})
    draw = np.random.default_rng(0)
    drawn = np.bincount(
        [generating._choose(logits, free, draw) for _ in range(20_000)], minlength=50
    )
    shares = np.exp(logits) / np.exp(logits).sum()
    assert np.abs(drawn / 20_000 - shares).max() < 0.02


def test_a_text_ends_where_the_positions_do(base: Path) -> None:
    found = table(examples(base, [("a" * 180, "b"), ("c", "d")]))
    model = causal("gpt2", base)
    long = GREEDY.model_copy(update={"max_new_tokens": 400})
    texts = generating.write(model, found, long, 2, "cpu")
    assert texts == generating.write(model, found, long, 1, "cpu")
    assert all(
        len(text) + count <= 257
        for text, count in zip(texts, found["prompt"].to_pylist(), strict=True)
    )


# ---------------------------------------------------------------- measures


def test_measures_are_those_of_their_libraries() -> None:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU, CHRF

    draw = np.random.default_rng(0)
    vocabulary = ["the", "cat", "sat", "on", "mats", "a", "é", "漢字", ".", "Running"]
    given, true = (
        [" ".join(draw.choice(vocabulary, draw.integers(low, 12))) for _ in range(30)]
        for low in (0, 1)
    )
    given[:3] = true[:3]
    found = overlap.judged(given, true)
    weights = np.stack([np.ones(30), draw.integers(0, 3, 30)])
    drawn = [np.repeat(np.arange(30), of.astype(int)) for of in weights]
    for at, places in enumerate(drawn):
        texts, references = [given[i] for i in places], [[true[i] for i in places]]
        theirs = CHRF().corpus_score(texts, references).score
        assert overlap.chrf(found, weights)[at] == pytest.approx(theirs, abs=1e-9)
        theirs = BLEU().corpus_score(texts, references).score
        assert overlap.bleu(found, weights)[at] == pytest.approx(theirs, abs=1e-9)
    chinese = overlap.judged(["今天天气很好", "ไทยแลนด์"], ["今天天气很好", "ไทย"])
    assert chinese[0, overlap.ROUGE["rouge_l"]] == 1 > chinese[1, overlap.ROUGE["rouge_l"]] > 0
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    keys = {"rouge1": "rouge1", "rouge2": "rouge2", "rouge_l": "rougeL"}
    for text, reference in zip(given, true, strict=True):
        pair = [of.encode("ascii", "ignore").decode() for of in (text, reference)]
        of_pair = overlap.judged(pair[:1], pair[1:])[0]
        for name, key in keys.items():  # of other letters, the library drops most
            theirs = scorer.score(pair[1], pair[0])[key].fmeasure
            assert of_pair[overlap.ROUGE[name]] == theirs
    assert found[:, overlap.EXACT].sum() >= 3


def test_the_baseline_copies_the_answer_to_the_nearest_prompt() -> None:
    kind: Any = check.section_class("baseline")
    train = rows([("how old is the cat ?", "nine"), ("where is the dog ?", "at home")])
    section = kind(ngrams=1, min_df=1, inverse_penalty=1.0, bootstrap=100, seed=0)
    (predict,) = task.baselines(train, [], section).values()
    texts, scores = predict(rows([("where is my dog ?", "at home")]))
    assert texts == ["at home"]
    values = task.metrics(np.ones(1), scores, np.ones((1, 1)))
    assert values["exact_match"][0] == 1 and np.isnan(values["perplexity"][0])


def test_many_rows_are_compared_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = check.section_class("baseline")
    section = kind(ngrams=1, min_df=9, inverse_penalty=1.0, bootstrap=100, seed=0)
    pairs = rows([(f"who is {i % 4} {i % 3} ?", f"number {i % 5}") for i in range(11)])

    def found() -> tuple[list[str], list[float]]:
        (predict,) = task.baselines(pairs, [], section).values()
        texts, scores = predict(pairs)
        return texts, task.severity(np.ones(11), scores)[1].tolist()

    whole = found()
    monkeypatch.setattr(task, "AT_A_TIME", 4)
    assert found() == whole and len(set(whole[1])) > 1


# ---------------------------------------------------------------- the whole way


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(running.ROOT))
    return tmp_path


ANSWERS = ("red", "a boat", "not now", "é?", "two\nlines", "cold tea")


def ready(folder: Path, **changes: Any) -> None:
    lines = [
        {"instruction": f"{letter} {number}", "input": None, "output": answer}
        for number in range(8)
        for letter, answer in zip("KLMNOP", ANSWERS, strict=True)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    small = {"tokenize__max_length": 80, "evaluate__decoding__max_new_tokens": 16}
    running.ready(folder, "generation", text, "rows.jsonl", **small | changes)


def test_what_is_learnt_by_heart_is_written_to_the_letter(inside: Path) -> None:
    """Every training row's answer, by the evaluated model and by the exported one."""
    small = {"finetune__epochs": 30, "finetune__batch_size": 8, "finetune__learning_rate": 0.01}
    ready(inside, **small)
    running.run("fetch_model", "prepare", "tokenize")
    for name in ("tokenized/{}.arrow", "prepared/{}.parquet"):
        train = Path("data") / name.format("train")
        for split in ("validation", "test"):
            (Path("data") / name.format(split)).write_bytes(train.read_bytes())
    running.run("finetune", "evaluate", "baseline", "export", "report")
    metrics = json_of("results/metrics.json")["metrics"]
    assert metrics["exact_match"]["value"] == 1 and metrics["chrf"]["value"] == 100
    predictions = pd.read_parquet("results/predictions.parquet")
    assert predictions["predicted"].tolist() == predictions["response"].tolist()
    counts = json_of("results/tokens.json")["splits"]["train"]
    table = read_arrow("data/tokenized/train.arrow")
    goals = table["goal"].combine_chunks().values.to_numpy(zero_copy_only=False)
    assert counts["target_tokens"] == (goals != prompts.NO_GOAL).sum() > 0
    pipe: Any = transformers.pipeline("text-generation", "models/export")
    for row in predictions.head(6).to_dict("records"):
        found = pipe([{"role": "user", "content": row["prompt"]}], return_full_text=False)
        assert found[0]["generated_text"] == row["response"]
    html = Path("results/report.html").read_text()
    assert "Written texts" in html and "log likelihood on the validation split" in html


@pytest.mark.parametrize("method", ["lora", "bitfit", "freeze"])
def test_other_methods_export_what_they_wrote(inside: Path, method: str) -> None:
    """The export itself refuses other likelihoods than were evaluated."""
    ready(inside, run__method=method, methods__freeze__layers=1, finetune__epochs=1)
    running.run("fetch_model", "prepare", "tokenize", "finetune", "evaluate", "baseline", "export")
    row = pd.read_parquet("results/predictions.parquet").iloc[0]
    pipe: Any = transformers.pipeline("text-generation", "models/export")
    found = pipe([{"role": "user", "content": row["prompt"]}], return_full_text=False)
    assert found[0]["generated_text"].strip() == row["predicted"]


@pytest.mark.parametrize("method", ["adapter", "few_shot", "prefix", "prompt"])
def test_methods_with_weights_of_their_own_export_what_they_wrote(
    inside: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And learn, the base being frozen."""
    ready(inside, run__method=method, finetune__epochs=3, methods__few_shot__context=60)
    running.run("fetch_model", "prepare", "tokenize", "finetune", "evaluate", "baseline", "export")
    training = json_of("results/training.json")
    assert training["trained_parameters"] < training["parameters_total"] / 2
    curve = pd.read_csv("results/learning_curve.csv")
    losses = curve["train_loss"]
    assert losses.iloc[-1] < losses.iloc[0] or method == "few_shot"
    row = pd.read_parquet("results/predictions.parquet").iloc[0]
    capsys.readouterr()
    assert __main__.main(["predict", row["prompt"]]) == 0
    assert json.loads(capsys.readouterr().out)["response"] == row["predicted"]


def test_a_model_of_plain_texts_goes_on_with_what_it_is_given(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"text": f"{word} {i} is here and there"} for i in range(20) for word in ("A", "B")]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    of = "tasks__generation__data__"
    form: dict[str, Any] = {f"{of}{name}": None for name in ("instruction", "input", "output")}
    form |= {f"{of}text": "text", f"{of}prompt_words": 3, "finetune__epochs": 4}
    small = {"tokenize__max_length": 80, "evaluate__decoding__max_new_tokens": 12}
    running.ready(inside, "generation", text, "rows.jsonl", **form, **small)
    running.run("fetch_model", "prepare", "tokenize", "finetune", "evaluate", "baseline", "export")
    rows = pd.read_parquet("results/predictions.parquet")
    assert (rows["messages"] == "").all()
    capsys.readouterr()
    for row in rows.head(3).to_dict("records"):
        assert __main__.main(["predict", row["prompt"]]) == 0
        assert json.loads(capsys.readouterr().out)["response"] == row["predicted"]
    assert 'pipe("the first words of a text"' in Path("models/export/README.md").read_text()


def test_a_prompt_may_have_several_responses(inside: Path) -> None:
    lines = [{"prompt": f"say {i // 2}", "response": f"{i % 3}"} for i in range(60)]
    text = "".join(json.dumps(line) + "\n" for line in [*lines, lines[0]])
    of = "tasks__generation__data__"
    form: dict[str, Any] = {f"{of}{name}": None for name in ("instruction", "input", "output")}
    form |= {f"{of}prompt": "prompt", f"{of}response": "response"}
    running.ready(inside, "generation", text, "rows.jsonl", **form)
    running.run("prepare")
    kept = json_of("results/data.json")
    assert kept["rows"]["kept"] == 60 and kept["rejected"] == {"duplicate": 1}
    test = pd.read_parquet("data/prepared/test.parquet")
    assert test["id"].is_unique and test["prompt"].duplicated().any()
    running.run(*(stage for stage in check.STAGES if stage != "prepare"))
    assert Path("results/report.html").exists()


def test_an_encoder_is_refused(inside: Path) -> None:
    ready(inside, tokenize__max_length=24)
    tiny.make_base(inside / "data/local_base")
    running.run("fetch_model", "prepare")
    with pytest.raises(UserError, match=r"run\.task: needs a causal language model"):
        running.run("tokenize")


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("head_only", "brings its head along"),
        ("word_vectors", "words"),
    ],
)
def test_methods_that_make_no_sense_are_refused(inside: Path, method: str, why: str) -> None:
    ready(inside, run__method=method)
    with pytest.raises(UserError, match=f"does not support the task 'generation': .*{why}"):
        check.load("params.yaml")
