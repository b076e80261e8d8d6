#!/usr/bin/env python3
"""Kills server and worker with SIGKILL at random moments while jobs run: every job still ends, with the artifact of an
undisturbed run.

  kill_test.py --bin build/bin --model tests/golden/unet/ddpm [--kills 20] [--seed 1] [--only server] \
               [-- quantize options ...]

Kills alternate between a server that holds its worker and a worker beside a server. Only kills that met a worker at
work on a job count. Needs nothing but Python.
"""
import argparse
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

PATIENCE_S = 600  # for anything that must happen


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Site:
    """One data folder and the programs on it."""

    def __init__(self, bin_folder, model, data):
        self.bin, self.model, self.data = bin_folder, os.path.abspath(model), data
        self.port, self.metrics_port = free_port(), free_port()
        self.running = {}

    def start(self, name):
        """"server" (with its worker), "bare server", or "worker"."""
        program = "tempera-worker" if name == "worker" else "tempera-server"
        command = [os.path.join(self.bin, program), "--data", self.data, "--model-root", os.path.dirname(self.model)]
        if name != "worker":
            command += ["--listen", f"127.0.0.1:{self.port}", "--metrics-listen", f"127.0.0.1:{self.metrics_port}"]
        if name == "bare server":
            command.append("--no-worker")
        log = open(os.path.join(self.data, "log"), "ab")
        self.log_before = os.path.getsize(log.name)
        self.running[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def await_worker(self):
        """Until the worker that was started last has begun: before that a SIGTERM ends it as any program."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            with open(os.path.join(self.data, "log"), "rb") as log:
                log.seek(self.log_before)
                if b"worker_started" in log.read():
                    return
            time.sleep(0.05)
        fail("the worker did not begin", self)

    def kill(self, name, how=signal.SIGKILL):
        process = self.running.pop(name)
        if process.poll() is not None:
            fail(f"{name} ended by itself with {process.returncode}", self)
        process.send_signal(how)
        return process.wait(PATIENCE_S)

    def kill_all(self):
        for name in list(self.running):
            self.running.pop(name).kill()

    def call(self, *words):
        """The last JSON line that the client printed; waits for a server that has just begun."""
        end = time.monotonic() + PATIENCE_S
        while True:
            run = subprocess.run(
                [os.path.join(self.bin, "tempera"), "--server", f"127.0.0.1:{self.port}", "--json", *words],
                capture_output=True, text=True)
            lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
            if run.returncode == 0 and lines:
                return json.loads(lines[-1])
            if time.monotonic() > end or "navailable" not in run.stderr.lower() + run.stdout.lower():
                fail(f"tempera {' '.join(words)}: exit {run.returncode}\n{run.stdout}{run.stderr}", self)
            time.sleep(0.05)  # the server is not up yet

    def submit(self, options):
        return self.call("quantize", self.model, "--detach", *options)["job"]

    def job(self, name):
        job = self.call("jobs", "show", name)
        return job["state"], job.get("artifact", "").removeprefix("artifacts/"), job

    def wait(self, name):
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            state, artifact, job = self.job(name)
            if state in ("SUCCEEDED", "FAILED", "CANCELLED", "REJECTED"):
                if state != "SUCCEEDED" or not re.fullmatch("[0-9a-f]{64}", artifact):
                    fail(f"job {name}: {json.dumps(job)}", self)
                return artifact
            time.sleep(0.1)
        fail(f"job {name} did not end", self)


def fail(text, site=None):
    print("FAILED:", text, file=sys.stderr)
    if site is not None:
        with open(os.path.join(site.data, "log"), errors="replace") as log:
            sys.stderr.writelines(log.readlines()[-30:])
        site.kill_all()
    sys.exit(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=["server", "worker"], help="kill but one of the two")
    parser.add_argument("options", nargs="*", help="of tempera quantize")
    args = parser.parse_args()
    rng = random.Random(args.seed)

    with tempfile.TemporaryDirectory(prefix="tempera-kill-") as top:
        os.mkdir(os.path.join(top, "calm"))
        calm = Site(args.bin, args.model, os.path.join(top, "calm"))
        calm.start("server")
        begin = time.monotonic()
        want = calm.wait(calm.submit(args.options))
        whole_s = time.monotonic() - begin
        if calm.kill("server", signal.SIGTERM) != 0:
            fail("the server did not drain", calm)
        print(f"undisturbed: {want[:12]} in {whole_s:.1f} s", flush=True)

        shares = {"server": (args.kills + 1) // 2, "worker": args.kills // 2}
        for kind, kills_wanted in ({args.only: args.kills} if args.only else shares).items():
            data = os.path.join(top, kind)
            os.mkdir(data)
            site = Site(args.bin, args.model, data)
            if kind == "worker":
                site.start("bare server")
            site.start(kind)
            kills, before, jobs, name, stages = 0, 0, 0, None, {}
            while kills < kills_wanted:
                if name is None:
                    # An artifact that is there already would hide a job that published nothing.
                    if jobs:
                        site.call("artifacts", "delete", want)
                    name = site.submit(args.options)
                    jobs += 1
                time.sleep(rng.uniform(0, 0.7 * whole_s + 0.3))  # the random moment
                site.kill(kind)
                site.start(kind)
                state, artifact, job = site.job(name)
                attempts = job.get("attempts", 0)
                if state == "SUCCEEDED":
                    if artifact != want:
                        fail(f"job {name}: got artifact {artifact}, want {want}", site)
                    name, kills, before = None, before + attempts - 1, before + attempts - 1
                    whole_s *= 0.8  # it came too late: the machine is faster than it was
                elif state in ("QUEUED", "RUNNING"):
                    # Each attempt but the one under way was ended by a kill.
                    met = before + attempts - (state == "RUNNING")
                    if met == kills:
                        whole_s *= 1.25  # it came before the worker had the job
                    else:
                        stage = job.get("stage") or "start"
                        stages[stage] = stages.get(stage, 0) + 1
                    kills = met
                else:
                    fail(f"job {name} is {state}", site)
            got = site.wait(name) if name else want
            if got != want:
                fail(f"job {name}: got artifact {got}, want {want}", site)
            site.call("artifacts", "verify", want)
            attempts = site.job(name)[2].get("attempts") if name else "-"
            if kind == "worker":
                site.await_worker()
            for running in list(site.running):
                if site.kill(running, signal.SIGTERM) != 0:
                    fail(f"{running} did not drain", site)
            left = os.listdir(os.path.join(data, "work"))
            if left:
                fail(f"work folders were left: {left}", site)
            print(f"{kind}: {kills} kills over {jobs} jobs (the last took {attempts} attempts), last heard of in "
                  f"{', '.join(f'{s} {n}' for s, n in stages.items())}: {want[:12]}", flush=True)
    print("PASSED")


if __name__ == "__main__":
    main()
