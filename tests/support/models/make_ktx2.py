"""Writes quadrants_*.ktx2: 16 x 16 pixels, red, green, blue and half transparent white; `pip install alktx2` first."""

from pathlib import Path

import alktx2
import numpy as np

pixels = np.zeros((16, 16, 4), np.uint8)
pixels[:8, :8], pixels[:8, 8:] = (255, 0, 0, 255), (0, 255, 0, 255)
pixels[8:, :8], pixels[8:, 8:] = (0, 0, 255, 255), (255, 255, 255, 128)
for codec in ("etc1s", "uastc"):
    data = alktx2.encode_raw_rgba_to_ktx2(pixels.tobytes(), 16, 16, True, codec=codec, quality=100, mipmaps=True)
    Path(__file__).with_name(f"quadrants_{codec}.ktx2").write_bytes(data)
