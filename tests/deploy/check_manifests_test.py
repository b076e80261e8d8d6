#!/usr/bin/env python3
"""check_manifests.py finds each fault that it is there for: one is put into sound manifests at a time."""
import copy
import pathlib
import unittest

import yaml

import check_manifests
from chart_test import render

HERE = pathlib.Path(__file__).resolve().parent


def edit(path, value):
    """A change of one field: "Deployment.spec.replicas". A component that is a number is a list's index; None removes."""
    kind, *parts = path.split(".")

    def apply(documents):
        at = next(d for d in documents if d["kind"] == kind)
        for part in parts[:-1]:
            at = at[int(part)] if isinstance(at, list) else at[part.replace("~", ".")]
        last = int(parts[-1]) if isinstance(at, list) else parts[-1].replace("~", ".")
        if value is None:
            del at[last]
        else:
            at[last] = value
    return apply


POD = "Deployment.spec.template.spec"
SERVER = POD + ".containers.0"

# What the schemas of Kubernetes find.
SCHEMA = [
    (edit("Deployment.spec.replicas", "one"), "replicas"),
    (edit("Deployment.spec.selector", None), "selector"),
    (edit(SERVER + ".imagePullPolicyy", "Always"), "imagePullPolicyy"),
    (edit(SERVER + ".ports.0.containerPort", "http"), "containerPort"),
    (edit("Deployment.apiVersion", "apps/v1beta1"), "kind Deployment"),  # only a WARN line
    (edit("ServiceMonitor.kind", "PodMonitor"), "kind PodMonitor"),  # the same, of a kind that we do not make
]
# What they let pass.
OWN = [
    (edit("Pod.spec.restartPolicy", "Sometimes"), "restartPolicy"),
    (edit(SERVER + ".imagePullPolicy", "Often"), "imagePullPolicy"),
    (edit("Deployment.spec.strategy.type", "Replace"), "strategy.type"),
    (edit("Service.spec.type", "Cluster"), "spec.type"),
    (edit("Service.spec.ports.0.protocol", "GRPC"), "protocol"),
    (edit("PersistentVolumeClaim.spec.accessModes.0", "ReadWrite"), "accessModes"),
    (edit("NetworkPolicy.spec.policyTypes.0", "In"), "policyTypes"),
    (edit(SERVER + ".resources.limits.memory", "4 GB"), "quantity"),
    (edit(SERVER + ".resources.limits.memory", [1]), "quantity"),
    (edit("PersistentVolumeClaim.spec.resources.requests.storage", "20Gb"), "quantity"),
    (edit(SERVER + ".resources.requests.memory", "8Gi"), "requests more memory"),
    (edit("Deployment.metadata.name", "Not_A_Name"), "name"),
    (edit("Deployment.metadata.labels.team", "a b"), "label value"),
    (edit("PrometheusRule.apiVersion", "monitoring.coreos.com/v2"), "kind PrometheusRule"),
    (edit(POD + ".serviceAccountName", "nobody"), "service account"),
    (edit(POD + ".volumes.0.name", "date"), "volume"),
    (edit(POD + ".volumes.0.persistentVolumeClaim.claimName", "other"), "claim"),
    (edit(SERVER + ".volumeMounts.0.mountPath", "/tmp"), "mounted twice"),
    (edit(SERVER + ".livenessProbe.httpGet.port", "http"), "livenessProbe"),
    (edit(SERVER + ".args.0", "--date=/var/lib/tempera"), "flag --date"),
    (edit("Service.spec.ports.0.targetPort", "rpc"), "targetPort"),
    (edit("Service.spec.selector.app~kubernetes~io/component", "worker"), "matches 0"),
    (edit("Pod.metadata.labels.app~kubernetes~io/component", "server"), "matches 2"),
    (edit("Deployment.spec.selector.matchLabels.app~kubernetes~io/name", "x"), "does not match its own pods"),
    (edit("ServiceMonitor.spec.endpoints.0.port", "http"), "found on 0 Services"),
    (edit("ServiceMonitor.spec.endpoints.0.interval", "often"), "duration"),
    (edit("NetworkPolicy.spec.ingress.0.ports.0.port", "rpc"), "port 'rpc'"),
    (edit(POD + ".securityContext.runAsNonRoot", None), "runAsNonRoot"),
    (edit(POD + ".securityContext.runAsUser", 0), "runs as root"),
    (edit(POD + ".securityContext.seccompProfile", None), "seccompProfile"),
    (edit(SERVER + ".securityContext.allowPrivilegeEscalation", True), "allowPrivilegeEscalation"),
    (edit(SERVER + ".securityContext.capabilities.drop", []), "capabilities.drop"),
    (edit(SERVER + ".securityContext.capabilities.add", ["SYS_ADMIN"]), "capabilities.add"),
    (edit(SERVER + ".securityContext.privileged", True), "privileged"),
    (edit(SERVER + ".securityContext.readOnlyRootFilesystem", False), "readOnlyRootFilesystem"),
    (edit(SERVER + ".resources.requests", None), "requests no resources"),
    (edit(POD + ".hostNetwork", True), "hostNetwork"),
]
HELP = ("--data --listen --metrics-listen --model-root --load --memory-budget --threads --no-worker --drain --drain-delay "
        "--max-queued-generations --log-level")


class CheckManifests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.documents = [d for d in yaml.safe_load_all(render(HERE / "values/monitored.yaml")) if d]

    def faults(self, change, versions):
        documents = copy.deepcopy(self.documents)
        change(documents)
        return check_manifests.check(yaml.safe_dump_all(documents), versions, help_text=HELP)

    def test_finds_nothing_in_sound_manifests(self):
        self.assertEqual(self.faults(lambda documents: None, ["1.33"]), [])

    def test_finds_what_the_schemas_find(self):
        for change, name in SCHEMA:
            with self.subTest(name):
                self.assertIn(name, "\n".join(self.faults(change, ["1.33"])))

    def test_finds_what_the_schemas_let_pass(self):
        for change, name in OWN:
            with self.subTest(name):
                versions = ["1.33"] if name.startswith("kind") else []
                self.assertIn(name, "\n".join(self.faults(change, versions)))

    def test_refuses_no_manifests(self):
        self.assertEqual(check_manifests.check(""), ["no manifests"])

    def test_reads_quantities(self):
        for text, number in (("1", 1), ("100m", 0.1), ("2Gi", 2 << 30), ("1.5", 1.5), (3, 3), ("1e3", 1000), ("5k", 5000)):
            self.assertEqual(check_manifests.quantity(text), number)
        for text in ("", "Gi", "1 Gi", "1gb", "-1", None, True, [1], "1Gib"):
            self.assertIsNone(check_manifests.quantity(text), text)


if __name__ == "__main__":
    unittest.main()
