"""Stubs generated from the repository's own API definition, and a server for every test."""

import os
import pathlib
import resource
import sys

import pytest
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
STUBS = ROOT / "target" / "e2e-stubs"
STUBS.mkdir(parents=True, exist_ok=True)
sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.path.insert(0, str(STUBS))
# Where several processes run tests, the one that starts the others has done so.
if "PYTEST_XDIST_WORKER" not in os.environ:
    assert protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--python_out={STUBS}", f"--grpc_python_out={STUBS}", "cache.proto"]) == 0

from certificates import Authority  # noqa: E402
from clients import connect  # noqa: E402
from server import Server  # noqa: E402


@pytest.fixture
def server():
    with Server() as running:
        yield running


@pytest.fixture
def stub(server):
    with connect(server.grpc) as stub:
        yield stub


@pytest.fixture(scope="session")
def authority():
    """The authority that signs the servers' and the clients' certificates."""
    return Authority("test authority")


@pytest.fixture
def many_files():
    """As many open files as this process may have, and its children."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
