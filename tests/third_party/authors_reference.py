"""The motion model of DIMO's authors, written with torch from the facts in third_party/dimo/README.md.

    python tests/third_party/authors_reference.py

writes the small files of tests/third_party/authors_model, with which the readers are tested where torch is absent:
`timenet.pth` and the codes by torch.save (`legacy.pth` in its older format), the clouds byte by byte, and what this
reference makes of them in `expected.npz`.
"""

from __future__ import annotations

import collections
import json
import struct
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

FOLDER = Path(__file__).parent / "authors_model"
TIMES = (0.0, 3 / 21, 20 / 21)


def encode(x, bands):
    """Band by band: the sines of all coordinates, then their cosines; no factor pi."""
    return torch.cat([f(x * 2.0**band) for band in range(bands) for f in (torch.sin, torch.cos)], dim=-1)


class TimeNet(nn.Module):
    """The decoder; names of its parts are those of the files."""

    def __init__(self, width=256, head_width=256, dim=32, depth=8, joins_after=4):
        super().__init__()
        inputs = 6 * 10 + 2 * 6 + dim
        sizes = [inputs] + [width + inputs if layer == joins_after + 1 else width for layer in range(1, depth)]
        self.joins_after = joins_after
        self.deformnet = nn.ModuleList([nn.Linear(size, width) for size in sizes])
        self.pts_layers = nn.Sequential(nn.Linear(width, head_width), nn.ReLU(), nn.Linear(head_width, 3))
        self.rot_layers = nn.Sequential(nn.Linear(width, head_width), nn.ReLU(), nn.Linear(head_width, 4))

    def forward(self, points, time, code):
        """points [K,3], a time, code [D] -> translations [K,3], rotations [K,4] (wxyz, not unit)."""
        times = torch.full((len(points), 1), time)
        inputs = torch.cat([encode(points, 10), encode(times, 6), code.expand(len(points), -1)], dim=-1)
        hidden = inputs
        for number, layer in enumerate(self.deformnet):
            hidden = functional.relu(layer(hidden))
            if number == self.joins_after:
                hidden = torch.cat([inputs, hidden], dim=-1)
        return self.pts_layers(hidden), self.rot_layers(hidden)


def rotate(quats, vectors):
    """Turns vectors [...,3] by quaternions [...,4], wxyz of any length."""
    unit = functional.normalize(quats, dim=-1)
    w, axis = unit[..., :1], unit[..., 1:]
    twice = 2 * torch.linalg.cross(axis, vectors)
    return vectors + w * twice + torch.linalg.cross(axis, twice)


def multiply(a, b):
    """Hamilton product of [...,4], wxyz."""
    w, v, u, x = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    return torch.cat([w * u - (v * x).sum(-1, keepdim=True), w * x + u * v + torch.linalg.cross(v, x)], dim=-1)


def deform(means, quats, key_points, log_radii, translations, rotations, neighbors=4):
    """Gaussians moved by their nearest key points (design, Sec. 3, right column)."""
    distances = torch.cdist(means, key_points)
    nearest = distances.topk(neighbors, dim=-1, largest=False)
    weights = torch.exp(-(nearest.values**2) / (2 * torch.exp(log_radii)[nearest.indices] ** 2)) + 1e-7
    weights = (weights / weights.sum(-1, keepdim=True))[..., None]
    anchors, turns = key_points[nearest.indices], rotations[nearest.indices]
    moved = rotate(turns, means[:, None] - anchors) + anchors + translations[nearest.indices]
    return (weights * moved).sum(1), functional.normalize(multiply((weights * turns).sum(1), quats), dim=-1)


def write_ply(path, names, columns):
    """A binary PLY with float properties."""
    header = "".join(f"property float {name}\n" for name in names)
    text = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(columns)}\n{header}end_header\n"
    rows = b"".join(struct.pack(f"<{len(names)}f", *row) for row in columns.tolist())
    path.write_bytes(text.encode() + rows)


def make_model(folder, *, net, num_motions, num_key_points, num_gaussians, vae=False, names=True):
    """Writes a model with random parameters, and returns what the reference makes of it."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.normal_(0, 0.1)
            else:
                parameter.mul_(2)  # torch's first weights are so small that codes would hardly matter
        net.rot_layers[-1].bias += torch.tensor([1.5, 0.0, 0.0, 0.0])
    dim = net.deformnet[0].in_features - 72
    codes, log_var = torch.randn(num_motions, dim), torch.randn(num_motions, dim)
    torch.save(net.state_dict(), folder / "timenet.pth")
    if vae:
        torch.save(codes, folder / "mu.pth")
        torch.save(log_var, folder / "log_var.pth")
    else:
        torch.save(nn.Parameter(codes), folder / "latent_codes.pth")
    key_points, log_radii = torch.rand(num_key_points, 3) - 0.5, torch.randn(num_key_points) * 0.2 - 2
    write_ply(folder / "point_cloud_c.ply", ["c_x", "c_y", "c_z", "c_radius"],
              torch.cat([key_points, log_radii[:, None]], dim=1))  # fmt: skip
    means, quats = torch.rand(num_gaussians, 3) - 0.5, torch.randn(num_gaussians, 4)
    others = torch.randn(num_gaussians, 3), torch.randn(num_gaussians, 1), torch.randn(num_gaussians, 3) * 0.1 - 4
    fields = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
    fields += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    write_ply(folder / "point_cloud.ply", fields,
              torch.cat([means, 0 * means, others[0], others[1], others[2], quats], dim=1))  # fmt: skip
    if names:
        (folder / "motion_order.json").write_text(json.dumps([f"{index:02d}-move" for index in range(num_motions)]))
    expected = collections.defaultdict(list)
    with torch.no_grad():
        for code in codes:
            steps = [net(key_points, time, code) for time in TIMES]
            moved = [deform(means, quats, key_points, log_radii, *step) for step in steps]
            for name, values in (("translations", [s[0] for s in steps]), ("rotations", [s[1] for s in steps]),
                                 ("means", [m[0] for m in moved]), ("quats", [m[1] for m in moved])):  # fmt: skip
                expected[name].append(np.stack([value.numpy() for value in values]))
    return {name: np.stack(values) for name, values in expected.items()}


def make_trees():
    """Tensors of every kind that the reader takes, in every kind of container, with views and strides."""
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    types = (torch.float64, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
    return collections.OrderedDict(
        whole=whole,
        column=whole[:, 2],
        turned=whole[1:3].T,
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        parameter=nn.Parameter(torch.tensor([1.0, -2.0])),
        types=[torch.tensor([1, 0, 3]).to(kind) for kind in types],
        others=(1, 2.5, None, True, "text", {"a": [whole.shape]}),
    )


def main():
    """Writes the files."""
    torch.manual_seed(3)
    net = TimeNet(width=16, head_width=12, dim=4, depth=7)
    expected = make_model(FOLDER, net=net, num_motions=2, num_key_points=6, num_gaussians=20)
    np.savez_compressed(FOLDER / "expected.npz", **expected)
    trees = make_trees()
    torch.save(trees, FOLDER / "trees.pth")
    torch.save(trees, FOLDER / "legacy.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
