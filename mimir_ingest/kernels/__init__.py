"""Hot loops: numba leaves over numpy arrays. Nothing else in the project is jitted."""
