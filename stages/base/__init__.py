"""The base model: where it comes from and which files make it up."""
