#!/usr/bin/env python3
"""The Prometheus rules: promtool's checks, its unit tests, and what every alert must have."""
import pathlib
import re
import subprocess
import tempfile
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/prometheus"
RULES = yaml.safe_load((FOLDER / "rules.yml").read_text())
TESTS = yaml.safe_load((FOLDER / "rules_test.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]


def promtool(*arguments):
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, cwd=FOLDER)


def anchors(text):
    """The anchors of a Markdown file's headings, as renderers make them."""
    return {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)}


class Rules(unittest.TestCase):
    def test_promtool_accepts_them(self):
        done = promtool("check", "rules", "rules.yml")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_unit_tests_pass(self):
        done = promtool("test", "rules", "rules_test.yml")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_each_alert_is_seen_firing_and_silent(self):
        firing, silent = set(), set()
        for test in TESTS["tests"]:
            for case in test.get("alert_rule_test", []):
                (firing if case["exp_alerts"] else silent).add(case["alertname"])
        names = {alert["alert"] for alert in ALERTS}
        self.assertEqual(firing, names)
        self.assertEqual(silent, names)

    def test_each_alert_says_what_a_person_needs(self):
        for alert in ALERTS:
            with self.subTest(alert["alert"]):
                self.assertIn(alert["labels"]["severity"], ("critical", "warning"))
                self.assertEqual(set(alert["annotations"]), {"summary", "description", "runbook_url"})
                for text in alert["annotations"].values():
                    self.assertTrue(text.strip())

    def test_runbooks_are_there(self):
        known = anchors((ROOT / "docs/operations.md").read_text())
        for alert in ALERTS:
            url = alert["annotations"]["runbook_url"]
            self.assertEqual(url, f"docs/operations.md#{alert['alert'].lower()}")
            self.assertIn(url.split("#")[1], known)

    def test_records_follow_the_naming(self):
        for group in RULES["groups"]:
            for rule in group["rules"]:
                if "record" in rule:
                    self.assertRegex(rule["record"], r"^(instance|job|model|method):tempera_[a-z_]+:[a-z0-9_]+$")

    def test_a_changed_threshold_fails_the_unit_tests(self):
        for old, new in (("over_baseline > 1.5", "over_baseline > 15"), ("> 1.001 *", "> 2 *"), ("< 0.999 *", "< 0.1 *"),
                         ("for: 10m", "for: 60m")):
            text = (FOLDER / "rules.yml").read_text()
            self.assertIn(old, text)
            some = {**TESTS, "tests": [t for t in TESTS["tests"] if "temporal features" in t["name"]]}
            with tempfile.TemporaryDirectory() as folder:
                pathlib.Path(folder, "rules.yml").write_text(text.replace(old, new))
                pathlib.Path(folder, "rules_test.yml").write_text(yaml.safe_dump(some))
                done = promtool("test", "rules", pathlib.Path(folder, "rules_test.yml"))
                self.assertNotEqual(done.returncode, 0, f"{old} -> {new} was not noticed")


if __name__ == "__main__":
    unittest.main()
