"""The joint of a part. It lives in `geometry`, because files (`io`) hold joints as well."""

from dimo_jax.geometry.joint import (
    PRISMATIC,
    REVOLUTE,
    Joint,
    JointType,
    from_json,
    make_joint,
    move_joint,
    move_points,
    rotation_about,
    to_json,
    transform,
)

__all__ = [
    "PRISMATIC",
    "REVOLUTE",
    "Joint",
    "JointType",
    "from_json",
    "make_joint",
    "move_joint",
    "move_points",
    "rotation_about",
    "to_json",
    "transform",
]
