"""Test accuracy on the shipped data over several seeds, beside the baselines.

Run: `python -m benchmarks.accuracy` (about a minute a seed on two cores; what was computed
before comes from DVC's cache). Writes benchmarks/accuracy.json, with the difference from the best
baseline on the same rows.

A seed sets both the split (prepare.seed) and training (finetune.seed). The interval of a mean is
the 95% percentile bootstrap over the test rows of every seed.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from stages.artifacts import read_parquet, write_json

SEEDS = (0, 1, 2)
SAMPLES = 2000
OUTPUT = Path("benchmarks/accuracy.json")
MODEL = "fine-tuned"


def main() -> None:
    cache = Path(".dvc/cache").resolve()
    correct = {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "--quiet", ".", folder], check=True)
        clone = Path(folder)
        call(clone, "dvc", "cache", "dir", "--local", str(cache))
        for seed in SEEDS:
            set_seed(clone / "params.yaml", seed)
            call(clone, "dvc", "repro", "--quiet", "evaluate", "baseline")
            correct[seed] = right(clone)
    result: dict[str, Any] = {
        "seeds": list(SEEDS),
        "rows": {seed: len(next(iter(found.values()))) for seed, found in correct.items()},
        "accuracy": {name: summarise([found[name] for found in correct.values()])
                     for name in correct[SEEDS[0]]},
    }  # fmt: skip
    baselines = {name: value for name, value in result["accuracy"].items() if name != MODEL}
    best = max(baselines, key=lambda name: baselines[name]["mean"])
    paired = [found[MODEL] * 1.0 - found[best] for found in correct.values()]
    result["difference"] = {"from": best, **summarise(paired)}
    write_json(OUTPUT, result)
    told = result["accuracy"] | {f"more than {best}": result["difference"]}
    for name, value in told.items():
        print(f"{name:<40} {value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})")


def set_seed(path: Path, seed: int) -> None:
    yaml = YAML()
    content = yaml.load(path.read_text())
    content["prepare"]["seed"] = content["finetune"]["seed"] = seed
    with path.open("w") as out:
        yaml.dump(content, out)


def right(clone: Path) -> dict[str, np.ndarray]:
    """By model, which test rows [n] it predicts rightly."""
    rows = read_parquet(clone / "results/predictions.parquet").set_index("id")
    found = {MODEL: (rows["predicted"] == rows["label"]).to_numpy()}
    for name, group in read_parquet(clone / "results/baseline.parquet").groupby("baseline"):
        predicted = group.set_index("id")["predicted"].loc[rows.index]
        found[str(name)] = (predicted == rows["label"]).to_numpy()
    return found


def summarise(correct: list[np.ndarray]) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    means = [
        np.mean([generator.choice(one, len(one)).mean() for one in correct]) for _ in range(SAMPLES)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    each = [float(one.mean()) for one in correct]
    return {"mean": float(np.mean(each)), "low": float(low), "high": float(high), "each": each}


def call(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True)


if __name__ == "__main__":
    main()
