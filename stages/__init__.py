"""Reproducible fine-tuning stages; `python -m stages --help` lists them."""
