"""What only arm64 has."""
