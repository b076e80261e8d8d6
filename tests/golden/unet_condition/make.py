"""Makes one small UNet2DConditionModel with random weights for each case of golden.json, and what it computes.

Writes <weights>.safetensors (float16; shared by the cases whose parameters have the same names and shapes),
golden.safetensors (<case>.x, .timesteps, .context ..., .eps) and the tolerances of golden.json. Needs diffusers 0.42.1,
torch 2.15.0 (CPU) and safetensors 0.8.0.
"""
import json
import os

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

torch.set_num_threads(1)
FOLDER = os.path.dirname(os.path.abspath(__file__))


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


def inputs(model, case):
    """All of a case's tensors, by name."""
    g = torch.Generator("cpu").manual_seed(case["seed"])
    c = model.config
    rows = len(case["timesteps"])
    height, width = case.get("size") or (c.sample_size if isinstance(c.sample_size, (list, tuple)) else [c.sample_size] * 2)
    width_of_context = c.encoder_hid_dim or (c.cross_attention_dim if isinstance(c.cross_attention_dim, int) else c.cross_attention_dim[0])
    out = {"x": torch.randn((rows, c.in_channels, height, width), generator=g),
           "timesteps": torch.tensor(case["timesteps"], dtype=torch.float32),
           "context": torch.randn((rows, 5, width_of_context), generator=g)}
    if "class_labels" in case:
        out["class_labels"] = torch.tensor(case["class_labels"])
    if c.addition_embed_type == "text_time":
        ids = case["time_ids"]
        pooled = c.projection_class_embeddings_input_dim - len(ids[0]) * c.addition_time_embed_dim
        out["pooled"] = torch.randn((rows, pooled), generator=g)
        out["sizes"] = torch.tensor(ids, dtype=torch.float32)
    if case.get("guidance"):
        out["guidance"] = torch.randn((rows, c.time_cond_proj_dim), generator=g)
    return out


def run(model, tensors, dtype):
    model = model.to(dtype)
    hooks = [m.register_forward_hook(lambda module, args, out: out.to(dtype))  # sinusoids stay float32 inside
             for m in [model.time_proj, getattr(model, "add_time_proj", None)] if m is not None]
    t = {k: v if k == "class_labels" else v.to(dtype) for k, v in tensors.items()}
    added = {"text_embeds": t["pooled"], "time_ids": t["sizes"]} if "pooled" in t else None
    with torch.no_grad():
        eps = model(t["x"], tensors["timesteps"], t["context"], class_labels=t.get("class_labels"),
                    timestep_cond=t.get("guidance"), added_cond_kwargs=added).sample
    for hook in hooks:
        hook.remove()
    return eps


def main():
    path = os.path.join(FOLDER, "golden.json")
    golden = json.load(open(path))
    out, files = {}, {}
    names = [c["name"] for c in golden["cases"]]
    for i, case in enumerate(golden["cases"]):
        name = case["name"]
        case["seed"] = 100 + i
        model = UNet2DConditionModel(**{**golden["base"], **case["config"]}).eval()
        shapes = str([(k, tuple(v.shape)) for k, v in model.state_dict().items()])
        case["weights"] = files.setdefault(shapes, name)
        state = weights(model, 100 + names.index(case["weights"]))
        model.load_state_dict({k: v.float() for k, v in state.items()})
        if case["weights"] == name:
            save_file(state, os.path.join(FOLDER, name + ".safetensors"))
        tensors = inputs(model, case)
        single, double = run(model, tensors, torch.float32), run(model, tensors, torch.float64)
        assert single.isfinite().all(), name
        error = (single - double).abs().max().item()
        case["tolerance"] = float(f"{max(20 * error, 1e-6 * max(1, single.abs().max().item())):.3g}")
        for key, value in tensors.items():
            out[f"{name}.{key}"] = value.contiguous()
        out[name + ".eps"] = single.contiguous()
    save_file(out, os.path.join(FOLDER, "golden.safetensors"))
    with open(path, "w") as f:
        json.dump(golden, f, indent=1)
        f.write("\n")


main()
