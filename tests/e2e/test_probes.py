"""Probes of what is deployed: nobody who takes every connection there is has the kubelet kill the container."""

import contextlib
import http.client
import socket
import tomllib

import pytest
from clients import fetch
from http2 import address_of
from server import Server, wait_until
from test_bombs import of_kubernetes


def take_all(address, stack, patience):
    """Connects until a connection is closed at once, which is how one too many ends; how many stayed open. One is taken to be open that
    says nothing for so many seconds."""
    held = 0
    while True:
        client = stack.enter_context(socket.create_connection(address_of(address), 10))
        client.settimeout(patience)
        with contextlib.suppress(TimeoutError):
            # A gRPC listener says something first, but for who is one too many.
            if not client.recv(1):
                return held
        held += 1


def answers(address, path):
    try:
        return fetch(address, path, timeout=2).status == 200
    except (OSError, http.client.HTTPException):
        return False


@pytest.mark.parametrize("name", ["service.yaml", "sidecar.yaml"])
def test_probes_are_answered_while_somebody_holds_all_other_connections(name, tmp_path, many_files):
    text, _, _ = of_kubernetes(name)
    path = tmp_path / "cache.toml"
    # Fewer connections, of which there are as many tries; the first listener of a kind is told where by flags.
    text = text.replace("max_connections = 1000", "max_connections = 40").replace("[::]:8081", "127.0.0.1:0")
    path.write_text(text)
    limits = {it.get("serve", ["all"])[0] + it["kind"]: it["max_connections"] for it in tomllib.loads(text)["transport"]}
    with Server("--config", path) as server, contextlib.ExitStack() as stack:
        everything, probes = server.http.split(", ")
        assert wait_until(lambda: answers(everything, "/ready"), "ready")
        assert take_all(server.grpc, stack, patience=10) == limits["allgrpc"]
        # One that is closed too late to be noticed counts as held.
        assert take_all(everything, stack, patience=0.05) >= limits["allhttp"] - 1
        assert not answers(everything, "/live"), "there a probe would fail"
        for path in ("/live", "/ready"):
            assert answers(probes, path), path
