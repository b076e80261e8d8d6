#!/usr/bin/env python3
"""Checks rendered Kubernetes manifests: check_manifests.py FILE.yaml [--kube 1.27,1.33] [--claims NAME,NAME]

kubernetes-validate --strict knows the schemas but lets three faults pass: kinds it has no schema for (only a WARN line),
enumerated strings and quantities. Those are checked here, and what no schema can say: that names meet, that the pods
satisfy the "restricted" Pod Security Standard, and that flags exist (--help-text FILE with the server's own --help).
"""
import argparse
import re
import subprocess
import sys
import tempfile

import yaml

CRDS = {"ServiceMonitor": "monitoring.coreos.com/v1", "PrometheusRule": "monitoring.coreos.com/v1"}
KUBE = ["1.27", "1.33", "1.37"]

# Last component(s) of a field's path -> what it may say. `*` stands for a list's index.
ENUMS = {
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "restartPolicy": {"Always", "OnFailure", "Never"},
    "protocol": {"TCP", "UDP", "SCTP"},
    "strategy.type": {"Recreate", "RollingUpdate"},
    "accessModes.*": {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"},
    "policyTypes.*": {"Ingress", "Egress"},
    "seccompProfile.type": {"RuntimeDefault", "Localhost", "Unconfined"},
    "fsGroupChangePolicy": {"OnRootMismatch", "Always"},
    "tolerations.*.effect": {"NoSchedule", "PreferNoSchedule", "NoExecute"},
    "tolerations.*.operator": {"Exists", "Equal"},
    "terminationMessagePolicy": {"File", "FallbackToLogsOnError"},
    "dnsPolicy": {"ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"},
    "emptyDir.medium": {"", "Memory"},
}
SERVICE_TYPES = {"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"}
QUANTITY = re.compile(r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)(m|[kMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]+)?$")
UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
         "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
NAME = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
LABEL = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")


def quantity(value):
    """The number a quantity stands for, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    match = QUANTITY.match(str(value))
    if not match:
        return None
    unit = match.group(3) or ""
    if unit in UNITS:
        return float(match.group(1)) * UNITS[unit]
    return float(match.group(1) + unit)


def walk(value, path=()):
    yield path, value
    if isinstance(value, dict):
        for key, child in value.items():
            yield from walk(child, path + (str(key),))
    elif isinstance(value, list):
        for child in value:
            yield from walk(child, path + ("*",))


def ends(path, pattern):
    parts = tuple(pattern.split("."))
    return path[-len(parts):] == parts


class Checker:
    def __init__(self, documents, claims=(), flags=None):
        self.documents = documents
        self.claims = set(claims)
        self.flags = flags
        self.faults = []

    def fault(self, document, text):
        name = (document.get("metadata") or {}).get("name")
        self.faults.append(f"{document.get('kind')}/{name}: {text}")

    def of_kind(self, *kinds):
        return [d for d in self.documents if d.get("kind") in kinds]

    def pods(self):
        """(document, pod metadata, pod spec) of everything that makes a pod."""
        for document in self.documents:
            if document.get("kind") == "Pod":
                yield document, document["metadata"], document["spec"]
            elif document.get("kind") in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
                yield document, document["spec"]["template"]["metadata"], document["spec"]["template"]["spec"]

    def run(self):
        seen = set()
        for document in self.documents:
            kind, name = document.get("kind"), (document.get("metadata") or {}).get("name", "")
            if (kind, name) in seen:
                self.fault(document, "is there twice")
            seen.add((kind, name))
            if not NAME.match(name) or len(name) > 63:
                self.fault(document, f"name, got {name!r}, want a DNS label of at most 63 characters")
            if kind in CRDS and document.get("apiVersion") != CRDS[kind]:
                self.fault(document, f"apiVersion, got {document.get('apiVersion')}, want {CRDS[kind]}")
            self.fields(document)
        for check in (self.check_pods, self.check_services, self.check_monitors, self.check_policies):
            check()
        return self.faults

    def fields(self, document):
        for path, value in walk(document):
            where = ".".join(path)
            for pattern, allowed in ENUMS.items():
                if ends(path, pattern) and value not in allowed:
                    self.fault(document, f"{where}, got {value!r}, want one of {sorted(allowed)}")
            if len(path) > 1 and path[-2] in ("limits", "requests") and "resources" in path and quantity(value) is None:
                self.fault(document, f"{where}, got {value!r}, want a quantity")
            if path and path[-1] == "sizeLimit" and quantity(value) is None:
                self.fault(document, f"{where}, got {value!r}, want a quantity")
            if path and path[-1] == "resources" and isinstance(value, dict):
                for what, limit in (value.get("limits") or {}).items():
                    request = quantity((value.get("requests") or {}).get(what))
                    if request is not None and quantity(limit) is not None and request > quantity(limit):
                        self.fault(document, f"{where}: requests more {what} than its limit")
            if path and path[-1] in ("labels", "matchLabels") and isinstance(value, dict):
                for key, text in value.items():
                    if not isinstance(text, str) or len(text) > 63 or not LABEL.match(text):
                        self.fault(document, f"{where}.{key}, got {text!r}, want a label value")
        if document.get("kind") == "Service":
            kind = document["spec"].get("type", "ClusterIP")
            if kind not in SERVICE_TYPES:
                self.fault(document, f"spec.type, got {kind!r}, want one of {sorted(SERVICE_TYPES)}")

    def check_pods(self):
        made_claims = {d["metadata"]["name"] for d in self.of_kind("PersistentVolumeClaim")} | self.claims
        accounts = {d["metadata"]["name"] for d in self.of_kind("ServiceAccount")} | {"default"}
        for document, metadata, spec in self.pods():
            if document["kind"] != "Pod":
                wanted = document["spec"]["selector"]["matchLabels"]
                if not wanted.items() <= (metadata.get("labels") or {}).items():
                    self.fault(document, "its selector does not match its own pods")
            if spec.get("serviceAccountName", "default") not in accounts:
                self.fault(document, f"service account {spec['serviceAccountName']!r} is not made")
            volumes = [v["name"] for v in spec.get("volumes", [])]
            if len(volumes) != len(set(volumes)):
                self.fault(document, f"a volume's name is used twice: {volumes}")
            for volume in spec.get("volumes", []):
                claim = volume.get("persistentVolumeClaim", {}).get("claimName")
                if claim is not None and claim not in made_claims:
                    self.fault(document, f"claim {claim!r} is not made")
            used = set()
            for container in spec["containers"] + spec.get("initContainers", []):
                self.check_container(document, spec, container, volumes)
                used |= {m["name"] for m in container.get("volumeMounts", [])}
            for name in set(volumes) - used:
                self.fault(document, f"volume {name!r} is not mounted")

    def check_container(self, document, pod, container, volumes):
        ports = {p["name"] for p in container.get("ports", []) if "name" in p}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            port = container.get(probe, {}).get("httpGet", {}).get("port")
            if isinstance(port, str) and port not in ports:
                self.fault(document, f"{probe} asks port {port!r}, the container has {sorted(ports)}")
        mounts = [m["mountPath"] for m in container.get("volumeMounts", [])]
        if len(mounts) != len(set(mounts)):
            self.fault(document, f"a folder is mounted twice: {mounts}")
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                self.fault(document, f"mounts volume {mount['name']!r}, the pod has {volumes}")
        if self.flags is not None:
            for argument in container.get("args", []) if container["name"] == "server" else []:
                flag = argument.split("=")[0]
                if flag.startswith("--") and flag not in self.flags:
                    self.fault(document, f"flag {flag}, the server has {sorted(self.flags)}")
        self.check_restricted(document, pod, container)

    def check_restricted(self, document, pod, container):
        def want(what, got, allowed):
            if got not in allowed:
                self.fault(document, f"{container['name']}: {what}, got {got!r}, want one of {allowed} (restricted)")

        own, whole = container.get("securityContext") or {}, pod.get("securityContext") or {}
        both = {**whole, **own}
        want("runAsNonRoot", both.get("runAsNonRoot"), [True])
        if both.get("runAsUser") == 0:
            self.fault(document, f"{container['name']}: runs as root")
        want("seccompProfile.type", (both.get("seccompProfile") or {}).get("type"), ["RuntimeDefault", "Localhost"])
        want("allowPrivilegeEscalation", own.get("allowPrivilegeEscalation"), [False])
        want("privileged", own.get("privileged", False), [False])
        want("readOnlyRootFilesystem", own.get("readOnlyRootFilesystem"), [True])
        capabilities = own.get("capabilities") or {}
        want("capabilities.drop", "ALL" in (capabilities.get("drop") or []), [True])
        want("capabilities.add", set(capabilities.get("add") or []) <= {"NET_BIND_SERVICE"}, [True])
        for host in ("hostNetwork", "hostPID", "hostIPC"):
            want(host, pod.get(host, False), [False])
        for volume in pod.get("volumes", []):
            if "hostPath" in volume:
                self.fault(document, f"volume {volume['name']!r} is a hostPath (restricted)")
        if not container.get("resources", {}).get("requests"):
            self.fault(document, f"{container['name']}: requests no resources")

    def matched(self, selector):
        """Pods whose labels hold all of the selector's."""
        return [(d, m, s) for d, m, s in self.pods() if selector.items() <= (m.get("labels") or {}).items()]

    def check_services(self):
        for service in self.of_kind("Service"):
            pods = self.matched(service["spec"]["selector"])
            if len(pods) != 1:
                self.fault(service, f"its selector matches {len(pods)} kinds of pods, want 1")
            for _, _, pod in pods:
                names = {p.get("name") for c in pod["containers"] for p in c.get("ports", [])}
                for port in service["spec"]["ports"]:
                    if isinstance(port.get("targetPort"), str) and port["targetPort"] not in names:
                        self.fault(service, f"targetPort {port['targetPort']!r}, the pod has {sorted(names)}")

    def check_monitors(self):
        for monitor in self.of_kind("ServiceMonitor"):
            selector = monitor["spec"]["selector"]["matchLabels"]
            services = [s for s in self.of_kind("Service") if selector.items() <= s["metadata"]["labels"].items()]
            for endpoint in monitor["spec"]["endpoints"]:
                hits = [s for s in services if endpoint["port"] in [p["name"] for p in s["spec"]["ports"]]]
                if len(hits) != 1:
                    self.fault(monitor, f"port {endpoint['port']!r} is found on {len(hits)} Services, want 1")
                for key in ("interval", "scrapeTimeout"):
                    if not re.match(r"^([0-9]+(ms|s|m|h))+$", endpoint[key]):
                        self.fault(monitor, f"{key}, got {endpoint[key]!r}, want a duration")

    def check_policies(self):
        for policy in self.of_kind("NetworkPolicy"):
            pods = self.matched(policy["spec"]["podSelector"].get("matchLabels", {}))
            if len(pods) != 1:
                self.fault(policy, f"selects {len(pods)} kinds of pods, want 1")
            names = {p.get("name") for _, _, s in pods for c in s["containers"] for p in c.get("ports", [])}
            for rule in policy["spec"].get("ingress", []):
                for port in rule.get("ports", []):
                    if isinstance(port["port"], str) and port["port"] not in names:
                        self.fault(policy, f"port {port['port']!r}, the pod has {sorted(names)}")


def schema_faults(text, versions):
    """What kubernetes-validate says, its WARN lines about unknown kinds included, our two CRDs excepted."""
    faults = []
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        for version in versions:
            done = subprocess.run([sys.executable, "-m", "kubernetes_validate", "-k", version, "--strict", file.name],
                                  capture_output=True, text=True)
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            allowed = [f"kind {kind} with api version {api} " for kind, api in CRDS.items()]
            passed = 0
            for line in lines:
                if line.startswith("INFO") and " passed " in line:
                    passed += 1
                elif line.startswith("WARN") and any(a in line for a in allowed):
                    passed += 1
                else:
                    faults.append(f"{version}: {line.replace(file.name, 'manifest')}")
            documents = sum(1 for d in yaml.safe_load_all(text) if d)
            if not faults and (done.returncode != 0 or passed != documents):
                faults.append(f"{version}: {passed} of {documents} documents passed, exit status {done.returncode}")
    return faults


def check(text, versions=KUBE, claims=(), help_text=None):
    """All faults of the manifests in `text`, as lines; empty: none."""
    documents = [d for d in yaml.safe_load_all(text) if d]
    if not documents:
        return ["no manifests"]
    flags = None if help_text is None else set(re.findall(r"--[a-z][a-z0-9-]*", help_text))
    faults = schema_faults(text, versions)
    return faults or Checker(documents, claims, flags).run()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--kube", default=",".join(KUBE), help="Kubernetes versions to validate against")
    parser.add_argument("--claims", default="", help="PersistentVolumeClaims that are there already")
    parser.add_argument("--help-text", help="file with the output of tempera-server --help")
    options = parser.parse_args()
    help_text = open(options.help_text).read() if options.help_text else None
    faults = check(open(options.file).read(), options.kube.split(","), options.claims.split(","), help_text)
    print("\n".join(faults) or "no faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
