"""Where RAM lies in the guest's physical addresses: one module per architecture, the same names in each."""
