"""What a vCPU waits for."""

from enum import IntEnum

__all__ = ("MpState",)


class MpState(IntEnum):
    """What a vCPU waits for (KVM_GET_MP_STATE); arm64 and riscv64 know RUNNABLE, STOPPED and SUSPENDED."""

    RUNNABLE = 0
    UNINITIALIZED = 1
    INIT_RECEIVED = 2
    HALTED = 3
    SIPI_RECEIVED = 4
    STOPPED = 5
    CHECK_STOP = 6
    OPERATING = 7
    LOAD = 8
    AP_RESET_HOLD = 9
    SUSPENDED = 10
