"""Around the DAG: Snakemake as its second engine, results compared, the parameters' schema."""
