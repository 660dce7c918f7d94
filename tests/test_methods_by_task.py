"""Every method with every task: refused with a reason, or trained, kept and given back."""

from __future__ import annotations

import json
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from stages import check, plugins
from stages.artifacts import read_arrow
from stages.errors import UserError
from stages.exporting import adapters
from stages.training import fitting, weights
from stages.training.machine import configure
from stages.training.predicting import predict
from tests import project as projects
from tests import running, tiny
from tests.test_task_runs import raw

METHODS, TASKS = plugins.names("methods"), plugins.names("tasks")
ROWS = 12  # of training
REFUSED = {
    "few_shot": {"multilabel", "question_answering", "regression", "token_classification"},
    "head_only": {"generation"},
    "word_vectors": {"generation", "question_answering", "token_classification"},
}
"""The tasks that a method cannot be used with."""


def refused(method: str, task: str) -> bool:
    return task in REFUSED.get(method, ())


PAIRS = list(product(TASKS, METHODS))
ACCEPTED = [(task, method) for task, method in PAIRS if not refused(method, task)]


@pytest.mark.parametrize(("task", "method"), PAIRS)
def test_a_pair_is_refused_with_its_reason_or_valid(task: str, method: str) -> None:
    given = {"run.task": task, "run.method": method}
    reason = plugins.load("methods", method).refuses(task)
    if not refused(method, task):
        assert reason is None
        check.load(projects.ROOT / "params.yaml", given)
        return
    with pytest.raises(UserError) as error:
        check.load(projects.ROOT / "params.yaml", given)
    (problem,) = error.value.problems
    assert reason and f"{method!r} does not support the task {task!r}: {reason};" in problem


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pairs")


@cache
def prepared(folder: Path, task: str) -> tuple[Path, list[str], dict[str, pa.Table]]:
    """A folder with a tiny base, the labels, and few tokenized rows of each split."""
    place = folder / task
    place.mkdir()
    name, content, changes = raw(task)
    # Rows of so few tokens leave room for what methods put before them.
    changes |= {"finetune__epochs": 1, "finetune__batch_size": 4, "methods__few_shot__context": 60}
    running.ready(place, task, content, name, **changes)
    values = {f"{m}.{k}": v for m, of in tiny.METHODS.items() for k, v in of.items()}
    running.put(place, {f"methods.{key}": value for key, value in values.items()})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        running.run("fetch_model", "prepare", "tokenize")
        labels = json.loads(Path("data/prepared/labels.json").read_text())
        tables = {
            split: read_arrow(f"data/tokenized/{split}.arrow").slice(0, ROWS)
            for split in ("train", "validation", "test")
        }
    return place, labels, tables


@pytest.mark.parametrize(("task", "method"), ACCEPTED)
def test_what_is_trained_is_what_is_given_back(
    folder: Path, task: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh base with the weights that are kept, merged as `evaluate` reads it, gives the logits
    of the module that was trained, and with those that it began with gives others."""
    place, labels, tables = prepared(folder, task)
    monkeypatch.chdir(place)
    params = check.load("params.yaml", {"run.method": method})
    run, finetune = params.run, params.sections["finetune"]
    torch.manual_seed(finetune.seed)
    before = weights.trained(weights.build(run, labels, run.method_params, finetune.dropout)[0])
    train, validation = (tables[split] for split in ("train", "validation"))
    machine = configure("cpu", "float32", 1)
    module, best = fitting.fit(finetune, run, machine, labels, train, validation, tracked=False)
    assert best.weights.keys() == before.keys()
    about = {
        "labels": labels,
        "method_params": run.method_params.model_dump(mode="json"),
        "learnt": module.learnt | best.settled,
    }
    trained: Any = module.model.eval()
    run.task.fold(trained, about["learnt"])
    torch.manual_seed(finetune.seed + 1)  # what else is drawn must not matter
    if (task, method) == ("generation", "few_shot"):  # begins without an example; here with one
        before = {name: torch.cat([w[:1] + 2, w[1:]]) for name, w in before.items()}
    fresh, begun = (weights.assemble(run, about, own, Path()) for own in (best.weights, before))
    expected, found, first = (
        predict(model, tables["test"], 4, "cpu", run.task) for model in (trained, fresh, begun)
    )
    assert found.size
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
    assert np.abs(first - expected).max() > 1e-3


AS_PEFT = [
    (task, method)
    for task, method in product(TASKS, ("prefix", "prompt"))
    if task != "question_answering" and (task, method) != ("token_classification", "prompt")
]


@pytest.mark.parametrize(("task", "method"), AS_PEFT)
def test_peft_computes_the_same_of_every_task(
    folder: Path, task: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of pairs of texts, tags and causal models too: logits of each row by itself."""
    import transformers
    from peft import PeftModel

    place, labels, tables = prepared(folder, task)
    monkeypatch.chdir(place)
    run = check.load("params.yaml", {"run.method": method}).run
    torch.manual_seed(0)
    model: Any = weights.build(run, labels, run.method_params, 0.0)[0]
    drawn = {n: w + 0.2 * torch.randn_like(w) for n, w in weights.trained(model).items()}
    about = {"labels": labels, "method_params": run.method_params.model_dump(), "learnt": {}}
    if task == "regression":
        about["learnt"] = {"mean": [100.0], "deviation": [2.0]}
    own = weights.assemble(run, about, drawn, Path())
    kind = adapters.write(tmp_path, own, run.method, "data/base")
    assert kind is not None
    own.config.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    base = getattr(transformers, kind).from_pretrained("data/base", config=config)
    theirs: Any = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    rows = tables["test"].slice(0, 6).to_pylist()
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if "first" in row:
            inputs["token_type_ids"] = (torch.arange(ids.shape[1]) >= row["first"]).long()[None]
        with torch.inference_mode():
            found, expected = theirs(**inputs), own(**inputs)
        given = found.logits
        if given.ndim == 3:  # peft's has the places of a prompt too
            given = given[:, -ids.shape[1] :]
        torch.testing.assert_close(given, expected.logits, atol=1e-4, rtol=1e-4)
