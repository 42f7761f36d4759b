"""Articulated objects that the package makes: ten categories of random shape and colour, whose joints are known."""
