"""One trial of the best trivial model: fitted on drawn rows and measured, as a trial is.

Run: `python -m stages baseline_trial OUT.json KEY=VALUE...`, as a stage of
workflow/studies/when_to_finetune/dvc.yaml does. The rows are those of `python -m stages trial` with
the same `trial.rows` and `trial.draw`. Nothing is chosen, so no validation split is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.artifacts import read_json, read_parquet, write_json
from stages.params import Run
from stages.pins import versions
from stages.training.drawing import draw
from stages.training.trials import figures, lacks, skipped

LIBRARIES = ("scikit-learn", "scipy", "numpy", "pandas", "pyarrow")
SECTIONS = ("baseline", "trial")


@dataclass(frozen=True)
class Job:
    """What the trial is given beside the section `baseline`; `trial` is a section, too."""

    out: Path
    overrides: Mapping[str, Any]
    trial: Any


def run(params: Any, run: Run, job: Job) -> dict[str, object]:
    """Write job.out: the test metrics of the last of the task's baselines, which is its best; or,
    where rows are lacking and the trial is to be skipped, how many there are.

    Raises:
        UserError: rows are lacking.
    """
    labels = read_json("data/prepared/labels.json")
    train, test = (read_parquet(f"data/prepared/{split}.parquet") for split in ("train", "test"))
    rows, count = job.trial.rows, len(train)
    if lacks(rows, count, job.trial.lacking):
        write_json(job.out, skipped(job.overrides, run.task.MAIN_METRIC, count))
        return {"rows_in_all": count}
    drawn = train.iloc[draw(run.task.targets(train, labels), rows, job.trial.draw)]
    name, predict = list(run.task.baselines(drawn, labels, params).items())[-1]
    _, scores = predict(test)
    metrics = run.task.metrics(run.task.targets(test, labels), scores, np.ones((1, len(test))))
    write_json(
        job.out,
        {
            "overrides": dict(job.overrides),
            "main_metric": run.task.MAIN_METRIC,
            "rows": {"train": len(drawn), "test": len(test)},
            "test": figures(metrics),
            "trial": job.trial.model_dump(),
            "baseline": name,
            "libraries": versions(LIBRARIES),
        },
    )
    return {"rows": len(drawn)}
