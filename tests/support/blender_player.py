"""Plays a glTF file in Blender; run by `play_in_blender` of outside.py, in a process of its own.

    python blender_player.py FILE CLIP '[SECONDS, ...]' OUT.npz

OUT has `names` of objects and bones, `clips`, and `frame_0`, `frame_1`, ...: all drawn vertices [P,3], the world +Y up.
"""

import json
import sys

import bpy
import numpy as np


def main(path, clip, seconds, out):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=path)
    keys = [each.data.shape_keys for each in bpy.data.objects if each.type == "MESH" and each.data.shape_keys]
    moving = [each.animation_data for each in [*bpy.data.objects, *keys] if each.animation_data]
    clips = set()
    for data in moving:
        data.action = None
        for track in data.nla_tracks:
            clips.add(track.name)
            track.mute = True
            if track.name == clip:
                data.action, data.action_slot = track.strips[0].action, track.strips[0].action_slot
    frames = {f"frame_{index}": place_vertices(each) for index, each in enumerate(json.loads(seconds))}
    bones = [bone.name for armature in bpy.data.armatures for bone in armature.bones]
    names = [each.name for each in bpy.data.objects] + bones
    np.savez(out, names=np.array(names), clips=np.array(sorted(clips)), **frames)


def place_vertices(seconds):
    frame = seconds * bpy.context.scene.render.fps
    bpy.context.scene.frame_set(int(frame), subframe=frame % 1)
    graph, found = bpy.context.evaluated_depsgraph_get(), []
    for each in bpy.data.objects:
        if each.type != "MESH" or "glTF_not_exported" in [group.name for group in each.users_collection]:
            continue  # the latter are shapes that stand for bones
        places = np.array([vertex.co for vertex in each.evaluated_get(graph).to_mesh().vertices]).reshape(-1, 3)
        matrix = np.array(each.matrix_world)
        x, y, z = (places @ matrix[:3, :3].T + matrix[:3, 3]).T
        found.append(np.stack([x, z, -y], axis=1))
    return np.concatenate(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
