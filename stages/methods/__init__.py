"""Methods: which weights are trained. One file each; see `base.Method`."""
