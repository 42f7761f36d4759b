"""Runs an app of dimo_jax: `python launch.py --config=configs/dimo.py` trains; `--app=` chooses another."""

from dimo_jax.cli.main import main

if __name__ == "__main__":
    main()
