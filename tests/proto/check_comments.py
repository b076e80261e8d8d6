#!/usr/bin/env python3
"""Every file, service, call, message, field, enum and value of our .proto files carries a comment right above it.

  check_comments.py FOLDER
"""
import pathlib
import re
import sys

NAMED = re.compile(r"\s*(syntax|message|enum|service|rpc|oneof)\b|\s*((optional|repeated)\s+)?(map<[^>]*>\s+)?[\w.]*\s*\w+\s*=\s*\d+\s*(\[[^\]]*\])?;")


def main():
    seen, bare = 0, []
    for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.proto")):
        above = ""
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if NAMED.match(line):
                seen += 1
                if not above.strip().startswith("//"):
                    bare.append(f"{path}:{number}: {line.strip()}: has no comment")
            above = line
    if not seen:
        bare.append(f"{sys.argv[1]}: no .proto file was found")
    print("\n".join(bare) or f"{seen} declarations, each with a comment")
    return 1 if bare else 0


sys.exit(main())
