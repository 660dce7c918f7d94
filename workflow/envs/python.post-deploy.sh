python -m pip install --quiet --requirement constraints.txt
