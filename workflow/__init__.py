"""Around the DAG: the schema of its parameters, and Snakemake as its second engine."""
