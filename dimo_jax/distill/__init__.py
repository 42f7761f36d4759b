"""From one picture to many videos of it moving: the paper's motion priors (Sec. 3.1)."""
