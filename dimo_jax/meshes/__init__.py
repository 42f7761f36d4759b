"""Textured triangle meshes, and the renderer that makes truth from them."""
