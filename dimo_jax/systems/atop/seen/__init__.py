"""The joint of a motion that was seen: evidence from point clouds and videos, and the search for what explains it."""
