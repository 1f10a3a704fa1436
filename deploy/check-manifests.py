"""Checks what the Kubernetes schemas cannot see: relations between fields of the manifests."""

import re
import sys
import tomllib

import memory
import yaml

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
PROBE_ACTIONS = ("httpGet", "grpc", "tcpSocket")

problems = []


def seconds(text):
    number, unit = re.fullmatch(r"([0-9]+)([a-z]+)", text).groups()
    return int(number) * SECONDS[unit]


def expect(condition, problem):
    if not condition:
        problems.append(problem)


def check_container(where, pod, container):
    context = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
    expect(context.get("runAsNonRoot") is True, f"{where}: runAsNonRoot is not set")
    expect(context.get("allowPrivilegeEscalation") is False, f"{where}: allowPrivilegeEscalation is not off")
    expect(context.get("readOnlyRootFilesystem") is True, f"{where}: readOnlyRootFilesystem is not set")
    expect(context.get("capabilities", {}).get("drop") == ["ALL"], f"{where}: capabilities are not dropped")
    expect(
        context.get("seccompProfile", {}).get("type") == "RuntimeDefault", f"{where}: seccomp is not RuntimeDefault"
    )

    ports = container.get("ports", [])
    known = {port["name"] for port in ports} | {port["containerPort"] for port in ports}
    for kind in PROBES:
        for action in PROBE_ACTIONS:
            port = container.get(kind, {}).get(action, {}).get("port")
            expect(port is None or port in known, f"{where}: {kind} asks port {port}, which is not declared")

    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        expect(mount["name"] in volumes, f"{where}: volume {mount['name']} does not exist")


def check_cache(where, pod, container, configs):
    """Names and numbers of the ports that are for probes alone."""
    mounts = {mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", [])}
    names = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    if len(names) != 1 or names[0] not in configs:
        problems.append(f"{where}: ConfigMap {names} does not exist")
        return set()
    config = tomllib.loads(configs[names[0]]["tiny-cache.toml"])

    limit = memory.size(container["resources"]["limits"]["memory"])
    problems.extend(memory.problems(where, config, limit))
    grace = seconds(config["server"]["shutdown_grace"])
    expect(pod["terminationGracePeriodSeconds"] > grace, f"{where}: killed before shutdown_grace is over")

    declared = {port["containerPort"]: port["name"] for port in container["ports"]}
    # Where nobody but the kubelet has a reason to connect.
    for_probes = set()
    for transport in config["transport"]:
        listen = transport["listen"]
        if listen.startswith("unix:"):
            directory = listen.removeprefix("unix:").rpartition("/")[0]
            expect(directory in mounts.values(), f"{where}: no volume at {directory} for the socket")
        else:
            port = int(listen.rpartition(":")[2])
            expect(port in declared, f"{where}: listens on {port}, which is not declared")
            if transport.get("serve") == ["probes"]:
                for_probes |= {port, declared.get(port)}
    for kind in PROBES:
        action = container.get(kind, {})
        asked = {action[how]["port"] for how in PROBE_ACTIONS if how in action}
        # Whoever holds all connections of a listener fails the probes that come there.
        expect(asked and asked <= for_probes, f"{where}: {kind} asks {asked or 'nothing'}, not a listener for probes alone")
    return for_probes


def main(paths):
    for_probes, opened = set(), []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            documents = [document for document in yaml.safe_load_all(file) if document]
        configs = {item["metadata"]["name"]: item["data"] for item in documents if item["kind"] == "ConfigMap"}
        deployments = [item for item in documents if item["kind"] == "Deployment"]
        for deployment in deployments:
            template = deployment["spec"]["template"]
            labels, pod = template["metadata"]["labels"], template["spec"]
            expect(pod.get("enableServiceLinks") is False, f"{path}: Services put variables into the pod's environment")
            selected = deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
            expect(selected, f"{path}: the Deployment does not select its own pods")
            for container in pod.get("initContainers", []) + pod["containers"]:
                where = f"{path}: {container['name']}"
                check_container(where, pod, container)
                if container["image"].startswith("tiny-cache:"):
                    for_probes |= check_cache(where, pod, container, configs)
        for service in (item for item in documents if item["kind"] == "Service"):
            pods = [deployment["spec"]["template"] for deployment in deployments]
            wanted = service["spec"]["selector"].items()
            chosen = [pod for pod in pods if wanted <= pod["metadata"]["labels"].items()]
            expect(chosen, f"{path}: the Service selects nothing")
            named = {
                port["name"]
                for pod in chosen
                for container in pod["spec"]["containers"]
                for port in container.get("ports", [])
            }
            for port in service["spec"]["ports"]:
                expect(port["targetPort"] in named, f"{path}: the Service's port {port['name']} leads nowhere")
                opened.append((f"{path}: the Service", port["targetPort"]))
        for policy in (item for item in documents if item["kind"] == "NetworkPolicy"):
            for rule in policy["spec"]["ingress"]:
                opened += [(f"{path}: the policy", port["port"]) for port in rule["ports"]]
    for where, port in opened:
        expect(port not in for_probes, f"{where} leads to {port}, which is for the kubelet's probes alone")

    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
