"""What a PromQL expression reads: metrics, labels, windows. Enough of the grammar for our own rules and dashboards."""
import dataclasses
import re

TOKEN = re.compile(r"""\s*(?:
    (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
  | (?P<window>\[[^\]]*\])
  | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
  | (?P<number>[0-9][0-9a-zA-Z.]*)
  | (?P<variable>\$\{?[a-zA-Z_]+\}?)
  | (?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){},@])
)""", re.VERBOSE)
GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
WORDS = GROUPING | {"and", "or", "unless", "offset", "bool", "atan2", "inf", "nan", "start", "end"}


@dataclasses.dataclass
class Use:
    selectors: list = dataclasses.field(default_factory=list)  # (metric, labels of its matchers)
    groupings: list = dataclasses.field(default_factory=list)  # (word, labels, metrics that it groups)
    windows: list = dataclasses.field(default_factory=list)  # "[5m]"

    @property
    def metrics(self):
        return [metric for metric, _ in self.selectors]


def tokens(text):
    out, at = [], 0
    text = re.sub(r"#.*", "", text).rstrip()
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise ValueError(f"cannot read {text[at:at + 30]!r}")
        out.append((match.lastgroup, match.group(match.lastgroup)))
        at = match.end()
    return out


def parse(text):
    """The metrics, labels and windows of `text`. ValueError where it is not understood."""
    stream, use = tokens(text), Use()

    def close(at):
        depth = 0
        for i in range(at, len(stream)):
            depth += {"(": 1, ")": -1}.get(stream[i][1], 0) if stream[i][0] == "sign" else 0
            if depth == 0:
                return i
        raise ValueError(f"open parenthesis in {text!r}")

    spans, pending = [], []  # selectors with their place; groupings that wait for them
    i = 0
    while i < len(stream):
        kind, value = stream[i]
        following = stream[i + 1][1] if i + 1 < len(stream) else ""
        if kind == "window":
            use.windows.append(value)
        elif kind == "name" and value.lower() in GROUPING and following == "(":
            end = close(i + 1)
            labels = [v for k, v in stream[i + 2:end] if k == "name"]
            # `sum by (l) (argument)`: the labels are the argument's; `a on (l) b`: those of the whole expression.
            scope = (0, len(stream))
            if value.lower() in ("by", "without") and end + 1 < len(stream) and stream[end + 1][1] == "(":
                scope = (end + 1, close(end + 1))
            pending.append((value.lower(), labels, scope))
            i = end
        elif kind == "name" and value.lower() not in WORDS and following != "(" and not is_aggregate(stream, i):
            labels, start = [], i
            if following == "{":
                i += 2
                while stream[i][1] != "}":
                    if stream[i][0] == "name":
                        labels.append(stream[i][1])
                    i += 1
            spans.append((start, value, labels))
        elif value == "{":
            raise ValueError(f"a selector without a metric's name in {text!r}")
        i += 1
    use.selectors = [(metric, labels) for _, metric, labels in spans]
    for word, labels, (begin, end) in pending:
        use.groupings.append((word, labels, [m for start, m, _ in spans if begin <= start <= end]))
    return use


def is_aggregate(stream, i):
    """`sum by (...) (...)`: the name is followed by a grouping."""
    return i + 1 < len(stream) and stream[i + 1][1].lower() in ("by", "without")
