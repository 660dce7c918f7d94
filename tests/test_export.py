"""The exported folder: plain transformers gives the evaluated logits, and the card is sound."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from stages import export, plugins
from stages.errors import UserError
from stages.exporting import adapters, card, parity
from stages.training import weights
from tests import exporting, fabricate

FOLDER = Path("models/export")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(exporting.ROOT))
    return tmp_path


@pytest.mark.parametrize("method", plugins.names("methods"))
def test_a_fresh_process_gives_the_evaluated_logits(method: str) -> None:
    """Two orders of magnitude better than what is tolerated; by texts that are cut, too."""
    params, run = exporting.ready(method)
    facts = export.run(params, run)
    assert facts["parity_rows"] == 40
    assert isinstance(facts["largest_difference"], float)
    assert facts["largest_difference"] < parity.TOLERANCE / 100
    assert json.loads((FOLDER / "config.json").read_text())["finetuning_task"] == "classification"


def test_a_pipeline_gives_the_evaluated_probabilities() -> None:
    """As people use the folder: without any code of the project."""
    from transformers import pipeline

    export.run(*exporting.ready())
    rows = pd.read_parquet("results/predictions.parquet")
    classify: Any = pipeline("text-classification", model=str(FOLDER), device="cpu")
    found = classify(rows["text"].tolist(), truncation=True, top_k=None)
    for answers, scores in zip(found, rows["scores"], strict=True):
        given = {answer["label"]: answer["score"] for answer in answers}
        np.testing.assert_allclose([given[label] for label in exporting.LABELS], scores, atol=1e-5)


@pytest.mark.parametrize("method", ["prefix", "prompt"])
def test_peft_gives_the_evaluated_logits(method: str) -> None:
    """As the card says, without any code of the project; of rows that are padded, too."""
    from peft import PeftModel
    from transformers import AutoConfig, AutoTokenizer, BertForSequenceClassification

    export.run(*exporting.ready(method))
    told = (FOLDER / "README.md").read_text()
    assert 'BertForSequenceClassification.from_pretrained("sentence-transformers/' in told
    config = AutoConfig.from_pretrained(FOLDER)
    base = BertForSequenceClassification.from_pretrained("data/base", config=config)
    model = PeftModel.from_pretrained(base, str(FOLDER)).eval()
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    rows = pd.read_parquet("results/predictions.parquet")
    inputs = tokenizer(rows["text"].tolist(), truncation=True, padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = model(**inputs).logits.numpy()
    np.testing.assert_allclose(found, np.stack(rows["logits"].tolist()), atol=1e-4)


def test_peft_gets_the_head_that_the_base_has_brought() -> None:
    """Which is not trained, and which peft asks for nevertheless."""
    from peft import PeftModel
    from transformers import BertForSequenceClassification

    _, run = exporting.ready("prefix")
    model: Any = BertForSequenceClassification.from_pretrained("data/base")
    run.method.apply(model, [], run.method_params)
    adapters.write(Path(), model, run.method, "data/base")
    base = BertForSequenceClassification.from_pretrained("data/base")
    theirs = PeftModel.from_pretrained(base, ".").eval()
    inputs = {"input_ids": torch.arange(5)[None], "attention_mask": torch.ones(1, 5)}
    with torch.inference_mode():
        torch.testing.assert_close(theirs(**inputs).logits, model.eval()(**inputs).logits)


def test_no_format_of_peft_is_written_where_it_computes_something_else() -> None:
    export.run(*exporting.ready("adapter"))
    assert not (FOLDER / adapters.CONFIG).exists()
    assert "peft" not in (FOLDER / "README.md").read_text()


def corrupted(monkeypatch: pytest.MonkeyPatch, change: Any) -> str:
    """The refusal of an export whose folder `change` spoils before it is compared."""
    params, run = exporting.ready()
    write = export._write_tokenizer

    def spoil(folder: Path, *others: Any) -> None:
        write(folder, *others)
        change(folder)

    monkeypatch.setattr(export, "_write_tokenizer", spoil)
    with pytest.raises(UserError) as refused:
        export.run(params, run)
    assert list(Path("models").iterdir()) == [Path("models/finetuned")]
    return str(refused.value)


def one_weight(name: str) -> Any:
    def change(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        tensors[name].flat[0] += 0.5
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return change


@pytest.mark.parametrize(
    "name", ["classifier.bias", "bert.encoder.layer.0.attention.output.LayerNorm.weight"]
)
def test_one_changed_weight_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    message = corrupted(monkeypatch, one_weight(name))
    assert "gives other logits than were evaluated: 40 of 40 rows differ" in message
    assert "nothing is exported" in message


def test_another_tokenizer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def swap(folder: Path) -> None:
        path = folder / "tokenizer.json"
        words = json.loads(path.read_text())
        vocabulary = words["model"]["vocab"]
        vocabulary["good"], vocabulary["bad"] = vocabulary["bad"], vocabulary["good"]
        path.write_text(json.dumps(words))

    assert "gives other logits" in corrupted(monkeypatch, swap)


def test_a_folder_that_cannot_be_loaded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")

    message = corrupted(monkeypatch, cut)
    assert "cannot be used as exported" in message and "Traceback" not in message


def test_the_card_is_what_the_hub_reads() -> None:
    from huggingface_hub import ModelCard

    params, run = exporting.ready()
    content = fabricate.write(Path())
    text = card.render(params, run.task, exporting.LABELS, card.read())
    data: Any = ModelCard(text).data  # raises where the metadata do not parse
    assert data.license == params.license
    assert data.base_model == params.base_model
    assert data.pipeline_tag == "text-classification"
    assert {"accuracy", "f1"} <= set(data.metrics)
    results = {result.metric_type: result for result in data.eval_results}
    expected = content["results/metrics.json"]["metrics"]["accuracy"]["value"]
    assert results["accuracy"].metric_value == round(expected, 4)
    assert results["accuracy"].dataset_split == "test"


def test_the_card_shows_how_a_model_of_pairs_is_asked() -> None:
    params, run = exporting.ready()
    fabricate.write(Path())
    asked = card.asked(run.task, ["text", "text_pair"])
    text = card.render(params, run.task, exporting.LABELS, card.read(), card.Use(asked=asked))
    assert 'pipe({"text": "a text", "text_pair": "another"}, truncation=True)' in text


def test_the_card_says_what_it_was_made_of() -> None:
    params, run = exporting.ready()
    content = fabricate.write(Path())
    text = card.render(params, run.task, exporting.LABELS, card.read())
    base, data = content["results/base.json"], content["results/data.json"]
    for digest in (*data["files"].values(), *(file["sha256"] for file in base["files"].values())):
        assert digest in text
    for expected in (params.use, params.limits, params.data_license, base["license"]):
        assert expected in text
    assert "| accuracy | 0.842 (0.808 to 0.873) |" in text
    assert all(name in text for name in content["results/baseline.json"]["baselines"])
    assert f"| train | {data['splits']['train']['rows']} |" in text


def test_a_base_that_is_not_on_the_hub_is_no_link() -> None:
    """The name of a Python package is no repo of the hub."""
    from huggingface_hub import ModelCard

    params, run = exporting.ready()
    results = card.read()
    results["base"] |= {"source": "package", "name": "some-package"}
    params = params.model_copy(update={"base_model": None})
    text = card.render(params, run.task, exporting.LABELS, results)
    assert "base_model" not in ModelCard(text).data.to_dict()
    assert "`some-package`, fine-tuned" in text
    results["base"] |= {"source": "cache", "name": "owner/model"}
    params = params.model_copy(update={"base_model": "what/it-was-before"})
    text = card.render(params, run.task, exporting.LABELS, results)
    assert ModelCard(text).data.to_dict()["base_model"] == "owner/model"


def test_hostile_words_stay_words() -> None:
    from huggingface_hub import ModelCard

    params, run = exporting.ready()
    fabricate.write(Path(), hostile=True)
    labels = ["<b>a|b</b>", "`code`\n# heading", "\u202eabc"]
    update = {"name": "x: [y](z) *b* | c", "limits": "---\n<script>"}
    text = card.render(params.model_copy(update=update), run.task, labels, card.read())
    read = ModelCard(text)
    assert read.data.to_dict()["model-index"][0]["name"] == "x: [y](z) *b* | c"
    lines = read.text.splitlines()
    assert "- `<b>a\\|b</b>`" in lines and "- `` `code` # heading ``" in lines
    assert not any(line.startswith(("<script>", "# heading")) for line in lines)


def test_weights_that_need_their_base_refuse_another() -> None:
    """They are stored alone; the base is known by its bytes."""
    from stages.exporting import inference

    export.run(*exporting.ready("adapter"))
    names = {file.name for file in FOLDER.iterdir()}
    assert {"method.json", "method.safetensors"} <= names and "model.safetensors" not in names
    assert "python -m stages predict --model" in (FOLDER / "README.md").read_text()
    with Path("data/base/model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    with pytest.raises(UserError, match=r"data/base/model.safetensors: missing, or not the base"):
        inference.load(FOLDER)


@pytest.mark.parametrize("method", ["head_only", "prompt"])
def test_an_exported_model_is_a_base_of_the_next(method: str) -> None:
    """Its head is trained and kept with any method, or made anew where labels are others."""
    export.run(*exporting.ready())
    shutil.rmtree("data/base")
    FOLDER.rename("data/base")
    before = load_file("data/base/model.safetensors")
    _, run = exporting.sections(method)
    for labels in (exporting.LABELS, ["a", "b", "c", "d"]):
        model, _ = weights.build(run, labels, run.method_params)
        own = weights.trained(model)
        heads = {end: [w for name, w in own.items() if name.endswith(f"classifier.{end}")]
                 for end in ("weight", "bias")}  # fmt: skip
        ((weight,), (bias,)) = heads.values()
        assert len(weight) == len(bias) == len(labels)
        assert torch.equal(weight, before["classifier.weight"]) == (labels == exporting.LABELS)


def test_numbers_in_large_units_are_compared_by_their_scale() -> None:
    draw = np.random.default_rng(0)
    assert parity.tolerance(draw.normal(0, 5, 500)) == parity.TOLERANCE
    salaries = draw.normal(250_000, 80_000, 500)
    assert parity.tolerance(np.array([1.0, np.inf])) == parity.TOLERANCE
    assert 0.05 < parity.tolerance(salaries) < 10 < 80_000 / 100


def test_a_padding_token_that_config_json_names_alone() -> None:
    params, run = exporting.ready()
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = Path("data/base") / name
        if path.exists():
            content = json.loads(path.read_text())
            content.pop("pad_token", None)
            path.write_text(json.dumps(content))
    export.run(params, run)
    assert json.loads((FOLDER / "tokenizer_config.json").read_text())["pad_token"] == "[PAD]"
