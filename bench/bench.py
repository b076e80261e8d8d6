#!/usr/bin/env python3
"""Benchmarks of the main job, as ratios from one run: a server, two jobs, generations through the client, and the library beside it.

bench.py --bin build/bin [--json FILE]      FILE: an array of rows name, value, unit, target, met (null where there is no target)
"""
import argparse, json, pathlib, signal, socket, statistics, subprocess, sys, tempfile, time, urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = ROOT / "zoo" / "fashion"

def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0)); return s.getsockname()[1]

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", type=pathlib.Path, required=True); p.add_argument("--json", type=pathlib.Path); o = p.parse_args()
    rows = []
    def row(name, value, unit, target=None, met=None):
        rows.append({"name": name, "value": value, "unit": unit, "target": target, "met": met})
        print(f"{name:<58} {value:>12.4g} {unit:<8} {'' if target is None else 'target ' + target + (': met' if met else ': missed')}", flush=True)

    with tempfile.TemporaryDirectory() as data:
        grpc, http = f"127.0.0.1:{port()}", f"127.0.0.1:{port()}"
        log = open(pathlib.Path(data) / "server.log", "wb")
        server = subprocess.Popen([o.bin / "tempera-server", "--data", data, "--model-root", ROOT / "zoo", "--listen", grpc, "--metrics-listen", http], stdout=log, stderr=log)
        def cli(*a):
            r = subprocess.run([o.bin / "tempera", "--server", grpc, "--json", *map(str, a)], capture_output=True, text=True)
            if r.returncode: raise SystemExit("tempera " + " ".join(map(str, a)) + ": " + r.stderr)
            return json.loads(r.stdout.strip().splitlines()[-1])
        try:
            for _ in range(300):
                try: urllib.request.urlopen(f"http://{http}/readyz", timeout=1); break
                except Exception: time.sleep(0.1)
            t = time.time()
            artifact = cli("quantize", MODEL, "--method", "tfmq", "--weight-bits", 4, "--activation-bits", 8, "--scheduler", "ddim", "--steps", 20, "--name", "bench:w4")["artifact"]
            seconds = time.time() - t
            row("quantize, tfmq W4A8, evaluation included", seconds, "s", "<= 300 s", seconds <= 300)
            folder = pathlib.Path(data) / "store" / "artifacts" / artifact
            e = json.loads((folder / "evaluation.json").read_text()); own = e["methods"][0]; b = e["bytes"]
            weights = (b["codes"] + b["scales"] + b["floats"]) / b["full_precision"]
            row("artifact's weights against float32", weights, "ratio", "<= 0.15", weights <= 0.15)
            row("PSNR against full precision", own["psnr"]["mean"]["mean"], "dB")
            row("temporal-feature error, mean over steps", statistics.mean(own["temporal"]["ratio"]), "ratio")

            firsts, overheads, wholes = [], [], []
            cli("generate", "bench:w4", "--class", 0, "--seed", 0, "--out", f"{data}/warm.png")
            for seed in range(9):
                g = cli("generate", "bench:w4", "--class", seed, "--seed", seed, "--out", f"{data}/p.png")
                inside = g["denoise_ms"] + g["decode_ms"] + g["encode_ms"]
                wholes.append(inside); overheads.append((g["total_ms"] - inside) / inside)
                if "first_event_ms" in g: firsts.append(g["first_event_ms"])
            overhead = statistics.median(overheads)
            row("server's time beside the library's, one generation", overhead, "ratio", "<= 0.02", overhead <= 0.02)
            if firsts: row("first event", statistics.median(firsts), "ms", "<= 50 ms", statistics.median(firsts) <= 50)
            rss = next(int(l.split()[1]) for l in open(f"/proc/{server.pid}/status") if l.startswith("VmRSS")) / 1024
            row("resident memory of the server with one artifact", rss, "MiB")
            r = subprocess.run([o.bin / "engine-bench", MODEL, folder], capture_output=True, text=True)
            if r.returncode: raise SystemExit(r.stderr)
            l = json.loads(r.stdout)
            row("whole step, integer against float32, batch 1, 1 thread", l["integer_step_ms"] / l["float_step_ms"], "ratio")
            row("whole step, integer against float32, batch 8, 1 thread", l["integer_step_ms_batch8"] / l["float_step_ms_batch8"], "ratio")
            row("whole step, integer, batch 1", l["integer_step_ms"], "ms")
            row("resident weights, W4A8 against float32", l["weight_bytes"] / l["float_weight_bytes"], "ratio", "<= 0.15", l["weight_bytes"] / l["float_weight_bytes"] <= 0.15)
        finally:
            server.send_signal(signal.SIGTERM); server.wait()
    if o.json: o.json.write_text(json.dumps(rows, indent=1) + "\n")

if __name__ == "__main__": main()
