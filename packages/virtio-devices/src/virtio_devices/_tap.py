"""Tap interfaces: by name, numbered by the kernel, or passed in open (Documentation/networking/tuntap)."""

import errno
import fcntl
import os
import re
import socket
import struct
from ipaddress import IPv4Interface
from typing import Final, Self, final

from virtio_devices._errors import TapError
from virtio_devices._net_port import HEADER, Offload

__all__ = ("Tap",)

_DEVICE: Final = "/dev/net/tun"
# linux/if_tun.h
_TUNSETIFF: Final = 0x400454CA
_TUNSETOFFLOAD: Final = 0x400454D0
_TUNGETIFF: Final = 0x800454D2
_TUNSETVNETHDRSZ: Final = 0x400454D8
_TUNSETVNETLE: Final = 0x400454DC
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_FLAGS: Final = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
# linux/sockios.h, linux/if.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFMTU = (
    0x8913,
    0x8914,
    0x8916,
    0x891C,
    0x8922,
)
_SIOCGIFMTU: Final = 0x8921
_IFF_UP: Final = 1
_IFREQ: Final = struct.Struct("16sH22x")
_IFREQ_INT: Final = struct.Struct("16si20x")
_IFREQ_ADDRESS: Final = struct.Struct("16sHH4s16x")  # struct sockaddr_in
_NAME: Final = re.compile(r"[^\s/:%\0]{1,15}")
_MAX_NAME: Final = 15  # IFNAMSIZ - 1


@final
class Tap:
    """A tap with virtio headers; has the shape of `NetBackend`. Made by `open`, `create` or `from_fd`.

    Attributes:
        name: of the interface.
        fd: non-blocking.
        offloads: all that a tap can do.
    """

    def __init__(self, fd: int, name: str) -> None:
        """For `open`, `create` and `from_fd`, which have checked what they pass."""
        self.fd = fd
        self.name = name
        self.offloads = Offload.CSUM | Offload.TSO4 | Offload.TSO6 | Offload.ECN

    def __repr__(self) -> str:
        return f"Tap({self.name!r}, fd={self.fd})"

    @classmethod
    def open(cls, name: str) -> Self:
        """Attach to the tap `name`, or make it if there is none.

        Args:
            name: 1 to 15 bytes without space, '/', ':' and '%'.

        Raises:
            TapError: names the cure: no permission, no tun driver, in use, not a tap; nothing is left open.
        """
        size = len(os.fsencode(name))
        if size > _MAX_NAME:
            raise TapError(name, f"the name has {size} bytes, an interface's has at most {_MAX_NAME}")
        if not _NAME.fullmatch(name) or name in {".", ".."}:
            raise TapError(name, f"{name!r} is no interface name (no space, '/', ':' or '%')")
        return cls._attach(name)

    @classmethod
    def create(cls, prefix: str = "vmtap") -> Self:
        """Make a tap that lives as long as this object; the kernel numbers it.

        Args:
            prefix: of the name, 1 to 11 bytes as in `open`.

        Raises:
            TapError: as for `open`.
        """
        if not _NAME.fullmatch(prefix) or len(os.fsencode(prefix)) > _MAX_NAME - 4:
            raise TapError(prefix, f"{prefix!r} is no prefix of 1 to {_MAX_NAME - 4} bytes for a name")
        return cls._attach(f"{prefix}%d")

    @classmethod
    def from_fd(cls, fd: int) -> Self:
        """Take over an open tap, as another program passed it.

        Args:
            fd: of /dev/net/tun or a macvtap, attached with IFF_NO_PI (which cannot be asked: TUNGETIFF shows
                another flag in that bit); owned from now on. Made non-blocking.

        Raises:
            TapError: it is no tap, or has no virtio headers; it stays open and the caller's.
        """
        try:
            request = fcntl.ioctl(fd, _TUNGETIFF, bytes(_IFREQ.size))
        except OSError as error:
            reason = (
                "is no open descriptor"
                if error.errno == errno.EBADF
                else "is no tap: pass one of /dev/net/tun"
            )
            raise TapError(f"fd={fd}", reason, error.errno) from None
        raw, flags = _IFREQ.unpack(request)
        name = os.fsdecode(raw.split(b"\0")[0])
        if not flags & _IFF_TAP:
            raise TapError(f"fd={fd}", f"{name} is a tun, which carries no Ethernet: open it with IFF_TAP")
        if not flags & _IFF_VNET_HDR:
            how = "open it with IFF_VNET_HDR (vnet_hdr)"
            raise TapError(f"fd={fd}", f"{name} has no virtio headers: {how}; its flags are {flags:#x}")
        tap = cls(fd, name)
        tap._prepare()
        return tap

    @classmethod
    def _attach(cls, name: str) -> Self:
        try:
            fd = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise TapError(name, _no_device(error), error.errno) from None
        try:
            request = fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(os.fsencode(name), _FLAGS))
            tap = cls(fd, os.fsdecode(_IFREQ.unpack(request)[0].split(b"\0")[0]))
            tap._prepare()
        except TapError:
            os.close(fd)
            raise
        except OSError as error:
            os.close(fd)
            raise TapError(name, _not_attached(name, error), error.errno) from None
        return tap

    def _prepare(self) -> None:
        try:
            os.set_blocking(self.fd, False)
            fcntl.ioctl(self.fd, _TUNSETVNETHDRSZ, struct.pack("i", HEADER))
            fcntl.ioctl(self.fd, _TUNSETVNETLE, struct.pack("i", 1))
            self.set_offload(Offload(0))
        except OSError as error:
            reason = f"does not take headers of {HEADER} bytes: {error.strerror}"
            raise TapError(self.name, reason, error.errno) from None

    def set_offload(self, offload: Offload) -> None:
        """What headers of frames to the guest may ask for, from now on (TUNSETOFFLOAD).

        Raises:
            OSError: the kernel refuses.
        """
        fcntl.ioctl(self.fd, _TUNSETOFFLOAD, int(offload))

    def set_address(self, address: IPv4Interface) -> None:
        """Give the host's end an address and its network (SIOCSIFADDR, SIOCSIFNETMASK).

        Raises:
            TapError: not permitted.
        """
        for request, value in ((_SIOCSIFADDR, address.ip), (_SIOCSIFNETMASK, address.netmask)):
            payload = _IFREQ_ADDRESS.pack(os.fsencode(self.name), socket.AF_INET, 0, value.packed)
            self._interface(request, payload, f"address {address}")

    def set_mtu(self, mtu: int) -> None:
        """Set the MTU of the host's end (SIOCSIFMTU); nothing is asked for where it is that already.

        Args:
            mtu: bytes, 68 to 65521.

        Raises:
            TapError: not permitted, or out of range.
        """
        now = self._interface(_SIOCGIFMTU, _IFREQ_INT.pack(os.fsencode(self.name), 0), "MTU")
        if _IFREQ_INT.unpack(now)[1] != mtu:
            self._interface(_SIOCSIFMTU, _IFREQ_INT.pack(os.fsencode(self.name), mtu), f"MTU {mtu}")

    def set_up(self) -> None:
        """Switch the interface on (IFF_UP); nothing is asked for where it is on already.

        Raises:
            TapError: not permitted; the cure is `ip link set NAME up`.
        """
        name = os.fsencode(self.name)
        flags = _IFREQ.unpack(self._interface(_SIOCGIFFLAGS, _IFREQ.pack(name, 0), "flags"))[1]
        if not flags & _IFF_UP:
            self._interface(_SIOCSIFFLAGS, _IFREQ.pack(name, flags | _IFF_UP), "up")

    def _interface(self, request: int, payload: bytes, what: str) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
            try:
                return fcntl.ioctl(control.fileno(), request, payload)
            except OSError as error:
                cures = {
                    errno.EPERM: f"; it takes CAP_NET_ADMIN, or as root: {_command(self.name, what)}",
                    errno.ENODEV: "; the interface is in another network namespace, or gone",
                }
                reason = f"cannot set {what}: {error.strerror}{cures.get(error.errno or 0, '')}"
                raise TapError(self.name, reason, error.errno) from None

    def close(self) -> None:
        """Detach; a tap that is not persistent vanishes. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _command(name: str, what: str) -> str:
    kind, _, value = what.partition(" ")
    if kind == "address":
        return f"ip address add {value} dev {name}"
    return f"ip link set {name} " + (f"mtu {value}" if kind == "MTU" else "up")


def _no_device(error: OSError) -> str:
    if error.errno in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
        return f"{_DEVICE}: {error.strerror}; load the driver: modprobe tun"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"{_DEVICE}: {error.strerror}; run as a user who may open it, or pass an open tap (fd)"
    return f"{_DEVICE}: {error.strerror}"


def _not_attached(name: str, error: OSError) -> str:
    shown = name.replace("%d", "0")
    make = f"ip tuntap add {shown} mode tap user $USER"
    reasons = {
        errno.EPERM: f"not permitted; it takes CAP_NET_ADMIN, or once as root: {make}",
        errno.EBUSY: "in use by another program; each needs a tap of its own",
        errno.EINVAL: "is no tap, or one of another kind (multi_queue): remove it, or choose another name",
    }
    return reasons.get(error.errno or 0, str(error.strerror))
