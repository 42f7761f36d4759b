"""Data that passes between packages, as frozen pytrees, and one Protocol per swappable slot.

Axes: M motions, T frames of a video, F frames of a batch, V views, N Gaussians, K key points, J neighbours, H, W.
Quaternions are wxyz and need not be normalized. Cameras are OpenCV (x right, y down, z forward), world-to-camera; the
world is +Y up; pixel centres lie at +0.5. Parameters that an optimizer moves freely are stored under the name of their
unconstrained form: `log_scales`, `logit_opacities`, `log_radii`.
"""

from __future__ import annotations

from typing import Any, Protocol

import flax.struct
import jax

Array = jax.Array
SPLITS = ("train", "test")


class Gaussians(flax.struct.PyTreeNode):
    """3D Gaussians (paper Eq. 6), canonical or at one time. Leading batch axes may precede N.

    A dead slot of a fixed-capacity array is a Gaussian whose `logit_opacities` is -inf: it reaches no pixel.
    """

    means: Array  # [N,3] world units
    log_scales: Array  # [N,3] log of the standard deviation along each own axis
    quats: Array  # [N,4] wxyz, own axes to world
    logit_opacities: Array  # [N]
    sh: Array  # [N,(degree+1)^2,3] spherical harmonics in the basis order and signs of 3DGS

    def __getitem__(self, index: Any) -> Gaussians:
        """Indexes the leading axis of every array: one time of a clip [T,N,...], or some of N Gaussians."""
        return jax.tree.map(lambda x: x[index], self)


class KeyPoints(flax.struct.PyTreeNode):
    """Sparse control points (paper Sec. 3.2.1)."""

    positions: Array  # [K,3] canonical positions p_k
    log_radii: Array  # [K] log of the control radius r_k


class Latents(flax.struct.PyTreeNode):
    """A Gaussian per motion, z_m ~ N(mu_m, sigma_m^2) (paper Eq. 5)."""

    mu: Array  # [M,D]
    log_sigma: Array  # [M,D]


class Camera(flax.struct.PyTreeNode):
    """A pinhole camera. `height` and `width` are static; the arrays may have leading batch axes."""

    world_to_camera: Array  # [4,4]
    focal: Array  # [2] (fx, fy) in pixels; a scalar stands for both
    center: Array  # [2] (cx, cy) in pixels; pixel centres lie at +0.5
    height: int = flax.struct.field(pytree_node=False)
    width: int = flax.struct.field(pytree_node=False)

    def __getitem__(self, index: Any) -> Camera:
        """Indexes the leading axis of every array: one view of a stack [V,...], or some."""
        return jax.tree.map(lambda x: x[index], self)


class Splats(flax.struct.PyTreeNode):
    """Gaussians projected to one image: what a rasterizer backend composites.

    `extents` is the half-width and half-height, in pixels, of the box in which alpha reaches 1/255; it is 0 for a
    Gaussian that reaches no pixel, and carries no gradient. `features` are blended with the same weights:
    rgb (0:3), camera depth (3) and normal (4:7).
    """

    means2d: Array  # [N,2] pixels
    conics: Array  # [N,3] (a, b, c) of the inverse 2D covariance [[a, b], [b, c]], 1/pixel^2
    opacities: Array  # [N] in 0..1; 0 where nothing is drawn
    depths: Array  # [N] camera z, the sorting key; carries no gradient (features do)
    extents: Array  # [N,2] pixels
    features: Array  # [N,7]


class Rendering(flax.struct.PyTreeNode):
    """One rendered image. Depth and normal are sums over weights: divide by alpha for the mean."""

    rgb: Array  # [H,W,3], background blended in
    alpha: Array  # [H,W] in 0..1
    depth: Array  # [H,W] sum of weight * camera z
    normal: Array  # [H,W,3] sum of weight * unit normal (world axes), turned towards the camera
    overflow: Array  # [] int32: Gaussian-tile pairs that found no room in the static buffers; 0 means exact


class Batch(flax.struct.PyTreeNode):
    """What one training step sees: for every motion the same number of views and frames.

    A part of a batch that was dealt out by frames has fewer images than times, because the losses on trajectories look
    at all times of a motion.
    """

    motions: Array  # [M] int32, indices into the dataset's motions
    times: Array  # [M,F] in 0..1
    shown: Array  # [M,S] int32, S <= F: which of the times the images show
    cameras: Camera  # world_to_camera [M,V,4,4], focal [M,V,2], center [M,V,2]
    images: Array  # [M,V,S,H,W,4] uint8, straight alpha
    novel: Array  # [M,V,S] bool: images of neither the reference view nor the first frame


class Turns(flax.struct.PyTreeNode):
    """How motions turn the whole canonical body (`systems.dimo.turns`)."""

    rotations: Array  # [M,T,4] wxyz, unit
    shifts: Array  # [M,T,3] of the turned body, world units
    found: Array  # [M] 1.0 where the motion turns, 0.0 where the others mean nothing


class Params(flax.struct.PyTreeNode):
    """Everything that training moves."""

    latents: Latents
    decoder: Any  # the decoder module's own variables
    key_points: KeyPoints
    gaussians: Gaussians

    light = None  # of `LitParams`; no field here, for checkpoints of models without one have none


class JointParams(Params):
    """What training moves with `config.text.joint`."""

    projector: Any  # the text projector's variables


class LitParams(Params):
    """What training moves where colours follow a light that stands still (`config.stage2.light`, `skinning.posing`)."""

    light: Any  # [3] towards the light, world axes


class LitJointParams(JointParams):
    """Both."""

    light: Any  # as in `LitParams`


class Rasterize(Protocol):
    """A compositing backend: splats to one image. Differentiable in everything but `depths` and `extents`."""

    def __call__(self, splats: Splats, *, height: int, width: int, capacity: int | None) -> tuple[Array, Array, Array]:
        """Returns features [H,W,7], transmittance [H,W] and overflow [] int32."""
        ...


class Skinning(Protocol):
    """Influence of neighbouring key points on a point (paper Eq. 1)."""

    def __call__(self, points: Array, positions: Array, log_radii: Array) -> Array:
        """points [N,3], gathered positions [N,J,3] and log_radii [N,J] -> weights [N,J] that sum to 1."""
        ...


class Deform(Protocol):
    """Moves canonical points by the poses of their key points (paper Eq. 7)."""

    def __call__(
        self,
        means: Array,
        quats: Array,
        positions: Array,
        translations: Array,
        rotations: Array,
        neighbors: Array,
        weights: Array,
    ) -> tuple[Array, Array]:
        """means [N,3], quats [N,4]; of all key points positions [K,3], translations [K,3], rotations [K,4] (wxyz);
        neighbors [N,J] int32 and their weights [N,J] -> means [N,3] and quats [N,4] at that time."""
        ...


class Graph(Protocol):
    """Which key points move a point (paper Eq. 3)."""

    def __call__(self, points: Array, positions: Array, trajectories: Array) -> Array:
        """points [N,3], canonical positions [K,3], trajectories [T,K,3] of one motion -> indices [N,J] int32."""
        ...
