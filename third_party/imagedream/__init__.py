"""Reads the weights of ImageDream: its multi-view UNet, its autoencoder, and OpenCLIP's two encoders, without torch.

Origin and licences are in README.md beside this file.
"""
