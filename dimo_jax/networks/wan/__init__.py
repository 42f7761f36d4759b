"""Wan 2.1 (Wang et al. 2025): the video transformer, the causal video autoencoder, and the text encoder beside them."""
