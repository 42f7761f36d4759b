import numpy as np

from dimo_jax.meshes.objects import join_objects
from dimo_jax.meshes.parts import list_parts
from dimo_jax.views.part_sheet import draw_part, draw_parts
from tests.support.objects import make_cabinet, make_door


def test_each_part_has_a_tile_with_the_part_in_red():
    thing = join_objects([make_cabinet(), make_door()])
    choices = list_parts(thing)
    sheet = draw_parts(thing, choices, size=64)
    assert sheet.shape == (int(np.ceil(len(choices) / 4)) * 84, 256, 3)
    door = thing.triangle_nodes == thing.node_names.index("door")
    picture = draw_part(thing, door, size=64).astype(int)
    red = (picture[..., 0] > picture[..., 1] + 40).mean()
    assert 0.05 < red < 0.6
