"""Writes image_to_image.json and image_to_image.safetensors: what diffusers' image-to-image pipelines make of the
folders beside, from one picture. Needs diffusers 0.42.1, torch 2.15.0 (CPU), transformers 5.23.0, safetensors 0.8.0."""
import json
import os

import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline
from PIL import Image
from safetensors.torch import save_file

torch.set_num_threads(1)
FOLDER = os.path.dirname(os.path.abspath(__file__))
RUNS = [("sd1", StableDiffusionImg2ImgPipeline, 8, 0.6, 7.5), ("sd2", StableDiffusionImg2ImgPipeline, 8, 0.3, 5.0),
        ("sdxl", StableDiffusionXLImg2ImgPipeline, 6, 0.5, 5.0), ("sdxl_turbo", StableDiffusionXLImg2ImgPipeline, 4, 1.0, 0.0)]


def main():
    y, x = np.mgrid[0:32, 0:32]
    picture = np.stack([8 * x, 8 * y, 128 + 100 * np.sin(x * y / 40)], -1).astype(np.uint8)
    tensors, runs = {"picture": torch.from_numpy(picture)}, []
    for name, kind, steps, strength, guidance in RUNS:
        pipe = kind.from_pretrained(os.path.join(FOLDER, name))
        pipe.set_progress_bar_config(disable=True)
        image = pipe("a small house", image=Image.fromarray(picture), strength=strength, num_inference_steps=steps,
                     guidance_scale=guidance, generator=torch.Generator("cpu").manual_seed(5), output_type="np").images[0]
        tensors[name] = torch.from_numpy(np.round(image * 255).astype(np.uint8)).contiguous()
        runs.append({"folder": name, "steps": steps, "strength": strength, "guidance": guidance, "seed": 5, "prompt": "a small house"})
    save_file(tensors, os.path.join(FOLDER, "image_to_image.safetensors"))
    json.dump({"runs": runs}, open(os.path.join(FOLDER, "image_to_image.json"), "w"), indent=1)


main()
