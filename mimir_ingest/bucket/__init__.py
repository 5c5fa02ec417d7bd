"""Object storage over fsspec: layout, atomic publication, discovery."""
