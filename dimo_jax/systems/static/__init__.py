"""A static object of Gaussians from posed pictures."""
