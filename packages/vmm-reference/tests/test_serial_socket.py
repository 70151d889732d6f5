"""A serial console on a Unix socket: clients that come, go, stall and vanish."""

import os
import socket
import threading
import time

import pytest
from vm_device import EventManager
from vmm_reference import ConfigError
from vmm_reference._serial_socket import SocketBackend


class Port:
    """A receiver that takes everything."""

    got = b""

    def enqueue(self, data):
        """Take all."""
        self.got += data
        return len(data)


@pytest.fixture
def port():
    """The guest's side."""
    return Port()


@pytest.fixture
def backend(tmp_path, port):
    """A listening backend on a running loop."""
    with EventManager("test") as events:
        events.start()
        backend = SocketBackend(tmp_path / "console")
        backend.attach(events, port)
        yield backend
        backend.detach()
        backend.close()


@pytest.fixture
def connect(tmp_path):
    """A function that connects a client with a timeout."""
    clients = []

    def connect():
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(60)
        client.connect(str(tmp_path / "console"))
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


def wait(condition, seconds=60.0):
    """Wait until `condition` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.001)


def receive(client, size):
    """Read exactly `size` bytes."""
    data = b""
    while len(data) < size:
        part = client.recv(size - len(data))
        assert part, "closed"
        data += part
    return data


def test_output_before_a_client_is_kept(backend, connect):
    """The first client sees the boot from its start."""
    backend.write(b"booting\n")
    backend.write(b"booted\n")
    assert receive(connect(), 15) == b"booting\nbooted\n"


def test_the_last_mebibyte_is_kept(backend, connect):
    """What nobody reads does not fill the host's memory: the newest 1 MiB stays."""
    for _ in range(40):
        backend.write(os.urandom(1 << 16))
    newest = os.urandom(1 << 20)
    backend.write(newest)
    assert receive(connect(), 1 << 20) == newest


def test_input(backend, connect, port):
    """What a client sends reaches the guest."""
    connect().sendall(bytes(range(256)) * 64)
    wait(lambda: len(port.got) == 256 * 64)
    assert port.got == bytes(range(256)) * 64


def test_a_slow_client_gets_the_rest_without_new_output(backend, connect):
    """What did not fit the socket follows when there is room, though the guest says nothing more."""
    client = connect()
    data = os.urandom(900_000)
    backend.write(data)
    time.sleep(0.1)
    assert receive(client, len(data)) == data


def test_a_new_client_takes_over(backend, connect, port):
    """The newest client has the line; the older one sees the end."""
    first = connect()
    backend.write(b"a")
    assert receive(first, 1) == b"a"
    second = connect()
    second.sendall(b"!")
    wait(lambda: port.got == b"!")
    backend.write(b"b")
    assert receive(second, 1) == b"b"
    assert first.recv(10) == b""


def test_clients_that_vanish_during_traffic(backend, connect, port):
    """Output and input go on over fifty clients that disconnect in the middle of both."""
    done = threading.Event()

    def guest():
        while not done.is_set():
            backend.write(b"x" * 3000)

    thread = threading.Thread(target=guest)
    thread.start()
    try:
        for _ in range(50):
            client = connect()
            client.sendall(b"typed")
            receive(client, 100)
            client.close()
    finally:
        done.set()
        thread.join(60)
    assert not thread.is_alive()
    last = connect()
    before = len(port.got)
    last.sendall(b"done")
    wait(lambda: port.got[before:].endswith(b"done"))


def test_half_closed_client_still_reads(backend, connect, port):
    """`echo command | nc -U` sends the end of its input and still gets the answer."""
    client = connect()
    client.sendall(b"uname\n")
    client.shutdown(socket.SHUT_WR)
    wait(lambda: port.got == b"uname\n")
    backend.write(b"Linux\n")
    assert receive(client, 6) == b"Linux\n"


def test_the_last_output_arrives_and_the_socket_goes(tmp_path):
    """close() sends what is left and removes the path."""
    with EventManager("test") as events:
        events.start()
        backend = SocketBackend(tmp_path / "s")
        backend.attach(events, Port())
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(str(tmp_path / "s"))
            backend.write(b"!")
            assert receive(client, 1) == b"!"
            backend.detach()
            data = os.urandom(800_000)
            backend.write(data)
            closer = threading.Thread(target=backend.close)
            closer.start()
            assert receive(client, len(data)) == data
            closer.join(60)
            assert client.recv(1) == b""
    assert not (tmp_path / "s").exists()


def test_a_client_that_never_reads_does_not_keep_us(tmp_path, caplog):
    """close() gives up after a second."""
    with EventManager("test") as events:
        events.start()
        backend = SocketBackend(tmp_path / "s")
        backend.attach(events, Port())
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
            backend.write(os.urandom(1 << 20))
            time.sleep(0.05)
            backend.detach()
            start = time.monotonic()
            backend.close()
            assert time.monotonic() - start < 30
    assert "does not read" in caplog.text


def test_a_socket_of_the_dead_is_replaced(tmp_path, port):
    """What a killed VMM left behind is no reason to refuse; one that is listened at is."""
    path = tmp_path / "console"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with EventManager("test") as events:
        events.start()
        backend = SocketBackend(path)
        backend.attach(events, port)
        with pytest.raises(ConfigError, match="choose a path that is free"):
            SocketBackend(path)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"x")
            wait(lambda: port.got == b"x")
        backend.detach()
        backend.close()
    assert not path.exists()


def test_a_file_is_never_replaced(tmp_path):
    """Somebody's file at that path stays what it is."""
    path = tmp_path / "console"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="choose a path that is free"):
        SocketBackend(path)
    assert path.read_text() == "mine"
