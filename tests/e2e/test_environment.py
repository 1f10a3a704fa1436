"""Every `CACHE_*` variable, with good values and with bad ones."""

import re
import signal

import cache_pb2 as pb
import pytest
from certificates import Files
from clients import connect, fetch
from http2 import address_of
from server import Server, free_port, run, wait_until

MIB = 1 << 20
EX_CONFIG = 78


def stats_with(environment):
    with Server(environment=environment) as server, connect(server.grpc) as stub:
        return stub.Stats(pb.Empty())


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {"max_items": 1000, "max_memory_bytes": 100 * MIB, "max_value_bytes": 100 * MIB}),
        ({"CACHE_MAX_ITEMS": "1"}, {"max_items": 1}),
        ({"CACHE_MAX_ITEMS": " 42 "}, {"max_items": 42}),
        ({"CACHE_MAX_MEMORY_MB": "1"}, {"max_memory_bytes": MIB, "max_value_bytes": MIB}),
        ({"CACHE_MAX_MEMORY_MB": "512"}, {"max_memory_bytes": 512 * MIB, "max_value_bytes": 512 * MIB}),
        ({"CACHE_MAX_VALUE_BYTES": "1"}, {"max_value_bytes": 1}),
        ({"CACHE_MAX_MEMORY_MB": "1", "CACHE_MAX_VALUE_BYTES": str(MIB)}, {"max_value_bytes": MIB}),
        ({"CACHE_BACKEND": "memory"}, {"store": "memory"}),
        ({"CACHE_MAX_ITEMS": "", "CACHE_MAX_MEMORY_MB": ""}, {"max_items": 1000}),
    ],
)
def test_limits_are_what_the_variables_say(environment, expected):
    stats = stats_with(environment)
    assert {name: getattr(stats, name) for name in expected} == expected


def test_a_variable_wins_over_the_file_and_a_flag_over_both(tmp_path):
    file = tmp_path / "cache.toml"
    file.write_text("[store]\nmax_items = 7\n")
    environment = {"TINY_CACHE_CONFIG": str(file)}
    assert stats_with(environment).max_items == 7
    environment["CACHE_MAX_ITEMS"] = "8"
    assert stats_with(environment).max_items == 8
    with Server("--max-items", "9", environment=environment) as server, connect(server.grpc) as stub:
        assert stub.Stats(pb.Empty()).max_items == 9


def test_expired_entries_are_swept_at_the_interval_of_the_variable():
    # /health takes no part in removing: what it shows was swept.
    with Server(environment={"CACHE_CLEANUP_INTERVAL": "1"}) as server, connect(server.grpc) as stub:
        stub.Set(pb.CacheItem(key="k", value=b"v", ttl=1))
        assert fetch(server.http, "/health").json()["cache_size"] == 1
        wait_until(lambda: fetch(server.http, "/health").json()["cache_size"] == 0, "the sweep")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost", "::", "[::]", "::1", "[::1]"])
def test_the_listeners_are_where_the_variables_say(host):
    grpc_port, http_port = free_port(), free_port()
    environment = {
        "CACHE_HOST": host,
        "CACHE_PORT": str(grpc_port),
        "CACHE_HEALTH_HOST": host,
        "CACHE_HEALTH_PORT": str(http_port),
    }
    with Server(environment=environment, listen=False) as server:
        near = "[::1]" if "::1" in host else "127.0.0.1"
        assert all(address.endswith(f":{grpc_port}") for address in server.grpc.split(", "))
        with connect(f"{near}:{grpc_port}") as stub:
            assert stub.Stats(pb.Empty()).size == 0
        assert fetch(f"{near}:{http_port}", "/").json()["grpc_port"] == grpc_port


def test_without_any_configuration_only_this_machine_is_served():
    shown = run("config", "show").stdout
    assert re.findall(r'^listen = "(.*?)"', shown, re.MULTILINE) == ["127.0.0.1:50051", "127.0.0.1:8080"]


@pytest.mark.parametrize(
    ("level", "shown"),
    [("DEBUG", "debug"), ("debug", "debug"), ("Info", "info"), ("INFO", "info"), ("WARNING", ""), ("Error", ""), ("CRITICAL", "")],
)
def test_the_log_level_in_any_case(level, shown):
    environment = {
        "CACHE_LOG_LEVEL": level,
        "CACHE_LOG_FORMAT": "json",
        "CACHE_PORT": str(free_port()),
        "CACHE_HEALTH_PORT": str(free_port()),
    }
    if shown:
        with Server(environment=environment) as server, connect(server.grpc) as stub:
            stub.Get(pb.CacheKey(key="secret-key"))
            http = server.http
            assert fetch(http, "/live").status == 200
        assert bool(server.lines("gRPC request")) == (shown == "debug")
        return
    with Quiet(environment) as server:
        with connect(f"127.0.0.1:{environment['CACHE_PORT']}") as stub:
            stub.Get(pb.CacheKey(key="k"), wait_for_ready=True, timeout=10)
    assert server.log == []


class Quiet(Server):
    """A server that logs nothing, not even that it serves."""

    def __init__(self, environment):
        self.wait_for_line, wait = lambda _: {}, self.wait_for_line
        super().__init__(environment=environment, listen=False, log_format=None)
        self.wait_for_line = wait


@pytest.mark.parametrize("form", ["json", "JSON", "text", "Text"])
def test_the_log_format_in_any_case(form):
    environment = {"CACHE_LOG_FORMAT": form}
    with Server(environment=environment, log_format=None) as server:
        pass
    if form.lower() == "json":
        assert set(server.started) >= {"timestamp", "level", "message", "grpc", "http", "policy"}
    else:
        assert re.match(r"\S+ +INFO .*serving.* grpc=", server.started["message"])


@pytest.mark.parametrize("on", ["1", "true", "yes", "y", "on", "TRUE", "On"])
def test_tls_is_switched_on_by_any_word_for_yes(authority, tmp_path, on):
    environment = Files(tmp_path, authority).environment() | {"CACHE_TLS_ENABLED": on}
    with Server(environment=environment) as server, connect(server.grpc, authority.credentials()) as stub:
        assert stub.Stats(pb.Empty()).size == 0


@pytest.mark.parametrize("off", ["0", "false", "no", "n", "off", "FALSE", ""])
def test_tls_is_switched_off_by_any_word_for_no(authority, tmp_path, off):
    environment = Files(tmp_path, authority).environment() | {"CACHE_TLS_ENABLED": off}
    with Server(environment=environment) as server, connect(server.grpc) as stub:
        assert stub.Stats(pb.Empty()).size == 0


BAD = [
    ("CACHE_MAX_ITEMS", ["0", "-1", "1.5", "many", "1e3", "99999999999999999999"], "at least 1"),
    ("CACHE_MAX_MEMORY_MB", ["0", "-1", "0.5", "lots", "100MB", "99999999999999999999"], "at least 1"),
    ("CACHE_MAX_VALUE_BYTES", ["0", "-1", "big", str(100 * MIB + 1)], ""),
    ("CACHE_CLEANUP_INTERVAL", ["0", "-1", "0.5", "10s"], "at least 1"),
    ("CACHE_PORT", ["-1", "65536", "grpc", "5005l"], "65535"),
    ("CACHE_HEALTH_PORT", ["-1", "65536", "http"], "65535"),
    ("CACHE_HOST", ["a b", "1.2.3.4.5:80", "no.such.host.invalid"], ""),
    ("CACHE_HEALTH_HOST", ["a b", "[::", "no.such.host.invalid"], ""),
    ("CACHE_LOG_LEVEL", ["LOUD", "WARN ING", "0"], "DEBUG, INFO, WARNING, ERROR or CRITICAL"),
    ("CACHE_LOG_FORMAT", ["xml", "jsonl"], "text or json"),
    ("CACHE_BACKEND", ["sqlite", "redis"], "memory"),
    ("CACHE_TLS_ENABLED", ["maybe", "2", "tru"], "true"),
    ("CACHE_TLS_REQUIRE_CLIENT_AUTH", ["maybe", "2"], "true"),
]


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [(variable, value, allowed) for variable, values, allowed in BAD for value in values],
)
def test_a_bad_value_stops_the_start_with_one_line(variable, value, allowed):
    ended = run("serve", "--listen", "127.0.0.1:0", environment={variable: value})
    assert ended.returncode == EX_CONFIG, ended
    lines = ended.stderr.splitlines()
    assert len(lines) == 1 and ended.stdout == "", ended
    assert variable in lines[0] and f'"{value}"' in lines[0] and "allowed" in lines[0], lines[0]
    assert allowed in lines[0]


def test_a_value_that_is_no_text_is_told_as_well():
    ended = run("serve", environment={"CACHE_LOG_LEVEL": b"\xff\xfe"})
    assert ended.returncode == EX_CONFIG and len(ended.stderr.splitlines()) == 1
    assert "CACHE_LOG_LEVEL" in ended.stderr


def test_everything_that_is_wrong_is_told_at_once():
    environment = {"CACHE_MAX_ITEMS": "0", "CACHE_PORT": "x", "CACHE_LOG_LEVEL": "loud"}
    ended = run("serve", environment=environment)
    assert ended.returncode == EX_CONFIG
    lines = ended.stderr.splitlines()
    assert len(lines) == 3
    for variable, line in zip(sorted(environment), sorted(lines)):
        assert variable in line


@pytest.mark.parametrize(
    ("drop", "named"),
    [
        ("CACHE_TLS_CERT_PATH", "CACHE_TLS_CERT_PATH"),
        ("CACHE_TLS_KEY_PATH", "CACHE_TLS_KEY_PATH"),
        ("CACHE_TLS_CLIENT_CA_PATH", "CACHE_TLS_CLIENT_CA_PATH"),
    ],
)
def test_tls_needs_its_files(authority, tmp_path, drop, named):
    environment = Files(tmp_path, authority).environment(mutual=True)
    del environment[drop]
    ended = run("serve", environment=environment)
    assert ended.returncode == EX_CONFIG
    assert len(ended.stderr.splitlines()) == 1 and named in ended.stderr


def test_variables_that_set_nothing_are_named_once_and_without_their_values(tmp_path):
    file = tmp_path / "cache.toml"
    file.write_text("[store]\nmax_items = 7\n")
    environment = {"CACHE_MAX_ITEM": "s3cret", "CACHE_SIZE": "s3cret", "CACHE_MAX_VALUE_BYTES": "5"}
    with Server("--config", file, environment=environment) as server, connect(server.grpc) as stub:
        assert stub.Stats(pb.Empty()).max_value_bytes == 5
        server.signal(signal.SIGHUP)
        server.wait_for_line("configuration reloaded")
    (line,) = server.lines("variables that set nothing")
    assert line["level"].upper().startswith("WARN"), line
    assert line["variables"] == "CACHE_MAX_ITEM (did you mean CACHE_MAX_ITEMS?), CACHE_SIZE"
    assert not any("s3cret" in str(line) for line in server.log)


def test_a_kubernetes_service_with_our_name_changes_nothing():
    links = {
        "SERVICE_HOST": "10.96.0.7",
        "SERVICE_PORT": "6379",
        "PORT": "tcp://10.96.0.7:6379",
        "PORT_6379_TCP": "tcp://10.96.0.7:6379",
        "PORT_6379_TCP_PROTO": "tcp",
        "PORT_6379_TCP_PORT": "6379",
        "PORT_6379_TCP_ADDR": "10.96.0.7",
    }
    environment = {f"CACHE_{name}": value for name, value in links.items()}
    environment |= {f"CACHE_HEALTH_{name}": value for name, value in links.items()}
    with Server(environment=environment) as server, connect(server.grpc) as stub:
        assert stub.Stats(pb.Empty()).size == 0
    assert not server.lines("variables that set nothing")
    (line,) = server.lines("Kubernetes")
    assert line["variables"] == "CACHE_HEALTH_*, CACHE_*"
    # The port alone says nothing of a service.
    ended = run("serve", environment={"CACHE_PORT": environment["CACHE_PORT"]})
    assert ended.returncode == EX_CONFIG and "CACHE_PORT" in ended.stderr
