"""The face: the tutelage command and the Python client."""
