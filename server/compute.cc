#include "server/compute.h"

#include <torch/headeronly/version.h>

#include "kernels/kernels.h"
#include "models/family.h"
#include "schedulers/scheduler.h"

namespace tempera {

Compute RealCompute(int threads) {
  InitCompute(threads);
  Compute c;
  c.load_model = &Engine::LoadModel;
  c.load_artifact = &Engine::LoadArtifact;
  c.resolve_spec = &ResolveSpec;
  c.spec_to_json = [](const QuantSpec& spec) { return spec.ToJson(); };
  c.parse_spec = &QuantSpec::FromJson;
  c.run_job = &RunQuantizeJob;
  c.encode_image = &EncodeImage;
  c.decode_image = &DecodeImage;
  c.init_thread = &InitComputeThread;
  c.methods = QuantMethodNames();
  for (const SchedulerRow& row : Schedulers()) c.schedulers.push_back(row.name);
  for (const ModelFamily& family : Families()) c.families.push_back(family.name);
  c.kernels = Cat("cpu ", kernels::Cpu().text());
  c.torch_version = Cat(TORCH_VERSION_MAJOR, ".", TORCH_VERSION_MINOR, ".", TORCH_VERSION_PATCH);
  return c;
}

}  // namespace tempera
