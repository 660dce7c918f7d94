"""A plain Hugging Face folder with merged weights, tokenizer and model card.

Run: `python -m stages export`, or `dvc repro`.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from stages.artifacts import read_json, read_parquet, replacing_folder, write_json
from stages.common.texts import present
from stages.exporting import adapters, card, inference, parity
from stages.params import Run, Section
from stages.training.machine import configure

LIBRARIES = ("torch", "transformers", "safetensors", "huggingface-hub", "jinja2")
BASE = Path("data/base")
TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "chat_template*",
)
REPO = r"[\w.-]+(/[\w.-]+)?"


class Export(Section):
    """params.yaml: export"""

    name: str = Field(min_length=1, description="name of the model")
    license: str = Field(min_length=1, description="SPDX identifier, lower case")
    base_model: str | None = Field(description="the base's repo on the hub, for the card")
    datasets: list[str] = Field(description="the data's repos on the hub, for the card")
    data_license: str | None = Field(min_length=1, description="of the training data")
    use: str = Field(min_length=1, description="what the model is for, for the card")
    limits: str = Field(min_length=1, description="what it must not be trusted with")

    @field_validator("base_model")
    @classmethod
    def _repository(cls, repo: str | None) -> str | None:
        if repo is not None and not re.fullmatch(REPO, repo):
            raise ValueError("not a repo of the hub; write owner/name, or null")
        return repo

    @field_validator("datasets")
    @classmethod
    def _repositories(cls, repos: list[str]) -> list[str]:
        for repo in repos:
            if not re.fullmatch(REPO, repo):
                raise ValueError(f"not a repo of the hub: {repo!r}; write owner/name, or []")
        return repos


def run(params: Export, run: Run) -> dict[str, object]:
    """Write models/export/.

    Raises:
        UserError: loaded by plain transformers, the folder gives other logits than evaluated.
    """
    from stages.training import weights

    configure(device="cpu")
    results = card.read()
    labels = weights.description()["labels"]
    evaluated = read_parquet("results/predictions.parquet")
    roles = present(run.task.TEXTS, evaluated.columns)
    model = weights.load(run)
    model.config.finetuning_task, model.config.finetuning_texts = run.task_name, roles
    model.config.finetuning_stride = results["tokens"]["parameters"].get("stride", 0)
    completes = run.task.GENERATIVE and bool((evaluated["messages"] == "").all())
    if run.task.GENERATIVE:
        _configure(model, results)
        model.config.finetuning_completes = completes
    asked = card.asked(run.task, roles, completes=completes)
    loaded_as = None
    with replacing_folder("models/export") as folder:
        if run.method.PLAIN:
            model.save_pretrained(folder)
        else:
            model.config.save_pretrained(folder)
            inference.write_own(folder, weights.FINETUNED, results["base"])
            known = card.base_repo(params, results["base"])
            named = known or results["base"]["name"]
            loaded_as = adapters.write(folder, model, run.method, named)
        _write_tokenizer(folder, results["tokens"]["max_length"], model.config.pad_token_id)
        if run.task.GENERATIVE:
            _write_template(folder, results["tokens"]["template"])
        learnt = model.config.finetuning_learnt
        how = card.Use(run.method.PLAIN, asked, loaded_as)
        text = card.render(params, run.task, labels, results, how, learnt)
        (folder / "README.md").write_text(text, encoding="utf-8")
        own = ["response", "messages"] if run.task.GENERATIVE else []
        compared = parity.check(folder, evaluated, [*roles, *own])
        return {"bytes": sum(file.stat().st_size for file in folder.iterdir()), **compared}


def _write_tokenizer(folder: Path, max_length: int, pad_id: int | None) -> None:
    """The base's tokenizer; texts are cut where they were in training, and filled up by the token
    that the model's config names, where the tokenizer names none."""
    for pattern in TOKENIZER:
        for file in sorted(BASE.glob(pattern)):
            shutil.copyfile(file, folder / file.name)
    path = folder / inference.TOKENIZER
    config: dict[str, Any] = read_json(path) if path.exists() else {}
    special = folder / "special_tokens_map.json"
    named = (read_json(special) if special.exists() else {}) | config
    if pad_id is not None and pad_id >= 0 and not named.get("pad_token"):
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        if token := tokenizer.id_to_token(pad_id):
            config["pad_token"] = token
    write_json(path, config | {"model_max_length": max_length})


def _configure(model: Any, results: dict[str, Any]) -> None:
    """Have transformers write texts as they were evaluated."""
    decoding = results["metrics"]["parameters"]["decoding"]
    model.config.finetuning_decoding = decoding
    own = model.generation_config
    others = own.eos_token_id
    others = others if isinstance(others, list) else [] if others is None else [others]
    own.eos_token_id = list(dict.fromkeys([results["tokens"]["end"], *others]))
    own.pad_token_id = results["tokens"]["end"] if own.pad_token_id is None else own.pad_token_id
    own.max_new_tokens, own.max_length = decoding["max_new_tokens"], None
    own.do_sample = decoding["temperature"] > 0
    own.temperature = decoding["temperature"] if own.do_sample else None
    own.top_p = decoding["top_p"] if own.do_sample else None
    own.top_k = 0 if own.do_sample else None


def _write_template(folder: Path, template: str) -> None:
    """The chat template that prompts were written by, in the place of the base's."""
    for file in folder.glob("chat_template*"):
        file.unlink()
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    path = folder / inference.TOKENIZER
    config = read_json(path)
    config.pop("chat_template", None)
    write_json(path, config)
