"""A server in the place of a language model, a checkout in the place of SV4D's, and a chain of stand-ins."""

from types import SimpleNamespace

import pytest
import stand_ins


@pytest.fixture
def server(monkeypatch):
    server = stand_ins.ChatServer()
    monkeypatch.setenv("OPENAI_API_KEY", stand_ins.KEY)
    yield server
    server.close()


@pytest.fixture
def setting(server, tmp_path):
    """A picture, a checkout, and the config of a small chain; `out` is not there yet."""
    checkout = stand_ins.write_checkout(tmp_path / "checkout")
    config = stand_ins.small_config(server.url, checkout, calls=str(tmp_path / "calls.txt"))
    image = stand_ins.write_photo(tmp_path / "ball.png")
    return SimpleNamespace(config=config, image=image, out=tmp_path / "out", checkout=checkout, server=server)
