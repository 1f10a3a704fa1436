"""The real grpcurl, which knows nothing about us but what reflection tells."""

import base64
import json
import shutil
import subprocess

import pytest
from certificates import Files
from clients import open_channel
from grpc_reflection.v1alpha import reflection_pb2
from server import Server

GRPCURL = shutil.which("grpcurl")
SERVICES = [
    "cache.CacheService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
]


@pytest.fixture(params=["plaintext", "tls", "mtls"])
def grpcurl(request, tmp_path, authority):
    """Calls grpcurl on a server of its own."""
    assert GRPCURL, "grpcurl is not on the PATH: scripts/test e2e installs it"
    files = Files(tmp_path, authority)
    environment = {} if request.param == "plaintext" else files.environment(mutual=request.param == "mtls")
    flags = {"plaintext": ["-plaintext"], "tls": ["-cacert", files.client_ca], "mtls": ["-cacert", files.client_ca]}
    if request.param == "mtls":
        client_cert, client_key = tmp_path / "client.crt", tmp_path / "client.key"
        for path, content in zip((client_cert, client_key), authority.sign("client")):
            path.write_bytes(content)
        flags["mtls"] += ["-cert", client_cert, "-key", client_key]
    with Server(environment=environment) as server:

        def run(*words, data=None, headers=()):
            command = [GRPCURL, *flags[request.param]]
            for header in headers:
                command += ["-H", header]
            if data is not None:
                command += ["-d", json.dumps(data)]
            return subprocess.run(
                [*command, server.grpc, *words], capture_output=True, text=True, timeout=20
            )

        yield run


def test_it_lists_and_describes_everything(grpcurl):
    assert grpcurl("list").stdout.split() == SERVICES
    methods = "CompareAndSet Delete Get MultiDelete MultiGet MultiSet Set SetIfAbsent Stats".split()
    assert grpcurl("list", "cache.CacheService").stdout.split() == [f"cache.CacheService.{name}" for name in methods]
    described = grpcurl("describe", "cache.CacheService").stdout
    assert "rpc CompareAndSet ( .cache.CompareAndSetRequest ) returns ( .cache.ConditionalCacheResponse );" in described
    item = grpcurl("describe", "cache.CacheItem").stdout
    for field in ("string key = 1;", "bytes value = 2;", "int32 ttl = 3;"):
        assert field in item
    assert "rpc Check" in grpcurl("describe", "grpc.health.v1.Health").stdout


def test_it_makes_every_call(grpcurl):
    encoded = lambda text: base64.b64encode(text.encode()).decode()

    def call(method, data, service="cache.CacheService", **options):
        ended = grpcurl(f"{service}/{method}", data=data, **options)
        assert ended.returncode == 0, ended
        return json.loads(ended.stdout)

    one, two = encoded("1"), encoded("2")
    item = lambda key, value: {"key": key, "value": value}
    assert call("Set", item("k", one) | {"ttl": 60}) == {"status": "OK"}
    assert call("Get", {"key": "k"}) == {"found": True, "value": one}
    assert call("Get", {"key": "k"}, headers=["x-cache-namespace: other"]) == {}
    assert call("SetIfAbsent", item("k", two)) == {"status": "EXISTS"}
    assert call("SetIfAbsent", item("n", two)) == {"status": "STORED"}
    swap = lambda old, new: {"key": "k", "expectedValue": old, "value": new}
    assert call("CompareAndSet", swap(two, one)) == {"status": "MISMATCH"}
    assert call("CompareAndSet", swap(one, two)) == {"status": "STORED"}
    stored = call("MultiSet", {"items": [item("a", one), item("b", two)]})["items"]
    assert stored == [{"key": "a", "status": "OK"}, {"key": "b", "status": "OK"}]
    found = call("MultiGet", {"keys": ["b", "missing"]})["items"]
    assert found == [{"key": "b", "found": True, "value": two}, {"key": "missing"}]
    assert call("Delete", {"key": "a"}) == {"status": "OK"}
    assert call("MultiDelete", {"keys": ["b"]})["items"] == [{"key": "b", "status": "OK"}]
    stats = call("Stats", {})
    assert (stats["size"], stats["hits"], stats["policy"]) == (2, 2, "lru")
    assert call("Check", {"service": "cache.CacheService"}, service="grpc.health.v1.Health") == {"status": "SERVING"}
    refused = grpcurl("cache.CacheService/Get", data={"key": ""})
    assert refused.returncode != 0 and "InvalidArgument" in refused.stderr


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_both_versions_of_reflection_answer(server, version):
    # Their messages are the same on the wire.
    request = reflection_pb2.ServerReflectionRequest
    with open_channel(server.grpc) as channel:
        ask = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=request.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        questions = [request(list_services=""), request(file_containing_symbol="cache.CacheService")]
        services, files = ask(iter(questions), timeout=10)
        assert sorted(service.name for service in services.list_services_response.service) == SERVICES
        assert any(b"CompareAndSetRequest" in file for file in files.file_descriptor_response.file_descriptor_proto)


def test_reflection_can_be_switched_off(tmp_path):
    config = tmp_path / "cache.toml"
    config.write_text('[[transport]]\nkind = "grpc"\nreflection = false\n[[transport]]\nkind = "http"\n')
    with Server("--config", config) as server:
        listed = subprocess.run([GRPCURL, "-plaintext", server.grpc, "list"], capture_output=True, text=True, timeout=20)
        assert listed.returncode != 0 and "does not support the reflection API" in listed.stderr
