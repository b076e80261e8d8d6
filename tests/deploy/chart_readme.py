#!/usr/bin/env python3
"""Writes the table of values into helm/tempera/README.md from the comments of values.yaml: chart_readme.py [--check]

A comment `# -- text` documents the key below it, whole; a key without one must be a group of documented keys.
"""
import json
import pathlib
import sys

import yaml

CHART = pathlib.Path(__file__).resolve().parents[2] / "helm/tempera"
BEGIN, END = "<!-- values: made by tests/deploy/chart_readme.py -->", "<!-- end of values -->"


def rows(text):
    """(key, default, description) of each documented value; raises ValueError that names an undocumented one."""
    lines = text.splitlines()
    values = yaml.safe_load(text)

    def comment(line):
        above = []
        while line > 0 and lines[line - 1].strip().startswith("#"):
            line -= 1
            above.insert(0, lines[line].strip().lstrip("#").strip())
        text = " ".join(above)
        return text[3:] if text.startswith("-- ") else None

    def visit(node, value, prefix):
        for key, child in node.value:
            name = prefix + key.value
            description = comment(key.start_mark.line)
            if description is not None:
                yield name, value[key.value], description
            elif isinstance(child, yaml.MappingNode) and child.value:
                yield from visit(child, value[key.value], name + ".")
            else:
                raise ValueError(f"values.yaml: {name} has no `# --` comment")

    yield from visit(yaml.compose(text), values, "")


def table(text):
    out = ["| value | default | meaning |", "| --- | --- | --- |"]
    for name, default, description in rows(text):
        shown = json.dumps(default).replace("|", "\\|")
        out.append(f"| `{name}` | `{shown}` | {description.replace('|', chr(92) + '|')} |")
    return "\n".join(out)


def main():
    readme = CHART / "README.md"
    old = readme.read_text()
    head, rest = old.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    new = f"{head}{BEGIN}\n{table((CHART / 'values.yaml').read_text())}\n{END}{tail}"
    if "--check" in sys.argv[1:]:
        if old != new:
            print("helm/tempera/README.md: the table of values is old; run tests/deploy/run.sh tests/deploy/chart_readme.py")
        return old != new
    readme.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
