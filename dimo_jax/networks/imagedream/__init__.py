"""ImageDream (Wang and Shi 2023): Stable Diffusion's UNet for several views at once, and the autoencoder beside it."""
