"""The ablations of the paper's Table 5, and the other ways of its equations."""
