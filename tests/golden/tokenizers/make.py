"""Makes golden.json, and saved/ (what transformers 5 writes), from cases.json, clip/ and trained/.

Needs transformers 5.23.0 and tokenizers 0.23.3. `prompts` are read by clip/ and by pad_exclamation; `edge` by clip/, by
saved/ and by trained/; `special` by every tokenizer; random texts (drawn here) by clip/. A variant is clip/'s vocab.json
and merges.txt beside the files that cases.json gives for it. trained/ is what TrainClipBpe makes of `captions`
(golden_test.cc has the call).

The library takes white space, letters and numbers from Unicode 16, lower case from 17 and NFC from 9; texts keep to
characters of Unicode 14 and to marks that all three know, where these agree with Unicode 15.
"""
import json
import os
import random
import shutil
import tempfile
import unicodedata

import tokenizers
import transformers
from transformers import CLIPTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
# Marks from the years between: the library's NFC leaves them where they stand.
LATER_MARKS = """7FD 898-89F 8CA-8D3 9FE C3C D3B-D3C EBA 1715 1ABF-1ACE 1DF6-1DFA A82C 10D24-10D27 10EAB-10EAC 10EFD-10EFF
10F46-10F50 10F82-10F85 11070 1133B 1145E 11839-1183A 11930-11938 1193D-1193E 11943 119E0 11A34 11A47 11A99 11D42
11D44-11D45 11D97 11F41-11F42 16FF0-16FF1 1E08F 1E130-1E136 1E2AE 1E2EC-1E2EF 1E4EC-1E4EF"""


def random_texts(count):
    later = set()
    for span in LATER_MARKS.split():
        low, high = (span.split("-") * 2)[:2]
        later.update(range(int(low, 16), int(high, 16) + 1))
    known = [chr(c) for c in range(1, 0x110000)
             if unicodedata.category(chr(c)) not in ("Cn", "Cs") and c not in later]
    kinds = [known, [c for c in known if unicodedata.combining(c)], [c for c in known if c.lower() != c],
             [c for c in known if c.isspace()], [c for c in known if ord(c) < 128], [c for c in known if ord(c) < 0x600],
             ["'s", "'re", "<|endoftext|>", "the", " cat", "\u11a7", "\uac00", "\u0130"]]
    draw = random.Random(77)
    return ["".join(draw.choice(draw.choice(kinds)) for _ in range(draw.choice((2, 5, 11, 23)))) for _ in range(count)]


def variant(files):
    folder = tempfile.mkdtemp()
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(os.path.join(HERE, "clip", name), folder)
    for name, content in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            json.dump(content, f)
    return folder


def compute(folder, texts):
    t = CLIPTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        ids = t(text).input_ids
        row = {"text": text, "ids": ids, "decoded": t.decode(ids)}
        if len(ids) > t.model_max_length:  # what diffusers warns of
            row["dropped"] = t.decode(ids[t.model_max_length - 1:-1])
        rows.append(row)
    for row in rows[:2] + [r for r in rows if abs(len(r["ids"]) - t.model_max_length) < 2] + rows[-1:]:
        padded = t(row["text"], padding="max_length", max_length=t.model_max_length, truncation=True)
        row["padded_ids"], row["attention_mask"] = padded.input_ids, padded.attention_mask
    return {"vocabulary": len(t), "bos": t.bos_token_id, "eos": t.eos_token_id, "pad": t.pad_token_id,
            "max_length": t.model_max_length, "cases": rows}


def main():
    with open(os.path.join(HERE, "cases.json"), encoding="utf-8") as f:
        cases = json.load(f)
    variants = {name: variant(files) for name, files in cases["variants"].items()}
    saved = os.path.join(HERE, "saved")
    CLIPTokenizer.from_pretrained(variants["pad_exclamation"]).save_pretrained(saved)
    prompts, edge, special = cases["prompts"], cases["edge"], cases["special"]
    result = {"clip": compute(os.path.join(HERE, "clip"), prompts + edge + special + random_texts(120)),
              "saved": compute(saved, edge + special),
              "trained": compute(os.path.join(HERE, "trained"), cases["captions"] + edge + special)}
    for name, folder in variants.items():
        result[name] = compute(folder, (prompts if name == "pad_exclamation" else []) + special)
    with open(os.path.join(HERE, "golden.json"), "w", encoding="utf-8") as f:
        f.write('{"transformers": "%s", "tokenizers": "%s"' % (transformers.__version__, tokenizers.__version__))
        for name, table in result.items():
            rows = table.pop("cases")
            f.write(',\n"%s": %s, "cases": [\n' % (name, json.dumps(table)[:-1]))
            f.write(",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "]}")
        f.write("}\n")


main()
