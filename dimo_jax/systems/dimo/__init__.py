"""DIMO: a space of motions of one object, from multi-view videos (arXiv 2511.07409)."""
