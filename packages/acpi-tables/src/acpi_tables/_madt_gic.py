"""The MADT entries of Arm's generic interrupt controller (ACPI 6.3 §5.2.12.14 – §5.2.12.18)."""

import struct
from collections.abc import Sequence

import attrs

from acpi_tables._header import packed
from acpi_tables._madt import MadtEntry

__all__ = ("GicIts", "GicMsiFrame", "GicRedistributor", "Gicc", "Gicd", "gic_candidates")

_GICC = struct.Struct("<BBHIIIIIQQQQIQQBBH")
_GICD = struct.Struct("<BBHIQIB3x")
_MSI = struct.Struct("<BBHIQIHH")
_GICR = struct.Struct("<BBHQI")
_ITS = struct.Struct("<BBHIQI")
_ENABLED, _PERFORMANCE_EDGE, _MAINTENANCE_EDGE = 1, 2, 4


@attrs.frozen
class Gicc:
    """A processor and its GIC CPU interface (type 11).

    Attributes:
        uid: ``_UID`` of the processor device, and the interface's number, 32 bits.
        mpidr: affinity fields of MPIDR_EL1; the others are 0.
        online: enabled now.
        base: guest-physical address of the GICv2 CPU interface; 0 with GICv3.
        redistributor: address of its own redistributor; 0 when a `GicRedistributor` entry lists them all.
        vgic_base: address of the virtual CPU interface; 0 without.
        control_base: address of the virtual interface control block; 0 without.
        maintenance_gsi: VGIC maintenance interrupt; 0 without.
        performance_gsi: performance monitoring interrupt; 0 without. Both are level triggered.
    """

    uid: int
    mpidr: int
    online: bool = True
    base: int = 0
    redistributor: int = 0
    vgic_base: int = 0
    control_base: int = 0
    maintenance_gsi: int = 0
    performance_gsi: int = 0

    def encode(self) -> bytes:
        """Return the entry of ACPI 6.3; EncodingError when a field does not fit."""
        return packed(
            "GICC", self.uid, _GICC, 11, 80, 0, self.uid, self.uid, int(self.online), 0, self.performance_gsi,
            0, self.base, self.vgic_base, self.control_base, self.maintenance_gsi, self.redistributor,
            self.mpidr, 0, 0, 0,
        )  # fmt: skip


@attrs.frozen
class Gicd:
    """The GIC distributor (type 12).

    Attributes:
        base: guest-physical address.
        version: GIC architecture, 1 to 4; 0 lets the guest find out.
        id: hardware id.
    """

    base: int
    version: int = 3
    id: int = 0

    def encode(self) -> bytes:
        """Return the entry; EncodingError when a field does not fit."""
        return packed("GICD address", self.base, _GICD, 12, 24, 0, self.id, self.base, 0, self.version)


@attrs.frozen
class GicMsiFrame:
    """A GICv2m MSI frame (type 13).

    Attributes:
        id: frame id.
        base: guest-physical address.
        spi_base: first shared peripheral interrupt of the frame.
        spi_count: how many; both 16 bits.
    """

    id: int
    base: int
    spi_base: int
    spi_count: int

    def encode(self) -> bytes:
        """Return the entry, whose SPI fields override the frame's; EncodingError when one does not fit."""
        return packed(
            "GIC MSI frame", self.base, _MSI, 13, 24, 0, self.id, self.base, 1, self.spi_count, self.spi_base
        )


@attrs.frozen
class GicRedistributor:
    """A range of GICv3 redistributors, one after the other (type 14).

    Attributes:
        base: guest-physical address.
        size: length in bytes, 32 bits.
    """

    base: int
    size: int

    def encode(self) -> bytes:
        """Return the entry; EncodingError when a field does not fit."""
        return packed("GICR address", self.base, _GICR, 14, 16, 0, self.base, self.size)


@attrs.frozen
class GicIts:
    """A GICv3 interrupt translation service (type 15).

    Attributes:
        id: ITS id.
        base: guest-physical address.
    """

    id: int
    base: int

    def encode(self) -> bytes:
        """Return the entry; EncodingError when a field does not fit."""
        return packed("ITS address", self.base, _ITS, 15, 20, 0, self.id, self.base, 0)


def gic_candidates(data: bytes) -> Sequence[MadtEntry]:
    """Guess a typed entry; the caller believes it when it encodes back to the same bytes."""
    match data[0], len(data):
        case 11, 80:
            f = _GICC.unpack(data)
            return [Gicc(f[4], f[14], bool(f[5] & _ENABLED), f[9], f[13], f[10], f[11], f[12], f[7])]
        case 12, 24:
            f = _GICD.unpack(data)
            return [Gicd(f[4], f[6], f[3])]
        case 13, 24:
            f = _MSI.unpack(data)
            return [GicMsiFrame(f[3], f[4], f[7], f[6])]
        case 14, 16:
            f = _GICR.unpack(data)
            return [GicRedistributor(f[3], f[4])]
        case 15, 20:
            f = _ITS.unpack(data)
            return [GicIts(f[3], f[4])]
    return []
