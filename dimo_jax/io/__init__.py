"""Files in and out: glTF, PLY, splats, pictures, videos, arrays."""
