#!/usr/bin/env python3
"""Writes a diffusers folder of the true size of a published model, with random weights.

For measuring memory, speed and cold starts without the model itself: its pictures are noise. Names, shapes and
configurations are those of the published folders; the tokenizer is a small one of this repository, so prompts use
few of the vocabulary's rows. Weights are normal, of variance 1 / fan-in, so that activations stay finite; norms
are the identity. The same arguments give the same bytes.

  tools/random_model.py sd15 /models/sd15               4.3 GB: UNet 860 M parameters, CLIP-L, VAE
  tools/random_model.py sdxl /models/sdxl --dtype fp16  6.9 GB: UNet 2.57 G parameters, CLIP-L, CLIP-bigG, VAE
"""

import argparse
import array
import json
import math
import pathlib
import random
import shutil
import struct
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

VAE = {
    "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4, "in_channels": 3, "latent_channels": 4, "layers_per_block": 2,
    "norm_num_groups": 32, "out_channels": 3, "sample_size": 512, "scaling_factor": 0.18215,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
UNET = {
    "_class_name": "UNet2DConditionModel", "act_fn": "silu", "center_input_sample": False, "downsample_padding": 1,
    "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2, "mid_block_scale_factor": 1,
    "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4,
}
CLIP_L = {
    "architectures": ["CLIPTextModel"], "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 2,
    "hidden_act": "quick_gelu", "hidden_size": 768, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77, "model_type": "clip_text_model", "num_attention_heads": 12,
    "num_hidden_layers": 12, "pad_token_id": 1, "projection_dim": 768, "vocab_size": 49408,
}
CLIP_G = CLIP_L | {
    "architectures": ["CLIPTextModelWithProjection"], "hidden_act": "gelu", "hidden_size": 1280,
    "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32, "projection_dim": 1280,
}
DIFFUSION = {
    "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
    "prediction_type": "epsilon", "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": None,
}

MODELS = {
    "sd15": {
        "index": {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False,
                  "feature_extractor": [None, None], "safety_checker": [None, None]},
        "scheduler": DIFFUSION | {"_class_name": "PNDMScheduler", "set_alpha_to_one": False, "skip_prk_steps": True},
        "unet": UNET | {
            "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768,
            "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "sample_size": 64,
            "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3},
        "vae": VAE,
        "text_encoder": CLIP_L,
    },
    "sdxl": {
        "index": {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True},
        "scheduler": DIFFUSION | {"_class_name": "EulerDiscreteScheduler", "interpolation_type": "linear",
                                  "use_karras_sigmas": False},
        "unet": UNET | {
            "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "attention_head_dim": [5, 10, 20],
            "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "projection_class_embeddings_input_dim": 2816, "sample_size": 128,
            "transformer_layers_per_block": [1, 2, 10],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "use_linear_projection": True},
        "vae": VAE | {"force_upcast": True, "sample_size": 1024, "scaling_factor": 0.13025},
        "text_encoder": CLIP_L,
        "text_encoder_2": CLIP_G,
    },
}


class Tensors(dict):
    """Name -> shape, in the order of the layers."""

    def norm(self, name, size):
        self[name + ".weight"] = self[name + ".bias"] = [size]

    def linear(self, name, width, out, bias=True):
        self[name + ".weight"] = [out, width]
        if bias:
            self[name + ".bias"] = [out]

    def conv(self, name, width, out, kernel=3):
        self[name + ".weight"] = [out, width, kernel, kernel]
        self[name + ".bias"] = [out]

    def resnet(self, name, width, out, time=0):
        self.norm(name + ".norm1", width)
        self.conv(name + ".conv1", width, out)
        if time:
            self.linear(name + ".time_emb_proj", time, out)
        self.norm(name + ".norm2", out)
        self.conv(name + ".conv2", out, out)
        if width != out:
            self.conv(name + ".conv_shortcut", width, out, 1)

    def transformer(self, name, width, context, depth, linear):
        project = self.linear if linear else lambda n, i, o: self.conv(n, i, o, 1)
        self.norm(name + ".norm", width)
        project(name + ".proj_in", width, width)
        for i in range(depth):
            block = f"{name}.transformer_blocks.{i}"
            for attention, source in (("attn1", width), ("attn2", context)):
                self.norm(f"{block}.norm{attention[-1]}", width)
                self.linear(f"{block}.{attention}.to_q", width, width, bias=False)
                self.linear(f"{block}.{attention}.to_k", source, width, bias=False)
                self.linear(f"{block}.{attention}.to_v", source, width, bias=False)
                self.linear(f"{block}.{attention}.to_out.0", width, width)
            self.norm(block + ".norm3", width)
            self.linear(block + ".ff.net.0.proj", width, 8 * width)
            self.linear(block + ".ff.net.2", 4 * width, width)
        project(name + ".proj_out", width, width)


def unet_tensors(c):
    t = Tensors()
    widths, layers = c["block_out_channels"], c["layers_per_block"]
    depths = c.get("transformer_layers_per_block", [1] * len(widths))
    time = 4 * widths[0]

    def transformer(name, width, depth):
        t.transformer(name, width, c["cross_attention_dim"], depth, c.get("use_linear_projection", False))

    t.conv("conv_in", c["in_channels"], widths[0])
    t.linear("time_embedding.linear_1", widths[0], time)
    t.linear("time_embedding.linear_2", time, time)
    if "addition_embed_type" in c:
        t.linear("add_embedding.linear_1", c["projection_class_embeddings_input_dim"], time)
        t.linear("add_embedding.linear_2", time, time)
    skips = [widths[0]]
    width = widths[0]
    for i, out in enumerate(widths):
        for j in range(layers):
            t.resnet(f"down_blocks.{i}.resnets.{j}", width, out, time)
            if c["down_block_types"][i].startswith("CrossAttn"):
                transformer(f"down_blocks.{i}.attentions.{j}", out, depths[i])
            width = out
            skips.append(out)
        if i + 1 < len(widths):
            t.conv(f"down_blocks.{i}.downsamplers.0.conv", out, out)
            skips.append(out)
    t.resnet("mid_block.resnets.0", width, width, time)
    transformer("mid_block.attentions.0", width, depths[-1])
    t.resnet("mid_block.resnets.1", width, width, time)
    for i, out in enumerate(reversed(widths)):
        for j in range(layers + 1):
            t.resnet(f"up_blocks.{i}.resnets.{j}", width + skips.pop(), out, time)
            if c["up_block_types"][i].startswith("CrossAttn"):
                transformer(f"up_blocks.{i}.attentions.{j}", out, depths[-1 - i])
            width = out
        if i + 1 < len(widths):
            t.conv(f"up_blocks.{i}.upsamplers.0.conv", out, out)
    t.norm("conv_norm_out", width)
    t.conv("conv_out", width, c["out_channels"])
    return t


def vae_tensors(c):
    t = Tensors()
    widths, layers, latents = c["block_out_channels"], c["layers_per_block"], c["latent_channels"]

    def middle(name):
        t.resnet(name + ".resnets.0", widths[-1], widths[-1])
        t.norm(name + ".attentions.0.group_norm", widths[-1])
        for part in ("to_q", "to_k", "to_v", "to_out.0"):
            t.linear(f"{name}.attentions.0.{part}", widths[-1], widths[-1])
        t.resnet(name + ".resnets.1", widths[-1], widths[-1])

    t.conv("encoder.conv_in", c["in_channels"], widths[0])
    width = widths[0]
    for i, out in enumerate(widths):
        for j in range(layers):
            t.resnet(f"encoder.down_blocks.{i}.resnets.{j}", width, out)
            width = out
        if i + 1 < len(widths):
            t.conv(f"encoder.down_blocks.{i}.downsamplers.0.conv", out, out)
    middle("encoder.mid_block")
    t.norm("encoder.conv_norm_out", width)
    t.conv("encoder.conv_out", width, 2 * latents)
    t.conv("quant_conv", 2 * latents, 2 * latents, 1)
    t.conv("post_quant_conv", latents, latents, 1)
    t.conv("decoder.conv_in", latents, width)
    middle("decoder.mid_block")
    for i, out in enumerate(reversed(widths)):
        for j in range(layers + 1):
            t.resnet(f"decoder.up_blocks.{i}.resnets.{j}", width, out)
            width = out
        if i + 1 < len(widths):
            t.conv(f"decoder.up_blocks.{i}.upsamplers.0.conv", out, out)
    t.norm("decoder.conv_norm_out", width)
    t.conv("decoder.conv_out", width, c["out_channels"])
    return t


def clip_tensors(c):
    t = Tensors()
    width = c["hidden_size"]
    t["text_model.embeddings.token_embedding.weight"] = [c["vocab_size"], width]
    t["text_model.embeddings.position_embedding.weight"] = [c["max_position_embeddings"], width]
    for i in range(c["num_hidden_layers"]):
        layer = f"text_model.encoder.layers.{i}"
        t.norm(layer + ".layer_norm1", width)
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            t.linear(f"{layer}.self_attn.{part}", width, width)
        t.norm(layer + ".layer_norm2", width)
        t.linear(layer + ".mlp.fc1", width, c["intermediate_size"])
        t.linear(layer + ".mlp.fc2", c["intermediate_size"], width)
    t.norm("text_model.final_layer_norm", width)
    if c["architectures"] == ["CLIPTextModelWithProjection"]:
        t.linear("text_projection", width, c["projection_dim"], bias=False)
    return t


class Noise:
    """An endless normal sequence: one block, drawn once, over and over. Its length is prime, so that no two rows
    of a matrix are alike."""

    LENGTH = 1048573
    DTYPES = {"fp32": ("F32", 4), "fp16": ("F16", 2)}

    def __init__(self, dtype, seed):
        draw = random.Random(seed)
        self.block = [draw.gauss(0, 1) for _ in range(self.LENGTH)]
        self.dtype = dtype
        self.at = 0
        self.scaled = {}

    def bytes_of(self, values):
        if self.dtype == "fp32":
            values = array.array("f", values)
            if sys.byteorder == "big":
                values.byteswap()
            return values.tobytes()
        return struct.pack(f"<{len(values)}e", *values)

    def write(self, file, count, std):
        """`count` numbers of that standard deviation, in pieces of at most one block."""
        if std not in self.scaled:
            self.scaled[std] = memoryview(self.bytes_of([std * v for v in self.block]))
        size = self.DTYPES[self.dtype][1]
        while count > 0:
            piece = min(count, self.LENGTH - self.at)
            file.write(self.scaled[std][self.at * size:(self.at + piece) * size])
            self.at = (self.at + piece) % self.LENGTH
            count -= piece


def write_weights(path, tensors, noise):
    name, size = noise.DTYPES[noise.dtype]
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for tensor, shape in tensors.items():
        begin, end = end, end + size * math.prod(shape)
        header[tensor] = {"dtype": name, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor, shape in tensors.items():
            if len(shape) > 1:
                std = 0.02 if "embeddings." in tensor else 1 / math.sqrt(math.prod(shape[1:]))
                noise.write(file, math.prod(shape), std)
            elif tensor.endswith(".weight"):  # of a norm
                file.write(noise.bytes_of([1.0] * shape[0]))
            else:
                noise.write(file, shape[0], 0.02)


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


PARTS = {
    "unet": (unet_tensors, "diffusion_pytorch_model.safetensors"),
    "vae": (vae_tensors, "diffusion_pytorch_model.safetensors"),
    "text_encoder": (clip_tensors, "model.safetensors"),
    "text_encoder_2": (clip_tensors, "model.safetensors"),
}


def write_model(out, model, dtype, seed):
    noise = Noise(dtype, seed)
    index = dict(model["index"])
    index["scheduler"] = ["diffusers", model["scheduler"]["_class_name"]]
    write_json(out / "scheduler/scheduler_config.json", model["scheduler"])
    for part, (tensors_of, file) in PARTS.items():
        if part not in model:
            continue
        config = model[part]
        write_json(out / part / "config.json", config)
        tensors = tensors_of(config)
        write_weights(out / part / file, tensors, noise)
        parameters = sum(math.prod(shape) for shape in tensors.values())
        print(f"{part}: {len(tensors)} tensors, {parameters:,} parameters", flush=True)
        is_text = part.startswith("text_encoder")
        index[part] = ["transformers", config["architectures"][0]] if is_text else ["diffusers", config["_class_name"]]
        if is_text:
            tokenizer = part.replace("text_encoder", "tokenizer")
            index[tokenizer] = ["transformers", "CLIPTokenizer"]
            shutil.copytree(REPOSITORY / "tests/golden/pipelines/sdxl" / tokenizer, out / tokenizer)
    write_json(out / "model_index.json", index)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("out", type=pathlib.Path, help="folder to make; must not exist")
    parser.add_argument("--dtype", choices=sorted(Noise.DTYPES), default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    partial = args.out.with_name(args.out.name + ".partial")
    for folder in (args.out, partial):
        if folder.exists():
            parser.error(f"{folder}: exists, want a new folder")
    try:
        write_model(partial, MODELS[args.model], args.dtype, args.seed)
        partial.rename(args.out)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        sys.exit(f"random_model.py: {args.out}: {error.strerror}")


if __name__ == "__main__":
    main()
