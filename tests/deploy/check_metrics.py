#!/usr/bin/env python3
"""Checks that every metric and label that the dashboards and rules use is really exported.

  check_metrics.py http://HOST:PORT/metrics     a running server that has quantized and painted
  check_metrics.py FILE                         the same text in a file
  check_metrics.py --catalogue                  what lib/metrics/metrics.h declares

A series that a healthy server need not have (RARE) may be missing from the text if the catalogue declares it.
"""
import json
import pathlib
import re
import sys
import urllib.request

import yaml

import promql

ROOT = pathlib.Path(__file__).resolve().parents[2]
CATALOGUE = ROOT / "lib/metrics/metrics.h"
DASHBOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))
RULES = ROOT / "deploy/prometheus/rules.yml"

# Labels that Prometheus or the operator adds; a metric's own label of such a name is seen as exported_<name>.
TARGET = {"job", "instance", "namespace", "pod", "service", "endpoint", "container"}
BUILTIN = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}
RARE = {
    "tempera_feature_cache_verify_failures_total", "tempera_feature_cache_evictions_total",
    "tempera_quantize_job_progress_ratio",
}
SUFFIX = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


def catalogue(text):
    """Metric -> labels, as declared; a histogram's three names each."""
    out = {}
    pattern = re.compile(r'\b(Counter|Gauge|Histogram)Family<(\d+)>\s+\w+\{\s*registry,\s*"(\w+)",\s*((?:"[^"]*"\s*)+)'
                         r'(?:,\s*\{([^}]*)\})?', re.DOTALL)
    for kind, count, name, _, labels in pattern.findall(text):
        found = set(re.findall(r'"(\w+)"', labels))
        if len(found) != int(count):
            raise ValueError(f"{name}: {count} labels are declared, read {sorted(found)}")
        for suffix in SUFFIX[kind.lower()]:
            out[name + suffix] = found | ({"le"} if suffix == "_bucket" else set())
    if len(out) < 20:
        raise ValueError(f"{CATALOGUE.name}: only {len(out)} metrics were understood")
    return out


def exposition(text):
    """Metric -> labels, from Prometheus' text format."""
    out = {}
    for line in text.splitlines():
        match = re.match(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+[^\s]+", line)
        if line.startswith("#") or not match:
            continue
        labels = re.findall(r'([a-zA-Z_][a-zA-Z0-9_]*)="(?:[^"\\]|\\.)*"', match.group(2) or "")
        out.setdefault(match.group(1), set()).update(labels)
    return out


def seen(labels):
    """A metric's labels as Prometheus stores them."""
    return {("exported_" + label if label in TARGET else label) for label in labels} | TARGET


class Checker:
    def __init__(self, exported, declared, rules):
        self.exported, self.declared = exported, declared
        self.faults, self.used = [], set()
        self.records = {r["record"]: r["expr"] for g in rules["groups"] for r in g["rules"] if "record" in r}

    def labels(self, metric, where):
        """The labels of a metric, or None: a fault is noted."""
        if metric in BUILTIN:
            return None if metric == "ALERTS" else BUILTIN[metric] | TARGET
        if metric in self.records:
            expression = self.records[metric]
            use = promql.parse(expression)
            lists = [labels for word, labels, _ in use.groupings if word == "by"]
            if lists:
                return set().union(*lists) - ({"le"} if "histogram_quantile" in expression else set())
            known = [self.labels(m, where) for m in use.metrics]
            return None if None in known else set().union(*known)
        self.used.add(metric)
        if metric in self.exported:
            return seen(self.exported[metric])
        if metric in RARE and metric in self.declared:
            return seen(self.declared[metric])
        self.fault(where, f"{metric} is not exported")
        return None

    def fault(self, where, text):
        line = f"{where}: {text}"
        if line not in self.faults:
            self.faults.append(line)

    def expression(self, where, text):
        """Notes the faults of an expression; returns the labels that its series may have, or None if unknown."""
        use = promql.parse(text)
        known = {metric: self.labels(metric, where) for metric in use.metrics}
        for metric, labels in use.selectors:
            for label in labels:
                if known[metric] is not None and label not in known[metric]:
                    self.fault(where, f"{metric} has no label {label}, it has {sorted(known[metric])}")
        for word, labels, metrics in use.groupings:
            for label in labels:
                if all(known[m] is not None and label not in known[m] for m in metrics):
                    self.fault(where, f"{word} ({label}): none of {metrics} has it")
        if any(labels is None for labels in known.values()):
            return None
        kept = [labels for word, labels, _ in use.groupings if word == "by"]
        return set().union(*kept) if kept else set().union(*known.values())

    def text(self, where, text, labels, pattern):
        for label in re.findall(pattern, text):
            if labels is not None and label not in labels:
                self.fault(where, f"{text!r} names label {label}, the series have {sorted(labels)}")

    def rules(self, rules):
        for group in rules["groups"]:
            for rule in group["rules"]:
                where = rule.get("alert") or rule["record"]
                labels = self.expression(where, rule["expr"])
                for text in (rule.get("annotations") or {}).values():
                    self.text(where, text, labels, r"\$labels\.(\w+)")

    def dashboard(self, dashboard):
        for variable in dashboard["templating"]["list"]:
            if variable["type"] != "query":
                continue
            match = re.fullmatch(r"label_values\((.*),\s*(\w+)\)", variable["query"]["query"])
            where = f"variable {variable['name']}"
            if not match:
                self.fault(where, f"is no label_values: {variable['query']['query']}")
                continue
            labels = self.expression(where, match.group(1))
            if labels is not None and match.group(2) not in labels:
                self.fault(where, f"{match.group(1)} has no label {match.group(2)}")
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                where = f"panel {panel['title']!r}"
                labels = self.expression(where, target["expr"])
                self.text(where, target["legendFormat"], labels, r"\{\{\s*(\w+)\s*\}\}")
        for annotation in dashboard["annotations"]["list"]:
            where = f"annotation {annotation['name']!r}"
            labels = self.expression(where, annotation["expr"])
            self.text(where, annotation["titleFormat"] + annotation["textFormat"], labels, r"\{\{\s*(\w+)\s*\}\}")


def check(exported, declared):
    """(faults, metrics used) of our rules and dashboards against what is exported."""
    rules = yaml.safe_load(RULES.read_text())
    checker = Checker(exported, declared, rules)
    checker.rules(rules)
    for path in DASHBOARDS:
        checker.dashboard(json.loads(path.read_text()))
    return checker.faults, checker.used


def main():
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return 2
    source = sys.argv[1]
    declared = catalogue(CATALOGUE.read_text())
    if source == "--catalogue":
        exported = declared
    elif "://" in source:
        exported = exposition(urllib.request.urlopen(source, timeout=10).read().decode())
    else:
        exported = exposition(pathlib.Path(source).read_text())
    faults, used = check(exported, declared)
    print("\n".join(faults) or f"{len(used)} metrics are used, all are exported")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
