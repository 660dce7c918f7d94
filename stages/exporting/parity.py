"""Does the exported folder give the logits that were evaluated? Asked of a fresh process.

Run: `python -m stages.exporting.parity FOLDER`; texts as JSON on standard input, logits as JSON on
standard output. `export` does.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stages import plugins
from stages.errors import UserError
from stages.exporting import inference

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

ROWS = 256
BATCH = 32
TOLERANCE = 1e-3
"""Largest difference of a logit. Sums of float32 in another order (other batches, attention
kernels, devices, LoRA merged or beside) differ by 1e-5 on the default run; weights in bfloat16 by
1e-2, a wrong weight by more. No probability moves by more than half of the tolerance. Numbers in a
user's units that spread wider than logits do, by 10, have as much more."""


def check(folder: Path, rows: pd.DataFrame, roles: list[str]) -> dict[str, float]:
    """Compare on `ROWS` rows of all lengths; how many they were and the largest difference.

    Args:
        rows: results/predictions.parquet: `id`, `logits` (of a row's first example, flat) and
            the texts' `roles`.

    Raises:
        UserError: a logit differs by more than `tolerance`, or the folder cannot be loaded.
    """
    import numpy as np

    sample = _sample(rows, roles)
    found = _fresh(folder, sample[roles].to_numpy().tolist())
    expected = sample["logits"].to_list()
    sizes = [([len(one) for one in of]) for of in (found, expected)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"{folder}: gives {sum(sizes[0])} logits, evaluated were {sum(sizes[1])}; "
            "run `dvc repro`"
        )
    distance = np.array(
        [np.abs(one - other).max() for one, other in zip(found, expected, strict=True)]
    )
    distance = np.where(np.isnan(distance), np.inf, distance)
    worst, allowed = int(distance.argmax()), tolerance(np.concatenate(expected))
    if distance[worst] > allowed:
        raise UserError(
            f"{folder}: loaded by transformers it gives other logits than were evaluated: "
            f"{(distance > allowed).sum()} of {len(sample)} rows differ by more than "
            f"{allowed:g}, most the row {sample['id'].iloc[worst]} of the test split (by "
            f"{distance[worst]:.3g}); nothing is exported. Run `dvc repro`; if it stays so, "
            "transformers loads this kind of model in another way than the stages do"
        )
    return {"parity_rows": len(sample), "largest_difference": float(distance[worst])}


def tolerance(logits: np.ndarray) -> float:
    """`TOLERANCE` for logits; for numbers of another scale also what float32 rounds off."""
    import numpy as np

    finite = logits[np.isfinite(logits)]
    spread, size = (float(finite.std()), float(abs(finite).max())) if len(finite) else (0.0, 0.0)
    return TOLERANCE * max(1.0, spread / 10) + (1e-6 * size if size > 1000 else 0.0)


def _sample(rows: pd.DataFrame, roles: list[str]) -> pd.DataFrame:
    """Rows evenly spaced by length, the shortest and the longest among them."""
    import numpy as np

    lengths = sum(rows[role].str.len() for role in roles)
    order = np.argsort(lengths, kind="stable")
    chosen = np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).round().astype(int)
    return rows.iloc[order[chosen]]


def _fresh(folder: Path, texts: list[list[str]]) -> list[np.ndarray]:
    """Logits of each text, flat."""
    import numpy as np

    done = subprocess.run(
        [sys.executable, "-m", __name__, str(folder)],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"{folder}: cannot be used as exported: {lines[-1]}")
    return [np.array(one, dtype=np.float32) for one in json.loads(done.stdout)]


def main(folder: str) -> int:
    """The fresh process."""
    try:
        model = inference.load(folder)
    except UserError as error:
        print("; ".join(error.problems), file=sys.stderr)
        return 2
    texts = json.load(sys.stdin)
    logits: list[list[float]] = []
    if plugins.load("tasks", model.task).GENERATIVE:
        import pandas as pd

        rows = pd.DataFrame(texts, columns=["prompt", "response", "messages"])
        json.dump([of.tolist() for of in model.nats(rows)], sys.stdout)
        return 0
    for start in range(0, len(texts), BATCH):
        logits += [of.ravel().tolist() for of in model.logits(texts[start : start + BATCH])[0]]
    json.dump(logits, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
