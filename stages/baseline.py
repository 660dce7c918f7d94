"""Trivial models on the same splits: what fine-tuning must beat to be worth its cost.

Run: `python -m stages baseline`, or `dvc repro`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from stages import measures
from stages.artifacts import read_json, read_parquet, write_json, write_parquet
from stages.params import Run, Section
from stages.pins import versions
from stages.statistics import bootstrap, described

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

LIBRARIES = (
    "scikit-learn", "scipy", "numpy", "pandas", "pyarrow", "sacrebleu", "rouge-score",
)  # fmt: skip


class Baseline(Section):
    ngrams: int = Field(ge=1, le=5, description="TF-IDF of 1 to so many words")
    min_df: int = Field(ge=1, description="rows that a term must occur in")
    inverse_penalty: float = Field(gt=0, description="C of the logistic regression")
    bootstrap: int = Field(ge=100, description="samples for the intervals")
    seed: int = Field(ge=0, description="of the bootstrap")


def run(params: Baseline, run: Run) -> dict[str, object]:
    """Write results/baseline.json (metrics of each trivial model on the test split) and
    results/baseline.parquet (their predictions: baseline, id, predicted, scores)."""
    task = run.task
    labels = read_json("data/prepared/labels.json")
    train, test = (read_parquet(f"data/prepared/{split}.parquet") for split in ("train", "test"))
    target = task.targets(test, labels)
    models = task.baselines(train, labels, params)
    found = {name: predict(test) for name, predict in models.items()}
    metrics = {
        name: bootstrap(
            measures.of(task), target, values, params.bootstrap, params.seed, measures.REASONS
        )
        for name, (_, values) in found.items()
    }
    write_parquet("results/baseline.parquet", _predictions(test, found))
    content = described(
        {"main_metric": task.MAIN_METRIC, "baselines": metrics},
        len(test),
        params.bootstrap,
        params.seed,
    )
    content["parameters"] = params.model_dump(mode="json")
    content["libraries"] = versions(LIBRARIES)
    write_json("results/baseline.json", content)
    return {"rows": len(train)}


def _predictions(
    test: pd.DataFrame, found: dict[str, tuple[list[str], np.ndarray]]
) -> pd.DataFrame:
    import pandas as pd

    frames = [
        pd.DataFrame(
            {
                "baseline": name,
                "id": test["id"],
                "predicted": predicted,
                "scores": list(values),
            }
        )
        for name, (predicted, values) in found.items()
    ]
    return pd.concat(frames, ignore_index=True)
