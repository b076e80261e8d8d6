#!/usr/bin/env python3
"""Benchmarks of the main job, as ratios from one run: a server quantizes zoo/fashion and serves it, the library beside it.

bench.py --bin build/bin [--json FILE]      FILE: an array of rows name, value, unit, target, met (null: no target)
"""
import argparse
import json
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = ROOT / "zoo" / "fashion"
SPEC = ["--method", "tfmq", "--weight-bits", "4", "--activation-bits", "8", "--scheduler", "ddim", "--steps", "20"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(*command):
    """The last line that a program printed, as JSON."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(str(word) for word in command)}: {done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def await_ready(address, server):
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"http://{address}/readyz", timeout=5)
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server ended")


def resident_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    rows = []

    def row(name, value, unit, most=None):
        met = None if most is None else value <= most
        target = None if most is None else f"<= {most:g} {unit}"
        rows.append({"name": name, "value": value, "unit": unit, "target": target, "met": met})
        said = "" if target is None else f"target {target}: {'met' if met else 'missed'}"
        print(f"{name:<66} {value:>10.4g} {unit:<6} {said}", flush=True)

    with tempfile.TemporaryDirectory(prefix="tempera-bench-") as top:
        data = pathlib.Path(top) / "data"
        started = []

        def serve():
            grpc, http = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
            with open(pathlib.Path(top) / "server.log", "ab") as log:
                server = subprocess.Popen([args.bin / "tempera-server", "--data", data, "--model-root", MODEL.parent,
                                           "--listen", grpc, "--metrics-listen", http], stdout=log, stderr=log)
            started.append(server)
            await_ready(http, server)
            return server, lambda *words: run(args.bin / "tempera", "--server", grpc, "--json", *words), grpc

        try:
            server, tempera, grpc = serve()
            begin = time.monotonic()
            artifact = tempera("quantize", MODEL, *SPEC, "--name", "bench:w4")["artifact"]
            row("quantize tfmq W4A8, evaluation included", time.monotonic() - begin, "s", 300)
            server.send_signal(signal.SIGTERM)
            server.wait()

            folder = data / "store" / "artifacts" / artifact
            evaluation = json.loads((folder / "evaluation.json").read_text())
            own, size = evaluation["methods"][0], evaluation["bytes"]
            row("artifact: weights W4 against float32",
                (size["codes"] + size["scales"] + size["floats"]) / size["full_precision"], "ratio", 0.15)
            row("artifact: with tables and cache, against float32",
                sum(size[part] for part in ("codes", "scales", "floats", "tables", "cache")) / size["full_precision"],
                "ratio")
            row("PSNR against full precision, mean", own["psnr"]["mean"]["mean"], "dB")
            row("temporal-feature error, mean over steps",
                sum(own["temporal"]["ratio"]) / len(own["temporal"]["ratio"]), "ratio")

            server, tempera, grpc = serve()  # a new one: the job's memory is not the service's
            row("resident memory of the server, nothing loaded", resident_mib(server.pid), "MiB")
            tempera("generate", "bench:w4", "--class", 0, "--out", pathlib.Path(top) / "warm.png")
            row("resident memory of the server with one artifact", resident_mib(server.pid), "MiB")
            served = run(args.bin / "serving-bench", grpc, folder, 40)
            row("one generation: server against the library, less 1", served["server_to_library"] - 1,
                "ratio", 0.02)
            row("first event of a loaded artifact", served["first_event_ms"], "ms", 50)
            row("cancel latency, median", served["cancel_ms"] / served["step_ms"], "steps", 1)
            row("cancel latency, greatest", served["greatest_cancel_ms"] / served["step_ms"], "steps")
            server.send_signal(signal.SIGTERM)
            server.wait()

            engine = run(args.bin / "engine-bench", MODEL, folder)
            for batch, suffix in (1, ""), (8, "_batch8"):
                row(f"whole step, integer against float32, batch {batch}, 1 thread",
                    engine["integer_step_ms" + suffix] / engine["float_step_ms" + suffix], "ratio")
                row(f"whole step, integer, batch {batch}, 1 thread", engine["integer_step_ms" + suffix], "ms")
            features = run(args.bin / "features-bench", ROOT / "tests" / "golden" / "pipelines" / "sdxl")
            row("temporal features of a small SDXL's request, one pass against step by step",
                features["one_pass_ms"] / features["step_by_step_ms"], "ratio")
            row("resident weights W4A8 against float32", engine["weight_bytes"] / engine["float_weight_bytes"], "ratio")
        finally:
            for server in started:
                if server.poll() is None:
                    server.kill()
                    server.wait()
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
