"""Dataset formats: the native folder, the authors' layout, SV4D, recordings, rigged glTF."""
