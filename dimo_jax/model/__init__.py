"""The motion model: from latent codes and key points to Gaussians at a time."""
