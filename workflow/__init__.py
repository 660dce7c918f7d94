"""Around the DAG: results compared, the schema of the parameters."""
