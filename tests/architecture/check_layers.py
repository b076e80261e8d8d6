#!/usr/bin/env python3
"""Include lines obey the layers: use goes strictly down, LibTorch begins at nn, each outside library has its home.

check_layers.py ROOT        exit 1 and one line a violation
check_layers.py --self-test the checker finds planted violations
"""
import pathlib, re, sys, tempfile

LAYER = {"base": 0, "metrics": 1, "kernels": 1, "weights": 1, "text": 1, "storage": 1, "artifact": 2, "jobs": 2, "rpc": 2, "report": 2,
         "nn": 3, "models": 4, "schedulers": 4, "tib": 5, "stages": 5, "quant": 6, "pipeline": 6}
TORCH = {"nn", "models", "schedulers", "tib", "stages", "quant", "pipeline"}
HOMES = {  # header prefix -> folders that may include it
    "ATen/": TORCH, "torch/": TORCH, "c10/": TORCH,
    "grpcpp/": {"rpc"}, "prometheus/": {"metrics", "rpc"}, "sqlite3.h": {"jobs"}, "boost/": {"rpc"}, "dnnl": {"kernels"}, "utf8proc.h": {"text"},
    "google/protobuf/": {"rpc"},
}
SERVICE_FREE = {"base", "kernels", "weights", "text", "artifact", "report", "nn", "models", "schedulers", "tib", "stages", "quant", "pipeline"}

def check(root):
    bad = []
    for path in sorted((root / "lib").rglob("*")):
        if path.suffix not in (".h", ".cc") or len(path.relative_to(root / "lib").parts) < 2: continue
        folder = path.relative_to(root / "lib").parts[0]
        where = path.relative_to(root)
        if folder not in LAYER:
            bad.append(f"{where}: folder {folder} has no layer"); continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            m = re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line)
            if not m: continue
            header = m[1]; first = header.split("/")[0]
            if first in LAYER and first != folder and "/" in header and LAYER[first] >= LAYER[folder]:
                bad.append(f"{where}:{number}: layer {LAYER[folder]} includes {header} of layer {LAYER[first]}")
            if first in ("server", "worker", "client") and "/" in header:
                bad.append(f"{where}:{number}: a library includes the program {header}")
            for prefix, homes in HOMES.items():
                if header.startswith(prefix) and folder not in homes:
                    bad.append(f"{where}:{number}: {header} belongs to {', '.join(sorted(homes))}")
    for path in sorted((root / "client").glob("*")):
        if path.suffix in (".h", ".cc"):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if re.match(r'\s*#\s*include\s*[<"](ATen|torch|c10|nn|models|quant|pipeline)/', line):
                    bad.append(f"{path.relative_to(root)}:{number}: the client links no LibTorch")
    return bad

def self_test():
    with tempfile.TemporaryDirectory() as d:
        root = pathlib.Path(d)
        for folder, text in {"lib/base/a.h": '#include "nn/slot.h"\n', "lib/kernels/b.cc": "#include <ATen/Tensor.h>\n",
                             "lib/nn/c.cc": '#include "base/status.h"\n#include "server/app.h"\n', "client/d.cc": "#include <torch/torch.h>\n"}.items():
            (root / folder).parent.mkdir(parents=True, exist_ok=True); (root / folder).write_text(text)
        found = check(root)
        assert len(found) == 4, found

if __name__ == "__main__":
    self_test()
    problems = check(pathlib.Path(sys.argv[1]))
    print("\n".join(problems) or "include lines obey the layers")
    sys.exit(1 if problems else 0)
