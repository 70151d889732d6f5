"""The keys of options whose classes load with the first of them, and what each means, for `--help`."""

from vmm_reference._config_rings import RING_KEYS

DISK_KEYS = {
    "path": "raw image or block device",
    "readonly": "refuse writes",
    "id": "name in events and errors",
    "serial": "what the guest reads as serial number, up to 20 bytes",
    "engine": "data path: native (C, batched) or python",
    "queue_size": "entries of the request queue, a power of two from 4 to 32768 (default 256)",
    **RING_KEYS,
}
EVENT_MONITOR_KEYS = {"path": "file or FIFO to write to", "fd": "descriptor to write to"}
NET_KEYS = {
    "tap": "interface on the host, made if there is none; without tap= and fd= the kernel numbers a new one",
    "fd": "an open tap that was passed in, above 2",
    "mac": "the guest's address, such as 02:50:a4:00:00:01 (default: random)",
    "ip": "IPv4 address of the host's end (192.168.249.1 for one that the kernel numbers)",
    "mask": "its network mask, such as 255.255.255.0",
    "mtu": "68 to 65521, for the guest and the host's end",
    "id": "name in events and errors",
    "pcap": "file that tcpdump reads, for every frame",
    "engine": "data path: native (C, batched) or python",
    "queue_size": "entries of each direction's queue, a power of two from 4 to 16384 (default 256)",
    "offload_csum": "leave checksums to the receiver (default on)",
    "offload_tso": "leave segmentation to the receiver (default on)",
    **RING_KEYS,
}
