#!/usr/bin/env python3
"""The Grafana dashboards: their form, their queries, and the check of metrics itself."""
import json
import pathlib
import re
import subprocess
import tempfile
import unittest

import yaml

import check_metrics
import promql

HERE = pathlib.Path(__file__).resolve().parent
DASHBOARDS = {path.name: json.loads(path.read_text()) for path in check_metrics.DASHBOARDS}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
VARIABLES = {"$__rate_interval": "5m", "$__range": "1h", "$__interval": "1m", "$namespace": ".*", "$job": ".*",
             "$model": ".*", "$artifact": ".*"}


def substitute(expression):
    for name in sorted(VARIABLES, key=len, reverse=True):
        expression = expression.replace(name, VARIABLES[name])
    return expression


def panels(dashboard):
    return [p for p in dashboard["panels"] if p["type"] != "row"]


def expressions(dashboard):
    """(where, expression) of every query."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def walk(value):
    yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from walk(child)


class Dashboards(unittest.TestCase):
    def test_are_there(self):
        self.assertIn("temporal-fidelity.json", DASHBOARDS)

    def test_form(self):
        for name, dashboard in DASHBOARDS.items():
            with self.subTest(name):
                self.assertRegex(dashboard["uid"], r"^tempera-[a-z-]+$")
                self.assertLessEqual(len(dashboard["uid"]), 40)
                self.assertNotIn("id", dashboard)  # Grafana gives it
                self.assertGreaterEqual(dashboard["schemaVersion"], 36)
                self.assertIs(dashboard["editable"], False)
                self.assertTrue(dashboard["description"])
                names = [v["name"] for v in dashboard["templating"]["list"]]
                self.assertEqual(names, ["datasource", "namespace", "job", "model", "artifact"])
                ids = [p["id"] for p in dashboard["panels"]]
                self.assertEqual(len(ids), len(set(ids)))
                titles = [p["title"] for p in dashboard["panels"]]
                self.assertEqual(len(titles), len(set(titles)))

    def test_no_data_source_is_named(self):
        for dashboard in DASHBOARDS.values():
            found = [v["datasource"] for v in walk(dashboard) if isinstance(v, dict) and "datasource" in v]
            self.assertGreater(len(found), 10)
            for datasource in found:
                self.assertEqual(datasource, DATASOURCE)

    def test_each_panel_explains_itself(self):
        for dashboard in DASHBOARDS.values():
            for panel in panels(dashboard):
                with self.subTest(panel["title"]):
                    self.assertGreater(len(panel["description"]), 20)
                    unit = panel["options"].get("cellValues", {}).get("unit") or panel["fieldConfig"]["defaults"].get("unit")
                    self.assertTrue(unit)
                    if panel["type"] in ("stat", "timeseries"):
                        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
                        self.assertIsNone(steps[0]["value"])
                        values = [step["value"] for step in steps[1:]]
                        self.assertEqual(values, sorted(values))
                    refs = [t["refId"] for t in panel["targets"]]
                    self.assertEqual(len(refs), len(set(refs)))

    def test_panels_do_not_overlap(self):
        for dashboard in DASHBOARDS.values():
            taken = {}
            for panel in dashboard["panels"]:
                grid = panel["gridPos"]
                self.assertLessEqual(grid["x"] + grid["w"], 24)
                for x in range(grid["x"], grid["x"] + grid["w"]):
                    for y in range(grid["y"], grid["y"] + grid["h"]):
                        self.assertNotIn((x, y), taken, f"{panel['title']} lies on {taken.get((x, y))}")
                        taken[x, y] = panel["title"]

    def test_windows_follow_the_resolution(self):
        for dashboard in DASHBOARDS.values():
            for where, expression in expressions(dashboard):
                for window in promql.parse(expression).windows:
                    self.assertIn(window, ("[$__rate_interval]", "[$__range]"), where)

    def test_every_query_is_filtered_by_the_variables(self):
        for dashboard in DASHBOARDS.values():
            for where, expression in expressions(dashboard):
                for metric, labels in promql.parse(expression).selectors:
                    self.assertLessEqual({"namespace", "job"}, set(labels), f"{where}: {metric}")

    def test_prometheus_parses_every_query(self):
        groups = [{"name": name, "rules": [{"record": f"query:x{i}:x", "expr": substitute(expression)}
                                           for i, (_, expression) in enumerate(expressions(dashboard))]}
                  for name, dashboard in DASHBOARDS.items()]
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            yaml.safe_dump({"groups": groups}, file)
            file.flush()
            done = subprocess.run(["promtool", "check", "rules", "--lint=none", file.name], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_main_panels_are_there(self):
        text = {p["title"]: " ".join(t["expr"] for t in p["targets"]) + " " + p["type"]
                for p in panels(DASHBOARDS["temporal-fidelity.json"])}
        whole = " ".join(text.values())
        self.assertIn("heatmap", text["Error by timestep bin"])
        for metric in ("tempera_temporal_feature_error_baseline_ratio", "tempera_feature_cache_bytes",
                       "tempera_feature_cache_entries", "tempera_model_memory_budget_bytes",
                       "tempera_denoise_step_duration_seconds_bucket", "tempera_denoise_steps_total"):
            self.assertIn(metric, whole)


class CheckMetrics(unittest.TestCase):
    """The check against the catalogue, and that it finds what is missing."""

    @classmethod
    def setUpClass(cls):
        cls.declared = check_metrics.catalogue(check_metrics.CATALOGUE.read_text())

    def test_all_that_is_used_is_declared(self):
        faults, used = check_metrics.check(self.declared, self.declared)
        self.assertEqual(faults, [])
        self.assertGreater(len(used), 25)

    def test_finds_each_missing_metric_and_label(self):
        _, used = check_metrics.check(self.declared, self.declared)
        for metric in used:
            with self.subTest(metric):
                exported = {m: labels for m, labels in self.declared.items() if m != metric}
                faults = check_metrics.check(exported, {})[0]
                self.assertTrue(any(metric in fault for fault in faults))
        exported = dict(self.declared)
        name = "tempera_temporal_feature_error_ratio_sum"
        exported[name] = exported[name] - {"timestep_bin"}
        exported[name.replace("_sum", "_count")] = exported[name]
        self.assertTrue(any("timestep_bin" in fault for fault in check_metrics.check(exported, self.declared)[0]))

    def test_a_rare_metric_may_be_missing_but_not_unknown(self):
        exported = {m: labels for m, labels in self.declared.items() if m not in check_metrics.RARE}
        self.assertEqual(check_metrics.check(exported, self.declared)[0], [])
        self.assertNotEqual(check_metrics.check(exported, exported)[0], [])
        self.assertLessEqual(check_metrics.RARE, set(self.declared))

    def test_reads_the_text_format(self):
        found = check_metrics.exposition(
            '# HELP a_total A {b="c"} 1\n# TYPE a_total counter\na_total{x="1",y="\\"}, z=\\"2"} 1\n'
            'h_bucket{le="0.5"} 1\nh_bucket{le="+Inf"} 1\nh_sum 1e-3\nplain 3 1700000000000\n')
        self.assertEqual(found, {"a_total": {"x", "y"}, "h_bucket": {"le"}, "h_sum": set(), "plain": set()})

    def test_reads_promql(self):
        use = promql.parse('sum by (a, le) (rate(m_bucket{x=~"(b|c)", y!="m"}[5m])) / on (a) group_left (z) n{q="1"} '
                           'and time() - o offset 5m > 1e3 or vector(0)')
        self.assertEqual(use.selectors, [("m_bucket", ["x", "y"]), ("n", ["q"]), ("o", [])])
        self.assertEqual(use.groupings[0], ("by", ["a", "le"], ["m_bucket"]))
        self.assertEqual(use.groupings[1][:2], ("on", ["a"]))
        self.assertEqual(use.windows, ["[5m]"])
        with self.assertRaises(ValueError):
            promql.parse('{job="x"}')

    def test_every_legend_is_checked(self):
        checker = check_metrics.Checker(self.declared, self.declared, yaml.safe_load(check_metrics.RULES.read_text()))
        dashboard = json.loads(json.dumps(DASHBOARDS["temporal-fidelity.json"]))
        panels(dashboard)[-1]["targets"][0]["legendFormat"] = "{{nothing}}"
        checker.dashboard(dashboard)
        self.assertTrue(any("nothing" in fault for fault in checker.faults))


if __name__ == "__main__":
    unittest.main()
