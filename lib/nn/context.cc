#include "nn/context.h"

#include <ATen/ops/index_select.h>

namespace tempera::nn {

bool Conditioning::empty() const {
  for (const at::Tensor* t : {&label, &context, &pooled, &sizes, &guidance})
    if (t->defined()) return false;
  return true;
}

Conditioning Conditioning::Rows(const at::Tensor& index) const {
  Conditioning out = *this;
  for (at::Tensor* t : {&out.label, &out.context, &out.pooled, &out.sizes, &out.guidance})
    if (t->defined()) *t = t->index_select(0, index.to(t->device()));
  return out;
}

}  // namespace tempera::nn
