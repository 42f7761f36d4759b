"""Diffusion by rectified flow: noise, what a network is to predict, guidance, samplers, and changes of low rank."""
