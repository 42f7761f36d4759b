"""Reads the weights of Wan 2.1: its transformer, its video autoencoder and its text encoder, without torch.

Origin and licences are in README.md beside this file.
"""
