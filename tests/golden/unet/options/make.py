"""Makes one small UNet2DModel with random weights for each case of golden.json, and what it computes.

Writes <weights>.safetensors (float16; shared by the cases whose parameters have the same names and shapes), golden.safetensors (<case>.x, .timesteps, .class_labels, .eps) and the
tolerances of golden.json. Needs diffusers 0.42.1, torch 2.15.0 (CPU) and safetensors 0.8.0.
"""
import json
import os

import torch
from diffusers import UNet2DModel
from safetensors.torch import save_file

torch.set_num_threads(1)
FOLDER = os.path.dirname(os.path.abspath(__file__))
# What the cases share; a case's config goes on top.
BASE = {"sample_size": 8, "in_channels": 2, "out_channels": 2, "block_out_channels": [4, 8], "layers_per_block": 1,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "norm_num_groups": 2, "attention_head_dim": 4}


def weights(model, seed):
    """None is zero or without effect, all are float16 numbers."""
    g = torch.Generator("cpu").manual_seed(seed)
    state = model.state_dict()
    for name, value in state.items():
        n = torch.randn(value.shape, generator=g)
        if name.startswith("time_proj") or name.startswith("class_embedding.weight"):
            pass
        elif name.endswith("bias"):
            n = 0.1 * n
        elif value.dim() == 1:
            n = 1 + 0.2 * n
        else:
            n = n / value[0].numel() ** 0.5
        state[name] = n.half()
    return state


def run(model, case, dtype):
    model = model.to(dtype)
    hook = model.time_proj.register_forward_hook(lambda module, args, out: out.to(dtype))  # sinusoids stay float32 inside
    g = torch.Generator("cpu").manual_seed(case["seed"])
    size = model.config.sample_size
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    x = torch.randn((len(case["timesteps"]), model.config.in_channels, height, width), generator=g)
    t = torch.tensor(case["timesteps"])
    if model.config.time_embedding_type == "learned":
        t = t.long()
    labels = torch.tensor(case["class_labels"]) if "class_labels" in case else None
    with torch.no_grad():
        eps = model(x.to(dtype), t, labels).sample
    hook.remove()
    return x, t, labels, eps


def main():
    path = os.path.join(FOLDER, "golden.json")
    golden = json.load(open(path))
    tensors, files = {}, {}
    for i, case in enumerate(golden["cases"]):
        name = case["name"]
        config = {**BASE, **case["config"]}
        case["seed"] = 100 + i
        model = UNet2DModel(**config).eval()
        shapes = str([(k, tuple(v.shape)) for k, v in model.state_dict().items()])
        case["weights"] = files.setdefault(shapes, name)
        state = weights(model, 100 + [c["name"] for c in golden["cases"]].index(case["weights"]))
        model.load_state_dict({k: v.float() for k, v in state.items()})
        if case["weights"] == name:
            save_file(state, os.path.join(FOLDER, name + ".safetensors"))
        x, t, labels, single = run(model, case, torch.float32)
        _, _, _, double = run(model, case, torch.float64)
        assert single.isfinite().all(), name
        error = (single - double).abs().max().item()
        case["tolerance"] = float(f"{max(20 * error, 1e-6 * max(1, single.abs().max().item())):.3g}")
        tensors[name + ".x"] = x
        tensors[name + ".timesteps"] = t.float()
        if labels is not None:
            tensors[name + ".class_labels"] = labels
        tensors[name + ".eps"] = single.contiguous()
        print(f"{name}: {sum(v.numel() for v in state.values())} parameters, max {single.abs().max():.2f}, error {error:.1e}")
    save_file(tensors, os.path.join(FOLDER, "golden.safetensors"))
    golden["base"] = BASE
    with open(path, "w") as f:
        cases = ",\n".join(json.dumps(c) for c in golden["cases"])
        f.write(f'{{\n"about": {json.dumps(golden["about"])},\n"base": {json.dumps(BASE)},\n"cases": [\n{cases}\n]\n}}\n')


if __name__ == "__main__":
    main()
