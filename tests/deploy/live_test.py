#!/usr/bin/env python3
"""Every dashboard query and rule, asked of a real Prometheus.

  live_test.py                                 it scrapes a stand-in that exports what lib/metrics/metrics.h declares
  live_test.py http://HOST:PORT/metrics        it scrapes a running server that has quantized and painted

Prometheus (Debian's package) runs on a free port of the loopback with a folder of its own; no service is touched.
"""
import http.server
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import check_metrics
import dashboard_test
import promql

PATIENCE_S = 180
WINDOWS = {"$__rate_interval": "1m", "$__range": "1m", "$__interval": "5s"}
VALUES = {"timestep_bin": [f"{i:02}" for i in range(20)], "block_group": ["down", "mid", "up"], "model": ["fashion"],
          "artifact": ["3fa90c11d2e8"], "method": ["tempera.v1.GenerationService/Generate"], "code_class": ["ok"],
          "reason": ["budget"], "state": ["queued", "running"]}


def stand_in():
    """A server that exports every declared metric; counters and histograms grow with each scrape. Returns its URL."""
    declared = check_metrics.catalogue(check_metrics.CATALOGUE.read_text())
    scrapes = [0]

    def series(labels):
        out = [{}]
        for label in sorted(labels):
            out = [{**one, label: value} for one in out for value in VALUES.get(label, ["x"])]
        return out

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            scrapes[0] += 1
            lines = []
            for metric, labels in declared.items():
                grows = metric.endswith(("_total", "_bucket", "_sum", "_count"))
                for one in series(labels - {"le"}):
                    for le in ("0.5", "30", "+Inf") if "le" in labels else (None,):
                        text = ",".join(f'{k}="{v}"' for k, v in {**one, **({"le": le} if le else {})}.items())
                        value = scrapes[0] if grows else 1
                        lines.append(f"{metric}{{{text}}} {value}")
            body = ("\n".join(lines) + "\n").encode()
            try:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(body)
            except BrokenPipeError:
                pass  # on a busy machine Prometheus may have given this scrape up

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/metrics"


class Prometheus:
    def __init__(self, target, folder):
        url = urllib.parse.urlsplit(target)
        folder = pathlib.Path(folder)
        shutil.copy(check_metrics.RULES, folder / "rules.yml")
        (folder / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"}, "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "tempera", "metrics_path": url.path, "scheme": url.scheme,
                                "static_configs": [{"targets": [url.netloc]}]}]}))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % free.getsockname()[1]
        self.base = f"http://{address}/api/v1/"
        self.log = folder / "log"
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address={address}"], stdout=subprocess.DEVNULL, stderr=self.log.open("w"))

    def get(self, path, **parameters):
        with urllib.request.urlopen(self.base + path + "?" + urllib.parse.urlencode(parameters), timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        return self.get("query", query=expression)["result"]

    def wait(self):
        """Until the target was scraped."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"prometheus ended: {self.log.read_text()[-2000:]}")
            try:
                if self.query("up == 1"):
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise RuntimeError(f"the target was not scraped: {self.log.read_text()[-2000:]}")

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def queries():
    for dashboard in dashboard_test.DASHBOARDS.values():
        for panel in dashboard_test.panels(dashboard):
            for target in panel["targets"]:
                if not set(promql.parse(target["expr"]).metrics) <= check_metrics.RARE:
                    expression = target["expr"]
                    for name, value in WINDOWS.items():
                        expression = expression.replace(name, value)
                    yield panel["title"], dashboard_test.substitute(expression)


def main():
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        print(__doc__)
        return 2
    target = sys.argv[1] if len(sys.argv) > 1 else stand_in()
    with tempfile.TemporaryDirectory() as folder:
        prometheus = Prometheus(target, folder)
        try:
            prometheus.wait()
            faults = check(prometheus)
        finally:
            prometheus.stop()
    print("\n".join(faults) or f"{len(list(queries()))} queries return data, every rule is evaluated")
    return 1 if faults else 0


def check(prometheus):
    missing, end = list(queries()), time.monotonic() + PATIENCE_S
    while missing and time.monotonic() < end:
        missing = [(title, expression) for title, expression in missing if not prometheus.query(expression)]
        time.sleep(0.5 if missing else 0)
    faults = [f"panel {title!r}: no data for {expression}" for title, expression in missing]
    for dashboard in dashboard_test.DASHBOARDS.values():
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query" and variable["name"] != "namespace":  # only Kubernetes has that label
                text = dashboard_test.substitute(variable["query"]["query"])
                selector, label = text[len("label_values("):-1].rsplit(",", 1)
                if not prometheus.get(f"label/{label.strip()}/values", **{"match[]": selector}):
                    faults.append(f"variable {variable['name']}: no values for {text}")
    rules, end = [], time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        # A starved Prometheus evaluates a rule twice for one time stamp and says so once: only what stays is a fault.
        if rules and all(rule["health"] == "ok" for rule in rules):
            break
        time.sleep(0.5)
    faults += [f"rule {r['name']}: {r['health']}: {r.get('lastError')}" for r in rules if r["health"] != "ok"]
    if len(rules) < 20:
        faults.append(f"only {len(rules)} rules were evaluated")
    return faults


if __name__ == "__main__":
    sys.exit(main())
