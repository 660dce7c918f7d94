"""Methods against independent implementations: peft's own forward, NumPy, scikit-learn, and
expectations written by hand."""

from __future__ import annotations

from math import erf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from stages import plugins
from stages.adaptation import Start
from stages.errors import UnsuitedError, UserError
from stages.training import weights
from stages.training.batching import Rows
from tests import tiny
from tests.test_methods import changed
from tests.test_training import LABELS, sections, table

CLOSE: Any = {"atol": 1e-5, "rtol": 1e-5}
INDEX = {piece: n for n, piece in enumerate((*tiny.SPECIAL, *tiny.WORDS))}


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("parity"))
        tiny.make_base("data/base")
        yield Path()


def built(method: str, **values: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """A module whose trained weights are drawn, as if trained; and those weights."""
    run = changed(sections(method)[1], **values)
    torch.manual_seed(0)
    module, _ = weights.build(run, LABELS, run.method_params)
    own = {name: w + 0.2 * torch.randn_like(w) for name, w in weights.trained(module).items()}
    weights.restore(module, own)
    return module.eval(), own


def plain(own: dict[str, torch.Tensor]) -> Any:
    """The base with the head among the trained weights."""
    run = sections("full")[1]
    model: Any = weights.build(run, LABELS, run.method_params)[0].eval()
    head = {
        name.rpartition("classifier.")[2]: w for name, w in own.items() if "classifier." in name
    }
    model.classifier.load_state_dict(head)
    return model


def batch() -> dict[str, torch.Tensor]:
    (part,) = Rows(table(6), 0, 1)[np.arange(6)]
    return {name: part[name] for name in ("input_ids", "attention_mask")}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch()).logits


def test_lora_and_ia3_are_those_of_peft() -> None:
    """Configured as people do, by lists of the ends of names."""
    from peft import IA3Config, LoraConfig, get_peft_model

    linear = ["query", "key", "value", "attention.output.dense", "intermediate.dense"]
    dense = [*linear, "0.output.dense", "1.output.dense", "pooler.dense"]
    inner = ["0.output.dense", "1.output.dense"]
    for method, config in (
        ("lora", LoraConfig(r=8, lora_alpha=16, target_modules=dense)),
        ("ia3", IA3Config(target_modules=["key", "value", *inner], feedforward_modules=inner)),
    ):
        module, own = built(method)
        theirs = get_peft_model(plain(own), config).eval()
        names = {name for name, _ in theirs.named_parameters()}
        assert names == {name for name, _ in module.named_parameters()}
        theirs.load_state_dict(own, strict=False)
        expected = logits(theirs)
        torch.testing.assert_close(logits(module), expected, **CLOSE)
        merged = plugins.load("methods", method).merge(module)
        torch.testing.assert_close(logits(merged), expected, **CLOSE)
        assert not torch.allclose(expected, logits(plain(own)), atol=1e-3)


@pytest.mark.parametrize("head", ["GPT2LMHeadModel", "GPT2ForSequenceClassification"])
def test_ia3_of_gpt2_is_that_of_peft(head: str) -> None:
    """As peft does where it is told no layers."""
    from peft import IA3Config, get_peft_model

    of = plugins.load("methods", "ia3")
    module = of.apply(causal(head), [], of.Params()).module.eval()
    theirs: Any = get_peft_model(causal(head), IA3Config()).eval()
    own = {name: 1 + 0.5 * torch.randn_like(w) for name, w in weights.trained(module).items()}
    assert own.keys() == weights.trained(theirs).keys()
    ids = torch.randint(1, 64, (3, 7))

    def found(model: Any) -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits

    for model in (module, theirs):
        weights.restore(model, own)
    expected = found(theirs)
    torch.testing.assert_close(found(module), expected, **CLOSE)
    merged = of.merge(module)
    assert type(merged).__name__ == head
    torch.testing.assert_close(found(merged), expected, **CLOSE)
    assert not torch.allclose(expected, found(causal(head)), atol=1e-3)


def test_prompt_is_that_of_peft() -> None:
    from peft import PromptTuningConfig, get_peft_model

    module, own = built("prompt", length=5)
    config = PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=5)
    theirs: Any = get_peft_model(plain(own), config).eval()
    theirs.prompt_encoder.default.embedding.weight.data = own["bert.prompt"]
    torch.testing.assert_close(logits(module), logits(theirs), **CLOSE)
    assert not torch.allclose(logits(module), logits(plain(own)), atol=1e-3)


def test_prefix_is_that_of_peft() -> None:
    from peft import PrefixTuningConfig, get_peft_model

    module, own = built("prefix", length=5)
    config = PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=5)
    theirs: Any = get_peft_model(plain(own), config).eval()
    flat = own["bert.prefix"].permute(3, 0, 1, 2, 4).reshape(5, -1)
    theirs.prompt_encoder.default.embedding.weight.data = flat
    torch.testing.assert_close(logits(module), logits(theirs), **CLOSE)
    assert not torch.allclose(logits(module), logits(plain(own)), atol=1e-3)


def causal(head: str) -> Any:
    """A GPT-2 whose weights are the same at each call."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=64, n_positions=64, n_embd=16, n_layer=2, n_head=2, pad_token_id=0,
        initializer_range=0.3,
    )  # fmt: skip
    config.num_labels = 2
    return getattr(transformers, head)(config).eval()


@pytest.mark.parametrize(
    ("head", "kind"),
    [("GPT2LMHeadModel", "CAUSAL_LM"), ("GPT2ForSequenceClassification", "SEQ_CLS")],
)
@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_of_causal_models_too(head: str, kind: str, method: str) -> None:
    """Rows of one length, for peft's classification reads the last position of a batch."""
    from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model

    config = {"prompt": PromptTuningConfig, "prefix": PrefixTuningConfig}[method]
    theirs: Any = get_peft_model(causal(head), config(task_type=kind, num_virtual_tokens=5)).eval()
    own, of = causal(head), plugins.load("methods", method)
    of.apply(own, [], of.Params(length=5, **({"deviation": 1.0} if method == "prefix" else {})))
    vectors = getattr(own.base_model, method).detach()
    if method == "prefix":
        vectors = vectors.permute(3, 0, 1, 2, 4).reshape(5, -1)
    theirs.prompt_encoder.default.embedding.weight.data = vectors
    ids = torch.randint(1, 64, (3, 7))
    with torch.no_grad():
        found, expected = (
            model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            for model in (own, theirs)
        )
    if expected.ndim == 3:
        expected = expected[:, -7:]  # peft's has the places of the prompt as well
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_rows_that_leave_no_room_are_refused(method: str) -> None:
    module, _ = built(method, length=60)
    with pytest.raises(UserError, match="write at most 4"):
        module(**batch())


SIZES = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip
UNSUITED: dict[str, tuple[str, dict[str, Any], str]] = {
    "adapter": ("GPTNeoX", SIZES, "adapters know no base of the kind 'gpt_neox'"),
    "bitfit": ("Llama", SIZES, "the base has no biases to train"),
    "ia3": (
        "Funnel",
        {"vocab_size": 64, "block_sizes": [1], "d_model": 16, "n_head": 2, "d_head": 8,
         "d_inner": 32},
        "a base of the kind 'funnel' has no linear layers for keys and values",
    ),
    "prefix": (
        "DistilBert",
        {"vocab_size": 64, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32},
        "a base of the kind 'distilbert' takes no keys and values from outside",
    ),
}  # fmt: skip


@pytest.mark.parametrize("method", UNSUITED)
def test_a_base_that_a_method_does_not_suit_is_refused(method: str) -> None:
    kind, sizes, reason = UNSUITED[method]
    config = getattr(transformers, f"{kind}Config")(**sizes)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    params = sections(method)[1].method_params
    with pytest.raises(UnsuitedError) as refused:
        plugins.load("methods", method).apply(model, [], params)
    assert refused.value.reason == reason
    assert str(refused.value).startswith(f"params.yaml: run.method: {reason}, got '{method}'; ")


def numpy_bert(model: Any, kind: str) -> np.ndarray:
    """Logits of a BERT with adapters, one row after the other, in float64."""
    w = {name: value.double().numpy() for name, value in model.state_dict().items()}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def gelu(x: np.ndarray) -> np.ndarray:
        return x * 0.5 * (1 + np.vectorize(erf)(x / 2**0.5))

    def bottleneck(name: str, x: np.ndarray) -> np.ndarray:
        inner = linear(f"{name}.adapter.0", x)
        inner = gelu(inner) if kind == "houlsby" else np.maximum(inner, 0)
        return linear(f"{name}.adapter.2", inner)

    def projected(name: str, x: np.ndarray) -> np.ndarray:
        out = linear(name, x)
        return out + bottleneck(name, out) if kind == "houlsby" else out

    def attended(name: str, x: np.ndarray) -> np.ndarray:
        q, k, v = (
            linear(f"{name}.{part}", x).reshape(len(x), tiny.HEADS, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = np.exp(q @ k.swapaxes(1, 2) / q.shape[-1] ** 0.5)
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        return mixed.swapaxes(0, 1).reshape(len(x), -1)

    def row(ids: np.ndarray) -> np.ndarray:
        e = "bert.embeddings"
        x = w[f"{e}.word_embeddings.weight"][ids] + w[f"{e}.token_type_embeddings.weight"][0]
        x = norm(f"{e}.LayerNorm", x + w[f"{e}.position_embeddings.weight"][: len(ids)])
        for number in range(tiny.LAYERS):
            layer = f"bert.encoder.layer.{number}"
            out = projected(
                f"{layer}.attention.output.dense", attended(f"{layer}.attention.self", x)
            )
            x = norm(f"{layer}.attention.output.LayerNorm", x + out)
            inner = gelu(linear(f"{layer}.intermediate.dense", x))
            out = x + projected(f"{layer}.output.dense", inner)
            last = f"{layer}.output.LayerNorm"
            x = norm(last, out)
            if kind == "pfeiffer":
                x = norm(last, out + bottleneck(last, x))
        return linear("classifier", np.tanh(linear("bert.pooler.dense", x[0])))

    given = batch()
    pairs = zip(given["input_ids"].numpy(), given["attention_mask"].numpy(), strict=True)
    return np.stack([row(ids[mask == 1]) for ids, mask in pairs])


@pytest.mark.parametrize("kind", ["houlsby", "pfeiffer"])
def test_adapters_are_those_of_a_numpy_forward(kind: str) -> None:
    module, own = built("adapter", kind=kind, size=4)
    expected = numpy_bert(module, kind)
    np.testing.assert_allclose(logits(module).numpy(), expected, atol=1e-5)
    assert not np.allclose(expected, logits(plain(own)).numpy(), atol=1e-3)
    assert sum(".adapter.0.weight" in name for name in own) == tiny.LAYERS * (
        2 if kind == "houlsby" else 1
    )


def few_shot(rows: int = 24, **values: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """A module that `start` has set, the vectors of its training rows, and their targets."""
    run = changed(sections("few_shot")[1], **values)
    torch.manual_seed(0)
    module, adapted = weights.build(run, LABELS, run.method_params)
    data = Rows(table(rows), 0, 1)
    targets = table(rows)["target"].to_numpy()
    assert adapted.start is not None
    adapted.start(Start(data, targets, None, 0, "cpu"))
    (part,) = data[np.arange(rows)]
    with torch.no_grad():
        vectors = module.vectors(part["attention_mask"], input_ids=part["input_ids"]).numpy()
    return module, vectors, targets[part["row"].numpy()]


def test_class_means_decide_for_the_nearest() -> None:
    module, vectors, targets = few_shot(classifier="class_means")
    means = np.stack([vectors[targets == k].mean(0) for k in (0, 1)])
    distances = ((vectors[:, None] - means) ** 2).sum(-1)
    with torch.no_grad():
        found = module.head(torch.from_numpy(vectors)).numpy()
    due = distances[:, :1] - distances
    np.testing.assert_allclose(found - found[:, :1], due, atol=1e-5)


def test_logistic_regression_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    module, vectors, targets = few_shot(classifier="logistic_regression", inverse_penalty=3.0)
    expected = LogisticRegression(C=3.0, max_iter=1000).fit(vectors, targets)
    with torch.no_grad():
        found = module.head(torch.from_numpy(vectors)).softmax(-1).numpy()
    np.testing.assert_allclose(found, expected.predict_proba(vectors), atol=1e-3)


def test_a_class_without_rows_is_never_predicted() -> None:
    module = plugins.load("methods", "few_shot")
    params = sections("few_shot")[1].method_params
    draw = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    for targets in (np.array([0, 2] * 3), np.array([0, 2, 3] * 2), np.array([2] * 6)):
        for fit in (module._class_means, module._logistic_regression):
            weight, bias = fit(draw, targets, 4, params, None)
            assert weight.shape == (4, 4) and bias.shape == (4,)
            assert set((draw @ weight.T + bias).argmax(-1)) <= set(targets)


def test_pairs_are_those_of_setfit() -> None:
    """Two rows of a class have but each other; a row alone in its class has no positive pair."""
    pairs = plugins.load("methods", "few_shot").pairs
    rows, same = pairs(np.array([0, 0, 1, 1]), iterations=2, seed=0)
    assert len(rows) == 2 * 2 * 4, "2 iterations, 2 kinds, 4 rows"
    positive = sorted(map(tuple, rows[same].tolist()))
    assert positive == sorted(2 * [(0, 1), (1, 0), (2, 3), (3, 2)])
    negative = rows[~same]
    assert sorted(negative[:, 0]) == sorted(2 * [0, 1, 2, 3])
    assert all((one < 2) != (other < 2) for one, other in negative)
    rows, same = pairs(np.array([0, 0, 1]), iterations=1, seed=0)
    assert sorted(map(tuple, rows[same].tolist())) == [(0, 1), (1, 0)]
    assert sorted(map(tuple, rows[~same].tolist()))[:2] == [(0, 2), (1, 2)]
    again = pairs(np.array([0, 0, 1]), iterations=1, seed=0)
    assert (again[0] == rows).all() and (again[1] == same).all()
    other = pairs(np.array([0, 0, 1, 1]), iterations=2, seed=1)[0]
    assert other.tolist() != pairs(np.array([0, 0, 1, 1]), iterations=2, seed=0)[0].tolist()


def test_contrastive_tuning_parts_the_classes() -> None:
    """It trains the base, which is saved then, but for the pooler, which it does not use."""

    def gap(vectors: np.ndarray, targets: np.ndarray) -> float:
        cosine, same = vectors @ vectors.T, targets[:, None] == targets
        return float(cosine[same].mean() - cosine[~same].mean())

    values: Any = {"contrastive": True, "iterations": 4, "learning_rate": 3e-3}
    module, *after = few_shot(**values)
    assert gap(*after) > gap(*few_shot()[1:]) + 0.1
    own = weights.trained(module)
    assert {name for name in own if "pooler" in name} == set()
    assert len(own) == len(list(module.named_parameters())) - 2
    again = weights.trained(few_shot(**values)[0])
    assert all(torch.equal(again[name], w) for name, w in own.items())


def test_few_shot_refuses_what_has_no_classes() -> None:
    refuses = plugins.load("methods", "few_shot").refuses
    assert refuses("classification") is None
    assert isinstance(refuses("regression"), str)


def test_word_vectors_of_a_file_go_to_the_pieces_that_spell_its_words() -> None:
    from stages.artifacts import sha256

    numbers = {"good": [1.0, 2.0], "film": [3.0, 4.0], "unknown": [5.0, 6.0], "##s": [7.0, 8.0]}
    lines = [f"{word} {' '.join(map(str, values))}\n" for word, values in numbers.items()]
    for name, head in (("glove.txt", ""), ("word2vec.txt", "4 2\n")):
        Path(name).write_text(head + "".join(lines))
        run = changed(sections("word_vectors")[1], file=name, size=2, sha256=sha256(Path(name)))
        module, adapted = weights.build(run, LABELS, run.method_params)
        assert adapted.start is not None
        data = table(8)
        adapted.start(Start(Rows(data, 0, 1), data["target"].to_numpy(), None, 0, "cpu"))
        found = module.words.weight.detach().numpy()
        assert found[INDEX["good"]].tolist() == numbers["good"]
        assert found[INDEX["film"]].tolist() == numbers["film"]
        assert not found[INDEX["##s"]].any() and not found[INDEX["bad"]].any()
    Path("glove.txt").write_text("good 1 2\n")
    run = changed(sections("word_vectors")[1], file="glove.txt", size=2, sha256="0" * 64)
    with pytest.raises(UserError, match=r"sha256: glove\.txt has another content"):
        weights.build(run, LABELS, run.method_params)


def of_file(content: bytes, size: int, name: str = "vectors") -> np.ndarray:
    """The vectors that a file begins with."""
    from stages.artifacts import sha256

    Path(name).write_bytes(content)
    run = changed(sections("word_vectors")[1], file=name, size=size, sha256=sha256(Path(name)))
    module, adapted = weights.build(run, LABELS, run.method_params)
    assert adapted.start is not None
    data = table(8)
    adapted.start(Start(Rows(data, 0, 1), data["target"].to_numpy(), None, 0, "cpu"))
    return module.words.weight.detach().numpy()


@pytest.mark.parametrize("name", ["vectors.bin", "vectors"])
def test_word_vectors_of_a_binary_file_are_those_of_its_text(name: str) -> None:
    """Written by gensim, and as the C program does, with the end of a line after each vector."""
    from gensim.models import KeyedVectors

    words, values = ["good", "film", "in_town"], np.random.default_rng(0).normal(size=(3, 5))
    vectors = KeyedVectors(5)
    vectors.add_vectors(words, values.astype(np.float32))
    vectors.save_word2vec_format("own.bin", binary=True)
    pairs = zip(words, values.astype("<f4"), strict=True)
    of_c = b"3 5\n" + b"".join(f"{w} ".encode() + v.tobytes() + b"\n" for w, v in pairs)
    for content in (Path("own.bin").read_bytes(), of_c):
        found = of_file(content, 5, name)
        np.testing.assert_array_equal(found[INDEX["good"]], values[0].astype(np.float32))
        np.testing.assert_array_equal(found[INDEX["film"]], values[1].astype(np.float32))
        assert sum(vector.any() for vector in found) == 2
        with pytest.raises(UserError, match=rf"size: in {name}, line 1, it is 5, got 4; write 5"):
            of_file(content, 4, name)
        with pytest.raises(UserError, match="not all of a file of Word2Vec in binary form"):
            of_file(content[:40], 5, name)


def test_words_of_a_file_may_hold_spaces() -> None:
    """As those of glove.840B do; a file of text may be named .bin."""
    text = "good 1 2\n. . 3 4\nat a@b.org 5 6\ngood film 7 8\nfilm 9 1e1 \n"
    for head in ("", "5 2\n"):
        found = of_file((head + text).encode(), 2, "vectors.bin")
        assert found[INDEX["good"]].tolist() == [1, 2]
        assert found[INDEX["film"]].tolist() == [9, 10]
        assert sum(vector.any() for vector in found) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("good 1 2 3\n", "size: in vectors, line 1, it is 3, got 2; write 3$"),
        ("good 1\n", "size: in vectors, line 1, it is 1, got 2; write 1$"),
        ("1 3\ngood 1 2 3\n", "size: in vectors, line 1, it is 3, got 2; write 3$"),
        ("1 2\ngood 1 2 3\n", "size: in vectors, line 2, it is 3, got 2; write 3$"),
        ("good 1 2\nfilm 1\n", "file: vectors, line 2 has 1 numbers, those before 2, .* mend"),
        ("good 1 2\nbad film 1\n", "file: vectors, line 2 has 1 numbers, those before 2"),
        ("good 1 2\n\n", "file: vectors, line 2 has 0 numbers, those before 2"),
        ("PK\0\3 glove\n", "file: vectors, line 1 has no numbers, .* of Word2Vec or GloVe, unpack"),
    ],
)
def test_vectors_of_another_size_are_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        of_file(text.encode(), 2)


def test_vectors_of_words_are_those_of_gensim_on_the_rows() -> None:
    """The same in any process, and only words of the training rows have one."""
    run = changed(sections("word_vectors")[1], size=8, epochs=2)
    data = table(32)
    found = []
    for _ in range(2):
        module, adapted = weights.build(run, LABELS, run.method_params)
        assert adapted.start is not None
        adapted.start(Start(Rows(data, 0, 1), data["target"].to_numpy(), None, 0, "cpu"))
        found.append(module.words.weight.detach().numpy().copy())
    assert (found[0] == found[1]).all()
    used = {token for row in data["input_ids"].to_pylist() for token in row}
    assert {n for n, vector in enumerate(found[0]) if vector.any()} == used
