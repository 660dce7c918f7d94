"""A small GPT-2 trained from random weights on blocks of tokens: a base for `fetch_model`.

Run: `python -m stages pretrain`, or `dvc repro workflow/pretrain/dvc.yaml`

Architecture and initial weights: Radford et al., "Language Models are Unsupervised Multitask
Learners", 2019; the embeddings are the head's weights as well.
"""

from __future__ import annotations

import csv
import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from stages import plugins
from stages.artifacts import read_arrow, read_json, replacing, replacing_folder, write_json
from stages.params import Run, Section
from stages.pins import versions
from stages.training import fitting
from stages.training.fitting import LIBRARIES, Finetune
from stages.training.machine import Device, Machine, Precision, configure
from stages.training.schedule import Schedule

if TYPE_CHECKING:
    from transformers import GPT2Config

DATA = Path("data/pretrain")
PRETRAINED = Path("models/pretrained")
PIPELINE = Path("workflow/pretrain/dvc.yaml")
END = 0  # the tokenizer's first token


class Pretrain(Section):
    """workflow/pretrain/params.yaml: pretrain"""

    hidden: int = Field(ge=8)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    seed: int = Field(ge=0, lt=2**32)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1, description="blocks")
    accumulate: int = Field(ge=1)
    learning_rate: float = Field(gt=0, le=1)
    weight_decay: float = Field(ge=0, le=1)
    warmup_epochs: float = Field(ge=0)
    schedule: Schedule
    clip_norm: float = Field(ge=0)
    dropout: float = Field(ge=0, lt=1)
    device: Device
    devices: int = Field(ge=1)
    precision: Precision
    threads: int = Field(ge=1)
    dtype: Literal["float32", "float16"] = Field(description="of the weights that are written")

    @model_validator(mode="after")
    def _divides(self) -> Pretrain:
        if self.hidden % self.heads:
            raise ValueError(
                f"heads: must divide hidden, {self.hidden}, got {self.heads}; write another"
            )
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs: longer than training, got {self.warmup_epochs}; write at most "
                f"{self.epochs}"
            )
        return self


def run(params: Pretrain) -> dict[str, object]:
    """Write models/pretrained/, results/pretrain/training.json and learning_curve.csv."""
    import torch

    machine = configure(params.device, params.precision, params.threads)
    train, validation = (read_arrow(DATA / f"{split}.arrow") for split in ("train", "validation"))
    text = read_json("results/pretrain/tokens.json")
    config = _config(params, text)
    chosen, job = _finetune(params), _run(config)
    store = _checkpoints(params, machine)
    started = time.perf_counter()
    module, best = fitting.fit(chosen, job, machine, [], train, validation, store, tracked=False)
    seconds = time.perf_counter() - started
    key = "workflow/pretrain/params.yaml: pretrain.learning_rate"
    fitting.require_numbers(best, job, module, len(validation), store, key)
    outcome = fitting.outcome(chosen, job, machine, module, best, len(train))
    outcome = {
        key: value for key, value in outcome.items() if key not in ("task", "method", "selected_by")
    } | {"parameters": params.model_dump(mode="json")}
    dtype = getattr(torch, params.dtype)
    config.dtype = dtype
    _save(config, {name: w.to(dtype) for name, w in best.weights.items()}, text, outcome)
    with (
        replacing("results/pretrain/learning_curve.csv") as path,
        open(path, "w", newline="") as file,
    ):
        writer = csv.DictWriter(file, list(best.curve[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(best.curve)
    write_json("results/pretrain/training.json", outcome)
    store.remove()
    return {
        "training_seconds": round(seconds, 2),
        "checkpoint_seconds": round(store.spent, 2),
        "tokens_per_second": round((module.tokens - module.resumed) / seconds, 1),
        "validation_loss_per_byte": round(outcome["validation"]["loss_per_byte"], 4),
    }


def _config(params: Pretrain, text: dict[str, Any]) -> GPT2Config:
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=text["vocabulary"],
        n_positions=text["parameters"]["block"],
        n_embd=params.hidden,
        n_layer=params.layers,
        n_head=params.heads,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=END,
        tie_word_embeddings=True,
        architectures=["GPT2LMHeadModel"],
    )


def _finetune(params: Pretrain) -> Finetune:
    """As the section of the trainer, where what has no use here is off."""
    shared = set(Finetune.model_fields) & set(Pretrain.model_fields)
    return Finetune(
        **params.model_dump(include=shared),
        batch_tokens=None,
        gradient_checkpointing=False,
        keep_frozen=False,
        early_stopping=0,
        strategy="ddp",
    )


def _run(config: GPT2Config) -> Run:
    from stages.training import language

    method = plugins.load("methods", "full")
    return Run(
        task_name="pretrain",
        method_name="full",
        task=language.Language(config),
        method=method,
        task_params=language.Params(loss=language.Loss()),
        method_params=method.Params(),
        tracking=None,
    )


def _checkpoints(params: Pretrain, machine: Machine) -> Any:
    from stages.training.checkpoints import FOLDER, PRETRAINING, Checkpoints, key

    values = (params.model_dump(mode="json"), versions(LIBRARIES), machine.device_class())
    return Checkpoints(FOLDER / f"{PRETRAINING}{key('pretrain', {}, *values, pipeline=PIPELINE)}")


def _save(
    config: GPT2Config, weights: dict[str, Any], text: dict[str, Any], outcome: dict[str, Any]
) -> None:
    """A plain Hugging Face folder; transformers ties the head to the embeddings."""
    from safetensors.torch import save_file

    names = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    about = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    with replacing_folder(PRETRAINED) as folder:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(config.to_json_string(), encoding="utf-8")
        shutil.copyfile(DATA / "tokenizer.json", folder / "tokenizer.json")
        write_json(
            folder / "tokenizer_config.json", about | {"model_max_length": config.n_positions}
        )
        (folder / "README.md").write_text(_card(text, outcome), encoding="utf-8")


def _card(text: dict[str, Any], outcome: dict[str, Any]) -> str:
    train, validation = outcome["tokens"], outcome["validation"]
    return f"""# A small GPT-2

Trained from random weights on {text["train"]["documents"]} documents, {text["train"]["bytes"]:,}
bytes, {train:,} tokens in all epochs, by workflow/pretrain/dvc.yaml. It has
{outcome["parameters_total"]:,} parameters and {text["vocabulary"]:,} tokens (byte-pair encoding of
bytes), and was never taught to follow instructions or to be harmless.

On {text["validation"]["documents"]} documents that it was not trained on, its loss is
{validation["loss"]:.4f} a token and {validation["loss_per_byte"]:.4f} a byte (natural logarithm;
{validation["bits_per_byte"]:.4f} bits a byte).

```json
{json.dumps(outcome["parameters"] | {"text": text["parameters"]}, indent=2)}
```
"""
