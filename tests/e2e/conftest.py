"""Stubs generated from the repository's own API definition, and a server for every test."""

import pathlib
import sys

import grpc
import pytest
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
STUBS = ROOT / "target" / "e2e-stubs"
STUBS.mkdir(parents=True, exist_ok=True)
sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.path.insert(0, str(STUBS))
assert protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--python_out={STUBS}", f"--grpc_python_out={STUBS}", "cache.proto"]) == 0

import cache_pb2_grpc  # noqa: E402
from server import Server  # noqa: E402


@pytest.fixture
def server():
    with Server() as running:
        yield running


@pytest.fixture
def stub(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield cache_pb2_grpc.CacheServiceStub(channel)
