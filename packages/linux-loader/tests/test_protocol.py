"""The choice of a boot protocol."""

import pytest
from linux_loader import BootProtocol, KernelImage, UnsupportedProtocolError, choose_protocol
from linux_loader.testing import LINUX_NOTE, SegmentSpec, build_bzimage, build_elf, pvh_note

BASE = 0x100_0000
CODE = [SegmentSpec(BASE, b"\xf4")]


@pytest.mark.parametrize(
    ("kernel", "wanted", "expected"),
    [
        (build_bzimage(), BootProtocol.AUTO, BootProtocol.LINUX64),
        (build_bzimage(), BootProtocol.LINUX64, BootProtocol.LINUX64),
        (build_elf(CODE, entry=BASE, notes=[LINUX_NOTE]), BootProtocol.AUTO, BootProtocol.LINUX64),
        (build_elf(CODE, entry=BASE, notes=[pvh_note(BASE)]), BootProtocol.LINUX64, BootProtocol.LINUX64),
        (build_elf(CODE, entry=BASE, notes=[LINUX_NOTE, pvh_note(BASE)]), BootProtocol.PVH, BootProtocol.PVH),
        # A vmlinux whose e_entry is virtual can still be entered by its note.
        (
            build_elf(CODE, entry=1 << 63, notes=[LINUX_NOTE, pvh_note(BASE)]),
            BootProtocol.AUTO,
            BootProtocol.PVH,
        ),
    ],
)
def test_choice(kernel, wanted, expected):
    """A wish is granted when the image has the entry; AUTO follows the notes."""
    assert choose_protocol(KernelImage.from_bytes(kernel), wanted) is expected


def test_refusal_keeps_its_parts():
    """The exception carries protocol, reason and cure."""
    with pytest.raises(UnsupportedProtocolError) as caught:
        choose_protocol(KernelImage.from_bytes(build_bzimage()), BootProtocol.PVH)
    assert caught.value.protocol == "PVH"
    assert "ELF vmlinux" in caught.value.reason
    assert "extract_vmlinux" in caught.value.cure
