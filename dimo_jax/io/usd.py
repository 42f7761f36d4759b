"""USD of an articulated object, for Isaac Sim and Omniverse: meshes, looks, masses, colliders and joints of UsdPhysics.

Needs `usd-core` (`pip install 'dimo_jax[usd]'`). Up axis and unit are the object's: +Y (or +Z) up, metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from dimo_jax.core.errors import UserError
from dimo_jax.core.names import make_distinct
from dimo_jax.geometry.joint import PRISMATIC
from dimo_jax.io.mesh_files import FOLDER, Surface, vertex_normals
from dimo_jax.io.urdf import joint_name
from dimo_jax.meshes.articulation import Articulation, Body, Link, Physics, is_endless

_ROOT, _BASE = "/object", "base_joint"


def check_usd() -> None:
    """Says at once where USD cannot be written.

    Raises:
      UserError: `usd-core` is not installed.
    """
    try:
        import pxr  # noqa: F401
    except ImportError:
        raise UserError(
            "--usd: usd-core is not installed, expected it for USD files: pip install 'dimo_jax[usd]'"
        ) from None


def write_usd(
    articulation: Articulation,
    physics: Physics,
    surfaces: Sequence[Sequence[Surface]],
    path: Path,
    *,
    up: str = "Y",
) -> Path:
    """Writes a text USD file beside the folder with the textures.

    Args:
      articulation: L links, in metres.
      physics: of them.
      surfaces: of every link, what `MeshFolder.write_link` wrote; its textures are used.
      path: the file, ending in .usda.
      up: "Y" or "Z", which of the object's axes points up.

    Returns:
      `path`.
    """
    from pxr import Sdf, Usd, UsdGeom, UsdPhysics

    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, up)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    root = UsdGeom.Xform.Define(stage, _ROOT)
    stage.SetDefaultPrim(root.GetPrim())
    UsdPhysics.ArticulationRootAPI.Apply(root.GetPrim())
    # Bodies and joints share a namespace, which takes fewer letters than the names of links have.
    names = make_distinct([_identifier(link.name) for link in articulation.links])
    joint_names = make_distinct(
        [_BASE, *(_identifier(joint_name(articulation, index)) for index in range(1, len(names)))], taken=names
    )
    for index, (link, name) in enumerate(zip(articulation.links, names)):
        frame = articulation.frame_of(index)
        prim = UsdGeom.Xform.Define(stage, f"{_ROOT}/{name}")
        prim.AddTranslateOp().Set(tuple(frame.tolist()))
        _add_body(prim.GetPrim(), physics.bodies[index], frame)
        for surface in surfaces[index]:
            _add_surface(stage, f"{_ROOT}/{name}", link, frame, surface)
        _add_colliders(stage, f"{_ROOT}/{name}", physics.bodies[index], frame)
    for index, damping in enumerate(physics.damping, 1):
        _add_joint(stage, articulation, names, joint_names[index], index, damping, physics.friction[index - 1])
    if physics.fixed_base:
        held = UsdPhysics.FixedJoint.Define(stage, f"{_ROOT}/{joint_names[0]}")
        held.CreateBody1Rel().SetTargets([Sdf.Path(f"{_ROOT}/{names[0]}")])
    stage.GetRootLayer().Save()
    return path


def _identifier(name: str) -> str:
    from pxr import Tf

    return Tf.MakeValidIdentifier(name)


def _add_body(prim: Any, body: Body, frame: np.ndarray) -> None:
    from pxr import Gf, UsdPhysics

    UsdPhysics.RigidBodyAPI.Apply(prim)
    mass = UsdPhysics.MassAPI.Apply(prim)
    values, vectors = np.linalg.eigh(body.mass.inertia)
    if np.linalg.det(vectors) < 0:
        vectors = vectors * [1, 1, -1]
    mass.CreateMassAttr(body.mass.mass)
    mass.CreateCenterOfMassAttr(Gf.Vec3f(*(body.mass.center - frame).tolist()))
    mass.CreateDiagonalInertiaAttr(Gf.Vec3f(*values.tolist()))
    mass.CreatePrincipalAxesAttr(_quat(Rotation.from_matrix(vectors)))


def _quat(rotation: Rotation) -> Any:
    from pxr import Gf

    return Gf.Quatf(*rotation.as_quat(scalar_first=True).tolist())


def _add_surface(stage: Any, parent: str, link: Link, frame: np.ndarray, surface: Surface) -> None:
    from pxr import Sdf, UsdGeom, UsdShade, Vt

    label = _identifier(Path(surface.file).stem)
    mesh = UsdGeom.Mesh.Define(stage, f"{parent}/{label}")
    index = surface.index
    triangles = link.mesh.triangles[link.mesh.triangle_materials == index]
    used, local = np.unique(triangles, return_inverse=True)
    mesh.CreatePointsAttr(Vt.Vec3fArray.FromNumpy((link.vertices[used] - frame).astype(np.float32)))
    mesh.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(triangles), 3, np.int32)))
    mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(local.reshape(-1).astype(np.int32)))
    mesh.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(vertex_normals(link.vertices, link.mesh)[used].astype(np.float32)))
    mesh.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    mesh.CreateDoubleSidedAttr(link.mesh.materials[index].double_sided)
    coordinates = UsdGeom.PrimvarsAPI(mesh).CreatePrimvar(
        "st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.faceVarying
    )
    flipped = (surface.texcoords * [1, -1] + [0, 1]).astype(np.float32)
    coordinates.Set(Vt.Vec2fArray.FromNumpy(np.ascontiguousarray(flipped.reshape(-1, 2))))
    material = _add_material(stage, f"{parent}/{label}_look", surface)
    UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(material)


def _add_material(stage: Any, path: str, surface: Surface) -> Any:
    from pxr import Gf, Sdf, UsdShade

    kinds = Sdf.ValueTypeNames
    material = UsdShade.Material.Define(stage, path)
    shader = UsdShade.Shader.Define(stage, f"{path}/surface")
    shader.CreateIdAttr("UsdPreviewSurface")
    shader.CreateInput("roughness", kinds.Float).Set(0.8)
    shader.CreateInput("opacity", kinds.Float).Set(surface.rgba[3])
    color = shader.CreateInput("diffuseColor", kinds.Color3f)
    linear = [float(value) for value in surface.linear[:3]]
    if surface.texture is None:
        color.Set(Gf.Vec3f(*linear))
    else:
        reader = UsdShade.Shader.Define(stage, f"{path}/coordinates")
        reader.CreateIdAttr("UsdPrimvarReader_float2")
        reader.CreateInput("varname", kinds.String).Set("st")
        texture = UsdShade.Shader.Define(stage, f"{path}/texture")
        texture.CreateIdAttr("UsdUVTexture")
        texture.CreateInput("file", kinds.Asset).Set(f"./{FOLDER}/{surface.texture}")
        texture.CreateInput("sourceColorSpace", kinds.Token).Set("sRGB")
        texture.CreateInput("scale", kinds.Float4).Set(Gf.Vec4f(*linear, 1.0))
        for side in ("wrapS", "wrapT"):
            texture.CreateInput(side, kinds.Token).Set("repeat")
        texture.CreateInput("st", kinds.Float2).ConnectToSource(reader.CreateOutput("result", kinds.Float2))
        color.ConnectToSource(texture.CreateOutput("rgb", kinds.Float3))
    material.CreateSurfaceOutput().ConnectToSource(shader.CreateOutput("surface", kinds.Token))
    return material


def _add_colliders(stage: Any, parent: str, body: Body, frame: np.ndarray) -> None:
    from pxr import UsdGeom, UsdPhysics, Vt

    taken = stage.GetPrimAtPath(parent).GetChildrenNames()
    names = make_distinct([f"collision_{index}" for index in range(len(body.pieces))], taken=taken)
    for name, (vertices, triangles) in zip(names, body.pieces):
        mesh = UsdGeom.Mesh.Define(stage, f"{parent}/{name}")
        mesh.CreatePointsAttr(Vt.Vec3fArray.FromNumpy((vertices - frame).astype(np.float32)))
        mesh.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(triangles), 3, np.int32)))
        mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(triangles.reshape(-1).astype(np.int32)))
        mesh.CreatePurposeAttr(UsdGeom.Tokens.guide)  # simulated, not shown
        UsdPhysics.CollisionAPI.Apply(mesh.GetPrim())
        UsdPhysics.MeshCollisionAPI.Apply(mesh.GetPrim()).CreateApproximationAttr(UsdPhysics.Tokens.convexHull)


def _add_joint(
    stage: Any,
    articulation: Articulation,
    names: Sequence[str],
    name: str,
    index: int,
    damping: float,
    friction: float,
) -> None:
    from pxr import Gf, Sdf, UsdPhysics

    link, joint = articulation.links[index], articulation.joints[index - 1]
    slides = joint.type == PRISMATIC
    kind = UsdPhysics.PrismaticJoint if slides else UsdPhysics.RevoluteJoint
    prim = kind.Define(stage, f"{_ROOT}/{name}")
    prim.CreateBody0Rel().SetTargets([Sdf.Path(f"{_ROOT}/{names[link.parent]}")])
    prim.CreateBody1Rel().SetTargets([Sdf.Path(f"{_ROOT}/{names[index]}")])
    # The joint's own axis is X, which both bodies turn to where it points.
    turn = _quat(Rotation.align_vectors([joint.axis], [[1.0, 0, 0]])[0])
    prim.CreateAxisAttr("X")
    prim.CreateLocalPos0Attr(Gf.Vec3f(*articulation.offset_of(index).tolist()))
    prim.CreateLocalPos1Attr(Gf.Vec3f(0, 0, 0))
    prim.CreateLocalRot0Attr(turn)
    prim.CreateLocalRot1Attr(turn)
    if not is_endless(joint):
        low, high = joint.range if slides else np.rad2deg(joint.range).tolist()
        prim.CreateLowerLimitAttr(low)
        prim.CreateUpperLimitAttr(high)
    drive = UsdPhysics.DriveAPI.Apply(prim.GetPrim(), "linear" if slides else "angular")
    drive.CreateDampingAttr(damping if slides else damping * np.pi / 180)  # of USD's degrees
    drive.CreateStiffnessAttr(0.0)
    prim.GetPrim().CreateAttribute("physxJoint:jointFriction", Sdf.ValueTypeNames.Float).Set(friction)
