#include "client/completion.h"

#include <algorithm>

#include "base/status.h"

namespace tempera {
namespace {

// Words that an option takes.
constexpr std::pair<const char*, const char*> kValues[] = {
    {"--method", "minmax brecq tfmq tfmq-paper"},
    {"--weight-bits", "4 5 6 8"},
    {"--activation-bits", "4 5 6 8 32"},
    {"--boundary-bits", "0 8"},
    {"--stage-bits", "8 32"},
    {"--scheduler", "ddim ddpm pndm euler euler_a heun dpmsolver++ unipc lcm flow_euler"},
    {"--spacing", "leading trailing linspace"},
    {"--temporal-strategy", "reconstruct cache select"},
    {"--format", "png webp jpeg"},
};

std::string Quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// `"" quantize` -> the case pattern of a step from one node to a longer one.
std::string Steps(const std::vector<CompletionNode>& nodes) {
  std::string out;
  for (const auto& node : nodes) {
    if (node.path.empty()) continue;
    const size_t space = node.path.rfind(' ');
    const std::string parent = space == std::string::npos ? "" : node.path.substr(0, space);
    out += Cat(out.empty() ? "" : "|", Quoted(Cat(parent, "/", node.path.substr(space + 1))));
  }
  return out;
}

std::vector<std::pair<std::string, std::string>> WordsOf(const std::vector<CompletionNode>& nodes,
                                                         size_t index) {
  auto words = nodes[index].words;
  if (!nodes[index].path.empty())
    for (const auto& word : nodes[0].words)
      if (word.first.starts_with("--") && word.first != "--help" && word.first != "--version")
        words.push_back(word);
  if (nodes[index].path == "completion") words.insert(words.begin(), {{"bash", ""}, {"zsh", ""}});
  return words;
}

// Words without dashes leave no place for a file.
bool TakesFiles(const std::vector<std::pair<std::string, std::string>>& words) {
  return std::all_of(words.begin(), words.end(),
                     [](const auto& word) { return word.first.starts_with("--"); });
}

std::string Bash(const std::vector<CompletionNode>& nodes) {
  std::string s = R"(# bash completion for tempera
_tempera() {
  local word="${COMP_WORDS[COMP_CWORD]}" before="" at="" words="" files="" i
  ((COMP_CWORD > 0)) && before="${COMP_WORDS[COMP_CWORD-1]}"
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$at/${COMP_WORDS[i]}" in
      )";
  s += Steps(nodes) + ") at=\"${at:+$at }${COMP_WORDS[i]}\" ;;\n    esac\n  done\n  case \"$before\" in\n";
  for (const auto& [option, values] : kValues)
    s += Cat("    ", option, ") COMPREPLY=($(compgen -W ", Quoted(values), " -- \"$word\")); return ;;\n");
  s += "    --out) COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n  esac\n  case \"$at\" in\n";
  for (size_t i = 0; i < nodes.size(); ++i) {
    const auto here = WordsOf(nodes, i);
    std::string words;
    for (const auto& [word, help] : here) words += (words.empty() ? "" : " ") + word;
    s += Cat("    ", Quoted(nodes[i].path), ") words=", Quoted(words), TakesFiles(here) ? " files=1" : "",
             " ;;\n");
  }
  s += R"(  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  [[ "$word" != -* && -n "$files" ]] && COMPREPLY+=($(compgen -f -- "$word"))
  return 0
}
complete -o filenames -F _tempera tempera
)";
  return s;
}

std::string Zsh(const std::vector<CompletionNode>& nodes) {
  std::string s = R"(#compdef tempera
_tempera() {
  local at="" files="" w
  local -a words_here
  for w in "${(@)words[2,CURRENT-1]}"; do
    case "$at/$w" in
      )";
  std::string steps = Steps(nodes);
  s += steps + ") at=\"${at:+$at }$w\" ;;\n    esac\n  done\n  case \"${words[CURRENT-1]}\" in\n";
  for (const auto& [option, values] : kValues)
    s += Cat("    ", option, ") compadd -- ", values, "; return ;;\n");
  s += "    --out) _files; return ;;\n  esac\n  case \"$at\" in\n";
  for (size_t i = 0; i < nodes.size(); ++i) {
    const auto here = WordsOf(nodes, i);
    s += Cat("    ", Quoted(nodes[i].path), ") words_here=(\n");
    for (const auto& [word, help] : here) {
      std::string entry;
      for (const char c : word) entry += c == ':' ? std::string("\\:") : std::string(1, c);
      s += Cat("      ", Quoted(help.empty() ? entry : Cat(entry, ":", help)), "\n");
    }
    s += TakesFiles(here) ? "    ) files=1 ;;\n" : "    ) ;;\n";
  }
  s += R"(  esac
  _describe tempera words_here
  [[ "$PREFIX" != -* && -n "$files" ]] && _files
  return 0
}
if [ "$funcstack[1]" = "_tempera" ]; then _tempera "$@"; else compdef _tempera tempera; fi
)";
  return s;
}

}  // namespace

std::string CompletionScript(const std::string& shell, const std::vector<CompletionNode>& nodes) {
  return shell == "zsh" ? Zsh(nodes) : Bash(nodes);
}

}  // namespace tempera
