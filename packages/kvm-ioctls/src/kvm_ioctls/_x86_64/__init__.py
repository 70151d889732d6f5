"""The x86-64 half of the package: state objects and the ioctls only this architecture has."""
