"""Computes the cases of golden.json that have no tolerance yet: tensors go to golden.safetensors, tolerances to golden.json.

Needs diffusers 0.42.1, torch 2.15.0 (CPU), safetensors 0.8.0 and, for use_beta_sigmas, scipy 1.17.1. To add a case, add its
entry to golden.json and run this file; what is there already stays as it is, for another processor gives other last bits.

A case: `class`, `options` on top of its defaults (`from`: the class whose configuration they are), `steps`, `seed`, `shape`;
`run`: `eta`; `mu`; `sigmas` "pipeline": linspace(1, 1 / steps, steps); `strength`: the run begins in the middle, with a sample
drawn first and the noise added that is drawn next. One generator feeds the start and then the steps, `draws` times in all.
"""
import inspect
import json
import os
import sys
import warnings

import diffusers
import numpy as np
import torch
from safetensors.torch import load_file, save_file

warnings.filterwarnings("ignore", category=FutureWarning)
torch.set_num_threads(1)
FOLDER = os.path.dirname(os.path.abspath(__file__))
DTYPE = torch.float32
DRAWS = 0


def draw(shape, generator=None, device=None, dtype=None):
    """The float64 run gets the float32 run's noise."""
    global DRAWS
    DRAWS += 1
    return torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype)


def network(x, t, variance_type):
    mean = 0.3 * torch.sin(3 * x) + 0.1 * torch.cos(torch.tensor(float(t), dtype=DTYPE) / 1000 * 6.28)
    if variance_type == "learned_range":
        return torch.cat([mean, 0.5 * torch.sin(2 * x)], dim=1)
    if variance_type == "learned":
        return torch.cat([mean, 0.02 + 0.01 * torch.sin(2 * x)], dim=1)
    return mean


def run(case, steps):
    """The scheduler, the latents, and the evaluation that the run began with."""
    config = {"_class_name": case.get("from", case["class"]), **case["options"]}
    kind = getattr(diffusers, case["class"])
    if hasattr(sys.modules[kind.__module__], "randn_tensor"):
        sys.modules[kind.__module__].randn_tensor = draw
    scheduler = kind.from_config(config)
    how = case["run"]
    timing = {"mu": how["mu"]} if "mu" in how else {}
    if how.get("sigmas") == "pipeline":
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), **timing)
    else:
        scheduler.set_timesteps(steps, **timing)
    g = torch.Generator("cpu").manual_seed(case["seed"])
    x = draw(case["shape"], g, dtype=DTYPE)
    first = 0
    if hasattr(scheduler, "set_begin_index"):  # else a step is found by its timestep, of which there may be two
        scheduler.set_begin_index(0)
    if "strength" in how:  # as the image-to-image pipelines of Stable Diffusion and, for flow matching, of Flux
        if "Flow" in case["class"]:
            first = int(max(steps - min(steps * how["strength"], steps), 0))
        else:
            first = max(steps - min(int(steps * how["strength"]), steps), 0) * scheduler.order
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        noise, at = draw(case["shape"], g, dtype=DTYPE), scheduler.timesteps[first:first + 1]
        x = scheduler.scale_noise(x, at, noise) if "Flow" in case["class"] else scheduler.add_noise(x, noise, at)
    else:
        x = x * getattr(scheduler, "init_noise_sigma", 1)
    latents = [x]
    learned = scheduler.config.get("variance_type") or ""
    known = inspect.signature(scheduler.step).parameters
    extra = {"generator": g} if "generator" in known else {}
    if "eta" in how:
        extra["eta"] = how["eta"]
    for t in scheduler.timesteps[first:]:
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(network(seen, t, learned), t, x, **extra).prev_sample
        latents.append(x)
    return scheduler, torch.stack(latents), first


def main():
    global DTYPE, DRAWS
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
            DTYPE, DRAWS = torch.float32, 0
            scheduler, single, first = run(case, steps)
            case.setdefault("draws", {})[str(steps)] = DRAWS
            DTYPE = torch.float64
            _, double, _ = run(case, steps)
            assert single.dtype == torch.float32 and single.isfinite().all(), case["id"]
            name = f"{case['id']}.{steps}"
            whole = not scheduler.timesteps.is_floating_point()
            tensors[name + ".timesteps"] = scheduler.timesteps.to(torch.int64 if whole else torch.float32)
            tensors[name + ".latents"] = single
            if hasattr(scheduler, "sigmas"):
                tensors[name + ".sigmas"] = scheduler.sigmas
            init = float(getattr(scheduler, "init_noise_sigma", 1))
            if init != 1:
                case.setdefault("init_noise_sigma", {})[str(steps)] = init
            if first:
                case.setdefault("first", {})[str(steps)] = first
            case["tolerance"][str(steps)] = [
                float(f"{max(20 * (a - b).abs().max().item(), 1e-6 * max(1, a.abs().max().item())):.3g}")
                for a, b in zip(single, double)]
            if hasattr(scheduler, "alphas_cumprod"):
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
