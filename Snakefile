# Runs the DAG of dvc.yaml.
from snakemake.utils import min_version

min_version("9.0")


rule all:
    shell:
        "dvc repro"
