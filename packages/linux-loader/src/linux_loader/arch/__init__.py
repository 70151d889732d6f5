"""What depends on the guest's processor, one module each."""
