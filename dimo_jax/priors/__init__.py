"""From one picture to a dataset: language models, video models, novel views (paper Sec. 3.1)."""
