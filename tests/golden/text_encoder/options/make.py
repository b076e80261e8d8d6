"""Makes a small CLIPTextModel or CLIPTextModelWithProjection for each case and writes what it computes.

Weights are not stored: formula.py says each number. Writes golden.safetensors (<case>.ids; .hidden_states [layers + 1, B, T, D], the embeddings and
what each layer makes of them; .normed, the same after the final norm; .pooled, projected where the class projects) and golden.json (the cases,
every parameter's shape, a tolerance for each tensor). Needs transformers 5.23.0, torch 2.15.0 (CPU) and safetensors 0.8.0.
"""
import json
import os
import sys

import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

torch.set_num_threads(1)
torch.set_grad_enabled(False)
FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(FOLDER, "../.."))
from formula import Weight  # noqa: E402

BASE = {"vocab_size": 40, "hidden_size": 24, "intermediate_size": 40, "projection_dim": 20, "num_hidden_layers": 2, "num_attention_heads": 3,
        "max_position_embeddings": 16, "eos_token_id": 30}
# Rows end at different places. In row 2 a greater id than eos comes first and in row 3 after it; the others are padded with eos.
ROWS = [[1, 7, 12, 5, 30, 30, 30, 30, 30, 30, 30, 30], [1, 3, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30],
        [1, 38, 2, 2, 9, 30, 0, 0, 0, 0, 0, 0], [1, 4, 5, 6, 7, 8, 9, 30, 39, 31, 0, 0]]
FULL = [(7 * i * i + 3 * i) % 29 for i in range(15)] + [30]
CASES = [
    {"name": "projected", "class": "CLIPTextModelWithProjection", "ids": ROWS, "config": {"hidden_act": "gelu", "num_hidden_layers": 3}},
    {"name": "eos_by_its_id", "ids": ROWS, "config": {}},
    # The greatest id is the end, the first of them where there are several.
    {"name": "legacy_eos", "ids": ROWS, "config": {"eos_token_id": 2}},
    {"name": "legacy_eos_projected", "class": "CLIPTextModelWithProjection", "ids": ROWS, "config": {"eos_token_id": 2, "projection_dim": 56}},
    {"name": "no_eos", "ids": [[5, 6, 7], [8, 9, 1]], "config": {}},
    {"name": "one_token", "ids": [[30]], "config": {"num_attention_heads": 1}},
    {"name": "every_position", "ids": [FULL], "config": {"num_attention_heads": 12, "num_hidden_layers": 4}},
    {"name": "large_eps", "ids": ROWS[:1], "config": {"layer_norm_eps": 0.01}},
    {"name": "defaults", "ids": ROWS[:2], "config": {"num_hidden_layers": 1}, "omit": ["num_attention_heads", "max_position_embeddings", "eos_token_id"]},
] + [{"name": "act_" + act, "ids": ROWS[:1], "config": {"hidden_act": act, "num_hidden_layers": 1}}
     for act in ("quick_gelu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish", "mish")]


def run(model, ids, dtype):
    model = model.to(dtype)
    out = model(ids, output_hidden_states=True)
    norm = getattr(model, "text_model", model).final_layer_norm
    pooled = out.text_embeds if hasattr(out, "text_embeds") else out.pooler_output
    assert (norm(out.hidden_states[-1]) == out.last_hidden_state).all()
    return {"hidden_states": torch.stack(out.hidden_states), "normed": torch.stack([norm(h) for h in out.hidden_states]), "pooled": pooled}


def main():
    tensors = {}
    for case in CASES:
        name = case["name"]
        case.setdefault("class", "CLIPTextModel")
        omit = case.pop("omit", [])
        case["config"] = {k: v for k, v in {**BASE, **case["config"]}.items() if k not in omit}
        model = {"CLIPTextModel": CLIPTextModel, "CLIPTextModelWithProjection": CLIPTextModelWithProjection}[case["class"]](CLIPTextConfig(**case["config"])).eval()
        case["parameters"] = {k: list(v.shape) for k, v in model.state_dict().items()}
        model.load_state_dict({k: Weight(k, shape) for k, shape in case["parameters"].items()})
        ids = torch.tensor(case.pop("ids"))
        tensors[name + ".ids"] = ids
        single = run(model, ids, torch.float32)
        double = run(model, ids, torch.float64)
        case["tolerance"] = {}
        for key, value in single.items():
            assert value.isfinite().all(), name
            error = (value - double[key]).abs().max().item()
            case["tolerance"][key] = float(f"{max(20 * error, 1e-6 * max(1, value.abs().max().item())):.3g}")
            tensors[f"{name}.{key}"] = value.contiguous()
        print(name, list(ids.shape), "max", f"{single['normed'].abs().max():.2f}", "tolerances", case["tolerance"])
    save_file(tensors, os.path.join(FOLDER, "golden.safetensors"))
    with open(os.path.join(FOLDER, "golden.json"), "w") as f:
        cases = ",\n".join(json.dumps(c, separators=(",", ":")) for c in CASES)
        f.write(f'{{\n"about": "written by make.py",\n"cases": [\n{cases}\n]\n}}\n')


if __name__ == "__main__":
    main()
