// What the server asks of the computing libraries, as functions: the services link no LibTorch, and tests
// bring their own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/call.h"
#include "base/status.h"
#include "pipeline/engine.h"
#include "pipeline/image_codec.h"
#include "quant/spec.h"
#include "worker/agent.h"

namespace tempera {

struct Compute {
  // Engine::LoadModel and LoadArtifact.
  std::function<Result<std::shared_ptr<const Engine>>(const CallScope&, const std::filesystem::path& folder)>
      load_model;
  std::function<Result<std::shared_ptr<const Engine>>(const CallScope&, const std::filesystem::path& folder,
                                                      const std::string& id, const EngineOptions&)>
      load_artifact;
  std::function<Result<QuantSpec>(const QuantRequest&, const std::filesystem::path& model_folder)>
      resolve_spec;
  std::function<Json(const QuantSpec&)> spec_to_json;
  ParseSpec parse_spec;
  ComputeJob run_job;
  std::function<Result<std::string>(const Picture&, ImageFormat,
                                    const std::map<std::string, std::string>& text)>
      encode_image;
  std::function<Result<Picture>(std::string_view bytes)> decode_image;
  std::function<void()> init_thread;  // first on every thread that computes

  // Rows of the tables, in their order.
  std::vector<std::string> methods;
  std::vector<std::string> schedulers;
  std::vector<std::string> families;
  std::string kernels;  // name of the kernel set in use
  std::string torch_version;
};

// The real ones. `threads`: InitCompute's.
Compute RealCompute(int threads);

}  // namespace tempera
