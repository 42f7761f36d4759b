"""What each of AnimaX's two stages trains (A.2): first a LoRA on one view, then what sees cameras and other views.

A model without a pretrained backbone has nothing to keep: one stage, "whole", trains all of it.
"""

from __future__ import annotations

from typing import Any

import jax

from .model import AnimaxParams

JOINT, MULTI_VIEW, WHOLE = "joint", "multi_view", "whole"
STAGES = (JOINT, MULTI_VIEW)  # the paper's


def trained(params: AnimaxParams, stage: str) -> AnimaxParams:
    """A tree of bools, True for the arrays that a stage trains.

    "joint": the LoRA and the modality's embedding, with which one view's video and pose maps are drawn together.
    "multi_view": the camera's embedding and the multi-view layers; all else is frozen.
    "whole": everything.

    Raises:
      ValueError: another stage, or the second one without multi-view layers.
    """
    if stage not in (*STAGES, WHOLE):
        raise ValueError(f"stage is {stage!r}, expected one of {', '.join((*STAGES, WHOLE))}")
    if stage == MULTI_VIEW and params.views is None:
        raise ValueError("stage is 'multi_view' without multi-view layers, expected model.add_views first")

    def choose(path: Any, leaf: Any) -> bool:
        name = jax.tree_util.keystr(path)
        if stage == WHOLE:
            return True
        if stage == JOINT:
            return ".lora." in name or name.startswith(".modality.")
        return name.startswith((".camera.", ".views."))

    chosen: AnimaxParams = jax.tree_util.tree_map_with_path(choose, params)
    return chosen
