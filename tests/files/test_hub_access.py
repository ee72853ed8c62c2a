"""What is said and done where the Hub cannot be reached."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvxnn.files.hub_access import hub_or_cache, why_unreachable

hub = pytest.importorskip("huggingface_hub")


@contextlib.contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """Give the address of a server that answers one request, or none if there is no answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        if answer is not None:

            def serve() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

            threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 1)


def closed() -> str:
    """Return an address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_any_answer_will_do(online: None) -> None:
    with listening(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as address:
        assert why_unreachable(address) is None
    with listening(b"no HTTP\r\n\r\n") as address:
        assert why_unreachable(address) is None


def test_the_reason_is_named_soon(online: None) -> None:
    began = time.monotonic()
    assert "Connection refused" in str(why_unreachable(address := closed()))
    assert address in str(why_unreachable(address))
    with listening(None) as address:
        assert address in str(why_unreachable(address))
    assert time.monotonic() - began < 5


def test_the_time_limit_holds_for_the_name_of_the_server(
    online: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(5))
    began = time.monotonic()
    reason = str(why_unreachable("http://name.invalid"))
    assert "no answer within 1 s, the value of HF_HUB_ETAG_TIMEOUT" in reason
    assert time.monotonic() - began < 4


def test_without_the_hub_its_cache_serves_at_once(
    online: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from huggingface_hub import constants

    commit = "0" * 40
    folder = tmp_path / "models--some--head"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / "a.txt").write_text("kept")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    address, began = closed(), time.monotonic()
    with hub_or_cache("read it", "Do this", address) as asks:
        found = hub.HfApi(address).hf_hub_download("some/head", "a.txt", cache_dir=tmp_path)
        assert not asks
    assert Path(found).read_text() == "kept"
    with (
        pytest.raises(OSError, match=r"cannot read it: .*cache.*refused.*check.*\. Do this$"),
        hub_or_cache("read it", "Do this", address),
    ):
        hub.HfApi(address).hf_hub_download("some/head", "b.txt", cache_dir=tmp_path)
    assert time.monotonic() - began < 5
    assert "Retrying" not in caplog.text
    assert not constants.HF_HUB_OFFLINE
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert why_unreachable(address) == "HF_HUB_OFFLINE forbids to ask the Hub"
