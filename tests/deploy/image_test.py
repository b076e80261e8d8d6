#!/usr/bin/env python3
"""deploy/Dockerfile, by reading, and its health check, by running. Arguments: the programs that were built, if any."""
import http.server
import os
import pathlib
import re
import subprocess
import sys
import threading
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
PROGRAMS = []
# In every Debian: the C and C++ run time.
BASE_PACKAGES = {"libc6", "libgcc-s1", "libstdc++6"}


def instructions():
    """(word, rest) of each instruction, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.M).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def of(word):
    return [rest for name, rest in instructions() if name == word]


class Dockerfile(unittest.TestCase):
    def test_syntax_is_plain(self):
        self.assertNotIn("<<", DOCKERFILE)
        self.assertNotRegex(DOCKERFILE, r"(?i)^#\s*syntax=")
        for rest in of("RUN") + of("COPY"):
            for flag in ("--mount", "--chmod", "--link", "--network", "--security"):
                self.assertNotIn(flag, rest.split("&&")[0])
        self.assertTrue(os.access(ROOT / "deploy/healthcheck.sh", os.X_OK))

    def test_what_it_copies_is_there(self):
        stages = set(re.findall(r"AS (\w+)", DOCKERFILE))
        for rest in of("COPY"):
            words = rest.split()
            source = [w for w in words if not w.startswith("--")][:-1]
            stage = next((w.split("=")[1] for w in words if w.startswith("--from=")), None)
            if stage:
                self.assertIn(stage, stages)
                continue
            for path in source:
                self.assertTrue((ROOT / path).exists(), f"{path} is not there")

    def test_last_stage_is_not_root(self):
        values = yaml.safe_load((ROOT / "helm/tempera/values.yaml").read_text())
        user = values["podSecurityContext"]["runAsUser"]
        group = values["podSecurityContext"]["runAsGroup"]
        self.assertEqual(of("USER"), [f"{user}:{group}"])
        self.assertGreater(user, 0)

    def test_ports_and_start_are_the_chart_s(self):
        self.assertEqual(of("EXPOSE"), ["50051 9464"])
        self.assertEqual(of("ENTRYPOINT"), ['["tempera-server"]'])
        self.assertIn('CMD ["tempera-healthcheck"]', of("HEALTHCHECK")[0])
        deployment = (ROOT / "helm/tempera/templates/deployment.yaml").read_text()
        for flag in ("--data=/var/lib/tempera", "--listen=0.0.0.0:50051", "--metrics-listen=0.0.0.0:9464"):
            self.assertIn(flag, of("CMD")[0])
            self.assertIn(flag, deployment)

    def test_installs_only_what_is_named(self):
        for rest in of("RUN"):
            if "apt-get install" in rest:
                self.assertIn("--no-install-recommends", rest)
                self.assertIn("rm -rf /var/lib/apt/lists/*", rest)

    def package(self, path):
        """The Debian package of a file; /lib is a link to /usr/lib, and packages name either."""
        real = os.path.realpath(path)
        for name in (real, real.removeprefix("/usr")):
            owner = subprocess.run(["dpkg", "-S", name], capture_output=True, text=True)
            if owner.returncode == 0:
                return owner.stdout.split(":")[0]
        self.fail(f"{path} belongs to no package")

    def test_libraries_of_the_programs_are_installed(self):
        if not PROGRAMS:
            self.skipTest("no programs were built")
        listed = set(re.findall(r"\blib[a-z0-9+.-]+", DOCKERFILE.split("apt-get install")[-1].split("&&")[0]))
        needed = set()
        for program in PROGRAMS:
            dynamic = subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True).stdout
            linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
            paths = dict(re.findall(r"^\s*(\S+) => (/\S+)", linked, re.M))
            for name in re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic):
                path = paths.get(name)
                if path is None or str(ROOT / ".deps") in os.path.realpath(path) or ".deps/" in path:
                    continue  # the loader itself; LibTorch, which the image copies
                needed.add(self.package(path))
        self.assertLessEqual(needed - BASE_PACKAGES, listed, "the image lacks libraries")
        # libgomp1 is oneDNN's and libfmt9 spdlog's: they come along anyway.
        self.assertLessEqual(listed - needed, {"libgomp1", "libfmt9", "libgrpc29", "libabsl20220623"}, "installed for nothing")


class HealthCheck(unittest.TestCase):
    def run_against(self, code):
        """The exit status with a server whose /readyz answers `code`; None: no server."""
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.send_response(code if self.path == "/readyz" else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        port = server.server_port
        if code is None:
            server.server_close()
        else:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            return subprocess.run([ROOT / "deploy/healthcheck.sh"], stderr=subprocess.DEVNULL, timeout=20,
                                  env={**os.environ, "TEMPERA_METRICS_PORT": str(port)}).returncode
        finally:
            if code is not None:
                server.shutdown()
                server.server_close()

    def test_ready(self):
        self.assertEqual(self.run_against(200), 0)

    def test_not_ready(self):
        self.assertEqual(self.run_against(503), 1)

    def test_nobody_there(self):
        self.assertEqual(self.run_against(None), 1)


if __name__ == "__main__":
    PROGRAMS = [argument for argument in sys.argv[1:] if "/" in argument]
    sys.argv = [argument for argument in sys.argv if argument not in PROGRAMS]
    unittest.main()
