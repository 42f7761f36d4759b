"""The embedded cabinet in links with its true joints, for tests of what is written of it."""

from dimo_jax.data.cabinet import PARENTS, TRUE_JOINTS, make_cabinet
from dimo_jax.meshes.articulation import Articulation, Link
from dimo_jax.meshes.objects import select_faces

NAMES = ("body", "door", "knob", "drawer")


def cabinet_links():
    """Body, door, knob on the door, and drawer."""
    thing = make_cabinet()
    links = []
    for name in NAMES:
        own = select_faces(thing, thing.triangle_nodes == thing.node_names.index(name))
        parent = NAMES.index(PARENTS[name]) if name in PARENTS else -1
        links.append(Link(name, own.vertices, own.mesh, parent, TRUE_JOINTS.get(name)))
    return Articulation(tuple(links))
