"""Where pictures are taken from: orbits, changes of resolution, framing."""
