// Scripts that complete the words of `tempera` in a shell.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tempera {

// What may follow a command: its own commands and options.
struct CompletionNode {
  std::string path;                                        // "jobs list"; empty for the program itself
  std::vector<std::pair<std::string, std::string>> words;  // word, one line of help
};

// `shell` is "bash" or "zsh". Options of the program itself are offered everywhere; what is no option may be
// a file.
std::string CompletionScript(const std::string& shell, const std::vector<CompletionNode>& nodes);

}  // namespace tempera
