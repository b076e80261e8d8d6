"""Makes one small AutoencoderKL or VQModel for each case and writes what it computes.

Weights are not stored: formula.py says each number. Writes golden.safetensors and golden.json (the cases, the parameters' shapes, a tolerance for
each tensor). Needs diffusers 0.42.1, torch 2.15.0 (CPU) and safetensors 0.8.0. Tensors of a case:

image, moments    encode(image): mean and log variance of the distribution, or the latents of a VQModel
z, decoded        decode(z)
seen, unscaled    what the pipelines of diffusers give a denoiser for z, and what they give the decoder for z as a denoiser's result
tiled_image, tiled_moments, tiled_z, tiled_decoded    the same two after enable_tiling()
"""
import json
import os
import sys

import torch
from diffusers import AutoencoderKL, VQModel
from safetensors.torch import save_file

torch.set_num_threads(1)
FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(FOLDER, ".."))
from formula import Weight  # noqa: E402

DOWN, UP, ATTN_DOWN, ATTN_UP = "DownEncoderBlock2D", "UpDecoderBlock2D", "AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D"
# What the cases share; a case's config goes on top.
BASE = {"down_block_types": [DOWN] * 2, "up_block_types": [UP] * 2, "block_out_channels": [4, 8], "norm_num_groups": 2, "sample_size": 16}
THREE = {"down_block_types": [DOWN] * 3, "up_block_types": [UP] * 3, "block_out_channels": [4, 12, 8]}
# "image" and "tiled": height and width, where they are not [16, 16] and none.
CASES = [
    {"name": "kl", "config": {}},
    {"name": "kl_no_quant_conv", "config": {"use_quant_conv": False}},
    {"name": "kl_no_post_quant_conv", "config": {"use_post_quant_conv": False}},
    {"name": "kl_shift", "config": {"use_quant_conv": False, "use_post_quant_conv": False, "latent_channels": 16, "scaling_factor": 0.3611,
                                    "shift_factor": 0.1159, "force_upcast": False}},
    {"name": "kl_mean_std", "config": {"scaling_factor": 0.5, "latents_mean": [-1.6574, 1.886, -1.383, 2.5155],
                                       "latents_std": [8.4927, 5.9022, 6.5498, 5.2299]}},
    {"name": "kl_no_attention", "config": {"mid_block_add_attention": False}},
    {"name": "kl_attention_blocks", "config": {"down_block_types": [ATTN_DOWN, DOWN], "up_block_types": [ATTN_UP, UP]}},
    {"name": "kl_three_levels", "image": [20, 12], "config": {**THREE, "layers_per_block": 2}},
    {"name": "kl_one_level", "image": [5, 4],
     "config": {"down_block_types": [DOWN], "up_block_types": [UP], "block_out_channels": [8], "sample_size": 8}},
    {"name": "kl_channels", "config": {"in_channels": 1, "out_channels": 2, "latent_channels": 5}},
    {"name": "kl_groups", "config": {"norm_num_groups": 4}},
    {"name": "kl_gelu", "config": {"act_fn": "gelu"}},
    {"name": "kl_mish", "config": {"act_fn": "mish"}},
    {"name": "kl_odd", "image": [19, 13], "config": THREE},
    {"name": "kl_size_pair", "image": [12, 18], "config": {"sample_size": [16, 24]}},
    {"name": "kl_tiles", "image": [8, 8], "tiled": [27, 38], "config": {}},
    {"name": "kl_tiles_of_a_row", "image": [8, 8], "tiled": [16, 61], "config": {**THREE, "sample_size": 32}},
    {"name": "vq", "config": {}},
    {"name": "vq_few_entries", "image": [6, 8], "config": {"num_vq_embeddings": 20}},
    {"name": "vq_wide_entries", "config": {"vq_embed_dim": 5, "num_vq_embeddings": 50, "scaling_factor": 0.7}},
    {"name": "vq_attention_blocks", "image": [12, 8],
     "config": {"down_block_types": [DOWN, ATTN_DOWN], "up_block_types": [ATTN_UP, ATTN_UP], "layers_per_block": 2, "mid_block_add_attention": False}},
    {"name": "vq_lookup_from_codebook", "config": {"lookup_from_codebook": True, "force_upcast": True}},
]


def seen(config, z):
    """As the pipelines of Stable Diffusion, SDXL (mean and std) and FLUX (shift) do."""
    if config.get("latents_mean"):
        mean, std = (torch.tensor(config[key]).view(1, -1, 1, 1).to(z) for key in ("latents_mean", "latents_std"))
        return (z - mean) * config.scaling_factor / std, z * std / config.scaling_factor + mean
    shift = config.get("shift_factor") or 0.0
    return (z - shift) * config.scaling_factor, (z / config.scaling_factor) + shift


def nearest_gap(model, z):
    """The smallest gap between the distances to the nearest and the second nearest codebook vector."""
    rows = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
    two = torch.cdist(rows, model.quantize.embedding.weight).topk(2, largest=False).values
    return (two[:, 1] - two[:, 0]).min().item()


@torch.no_grad()
def run(model, case, dtype):
    model = model.to(dtype)
    vq = isinstance(model, VQModel)
    g = torch.Generator("cpu").manual_seed(case["seed"])
    out = {}

    def draw(*shape):
        return torch.randn(shape, generator=g).to(dtype)

    def moments(x):
        return model.encode(x).latents if vq else model.encode(x).latent_dist.parameters

    factor = 2 ** (len(model.config.block_out_channels) - 1)
    channels = (model.config.vq_embed_dim if vq else None) or model.config.latent_channels
    height, width = case.get("image", [16, 16])
    out["image"] = draw(2, model.config.in_channels, height, width)
    out["z"] = draw(2, channels, height // factor, width // factor)
    out["moments"] = moments(out["image"])
    out["decoded"] = model.decode(out["z"]).sample
    if vq:
        assert nearest_gap(model, out["z"]) > 1e-4, case["name"]
    out["seen"], out["unscaled"] = seen(model.config, out["z"])
    if "tiled" in case:
        height, width = case["tiled"]
        out["tiled_image"] = draw(2, model.config.in_channels, height, width)
        out["tiled_z"] = draw(2, channels, height // factor, width // factor)
        model.enable_tiling()
        out["tiled_moments"] = moments(out["tiled_image"])
        out["tiled_decoded"] = model.decode(out["tiled_z"]).sample
        model.disable_tiling()
    return out


def main():
    tensors, parameters = {}, {}
    for i, case in enumerate(CASES):
        name = case["name"]
        case["seed"] = 300 + i
        case["class"] = "VQModel" if name.startswith("vq") else "AutoencoderKL"
        model = {"VQModel": VQModel, "AutoencoderKL": AutoencoderKL}[case["class"]](**{**BASE, **case["config"]}).eval()
        shapes = {k: list(v.shape) for k, v in model.state_dict().items()}
        model.load_state_dict({k: Weight(k, shape) for k, shape in shapes.items()})
        case["parameters"] = next((other for other, known in parameters.items() if known == shapes), name)
        parameters[case["parameters"]] = shapes
        single, double = run(model, case, torch.float32), run(model, case, torch.float64)
        case["tolerance"] = {}
        for key, value in single.items():
            assert value.isfinite().all(), name
            tensors[f"{name}.{key}"] = value.contiguous()
            if key.removeprefix("tiled_") in ("image", "z"):
                continue
            error, largest = (value - double[key]).abs().max().item(), value.abs().max().item()
            case["tolerance"][key] = float(f"{max(20 * error, 1e-6 * max(1, largest)):.3g}")
        print(name, case["tolerance"])
    save_file(tensors, os.path.join(FOLDER, "golden.safetensors"))
    with open(os.path.join(FOLDER, "golden.json"), "w") as f:
        cases = ",\n".join(json.dumps(c, separators=(",", ":")) for c in CASES)
        shapes = ",\n".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in parameters.items())
        f.write(f'{{\n"about": "written by make.py",\n"base": {json.dumps(BASE)},\n"cases": [\n{cases}\n],\n"parameters": {{\n{shapes}\n}}\n}}\n')


if __name__ == "__main__":
    main()
