"""What this machine has for the stages that run on it side by side."""

from __future__ import annotations

import sys
from typing import Any

from workflow import gpus


def limits(workflow: Any, stages: list[dict[str, Any]]) -> dict[str, int]:
    """Tell Snakemake how much memory and how many GPUs there are, where it runs stages here.

    A cluster's scheduler knows that by itself, and what `--resources` says counts for more.

    Args:
        workflow: Snakemake's, while it reads the Snakefile.
        stages: what each stage asks for.

    Returns:
        The most that a single stage may ask for, so that one that asks for more runs alone
        instead of being refused.
    """
    import psutil

    # Which executor will run is not known yet, but one that is remote must have `--jobs`.
    if not workflow.is_main_process or workflow.resource_settings.nodes is not None:
        return {}
    found = {"mem_mb": psutil.virtual_memory().total // 2**20}
    if any("gpu" in needs for needs in stages):
        found["gpu"] = len(gpus.devices())
    for name, amount in found.items():
        if name not in workflow.global_resources:
            workflow.global_resources[name] = amount
    return found


def within(address: str, needs: dict[str, Any], most: dict[str, int]) -> dict[str, Any]:
    """What a stage asks for, at most what there is; says where that is less."""
    given = dict(needs)
    for name in needs.keys() & most.keys():
        if isinstance(needs[name], int) and needs[name] > most[name]:
            given[name] = most[name]
            text = f"{address}: asks for {name}: {needs[name]}, this machine has {most[name]}"
            print(text, file=sys.stderr, flush=True)
    return given
