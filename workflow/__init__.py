"""Around the DAG: the schema of its parameters."""
