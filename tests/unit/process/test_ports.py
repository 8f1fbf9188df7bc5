"""What a host means to a server, and so whether its port is free; and whether something is well at a port."""

from __future__ import annotations

import errno
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from process.ports import bound, check_free, listens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOUR, SIX = socket.AF_INET, socket.AF_INET6
EVERY = "0.0.0.0"  # noqa: S104 (what is tested)


def has_six() -> bool:
    try:
        with socket.create_server(("::1", 0), family=SIX):
            return True
    except OSError:
        return False


HERE = [(FOUR, "127.0.0.1"), *([(SIX, "::1")] if has_six() else [])]  # the loopback addresses of this machine


@pytest.fixture
def localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `localhost` mean both families, as /etc/hosts has it nearly everywhere, whatever it says here."""
    real = socket.getaddrinfo

    def answer(host: str, *words: object, **named: object) -> list[object]:
        names = ["::1", "127.0.0.1"] if host == "localhost" else [host]
        return [row for name in names for row in real(name, *words, **named)]  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


@pytest.fixture
def listening() -> Iterator[Callable[[socket.AddressFamily, str], int]]:
    """Have somebody listen at an address; returns the port."""
    servers = []

    def listen(family: socket.AddressFamily, address: str) -> int:
        servers.append(socket.create_server((address, 0), family=family))
        return int(servers[-1].getsockname()[1])

    yield listen
    for server in servers:
        server.close()


@pytest.mark.usefixtures("localhost")
@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("127.0.0.1", HERE[:1]),
        (EVERY, [(FOUR, EVERY)]),
        ("::1", HERE[1:]),
        ("::", [(SIX, "::")] if has_six() else []),
        ("localhost", HERE),
    ],
)
def test_a_host_is_every_address_of_it_that_this_machine_has(
    host: str, addresses: list[tuple[socket.AddressFamily, str]]
) -> None:
    if not addresses:
        with pytest.raises(OSError):  # noqa: PT011 (which one depends on why the machine has no IPv6)
            bound(host, 0)
        return
    sockets = bound(host, 0)
    heard = {(made.family, made.getsockname()[0]) for made in sockets}
    protocols = {made.proto for made in sockets}
    for made in sockets:
        made.close()
    assert heard == set(addresses)
    assert protocols == {socket.IPPROTO_TCP}  # or asyncio would have answers wait for acknowledgements


@pytest.mark.usefixtures("localhost")
@pytest.mark.parametrize(
    ("host", "theirs"),
    [
        ("127.0.0.1", (FOUR, "127.0.0.1")),
        (EVERY, (FOUR, "127.0.0.1")),
        ("127.0.0.1", (FOUR, EVERY)),
        *(("localhost", theirs) for theirs in HERE),
        *((host, theirs) for host in ("::1", "::") for theirs in HERE[1:]),
    ],
)
def test_a_port_is_taken_when_one_address_of_the_host_is(
    host: str, theirs: tuple[socket.AddressFamily, str], listening: Callable[..., int]
) -> None:
    port = listening(*theirs)
    with pytest.raises(OSError) as error:  # noqa: PT011 (the number says which)
        check_free(host, port)
    assert error.value.errno == errno.EADDRINUSE


def test_a_name_that_nobody_knows_and_an_address_of_others_are_told_apart() -> None:
    with pytest.raises(socket.gaierror):
        check_free("no.such.invalid", 5555)
    with pytest.raises(OSError) as error:  # noqa: PT011 (the number says which)
        check_free("192.0.2.1", 5555)
    assert error.value.errno == errno.EADDRNOTAVAIL


def test_a_server_that_takes_connections_and_says_nothing_is_not_well() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listens(port)
        assert not listens(port, b"hello")
    assert not listens(port)


def test_a_server_that_answers_is_well() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(5)
                connection.sendall(b"h")

        thread = threading.Thread(target=answer)
        thread.start()
        assert listens(server.getsockname()[1], b"hello")
        thread.join()
