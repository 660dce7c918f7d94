# Runs the stages of dvc.yaml side by side, on the cores of a machine or on a cluster. What has to
# run is decided by DVC, see docs/engines.md; nothing about the pipeline is written here.
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")
sys.path.insert(0, str(Path(workflow.current_basedir)))

from workflow import plan as plans

# Jobs on other nodes read this file again; the plan is made once.
plan = plans.make(config) if workflow.is_main_process else plans.load()


include: "workflow/rules/stages.smk"


onstart:
    plans.start(plan, here=workflow.local_exec)


onsuccess:
    plans.finish(plan, done=True)


onerror:
    plans.finish(plan, done=False)


rule all:
    default_target: True
    localrule: True
    input:
        [plan.marker(stage.address) for stage in plan.restored + plan.jobs] or "dvc.yaml",
    message:
        "all that was asked for is there"
