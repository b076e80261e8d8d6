// Pictures on terminals that can show them.
#pragma once

#include <cstdint>
#include <string>

namespace tempera {

enum class PictureProtocol : uint8_t { kNone, kKitty, kSixel };

// What the terminal on standard error shows: as TEMPERA_PICTURES says (kitty, sixel, none), else by the names
// that terminals go by, else by its answer to a question about its attributes. None where it is no terminal.
PictureProtocol FindPictureProtocol();

// A PNG as the terminal takes it, small ones magnified. Empty where it is no PNG, and for kNone.
std::string TerminalPicture(PictureProtocol protocol, const std::string& png);

}  // namespace tempera
