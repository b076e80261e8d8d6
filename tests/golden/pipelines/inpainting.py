"""Writes inpainting.json and inpainting.safetensors: what diffusers' inpainting pipelines make of the folders beside, from
one picture and one mask. The network of "wide" runs sees mask and masked picture too: its conv_in has five channels more,
by ../formula.py. Needs diffusers 0.42.1, torch 2.15.0 (CPU), transformers 5.23.0, safetensors 0.8.0."""
import json
import os
import sys

import numpy as np
import torch
from diffusers import (EulerAncestralDiscreteScheduler, StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline,
                       UNet2DConditionModel)
from PIL import Image
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(FOLDER))
from formula import Weight  # noqa: E402

#       folder, pipeline, wide, scheduler, steps, strength, guidance
RUNS = [("sd1", StableDiffusionInpaintPipeline, False, None, 8, 1.0, 7.5),
        ("sd2", StableDiffusionInpaintPipeline, False, None, 8, 0.6, 5.0),
        ("sd1", StableDiffusionInpaintPipeline, False, "euler_a", 5, 0.8, 7.5),
        ("sdxl", StableDiffusionXLInpaintPipeline, False, None, 6, 0.7, 5.0),
        ("sd1", StableDiffusionInpaintPipeline, True, None, 8, 1.0, 7.5),
        ("sd1", StableDiffusionInpaintPipeline, True, None, 8, 0.5, 7.5)]


def wide_network(name):
    path = os.path.join(FOLDER, name, "unet")
    config = UNet2DConditionModel.load_config(path)
    state = load_file(os.path.join(path, "diffusion_pytorch_model.safetensors"))
    first = state["conv_in.weight"]
    state["conv_in.weight"] = torch.cat([first, Weight("conv_in.beside", [first.shape[0], 5, 3, 3])], 1)
    network = UNet2DConditionModel.from_config({**config, "in_channels": 9})
    network.load_state_dict(state)
    return network.eval()


def main():
    y, x = np.mgrid[0:32, 0:32]
    picture = np.stack([8 * x, 8 * y, 128 + 100 * np.sin(x * y / 40)], -1).astype(np.uint8)
    mask = (255 / (1 + np.exp((np.hypot(x - 18, y - 13) - 9) / 2))).astype(np.uint8)  # a soft disc
    tensors, runs = {"picture": torch.from_numpy(picture), "mask": torch.from_numpy(mask)}, []
    for name, kind, wide, scheduler, steps, strength, guidance in RUNS:
        pipe = kind.from_pretrained(os.path.join(FOLDER, name), **({"unet": wide_network(name)} if wide else {}))
        if scheduler == "euler_a":
            pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
        image = pipe("a small house", image=Image.fromarray(picture), mask_image=Image.fromarray(mask, "L"), height=32, width=32,
                     strength=strength, num_inference_steps=steps, guidance_scale=guidance,
                     generator=torch.Generator("cpu").manual_seed(5), output_type="np").images[0]
        tensors[f"run{len(runs)}"] = torch.from_numpy(np.round(image * 255).astype(np.uint8)).contiguous()
        run = {"folder": name, "wide": wide, "steps": steps, "strength": strength, "guidance": guidance, "seed": 5,
               "prompt": "a small house"}
        runs.append({**run, "scheduler": scheduler} if scheduler else run)
    save_file(tensors, os.path.join(FOLDER, "inpainting.safetensors"))
    json.dump({"runs": runs}, open(os.path.join(FOLDER, "inpainting.json"), "w"), indent=1)


main()
