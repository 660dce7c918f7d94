"""A plain Hugging Face folder with merged weights, tokenizer and model card.

Run: `python -m stages export`, or `dvc repro`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pydantic import Field

from stages.artifacts import read_json, replacing_folder
from stages.params import Run, Section
from stages.training.machine import configure

LIBRARIES = ("torch", "transformers", "safetensors", "huggingface-hub")
BASE = Path("data/base")
TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "chat_template*",
)


class Export(Section):
    name: str = Field(min_length=1, description="name of the model")
    license: str = Field(min_length=1, description="SPDX identifier, lower case")


def run(params: Export, run: Run) -> dict[str, object]:
    """Write models/export/."""
    from stages.training import weights

    configure(device="cpu")
    model = weights.load(run)
    with replacing_folder("models/export") as folder:
        model.save_pretrained(folder)
        for pattern in TOKENIZER:
            for file in sorted(BASE.glob(pattern)):
                shutil.copyfile(file, folder / file.name)
        (folder / "README.md").write_text(card(params, run), encoding="utf-8")
        return {"bytes": sum(file.stat().st_size for file in folder.iterdir())}


def card(params: Export, run: Run) -> str:
    """The model card: metadata as the hub reads it, then a page for people."""
    from huggingface_hub import EvalResult, ModelCardData

    from stages.training import weights

    measured = read_json("results/metrics.json")
    metrics = {
        name: metric for name, metric in measured["metrics"].items() if metric["low"] is not None
    }
    base = read_json("results/base.json")
    labels = weights.description()["labels"]
    results = [
        EvalResult(
            task_type=run.task.HUB_TASK,
            dataset_type="private",
            dataset_name="the project's test split",
            metric_type=name,
            metric_value=round(metric["value"], 4),
        )
        for name, metric in metrics.items()
    ]
    data = ModelCardData(
        license=params.license,
        base_model=base["name"],
        pipeline_tag=run.task.HUB_TASK,
        library_name="transformers",
        metrics=sorted(metrics),
        model_name=params.name,
        eval_results=results,
    )
    lines = [f"| {name} | {_interval(metric)} |" for name, metric in metrics.items()]
    return CARD.format(
        metadata=data.to_yaml(),
        name=params.name,
        base=base["name"],
        method=run.method_name,
        task=run.task_name.replace("_", " "),
        rows=measured["rows"],
        lines="\n".join(lines),
        labels=", ".join(f"`{label}`" for label in labels),
        hub_task=run.task.HUB_TASK,
    )


def _interval(metric: dict[str, Any]) -> str:
    return f"{metric['value']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})"


CARD = """---
{metadata}
---

# {name}

`{base}`, fine-tuned for {task} (method: {method}).

| metric, on {rows} test rows | value (95% interval) |
|---|---|
{lines}

Labels: {labels}.

```python
from transformers import pipeline

pipe = pipeline("{hub_task}", model="path/to/this/folder")
```
"""
