"""The kick signal and the mask of worker threads."""

import signal
import subprocess
import sys
import threading

from kvm_ioctls import KICK_SIGNAL, block_signals
from kvm_ioctls._signals import install_kick


def test_kick_signal_is_the_first_real_time_signal():
    """Everyone can rely on the number."""
    assert signal.SIGRTMIN == KICK_SIGNAL


def test_mask_leaves_the_kick_and_faults_open():
    """A worker takes the kick and its own faults, nothing else."""
    masks = []

    def worker():
        block_signals()
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))

    thread = threading.Thread(target=worker)
    thread.start()
    thread.join()

    assert {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1} <= masks[0]
    assert not {KICK_SIGNAL, signal.SIGSEGV, signal.SIGBUS} & masks[0]


def test_installing_twice_is_harmless_and_the_signal_too():
    """After installation the signal does nothing, instead of killing the process."""
    install_kick()
    install_kick()

    signal.raise_signal(KICK_SIGNAL)
    assert signal.getsignal(KICK_SIGNAL) != signal.SIG_IGN


def test_foreign_handler_is_refused_and_kept():
    """A process that uses SIGRTMIN itself is told so."""
    script = (
        "import signal; signal.signal(signal.SIGRTMIN, lambda *_: print('mine'))\n"
        "from kvm_ioctls import KvmStateError\n"
        "from kvm_ioctls._signals import install_kick\n"
        "try: install_kick()\n"
        "except KvmStateError as err: print(err)\n"
        "signal.raise_signal(signal.SIGRTMIN)\n"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert out.splitlines()[0].startswith(f"signal {KICK_SIGNAL} (SIGRTMIN) has a handler already")
    assert out.splitlines()[1] == "mine"
