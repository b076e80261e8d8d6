// Every metric that this system exports, declared once, and nothing else exports one.
//
// Label values come from closed sets or from what is loaded: never ids of requests, prompts, seeds or raw
// timesteps. `model` is the last component of a model's folder; `artifact` the first 12 digits of its id,
// empty for a full-precision model; `timestep_bin` the twentieth of the training schedule, "00" (clean) to
// "19" (noise).
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "metrics/family.h"

namespace tempera {

inline const std::vector<double> kRequestSeconds{.01, .025, .05, .1, .25, .5,  1,  2.5,
                                                 5,   10,   20,  30, 60,  120, 300};
inline const std::vector<double> kQueueSeconds{.001, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60};
inline const std::vector<double> kStepSeconds{.0005, .001, .002, .004,  .008,  .016,  .032,  .064,
                                              .128,  .256, .512, 1.024, 2.048, 4.096, 8.192, 16.384};
// Half decades of a relative L2 error.
inline const std::vector<double> kErrorRatios{1e-5, 3.2e-5, 1e-4, 3.2e-4, 1e-3, 3.2e-3,
                                              .01,  .032,   .1,   .32,    1};
inline const std::vector<double> kLoadSeconds{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300};
inline const std::vector<double> kJobSeconds{10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200};
inline const std::vector<double> kStoreSeconds{.001, .0025, .005, .01, .025, .05, .1,
                                               .25,  .5,    1,    2.5, 5,    10,  30};

struct BuildInfo {
  std::string version;   // of this program
  std::string revision;  // of its sources, or "unknown"
  std::string torch;     // LibTorch's version
  std::string device;    // "cpu"
};

// Passed by reference from the composition root; there is no global one. Thread-safe.
struct Metrics {
  // Sets the build data and makes the series whose labels are known from the start, at zero.
  explicit Metrics(const BuildInfo& build);

  // The exposition of everything, process figures read now. Prometheus text format 0.0.4.
  std::string Text();
  // Runs before each exposition, for gauges that are read rather than written. Register before serving.
  void OnCollect(std::function<void()> hook) { hooks_.push_back(std::move(hook)); }
  // The artifact (or, with artifact empty, the full-precision model) was unloaded: drops what only it had.
  void RemoveArtifact(std::string_view model, std::string_view artifact);

  MetricRegistry registry;

  // Process.
  GaugeFamily<4> build_info{registry,
                            "tempera_build_info",
                            "What is running; always 1.",
                            {"version", "revision", "torch", "device"}};
  GaugeFamily<0> server_ready{registry, "tempera_server_ready", "1 while /readyz answers 200, else 0."};
  GaugeFamily<0> series{registry, "tempera_metrics_series", "Time series in this exposition."};
  CounterFamily<0> process_cpu_seconds{registry, "tempera_process_cpu_seconds_total",
                                       "Processor time that this process used, user and system."};
  GaugeFamily<0> process_resident_bytes{registry, "tempera_process_resident_memory_bytes",
                                        "Resident memory."};
  GaugeFamily<0> process_open_fds{registry, "tempera_process_open_fds", "Open file descriptors."};
  GaugeFamily<0> process_start_time{registry, "tempera_process_start_time_seconds",
                                    "Unix time of the start."};

  // Calls.
  CounterFamily<2> requests{
      registry, "tempera_requests_total", "Finished calls by method and gRPC code.", {"method", "code"}};
  HistogramFamily<2> request_seconds{
      registry,
      "tempera_request_duration_seconds",
      "From receipt to final status; code_class is ok, client_error or server_error.",
      {"method", "code_class"},
      kRequestSeconds};
  GaugeFamily<1> requests_in_flight{
      registry, "tempera_requests_in_flight", "Calls being answered.", {"method"}};

  // Generations.
  GaugeFamily<1> queue_depth{
      registry, "tempera_generation_queue_depth", "Generations waiting for a lane.", {"model"}};
  GaugeFamily<1> queued_steps{registry,
                              "tempera_generation_queued_steps",
                              "Denoising steps of the generations that wait: the signal to scale on.",
                              {"model"}};
  HistogramFamily<1> queue_wait_seconds{registry,
                                        "tempera_generation_queue_wait_seconds",
                                        "From acceptance to the start on a lane.",
                                        {"model"},
                                        kQueueSeconds};
  HistogramFamily<2> generation_seconds{registry,
                                        "tempera_generation_duration_seconds",
                                        "From the start on a lane to the last picture.",
                                        {"model", "artifact"},
                                        kRequestSeconds};
  HistogramFamily<2> stage_seconds{registry,
                                   "tempera_generation_stage_duration_seconds",
                                   "One picture's time in a stage: denoise, decode, encode.",
                                   {"model", "stage"},
                                   kRequestSeconds};
  HistogramFamily<2> step_seconds{registry,
                                  "tempera_denoise_step_duration_seconds",
                                  "Wall time of one denoising step.",
                                  {"model", "artifact"},
                                  kStepSeconds};
  CounterFamily<1> steps{registry, "tempera_denoise_steps_total", "Denoising steps run.", {"model"}};
  CounterFamily<1> images{registry, "tempera_images_total", "Pictures finished.", {"model"}};
  CounterFamily<1> pixels{registry, "tempera_pixels_total", "Pixels of the pictures finished.", {"model"}};
  CounterFamily<2> cancelled{
      registry,
      "tempera_generations_cancelled_total",
      "Generations that ended before their last picture; reason is client, deadline, drain "
      "or shed.",
      {"model", "reason"}};

  // Time: the product's own figures.
  HistogramFamily<4> temporal_error{
      registry,
      "tempera_temporal_feature_error_ratio",
      "Relative L2 error of the temporal features that a step used, against full precision.",
      {"model", "artifact", "timestep_bin", "block_group"},
      kErrorRatios};
  GaugeFamily<4> temporal_error_baseline{
      registry,
      "tempera_temporal_feature_error_baseline_ratio",
      "The same error as it was when the artifact was made, from its manifest: mean over steps and classes.",
      {"model", "artifact", "timestep_bin", "block_group"}};
  GaugeFamily<4> temporal_error_low{
      registry,
      "tempera_temporal_feature_error_baseline_low_ratio",
      "Least of the errors that the manifest's mean is made of: what serving observes is never below.",
      {"model", "artifact", "timestep_bin", "block_group"}};
  GaugeFamily<4> temporal_error_high{
      registry,
      "tempera_temporal_feature_error_baseline_high_ratio",
      "Greatest of the errors that the manifest's mean is made of: what serving observes is never above.",
      {"model", "artifact", "timestep_bin", "block_group"}};
  GaugeFamily<2> cache_bytes{
      registry, "tempera_feature_cache_bytes", "Resident temporal features.", {"model", "artifact"}};
  GaugeFamily<2> cache_entries{registry,
                               "tempera_feature_cache_entries",
                               "Temporal features that are resident.",
                               {"model", "artifact"}};
  CounterFamily<2> cache_evictions{registry,
                                   "tempera_feature_cache_evictions_total",
                                   "Caches that left memory with their artifact; reason is budget or unload.",
                                   {"model", "reason"}};
  CounterFamily<1> cache_verify_failures{registry,
                                         "tempera_feature_cache_verify_failures_total",
                                         "Artifacts refused because a file does not match its manifest.",
                                         {"model"}};

  // Models in memory.
  GaugeFamily<2> model_loaded{
      registry, "tempera_model_loaded", "1 while it is resident.", {"model", "artifact"}};
  GaugeFamily<2> model_bytes{
      registry, "tempera_model_bytes", "Resident weights, caches and references.", {"model", "artifact"}};
  HistogramFamily<2> model_load_seconds{registry,
                                        "tempera_model_load_duration_seconds",
                                        "From disk to ready, verification included.",
                                        {"model", "artifact"},
                                        kLoadSeconds};
  GaugeFamily<0> memory_budget_bytes{registry, "tempera_model_memory_budget_bytes",
                                     "What resident models may take together; 0 where there is no bound."};
  GaugeFamily<0> memory_used_bytes{registry, "tempera_model_memory_used_bytes", "What they take now."};

  // Quantization.
  GaugeFamily<1> jobs{registry, "tempera_quantize_jobs", "Jobs in the store by state.", {"state"}};
  CounterFamily<2> jobs_finished{registry,
                                 "tempera_quantize_jobs_finished_total",
                                 "Jobs that ended while this process ran.",
                                 {"result", "method"}};
  HistogramFamily<2> job_seconds{registry,
                                 "tempera_quantize_job_duration_seconds",
                                 "From the last lease to the end.",
                                 {"method", "result"},
                                 kJobSeconds};
  HistogramFamily<1> job_stage_seconds{
      registry, "tempera_quantize_stage_duration_seconds", "One stage of one job.", {"stage"}, kJobSeconds};
  GaugeFamily<1> job_progress{registry,
                              "tempera_quantize_job_progress_ratio",
                              "0 to 1 while a job runs; gone when it ends.",
                              {"job"}};
  GaugeFamily<1> worker_leases{
      registry, "tempera_worker_leases", "Jobs that this process's workers hold.", {"kind"}};
  CounterFamily<1> worker_lease_expired{registry,
                                        "tempera_worker_lease_expired_total",
                                        "Leases that ran out and went back to the queue.",
                                        {"kind"}};
  GaugeFamily<1> worker_heartbeat{registry,
                                  "tempera_worker_last_heartbeat_timestamp_seconds",
                                  "Unix time of the last heartbeat.",
                                  {"kind"}};

  // Object store.
  CounterFamily<2> store_requests{
      registry, "tempera_object_store_requests_total", "Operations on the object store.", {"op", "result"}};
  HistogramFamily<1> store_seconds{registry,
                                   "tempera_object_store_request_duration_seconds",
                                   "One operation on the object store.",
                                   {"op"},
                                   kStoreSeconds};
  CounterFamily<1> store_bytes{registry, "tempera_object_store_bytes_total", "Bytes moved.", {"op"}};

 private:
  void ReadProcess();

  std::vector<std::function<void()>> hooks_;
  std::mutex process_mutex_;
  double cpu_seconds_ = 0;
};

// "00" .. "19". REQUIRES: 0 <= bin < 20.
std::string TimestepBinLabel(int bin);

}  // namespace tempera
