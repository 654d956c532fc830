"""What libpq knows by itself, a client's URL does not get: a host that asks for a password in the
clear is told none of this user's."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.end_to_end.test_scoot import Client
from tests.support import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SSL, GSS = 80877103, 80877104  # codes of requests that come before the first message
PASSWORD = b"R" + struct.pack(">ii", 8, 3)  # AuthenticationCleartextPassword


class Eavesdropper:
    """Asks everybody for the password, and keeps what it is told."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.told: list[bytes] = []
        self.asked = 0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                while connection.recv(8)[4:] in (struct.pack(">i", SSL), struct.pack(">i", GSS)):
                    connection.sendall(b"N")
                connection.recv(4096)
                self.asked += 1
                connection.sendall(PASSWORD)
                self.told.append(connection.recv(4096))


@pytest.fixture
def eavesdropper() -> Iterator[Eavesdropper]:
    eavesdropper = Eavesdropper()
    yield eavesdropper
    eavesdropper.close()


def test_no_password_of_the_server_is_told(
    eavesdropper: Eavesdropper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = tmp_path / ".pgpass"
    passwords.write_text("*:*:*:*:s3cret\n")
    passwords.chmod(0o600)
    own = {
        "XDG_CONFIG_HOME": str(tmp_path),
        "HOME": str(tmp_path),
        "PGPASSWORD": "s3cret",
        "PGPASSFILE": str(passwords),
    }
    before = support.environment()
    monkeypatch.setattr(support, "environment", lambda: before | own)
    url = f"postgresql://ada@127.0.0.1:{eavesdropper.port}/d"
    with Server() as server:
        client = Client(server)
        for each in (url, url.replace("ada@", "ada:$%7BPGPASSWORD%7D@")):
            status, _ = client.register(each)
            assert status in (403, 503)
    assert eavesdropper.asked == 1
    assert b"s3cret" not in b"".join(eavesdropper.told)
    # The server's own databases are another matter: what this user has set up is for them.
    command = [sys.executable, "-m", "notebook_rpc", "serve", "--port", "0", url]
    environment = support.environment()
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == 4
    assert b"s3cret" in b"".join(eavesdropper.told)
