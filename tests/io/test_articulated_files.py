"""What is written of an articulated object does in simulators what its joints say."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial import cKDTree
from support.cabinet_links import NAMES, cabinet_links
from support.objects import make_box
from support.outside import validate

from dimo_jax.data.cabinet import make_cabinet
from dimo_jax.geometry.joint import make_joint, move_points
from dimo_jax.io.articulated import write_articulation
from dimo_jax.io.gltf.articulated import opening_values, write_object_glb
from dimo_jax.io.mesh_files import FOLDER
from dimo_jax.io.objects import load_object
from dimo_jax.meshes.articulation import Articulation, Link, add_physics, pose_links, stand_up
from dimo_jax.meshes.objects import split_object
from dimo_jax.meshes.parts import find_part
from dimo_jax.meshes.textures import sample_texture

SHARED = Path(__file__).resolve().parents[2].parent / "shared/data/articulated"
UP = np.array([0.0, 1, 0])
CABINET = cabinet_links()
LIMITS = [[joint.range[1] for joint in CABINET.joints], [joint.range[0] for joint in CABINET.joints]]


def write(folder, *, fixed=True, usd=False):
    physics = add_physics(CABINET, density=600, damping=None, friction=0.0, fixed_base=fixed)
    write_articulation(CABINET, physics, folder, name="cabinet", up=UP, usd=usd)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("fixed"))


@pytest.fixture(scope="module")
def free_folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("free"), fixed=False)


def moved(values):
    """Where the vertices of every link have to be, in a world with +Z up."""
    turn = stand_up(UP)
    poses = pose_links(CABINET, values)
    return {
        link.name: (link.vertices @ pose[:3, :3].T + pose[:3, 3]) @ turn.T for link, pose in zip(CABINET.links, poses)
    }


def distance(points, truth):
    """The furthest that a point is from its nearest neighbour, both ways."""
    between = np.linalg.norm(points[:, None] - truth, axis=2)
    return max(between.min(1).max(), between.min(0).max())


class Simulation:
    """A file in MuJoCo."""

    def __init__(self, path):
        self.mujoco = pytest.importorskip("mujoco", reason="mujoco is not installed: pip install mujoco")
        self.model = self.mujoco.MjModel.from_xml_path(str(path))
        self.data = self.mujoco.MjData(self.model)

    def set(self, values):
        for name, value in zip(NAMES[1:], values):
            self.data.joint(f"{name}_joint").qpos[0] = value
        self.mujoco.mj_forward(self.model, self.data)

    def joints(self):
        return [float(self.data.joint(f"{name}_joint").qpos[0]) for name in NAMES[1:]]

    def vertices(self, name):
        """World vertices of what a body shows: its geoms that collide with nothing are its looks."""
        model, data, found = self.model, self.data, []
        for geom in range(model.ngeom):
            if model.body(int(model.geom_bodyid[geom])).name != name or model.geom_dataid[geom] < 0:
                continue
            mesh = int(model.geom_dataid[geom])
            if "collision" in model.mesh(mesh).name:
                continue
            first, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
            points = model.mesh_vert[first : first + count]
            found.append(points @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom])
        return np.concatenate(found)

    def step(self, seconds):
        for _ in range(round(seconds / self.model.opt.timestep)):
            self.mujoco.mj_step(self.model, self.data)


@pytest.mark.parametrize("file", ["object.xml", "object.urdf"])
def test_mujoco_moves_parts_to_where_their_joints_say(folder, file):
    simulation = Simulation(folder / file)
    assert simulation.model.njnt == 3
    for name, joint in zip(NAMES[1:], CABINET.joints):
        np.testing.assert_allclose(simulation.model.joint(f"{name}_joint").range, joint.range, rtol=1e-6)
    for values in (*LIMITS, [0.7, 0.3, 0.1]):
        simulation.set(values)
        for name, truth in moved(values).items():
            assert distance(simulation.vertices(name), truth) < 1e-5, name


@pytest.mark.parametrize("file", ["object.xml", "object.urdf"])
def test_nothing_moves_at_rest_and_pushed_parts_stop_at_their_limits(folder, file):
    simulation = Simulation(folder / file)
    simulation.step(1.0)
    np.testing.assert_allclose(simulation.joints(), 0, atol=1e-3)
    assert np.abs(simulation.data.qvel).max() < 1e-3
    for sign, limits in zip((1, -1), LIMITS):
        inertia = [2.0, 2e-4, 20.0]  # of the order of each part's, so that all arrive
        simulation.data.qfrc_applied[:] = sign * np.array(inertia)
        simulation.step(4.0)
        np.testing.assert_allclose(simulation.joints(), limits, atol=0.03)


def test_a_free_base_stands_on_the_floor(free_folder):
    simulation = Simulation(free_folder / "object.xml")
    simulation.step(2.0)
    body = simulation.data.body("body")
    np.testing.assert_allclose(body.xpos, 0, atol=5e-3)
    np.testing.assert_allclose(simulation.joints(), 0, atol=5e-3)
    for name, truth in moved([0, 0, 0]).items():
        assert distance(simulation.vertices(name), truth) < 1e-2


def test_masses_in_mujoco_are_those_of_the_parts(folder):
    physics = add_physics(CABINET, density=600, damping=None, friction=0.0, fixed_base=True)
    for file in ("object.xml", "object.urdf"):
        model = Simulation(folder / file).model
        for name, body in zip(NAMES, physics.bodies):
            assert model.body(name).mass[0] == pytest.approx(body.mass.mass, rel=1e-6)
            np.testing.assert_allclose(
                np.sort(model.body(name).inertia), np.linalg.eigvalsh(body.mass.inertia), rtol=1e-4
            )


@pytest.mark.parametrize("values", LIMITS)
def test_yourdfpy_moves_parts_to_where_their_joints_say(folder, free_folder, values):
    yourdfpy = pytest.importorskip("yourdfpy", reason="yourdfpy is not installed: pip install yourdfpy")
    for each in (folder, free_folder):
        robot = yourdfpy.URDF.load(str(each / "object.urdf"), load_collision_meshes=True)
        assert robot.actuated_joint_names == [f"{name}_joint" for name in NAMES[1:]]
        robot.update_cfg(np.array(values))
        shown = {}
        for node in robot.scene.graph.nodes_geometry:
            transform, geometry = robot.scene.graph[node]
            points = trimesh.transform_points(robot.scene.geometry[geometry].vertices, transform)
            shown.setdefault(geometry.split(".")[0].split("_")[0], []).append(points)
        for name, truth in moved(values).items():
            assert distance(np.concatenate(shown[name]), truth) < 1e-5, name


def test_pybullet_loads_the_urdf(folder):
    pybullet = pytest.importorskip("pybullet", reason="pybullet is not installed: pip install pybullet")
    pybullet.connect(pybullet.DIRECT)
    try:
        robot = pybullet.loadURDF(str(folder / "object.urdf"), useFixedBase=True)
        found = {}
        for index in range(pybullet.getNumJoints(robot)):
            info = pybullet.getJointInfo(robot, index)
            found[info[1].decode()] = (info[2], info[8], info[9])
        for name, joint in zip(NAMES[1:], CABINET.joints):
            kind, low, high = found[f"{name}_joint"]
            assert kind == (pybullet.JOINT_REVOLUTE if joint.type == "revolute" else pybullet.JOINT_PRISMATIC)
            np.testing.assert_allclose((low, high), joint.range, rtol=1e-6)
    finally:
        pybullet.disconnect()


def test_textures_are_the_object_s_own(folder):
    wood = make_cabinet().mesh.materials[0].texture
    written = sorted((folder / FOLDER).glob("*.png"))
    assert len(written) == 2  # door and drawer share theirs
    scene = trimesh.load(folder / FOLDER / "body.obj")
    mesh = scene.to_mesh() if hasattr(scene, "to_mesh") else scene
    picture = np.asarray(mesh.visual.material.image.convert("RGB"))
    assert picture.shape[:2] == wood.pixels.shape[:2]
    np.testing.assert_array_equal(picture, np.asarray(Image.open(written[0]).convert("RGB")))
    # The front of the left wall: 0.9 m of grain at two repeats a metre.
    assert np.ptp(mesh.visual.uv, axis=0).max() == pytest.approx(1.8)


def boxes(*names, joint=CABINET.joints[0]):
    """Links of a box each, side by side, all hung on the first."""
    things = [make_box((2 * index, 0, 0), (2 * index + 1, 1, 1), name) for index, name in enumerate(names)]
    return [
        Link(name, thing.vertices, thing.mesh, *((0, joint) if index else ()))
        for index, (name, thing) in enumerate(zip(names, things))
    ]


def write_links(links, folder, *, up=UP, usd=False):
    articulation = Articulation(tuple(links))
    physics = add_physics(articulation, density=600, damping=None, friction=0.0, fixed_base=True)
    write_articulation(articulation, physics, folder, name="links", up=up, usd=usd)
    return folder


def test_every_part_gets_the_colours_of_its_own_vertices(tmp_path):
    links = []
    for seed, link in enumerate(boxes(*(f"part{number}" for number in range(20)))):
        colors = np.random.default_rng(seed).uniform(0.1, 1, link.mesh.colors.shape)
        colors[:, 3] = 1
        links.append(dataclasses.replace(link, mesh=dataclasses.replace(link.mesh, colors=colors)))
    write_links(links, tmp_path)
    for link in links:
        mesh = load_object(tmp_path / FOLDER / f"{link.name}.obj").mesh
        corners = mesh.triangles[:, 0]
        texture = mesh.materials[0].texture
        found = sample_texture(texture, *mesh.texcoords[corners].T).T
        np.testing.assert_allclose(found, link.mesh.colors[link.mesh.triangles].mean(axis=1), atol=0.01)


def test_names_that_look_like_those_of_other_files_are_told_apart(tmp_path):
    body, drawer, *others = boxes("body", "drawer", "drawer_1", "drawer_collision_0")
    two = dataclasses.replace(
        drawer.mesh, materials=drawer.mesh.materials * 2, triangle_materials=np.arange(12, dtype=np.int32) % 2
    )
    links = [body, dataclasses.replace(drawer, mesh=two), *others]
    write_links(links, tmp_path)
    for file in ("object.xml", "object.urdf"):
        simulation = Simulation(tmp_path / file)
        simulation.mujoco.mj_forward(simulation.model, simulation.data)
        for link in links[:3]:
            assert distance(simulation.vertices(link.name), link.vertices @ stand_up(UP).T) < 1e-5, link.name
        assert simulation.model.ngeom == 5 + 4  # what they show, and a convex piece of each


@pytest.mark.parametrize("num_triangles", [1, 2])
@pytest.mark.parametrize("up", [UP, np.array([0.6, 0.64, -0.48])])
def test_mujoco_takes_flat_parts(num_triangles, up, tmp_path):
    body, part = boxes("body", "part")
    flat = dataclasses.replace(
        part.mesh,
        triangles=part.mesh.triangles[:num_triangles],
        triangle_materials=part.mesh.triangle_materials[:num_triangles],
    )
    links = [body, dataclasses.replace(part, mesh=flat)]
    write_links(links, tmp_path, up=up)
    shown = links[1].vertices[np.unique(flat.triangles)] @ stand_up(up).T
    for file in ("object.xml", "object.urdf"):
        simulation = Simulation(tmp_path / file)
        simulation.mujoco.mj_forward(simulation.model, simulation.data)
        assert simulation.model.body("part").mass[0] > 0
        if file == "object.xml":
            assert distance(simulation.vertices("part"), shown) < 1e-5


def test_the_glb_opens_and_closes_with_its_textures(folder):
    assert validate(folder / "object.glb") == []
    scene = trimesh.load(folder / "object.glb")
    assert {*NAMES} <= set(scene.graph.nodes)
    np.testing.assert_allclose(scene.graph["knob"][0][:3, 3], CABINET.joints[1].origin, atol=1e-6)
    images = [each.visual.material.baseColorTexture for each in scene.geometry.values()]
    assert sum(image is not None for image in images) == 3  # body, door, drawer; metal has none
    document = pytest.importorskip("pygltflib").GLTF2().load(str(folder / "object.glb"))
    assert [animation.name for animation in document.animations] == [
        "open_and_close",
        *(f"open_and_close_{name}" for name in NAMES[1:]),
    ]
    assert len(document.animations[0].channels) == 3
    assert document.nodes[1].extras["joint"]["type"] == "revolute"


def test_the_animation_ends_where_the_truth_is(folder):
    """Our own reader plays it, which is tested against others elsewhere."""
    from dimo_jax.io.gltf.scene import load_scene
    from dimo_jax.rigs.posing import pose_nodes, pose_vertices

    scene = load_scene(folder / "object.glb")
    clip = next(clip for clip in scene.clips if clip.name == "open_and_close")
    poses = pose_nodes(scene, clip, np.array([1.5]))
    vertices = pose_vertices(scene, poses, 0)
    truth = pose_links(CABINET, LIMITS[0])
    for link, pose in zip(CABINET.links, truth):
        rows = np.concatenate(
            [
                np.arange(part.start, part.start + len(part.positions))
                for part in scene.parts
                if scene.nodes[part.node].name == link.name
            ]
        )
        assert distance(vertices[rows], link.vertices @ pose[:3, :3].T + pose[:3, 3]) < 1e-5


def test_a_motion_from_rest_goes_both_ways():
    door, knob, _ = (opening_values(joint) for joint in CABINET.joints)
    assert (door[0], door.max(), door.min(), door[-1]) == (0, pytest.approx(np.pi / 2), 0, 0)
    assert (knob[0], knob.max(), knob.min(), knob[-1]) == (0, pytest.approx(np.pi / 2), pytest.approx(-np.pi / 2), 0)
    assert np.abs(np.diff(knob)).max() < 0.5


def test_the_object_alone_is_read_back_as_it_was(tmp_path):
    thing = make_cabinet()
    path = write_object_glb(thing, tmp_path / "cabinet.glb")
    assert validate(path) == []
    back = load_object(path)
    assert back.node_names == thing.node_names
    assert back.node_parents == thing.node_parents
    assert len(back.triangles) == len(thing.triangles)
    for index in range(4):
        a, b = (each.corners[each.triangle_nodes == index].reshape(-1, 3) for each in (thing, back))
        assert distance(a, b) < 1e-6
    names = dict(zip(back.material_names, back.mesh.materials))
    np.testing.assert_array_equal(names["wood"].texture.pixels, thing.mesh.materials[0].texture.pixels)


def test_usd_holds_bodies_limits_and_looks(tmp_path):
    pytest.importorskip("pxr", reason="usd-core is not installed: pip install 'dimo_jax[usd]'")
    from pxr import Usd, UsdGeom, UsdPhysics, UsdShade

    write(tmp_path, usd=True)
    stage = Usd.Stage.Open(str(tmp_path / "object.usda"))
    door = UsdPhysics.RevoluteJoint.Get(stage, "/object/door_joint")
    assert door.GetUpperLimitAttr().Get() == pytest.approx(90)
    assert [str(path) for path in door.GetBody0Rel().GetTargets()] == ["/object/body"]
    turn = door.GetLocalRot0Attr().Get()
    np.testing.assert_allclose(turn.Transform((1, 0, 0)), CABINET.joints[0].axis, atol=1e-6)
    assert UsdPhysics.PrismaticJoint.Get(stage, "/object/drawer_joint").GetUpperLimitAttr().Get() == pytest.approx(0.3)
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    mesh = stage.GetPrimAtPath("/object/door/door")
    material = UsdShade.MaterialBindingAPI(mesh).ComputeBoundMaterial()[0]
    texture = UsdShade.Shader.Get(stage, f"{material.GetPath()}/texture").GetInput("file").Get()
    assert texture.resolvedPath
    assert UsdPhysics.MassAPI.Get(stage, "/object/drawer").GetMassAttr().Get() > 1


def test_usd_has_a_prim_for_everything_whatever_its_name(tmp_path):
    pytest.importorskip("pxr", reason="usd-core is not installed: pip install 'dimo_jax[usd]'")
    from pxr import Usd, UsdPhysics

    names = ("body", "base", "a-b", "a_b", "collision_0", "a_b_joint")
    write_links(boxes(*names), tmp_path, usd=True)
    stage = Usd.Stage.Open(str(tmp_path / "object.usda"))
    prims = list(stage.Traverse())
    bodies = [prim for prim in prims if prim.HasAPI(UsdPhysics.RigidBodyAPI)]
    joints = [UsdPhysics.RevoluteJoint(prim) for prim in prims if prim.IsA(UsdPhysics.RevoluteJoint)]
    assert (len(bodies), len(joints)) == (len(names), len(names) - 1)
    assert [joint.GetBody1Rel().GetTargets()[0] for joint in joints] == [body.GetPath() for body in bodies[1:]]
    assert sum(prim.IsA(UsdPhysics.FixedJoint) for prim in prims) == 1
    assert sum(prim.HasAPI(UsdPhysics.CollisionAPI) for prim in prims) == len(names)
    assert sum(prim.GetTypeName() == "Mesh" for prim in prims) == 2 * len(names)


@pytest.mark.parametrize("up", [*np.eye(3), *-np.eye(3)])
@pytest.mark.filterwarnings("error")
def test_urdf_and_mjcf_stand_upright(up, tmp_path):
    links = boxes("body", "door")
    write_links(links, tmp_path, up=up)
    for file in ("object.xml", "object.urdf"):
        simulation = Simulation(tmp_path / file)
        simulation.data.joint("door_joint").qpos[0] = 1.0
        simulation.mujoco.mj_forward(simulation.model, simulation.data)
        truth = move_points(links[1].joint, 1.0, links[1].vertices) @ stand_up(up).T
        assert distance(simulation.vertices("door"), truth) < 1e-5


@pytest.mark.parametrize("up", [*np.eye(3), *-np.eye(3)])
def test_usd_stands_upright(up, tmp_path):
    pytest.importorskip("pxr", reason="usd-core is not installed: pip install 'dimo_jax[usd]'")
    from pxr import Usd, UsdGeom, UsdPhysics

    links = boxes("body", "door")
    write_links(links, tmp_path, up=up, usd=True)
    stage = Usd.Stage.Open(str(tmp_path / "object.usda"))
    shown = UsdGeom.GetStageUpAxis(stage)
    turn = np.eye(3) if shown == "Y" else stand_up(up)
    np.testing.assert_allclose(turn @ up, [0, shown == "Y", shown == "Z"], atol=1e-12)
    for link in links:
        mesh = UsdGeom.Mesh.Get(stage, f"/object/{link.name}/{link.name}")
        place = mesh.ComputeLocalToWorldTransform(Usd.TimeCode.Default())
        points = [place.Transform(tuple(map(float, point))) for point in mesh.GetPointsAttr().Get()]
        assert distance(np.array(points), link.vertices @ turn.T) < 1e-6
    axis = UsdPhysics.RevoluteJoint.Get(stage, "/object/door_joint").GetLocalRot0Attr().Get().Transform((1, 0, 0))
    np.testing.assert_allclose(axis, turn @ links[1].joint.axis, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["xr_oculus_go_trigger", "adroit_door_latch", "metaworld_drawer", "furnsim_light_button"]
)
def test_objects_that_others_made_move_as_they_say(name, tmp_path):
    path = SHARED / name
    if not path.is_dir():
        pytest.skip(f"{path} is not there: objects with joints that others made")
    truth = json.loads((path / "truth.json").read_text())
    thing = load_object(path / "object.glb")
    body, part = split_object(thing, find_part(thing, "node:part"))
    joint = make_joint(truth["joint"], truth["axis"], truth["origin"], tuple(truth["range"]))
    links = Articulation((Link("body", body.vertices, body.mesh), Link("part", part.vertices, part.mesh, 0, joint)))
    physics = add_physics(links, density=600, damping=None, friction=0.0, fixed_base=True)
    write_articulation(links, physics, tmp_path, name=name, up=UP)
    diagonal = np.linalg.norm(np.ptp(thing.vertices, axis=0))
    for file in ("object.xml", "object.urdf"):
        simulation = Simulation(tmp_path / file)
        for value in joint.range:
            simulation.data.joint("part_joint").qpos[0] = value
            simulation.mujoco.mj_forward(simulation.model, simulation.data)
            places = move_points(joint, value, part.vertices) @ stand_up(UP).T
            assert cKDTree(places).query(simulation.vertices("part"))[0].max() < 1e-6 * diagonal
        simulation.mujoco.mj_resetData(simulation.model, simulation.data)
        for _ in range(100):
            simulation.step(0.01)
            margin = max(0.1 * joint.span, 0.005)  # a limit is a spring, and a button that falls on it travels 5 mm
            low, high = joint.range[0] - margin, joint.range[1] + margin
            assert low < simulation.data.joint("part_joint").qpos[0] < high
        assert np.abs(simulation.data.qvel).max() < 0.1
