"""Mutated files for every reader: each must end in success or in one line that names the file.

    python -m bench.fuzz --seconds=600

`seeds` makes small files of every kind (and takes the real ones at hand), `mutators` and `containers` damage them,
`readers` are what users reach, `harness` runs them in processes of their own, `verdict` judges how each input ends.
"""
