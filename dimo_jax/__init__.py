"""dimo_jax: learns a space of motions for one object from multi-view videos, and generates new 3D motions."""

__version__ = "0.1.0"
