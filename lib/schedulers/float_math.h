// Functions of one float with the bits that LibTorch gives: those of libm may differ in the last.
#pragma once

namespace tempera {

float Exp(float v);
float Expm1(float v);
float Log(float v);

}  // namespace tempera
