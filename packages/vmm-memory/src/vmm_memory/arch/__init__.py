"""Where RAM lies in the guest's physical address space: one module per architecture, the same names in each."""
