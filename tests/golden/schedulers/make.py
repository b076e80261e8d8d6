"""Computes the cases of golden.json that have no tolerance yet: tensors go to golden.safetensors, tolerances to golden.json.

Needs diffusers 0.42.1, torch 2.15.0 (CPU) and safetensors 0.8.0. To add a case, add its entry to golden.json and run this
file; what is there already stays as it is, for another processor gives other last bits.
"""
import json
import os

import diffusers
import numpy as np
import torch
from diffusers.schedulers import scheduling_ddim, scheduling_ddpm
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
FOLDER = os.path.dirname(os.path.abspath(__file__))
DTYPE = torch.float32


def draw(shape, generator=None, device=None, dtype=None):
    """The float64 run gets the float32 run's noise."""
    return torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype)


scheduling_ddim.randn_tensor = draw
scheduling_ddpm.randn_tensor = draw


def network(x, t, variance_type):
    mean = 0.3 * torch.sin(3 * x) + 0.1 * torch.cos(torch.tensor(float(t), dtype=DTYPE) / 1000 * 6.28)
    if variance_type == "learned_range":
        return torch.cat([mean, 0.5 * torch.sin(2 * x)], dim=1)
    if variance_type == "learned":
        return torch.cat([mean, 0.02 + 0.01 * torch.sin(2 * x)], dim=1)
    return mean


def run(case, steps):
    config = {"_class_name": case.get("from", case["class"]), **case["options"]}
    scheduler = getattr(diffusers, case["class"]).from_config(config)
    scheduler.set_timesteps(steps)
    g = torch.Generator("cpu").manual_seed(case["seed"])
    x = draw(case["shape"], g, dtype=DTYPE)
    latents = [x]
    variance_type = scheduler.config.variance_type if case["class"] == "DDPMScheduler" else ""
    for t in scheduler.timesteps:
        out = network(x, t, variance_type)
        x = scheduler.step(out, t, x, generator=g, **case["run"]).prev_sample
        latents.append(x)
    return scheduler, torch.stack(latents)


def main():
    global DTYPE
    path = os.path.join(FOLDER, "golden.json")
    golden = json.load(open(path))
    store = os.path.join(FOLDER, "golden.safetensors")
    tensors = load_file(store) if os.path.exists(store) else {}
    alphas = {v.numpy().tobytes(): k for k, v in tensors.items() if k.startswith("alphas_cumprod.")}
    for case in golden["cases"]:
        if "tolerance" in case:
            continue
        case["tolerance"] = {}
        for steps in case["steps"]:
            DTYPE = torch.float32
            scheduler, single = run(case, steps)
            DTYPE = torch.float64
            _, double = run(case, steps)
            assert single.dtype == torch.float32 and double.dtype == torch.float64 and single.isfinite().all(), case["id"]
            name = f"{case['id']}.{steps}"
            tensors[name + ".timesteps"] = scheduler.timesteps.to(torch.int64)
            tensors[name + ".latents"] = single
            case["tolerance"][str(steps)] = [
                float(f"{max(20 * (a - b).abs().max().item(), 1e-6 * max(1, a.abs().max().item())):.3g}")
                for a, b in zip(single, double)]
            key = scheduler.alphas_cumprod.numpy().tobytes()
            alphas.setdefault(key, f"alphas_cumprod.{len(alphas)}")
            case["alphas_cumprod"] = alphas[key]
            tensors[alphas[key]] = scheduler.alphas_cumprod
    # All step counts: sum over k of (k + 1) * timesteps[k]. numpy.arange can add an entry of -1, which is no step.
    for train in golden["train_timesteps"]:
        for spacing in ("leading", "trailing", "linspace"):
            if f"timestep_sums.{spacing}.{train}" in tensors:
                continue
            scheduler = diffusers.DDIMScheduler(num_train_timesteps=train, timestep_spacing=spacing)
            sums = []
            for steps in range(1, train + 1):
                scheduler.set_timesteps(steps)
                t = scheduler.timesteps.numpy()[:steps]
                assert len(t) == steps and (t >= 0).all()
                sums.append(int((t * np.arange(1, steps + 1)).sum()))
            tensors[f"timestep_sums.{spacing}.{train}"] = torch.tensor(sums, dtype=torch.int64)
    for draws in golden["rng"]:
        g = torch.Generator("cpu").manual_seed(draws["seed"])
        for j, shape in enumerate(draws["shapes"]):
            if f"{draws['name']}.{j}" in tensors:
                break
            tensors[f"{draws['name']}.{j}"] = torch.randn(shape, generator=g)
    save_file(tensors, store)
    write(golden, path)


def write(golden, path):
    with open(path, "w") as f:
        f.write("{\n")
        for i, (key, value) in enumerate(golden.items()):
            f.write("," if i else "")
            if isinstance(value, list) and value and isinstance(value[0], dict):
                f.write(f'"{key}": [\n' + ",\n".join(json.dumps(v) for v in value) + "]\n")
            else:
                f.write(f'"{key}": {json.dumps(value)}\n')
        f.write("}\n")


if __name__ == "__main__":
    main()
