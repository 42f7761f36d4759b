"""glTF 2.0: container, geometry, rig, scene, and what is written."""
