"""The report: figures and templates."""
