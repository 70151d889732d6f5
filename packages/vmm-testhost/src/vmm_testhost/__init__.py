"""A complete KVM on any machine: an emulated Linux host as a Python call, a command and a pytest plugin."""
