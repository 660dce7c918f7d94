"""Studies: outcomes of a matrix of trials compared, judged and drawn."""
