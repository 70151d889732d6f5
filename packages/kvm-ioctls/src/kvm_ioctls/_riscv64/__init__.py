"""What only riscv64 has."""
