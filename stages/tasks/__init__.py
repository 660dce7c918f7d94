"""Tasks: what is learnt. One file each; see `base.Task`."""
