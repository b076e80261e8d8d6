#!/usr/bin/env python3
"""The chart: lint, rendering with several sets of values, validation, refusals. Optional argument: tempera-server."""
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import unittest

import yaml

import chart_readme
import check_manifests

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CHART = ROOT / "helm/tempera"
SETS = sorted((HERE / "values").glob("*.yaml"))
SERVER = None

# A value that must be refused, and what the refusal must name.
REFUSED = [
    ("replicaCount=2", "replicaCount"),
    ("replicas=2", "replicas"),
    ("image.pullPolicy=Sometimes", "pullPolicy"),
    ("image.digest=sha256:abc", "digest"),
    ("image.repository=Tempera", "repository"),
    ("image.name=tempera", "name"),
    ("fullnameOverride=Not_A_Name", "fullnameOverride"),
    ("server.threads=-1", "threads"),
    ("server.threads=two", "threads"),
    ("server.memoryBudgetBytes=4Gi", "memoryBudgetBytes"),
    ("server.modelRoots={relative/path}", "modelRoots"),
    ("server.load={--no-worker}", "load"),
    ("server.modelRoot=/srv", "modelRoot"),
    ("worker.enabled=maybe", "enabled"),
    ("models.mountPath=models", "mountPath"),
    ("persistence.accessMode=ReadWriteMany", "accessMode"),
    ("persistence.size=lots", "size"),
    ("persistence.size=0", "size"),
    ("service.type=Cluster", "type"),
    ("service.grpcPort=0", "grpcPort"),
    ("service.grpcPort=65536", "grpcPort"),
    ("service.metricsPort=http", "metricsPort"),
    ("resources.limits.cpu=fast", "cpu"),
    ("resources.limits.cpu={1}", "cpu"),
    ("resources.limit.cpu=1", "limit"),
    ("probes.startup.periodSeconds=0", "periodSeconds"),
    ("probes.readiness.path=/", "path"),
    ("server.drainSeconds=soon", "drainSeconds"),
    ("server.logLevel=loud", "logLevel"),
    ("podSecurityContext.runAsUserr=0", "runAsUserr"),
    ("securityContext.capabilities.dropp={ALL}", "dropp"),
    ("podSecurityContext.seccompProfile.type=Default", "type"),
    ("commonLabels.team=a b", "team"),
    ("extraEnv[0].name=1BAD", "extraEnv"),
    ("extraVolumes[0].name=data", "extraVolumes"),
    ("tolerations[0].effect=Never", "effect"),
    ("serviceMonitor.interval=often", "interval"),
    ("prometheusRule.runbookBaseUrl=ftp://x", "runbookBaseUrl"),
    ("networkPolicy.grpcFrom[0].pods=x", "grpcFrom"),
    ("dashboards.label=x", "label"),
]


def helm(*arguments, ok=True):
    done = subprocess.run([os.environ["HELM"], *map(str, arguments)], capture_output=True, text=True)
    # helm tells on standard error that the chart's files are links into deploy/.
    errors = "\n".join(line for line in done.stderr.splitlines() if "found symbolic link in path" not in line)
    if ok and done.returncode != 0:
        raise AssertionError(f"helm {' '.join(map(str, arguments))}: {errors}{done.stdout}")
    return done.returncode, done.stdout, errors


def render(values, *more):
    return helm("template", "rel", CHART, "--namespace", "images", "--kube-version", "1.33.0", "-f", values, *more)[1]


def objects(text):
    return {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(text) if d}


class Chart(unittest.TestCase):
    def test_lints_strictly_with_every_set(self):
        for values in SETS:
            with self.subTest(values.name):
                _, out, errors = helm("lint", "--strict", CHART, "-f", values)
                self.assertIn("1 chart(s) linted, 0 chart(s) failed", out)
                self.assertNotIn("[WARNING]", out + errors)

    def test_renders_valid_manifests_with_every_set(self):
        help_text = None
        if SERVER:
            help_text = subprocess.run([SERVER, "--help"], capture_output=True, text=True, check=True).stdout
        for values in SETS:
            with self.subTest(values.name):
                faults = check_manifests.check(render(values), claims=["models"], help_text=help_text)
                self.assertEqual(faults, [])

    def test_refuses_bad_values(self):
        for setting, name in REFUSED:
            with self.subTest(setting):
                code, _, errors = helm("template", "rel", CHART, "--set", setting, ok=False)
                self.assertNotEqual(code, 0, "was rendered")
                self.assertIn("values don't meet the specifications of the schema", errors)
                self.assertIn(name, errors)

    def test_refuses_an_old_kubernetes(self):
        code, _, errors = helm("template", "rel", CHART, "--kube-version", "1.26.0", ok=False)
        self.assertNotEqual(code, 0)
        self.assertIn("kubeVersion", errors)

    def test_schema_and_values_name_the_same_keys(self):
        schema = json.loads((CHART / "values.schema.json").read_text())
        values = yaml.safe_load((CHART / "values.yaml").read_text())

        def compare(schema, value, path):
            properties = schema.get("properties", {})
            if schema.get("type") == "object" and properties:
                self.assertIs(schema.get("additionalProperties"), False, f"{path}: open")
            if not isinstance(value, dict) or not properties:
                return
            self.assertEqual(set(value) - set(properties), set(), f"{path}: not in the schema")
            # What Kubernetes defines may be left out of values.yaml; what the chart defines may not.
            if path.split(".")[-1] not in ("podSecurityContext", "securityContext", "capabilities", "affinity"):
                self.assertEqual(set(properties) - set(value) - {"global"}, set(), f"{path}: not in values.yaml")
            for key, child in value.items():
                compare(properties[key], child, f"{path}.{key}")

        compare(schema, values, "values")

    def test_readme_has_the_table_of_the_values(self):
        self.assertIn(chart_readme.table((CHART / "values.yaml").read_text()), (CHART / "README.md").read_text())

    def test_package_holds_the_files_of_deploy(self):
        with tempfile.TemporaryDirectory() as folder:
            helm("package", CHART, "-d", folder)
            with tarfile.open(next(pathlib.Path(folder).glob("*.tgz"))) as package:
                for name, source in (("rules.yml", "prometheus/rules.yml"),
                                     ("temporal-fidelity.json", "grafana/temporal-fidelity.json")):
                    self.assertEqual(package.extractfile(f"tempera/files/{name}").read(),
                                     (ROOT / "deploy" / source).read_bytes())

    def test_one_pod_that_is_recreated(self):
        deployment = objects(render(HERE / "values/default.yaml"))["Deployment", "rel-tempera"]
        self.assertEqual(deployment["spec"]["replicas"], 1)
        self.assertEqual(deployment["spec"]["strategy"], {"type": "Recreate"})

    def test_optional_objects_are_off_by_default(self):
        kinds = {kind for kind, _ in objects(render(HERE / "values/default.yaml"))}
        self.assertEqual(kinds, {"Deployment", "Service", "ServiceAccount", "PersistentVolumeClaim", "Pod"})
        kinds = {kind for kind, _ in objects(render(HERE / "values/ephemeral.yaml"))}
        self.assertEqual(kinds, {"Deployment", "Service", "Pod", "ServiceMonitor"})

    def test_values_reach_the_server(self):
        found = objects(render(HERE / "values/full.yaml"))
        server = found["Deployment", "painter"]["spec"]["template"]["spec"]["containers"][0]
        self.assertEqual(server["args"], [
            "--data=/var/lib/tempera", "--listen=0.0.0.0:50051", "--metrics-listen=0.0.0.0:9464",
            "--model-root=/opt/tempera/zoo", "--model-root=/srv/more", "--model-root=/models", "--load=fashion:stable",
            "--load=/opt/tempera/zoo/fashion", "--memory-budget=8589934592", "--threads=8",
            "--max-queued-generations=1000000", "--drain-delay=0", "--drain=600", "--log-level=debug", "--no-worker"])
        self.assertEqual(found["Deployment", "painter"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 610)
        self.assertEqual(server["image"], "registry.example.org:5000/team/tempera@sha256:" + "0123456789abcdef" * 4)
        self.assertEqual(found["PersistentVolumeClaim", "painter-data"]["spec"]["storageClassName"], "fast")
        self.assertNotIn("helm.sh/resource-policy", found["PersistentVolumeClaim", "painter-data"]["metadata"]["annotations"])
        self.assertEqual(found["Service", "painter"]["spec"]["ports"][0]["port"], 443)

    def test_rule_object_holds_the_rules(self):
        found = objects(render(HERE / "values/monitored.yaml"))
        source = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())
        spec = found["PrometheusRule", "rel-tempera"]["spec"]
        links = [rule["annotations"].pop("runbook_url") for group in spec["groups"] for rule in group["rules"] if "alert" in rule]
        wanted = [rule["annotations"].pop("runbook_url") for group in source["groups"] for rule in group["rules"] if "alert" in rule]
        self.assertEqual(spec, source)
        self.assertEqual(links, ["https://wiki.example.org/tempera/" + link for link in wanted])
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            yaml.safe_dump(spec, file)
            file.flush()
            done = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_dashboard_object_holds_the_dashboard(self):
        found = objects(render(HERE / "values/monitored.yaml"))["ConfigMap", "rel-tempera-dashboards"]
        self.assertEqual(json.loads(found["data"]["temporal-fidelity.json"]),
                         json.loads((ROOT / "deploy/grafana/temporal-fidelity.json").read_text()))
        self.assertLess(len(found["data"]["temporal-fidelity.json"]), 1 << 20)
        self.assertEqual(found["metadata"]["labels"]["grafana_dashboard"], "1")

    def test_versions_agree_with_the_sources(self):
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        project = re.search(r"project\(tempera VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text()).group(1)
        self.assertEqual(chart["appVersion"], project)

    def test_notes_name_the_service(self):
        out = helm("install", "rel", CHART, "--dry-run=client")[1]
        self.assertIn("port-forward service/rel-tempera 50051:50051", out)
        self.assertIn("helm test rel", out)


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        SERVER = sys.argv.pop(1)
    unittest.main()
