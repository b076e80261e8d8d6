"""Makes one small UNet2DModel for each case and writes what it and each of its parts compute.

Weights are not stored: formula.py says each number. Writes golden.safetensors (<case>.x, .timesteps,
.class_labels, .eps, and .parts: SAMPLES numbers of the value that each part writes, in the order of the case's "parts") and golden.json (the
cases, every parameter's shape, a tolerance for each part). Needs diffusers 0.42.1, torch 2.15.0 (CPU) and safetensors 0.8.0.
"""
import json
import math
import os
import sys

import torch
from diffusers import UNet2DModel
from safetensors.torch import save_file

torch.set_num_threads(1)
FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(FOLDER, "../.."))
from formula import Weight  # noqa: E402

SAMPLES = 32
BASE = {"sample_size": 8, "layers_per_block": 1, "attention_head_dim": 8}
CASES = [
    # As the NCSN++ models are configured.
    {"name": "ncsnpp", "timesteps": [0.05, 40.0],
     "config": {"block_out_channels": [32, 64, 32], "layers_per_block": 2, "time_embedding_type": "fourier", "norm_num_groups": None,
                "norm_eps": 1e-6, "mid_block_scale_factor": math.sqrt(2), "attention_head_dim": None,
                "down_block_types": ["SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipDownBlock2D"],
                "up_block_types": ["SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D"]}},
    {"name": "skip_beside_others", "timesteps": [3.0, 700.0], "class_labels": [4, 0],
     "config": {"sample_size": [8, 12], "block_out_channels": [32, 32, 16], "norm_num_groups": 4, "center_input_sample": True,
                "resnet_time_scale_shift": "scale_shift", "num_class_embeds": 5, "act_fn": "mish",
                "down_block_types": ["SkipDownBlock2D", "ResnetDownsampleBlock2D", "AttnDownBlock2D"],
                "up_block_types": ["UpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D"]}},
    # Two skip levels that halve a centered picture, without skip levels on the way up.
    {"name": "skip_down", "timesteps": [3.0, 700.0],
     "config": {"block_out_channels": [8, 32, 16], "norm_num_groups": 4, "center_input_sample": True, "out_channels": 1,
                "down_block_types": ["SkipDownBlock2D", "AttnSkipDownBlock2D", "DownBlock2D"],
                "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"]}},
    # No picture at all: a skip block without a sampler asks for no three channels.
    {"name": "skip_at_the_ends", "timesteps": [0, 19],
     "config": {"in_channels": 2, "out_channels": 4, "block_out_channels": [32, 32], "norm_num_groups": 8, "mid_block_type": None,
                "time_embedding_type": "learned", "num_train_timesteps": 20,
                "down_block_types": ["DownBlock2D", "AttnSkipDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "AttnSkipUpBlock2D"]}},
    {"name": "karras", "timesteps": [3.0, 700.0], "class_labels": [1, 30],
     "config": {"block_out_channels": [32, 64], "layers_per_block": 2, "norm_num_groups": 8, "act_fn": "gelu", "class_embed_type": "timestep",
                "down_block_types": ["KDownBlock2D"] * 2, "up_block_types": ["KUpBlock2D"] * 2}},
    {"name": "karras_one_block", "timesteps": [3.0, 700.0],
     "config": {"in_channels": 1, "out_channels": 1, "sample_size": [12, 8], "block_out_channels": [32, 32], "norm_num_groups": None,
                "mid_block_type": None, "resnet_time_scale_shift": "scale_shift",
                "down_block_types": ["KDownBlock2D"] * 2, "up_block_types": ["KUpBlock2D"] * 2}},
]


def Parts(model):
    """Keeps the value of each part under the part's name; a skip_conv's value is the sum that it goes into."""
    seen = {}

    def keep(name, pick=lambda out: out):
        return lambda module, args, out: seen.__setitem__(name, pick(out))

    hooks = []
    for name, module in model.named_modules():
        end = name.split(".")[-1]
        group = name.split(".")[-2] if "." in name else ""
        if group in ("resnets", "attentions", "downsamplers", "upsamplers") or end in ("conv_in", "resnet_down", "resnet_up", "upsampler"):
            hooks.append(module.register_forward_hook(keep(name)))
        elif group in ("down_blocks", "up_blocks") and getattr(module, "skip_conv", None) is not None:
            hooks.append(module.register_forward_hook(keep(name + ".skip_conv", lambda out, i=0 if group == "down_blocks" else 1: out[i])))
    return seen, hooks


def run(model, case, dtype):
    model = model.to(dtype)
    seen, hooks = Parts(model)
    hooks.append(model.time_proj.register_forward_hook(lambda module, args, out: out.to(dtype)))  # sinusoids stay float32 inside
    g = torch.Generator("cpu").manual_seed(case["seed"])
    size = model.config.sample_size
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    x = torch.randn((len(case["timesteps"]), model.config.in_channels, height, width), generator=g)
    t = torch.tensor(case["timesteps"])
    labels = torch.tensor(case["class_labels"]) if "class_labels" in case else None
    with torch.no_grad():
        seen["conv_out"] = eps = model(x.to(dtype), t, labels).sample
    for hook in hooks:
        hook.remove()
    return x, t, labels, eps, seen


def tolerance(single, double):
    error = (single - double).abs().max().item()
    return float(f"{max(20 * error, 1e-6 * max(1, single.abs().max().item())):.3g}")


def main():
    tensors = {}
    for i, case in enumerate(CASES):
        name = case["name"]
        case["seed"] = 200 + i
        model = UNet2DModel(**{**BASE, **case["config"]}).eval()
        case["parameters"] = {k: list(v.shape) for k, v in model.state_dict().items()}
        model.load_state_dict({k: Weight(k, shape) for k, shape in case["parameters"].items()})
        x, t, labels, single, parts = run(model, case, torch.float32)
        _, _, _, _, double = run(model, case, torch.float64)
        assert single.isfinite().all(), name
        case["parts"] = [[part, tolerance(value, double[part])] for part, value in parts.items()]
        tensors[name + ".x"] = x
        tensors[name + ".timesteps"] = t.float()
        if labels is not None:
            tensors[name + ".class_labels"] = labels
        tensors[name + ".eps"] = single.contiguous()
        flat = [value.flatten() for value in parts.values()]
        # Number k is the one at (2k + 1) n / (2 SAMPLES) of n.
        tensors[name + ".parts"] = torch.stack([v[[(2 * k + 1) * v.numel() // (2 * SAMPLES) for k in range(SAMPLES)]] for v in flat])
        print(name, len(parts), "parts, max", f"{single.abs().max():.2f}", "tolerances", min(t for _, t in case["parts"]), max(t for _, t in case["parts"]))
    save_file(tensors, os.path.join(FOLDER, "golden.safetensors"))
    with open(os.path.join(FOLDER, "golden.json"), "w") as f:
        cases = ",\n".join(json.dumps(c, separators=(",", ":")) for c in CASES)
        f.write(f'{{\n"about": "written by make.py",\n"base": {json.dumps(BASE)},\n"cases": [\n{cases}\n]\n}}\n')


if __name__ == "__main__":
    main()
