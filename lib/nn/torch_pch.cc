#include "nn/torch_pch.h"
