"""What differs between architectures, one module each, with the same function names."""
