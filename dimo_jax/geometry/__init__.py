"""Geometry without learned parameters: safe elementary functions, rotations, rigid motions, neighbours."""
