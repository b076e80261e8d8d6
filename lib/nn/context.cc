#include "nn/context.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>

namespace tempera::nn {

int64_t Conditioning::rows() const {
  for (const at::Tensor* t : {&label, &context, &pooled, &sizes, &guidance})
    if (t->defined()) return t->size(0);
  return 0;
}

Conditioning Conditioning::Rows(const at::Tensor& index) const {
  Conditioning out = *this;
  for (at::Tensor* t : {&out.label, &out.context, &out.pooled, &out.sizes, &out.guidance})
    if (t->defined()) *t = t->index_select(0, index.to(t->device()));
  return out;
}

Conditioning Conditioning::Cat(const std::vector<Conditioning>& all) {
  Conditioning out;
  for (at::Tensor Conditioning::*input : {&Conditioning::label, &Conditioning::context, &Conditioning::pooled,
                                          &Conditioning::sizes, &Conditioning::guidance}) {
    std::vector<at::Tensor> rows;
    for (const Conditioning& one : all)
      if ((one.*input).defined()) rows.push_back(one.*input);
    if (!rows.empty()) out.*input = at::cat(rows);
  }
  return out;
}

}  // namespace tempera::nn
