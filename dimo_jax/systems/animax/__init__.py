"""AnimaX (Huang et al. 2025), the generator: videos and pose maps of several views, drawn together from a sentence."""
