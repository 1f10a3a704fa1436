#!/usr/bin/env python3
"""The most memory that a configuration can come to, by the sum in docs/operations.md ("Sizing memory"), and whether it
fits what a deployment file gives.

    deploy/memory.py FILE.toml              prints the sum of a configuration of yours, and what it is made of
    deploy/memory.py UNIT.service FILE.toml checks it against the unit's MemoryMax
    deploy/memory.py COMPOSE.yaml           checks each service of ours against its mem_limit

Defaults are those of config/default.toml, which a test holds against the server.
"""

import pathlib
import re
import sys
import tomllib

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
KIB, MIB = 2**10, 2**20
# The server's units, Kubernetes' and Compose's and systemd's, which are powers of 1,024 where they are one letter.
UNITS = {"": 1, "B": 1, "b": 1}
for power, letter in enumerate("KMGT", 1):
    UNITS |= {f"{letter}iB": 2 ** (10 * power), f"{letter}i": 2 ** (10 * power), f"{letter}B": 10 ** (3 * power)}
    UNITS |= {letter: 2 ** (10 * power), letter.lower(): 2 ** (10 * power)}

# What of the server's variables changes the sum, and what does not. Others are not known here.
SUMMED = {"CACHE_MAX_MEMORY_MB": ("max_memory", MIB), "CACHE_MAX_VALUE_BYTES": ("max_value", 1)}
HARMLESS = re.compile("CACHE_(MAX_ITEMS|CLEANUP_INTERVAL|BACKEND|LOG_LEVEL|LOG_FORMAT)|(?!CACHE_|TINY_CACHE_).*")

CONFIG_PATH = "/etc/tiny-cache/tiny-cache.toml"


def size(text):
    number, unit = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", str(text)).groups()
    return int(number) * UNITS[unit]


def defaults():
    default = tomllib.loads((ROOT / "config/default.toml").read_text(encoding="utf-8"))
    return default["store"], {transport["kind"]: transport for transport in default["transport"]}


def parts(config):
    """What the sum is made of: what it is for, and bytes."""
    store, transports = defaults()
    store = store | config.get("store", {})
    max_memory = size(store["max_memory"])
    max_value = max_memory if store["max_value"] == "auto" else size(store["max_value"])
    yield "max_memory, a tenth more, and 32 MiB", max_memory * 11 // 10 + 32 * MIB
    configured = config.get("transport", list(transports.values()))
    if any(transport["kind"] == "grpc" for transport in configured):
        yield "two zstd messages being unpacked", 16 * MIB
    for given in configured:
        transport = transports[given["kind"]] | given
        where = f"{transport['kind']} at {transport['listen']}:"
        requests = transport["max_in_flight"]
        head = size(transport["max_metadata"]) + 8 * KIB
        if transport["kind"] == "grpc":
            message = transport["max_message"]
            message = max(min(2 * max_value, max_memory), max_value) + MIB if message == "auto" else size(message)
            gathered = transport["max_in_flight_bytes"]
            if gathered == "auto":
                gathered = max(max_memory // 4, message * 8 // 7 + MIB // 16, 64 * MIB)
            gathered = size(gathered)
            yield f"{where} max_in_flight_bytes, and buffers that grow", 2 * gathered
            yield f"{where} a quarter of it, for what clients do not take", gathered // 4
            yield f"{where} {requests} requests and as many streams that last", 2 * requests * head
        else:
            yield f"{where} {requests} requests", requests * head
        connections = transport["max_connections"]
        yield f"{where} {connections} connections", connections * 256 * KIB


def table(config):
    rows = [*parts(config), ("together", worst_case(config))]
    return "\n".join(f"{amount / MIB:8.1f} MiB  {what}" for what, amount in rows)


def worst_case(config):
    return sum(amount for _, amount in parts(config))


def problems(where, config, limit):
    """One, with the whole sum, where it does not fit."""
    most = worst_case(config)
    if most <= limit:
        return []
    more = f"{most / MIB:.0f} MiB at the worst, {limit / MIB:.0f} MiB are given"
    return [f"{where}: {more} (docs/operations.md, sizing memory)\n{table(config)}"]


def load(path):
    return tomllib.loads(pathlib.Path(path).read_text(encoding="utf-8"))


def check_unit(unit, config):
    text = pathlib.Path(unit).read_text(encoding="utf-8")
    limits = re.findall(r"^MemoryMax=(\S+)$", text, re.MULTILINE)
    if len(limits) != 1:
        return [f"{unit}: MemoryMax is not set once"]
    return problems(f"{unit} with {config}", load(config), size(limits[0]))


def check_compose(path):
    found = []
    services = yaml.safe_load(pathlib.Path(path).read_text(encoding="utf-8"))["services"]
    ours = {name: it for name, it in services.items() if it.get("image", "").startswith("tiny-cache:")}
    if not ours:
        found.append(f"{path}: no service runs tiny-cache")
    for name, service in ours.items():
        where = f"{path}: {name}"
        mounted = [volume.split(":")[0] for volume in service.get("volumes", []) if f":{CONFIG_PATH}" in volume]
        # What the image holds is there unless something is mounted over it.
        file = pathlib.Path(path).parent / mounted[0] if mounted else ROOT / "deploy/container.toml"
        if "mem_limit" not in service:
            found.append(f"{where}: mem_limit is not set")
        elif not file.exists():
            found.append(f"{where}: there is no {file}")
        else:
            config = load(file)
            for variable, value in service.get("environment", {}).items():
                if variable in SUMMED:
                    key, unit = SUMMED[variable]
                    config.setdefault("store", {})[key] = int(value) * unit
                elif not HARMLESS.fullmatch(variable):
                    found.append(f"{where}: what {variable} does to its memory is not known: set it in {file}")
            found += problems(f"{where} with {file}", config, size(service["mem_limit"]))
    return found


def main(arguments):
    match [pathlib.Path(argument).suffix for argument in arguments]:
        case [".toml"]:
            print(table(load(arguments[0])))
            return 0
        case [".service", ".toml"]:
            found = check_unit(*arguments)
        case [".yaml"]:
            found = check_compose(*arguments)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
