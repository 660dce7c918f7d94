"""What `export` writes beside the weights, and how the exported folder is used."""
