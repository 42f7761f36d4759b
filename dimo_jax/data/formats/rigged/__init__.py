"""A rigged, animated glTF model as a dataset."""
