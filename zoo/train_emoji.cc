// Trains zoo/emoji: a text-to-image model at 64x64, saved as a diffusers folder.
//   train-emoji --data FOLDER --out zoo/emoji --state FOLDER --stage vae|unet|decoder [--steps N] [--batch B]
//               [--threads N] [--seed S]
// What is painted: the pictures whose captions stand in prompts.json of the --out folder, "red apple,
// twemoji". First the autoencoder ("vae"), then, on the latents that the one in --out makes, text encoder and
// UNet together ("unet"); "decoder" refines how latents become pictures and leaves what they are. Stops after
// N steps in all; called again it goes on from the state folder.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <cstdio>
#include <functional>
#include <set>

#include "base/files.h"
#include "base/json.h"
#include "models/autoencoder.h"
#include "models/family.h"
#include "models/text_encoder.h"
#include "text/bpe_trainer.h"
#include "text/clip_tokenizer.h"
#include "zoo/dataset.h"
#include "zoo/diffusion.h"
#include "zoo/emoji_model.h"
#include "zoo/trainer.h"

namespace tempera::zoo {
namespace {

constexpr int kShards = 2;

std::string Caption(const EmojiData::Row& row) { return Cat(row.label, ", ", row.style); }

struct Options {
  std::filesystem::path data, out, state;
  std::string stage;
  int64_t steps = 0, batch = 32, threads = 2;
  uint64_t seed = 1;
  std::set<std::string> prompts;  // the captions of what is painted: out/prompts.json

  bool Paints(const EmojiData::Row& row) const { return prompts.contains(Caption(row)); }
};

// Ordinals of rows, [n] i64.
at::Tensor Select(const EmojiData& data, const std::function<bool(const EmojiData::Row&)>& wanted) {
  std::vector<int64_t> index;
  for (size_t i = 0; i < data.rows.size(); ++i)
    if (wanted(data.rows[i])) index.push_back(static_cast<int64_t>(i));
  return at::tensor(index, at::kLong);
}

void PrintSize(const char* what, const std::map<std::string, at::Tensor>& parameters) {
  int64_t count = 0;
  for (const auto& [name, p] : parameters) count += p.numel();
  std::printf("%s: %lld parameters, %.2f MB as f16\n", what, static_cast<long long>(count),
              static_cast<double>(count) * 2e-6);
}

Result<std::unique_ptr<Autoencoder>> OpenAutoencoder(const std::filesystem::path& out) {
  TEMPERA_ASSIGN(auto source, WeightSource::Open(out / "vae", "diffusion_pytorch_model", "vae"));
  nn::Params params(std::move(source), at::kCPU);
  return BuildAutoencoder(EmojiAutoencoderConfig(), "vae/config.json", params);
}

// Means of the latents, [N, 4, 16, 16].
at::Tensor EncodeAll(const Autoencoder& vae, const EmojiData& data, const at::Tensor& index) {
  const at::NoGradGuard guard;
  std::vector<at::Tensor> latents;
  for (const at::Tensor& some : index.split(64)) {
    nn::ForwardContext ctx;
    latents.push_back(vae.Encode(ctx, data.Pictures(some)).mean);
  }
  return at::cat(latents);
}

// Differences of neighbouring pixels: what makes an edge an edge.
at::Tensor EdgeError(const at::Tensor& a) {
  const auto of = [&](int64_t dim) {
    const int64_t n = a.size(dim) - 1;
    return (a.narrow(dim, 1, n) - a.narrow(dim, 0, n)).abs().mean();
  };
  return of(2) + of(3);
}

// Both halves, or the decoder alone for the latents that the encoder in o.out makes: a denoiser trained on
// them stays right.
Status TrainAutoencoder(const Options& o, const EmojiData& data, Lanes& lanes) {
  // Of the posterior's divergence, each a mean over its elements: enough that a latent's small errors make
  // small errors of the picture, too little to blur it.
  constexpr double kDivergence = 2e-3;
  const bool whole = o.stage == "vae";
  // Edges and colours are learned from every style; the decoder is refined for what is painted.
  const at::Tensor pool = Select(data, [&](const EmojiData::Row& row) {
    return whole ? row.group != "people-body" && row.group != "symbols" : o.Paints(row);
  });

  nn::Params params(o.seed, at::kCPU);
  TEMPERA_ASSIGN(const auto vae, BuildAutoencoder(EmojiAutoencoderConfig(), "vae/config.json", params));
  std::map<std::string, at::Tensor> trained = params.taken();
  // Variances that begin small: else noise hides the latent from the decoder, and training starts late.
  trained.at("quant_conv.bias").detach().narrow(0, kLatentChannels, kLatentChannels).fill_(-6);
  if (!whole) {
    TEMPERA_ASSIGN(const auto saved, OpenAutoencoder(o.out));
    const at::NoGradGuard guard;
    for (const auto& [name, p] : params.taken()) p.detach().copy_(saved->parameters().at(name));
    std::erase_if(trained, [](const auto& p) {
      return p.first.starts_with("encoder.") || p.first.starts_with("quant_conv.");
    });
  }
  PrintSize(o.stage.c_str(), trained);
  Trainer trainer(trained,
                  {.learning_rate = 1.5e-3,
                   .decay_part = 0.5,
                   .total_steps = o.steps,
                   .ema_decay = 0.998,
                   .shards = kShards},
                  lanes);
  const auto loss = [&](int64_t step, int shard) {
    at::Generator generator = ShardGenerator(o.seed, step, kShards, shard);
    const int64_t rows = o.batch / kShards;
    at::Tensor x =
        data.Pictures(pool.index_select(0, at::randint(pool.size(0), {rows}, generator, at::kLong)));
    x = at::where(at::rand({rows, 1, 1, 1}, generator) < 0.5, x, x.flip(3));
    nn::ForwardContext ctx;
    Gaussian z;
    {
      const at::AutoGradMode gradients(whole);
      z = vae->Encode(ctx, x);
    }
    const at::Tensor error = vae->Decode(ctx, z.Sample(at::randn(z.mean.sizes(), generator))) - x;
    const at::Tensor divergence = 0.5 * (z.mean.square() + z.logvar.exp() - 1 - z.logvar).mean();
    return error.abs().mean() + EdgeError(error) + kDivergence * divergence;
  };
  const auto publish = [&]() -> Status {
    std::map<std::string, at::Tensor> weights = params.taken();
    for (const auto& [name, p] : trainer.ema()) weights[name] = p;
    TEMPERA_TRY(WriteAutoencoder(o.out, weights, at::zeros({kLatentChannels}), at::ones({kLatentChannels})));
    if (!whole) return OkStatus();
    TEMPERA_ASSIGN(const auto saved, OpenAutoencoder(o.out));
    const at::Tensor z = EncodeAll(*saved, data, pool.slice(0, 0, pool.size(0), 8));
    const at::Tensor mean = z.mean({0, 2, 3});
    return WriteAutoencoder(o.out, weights, mean,
                            (z - mean.view({1, -1, 1, 1})).square().mean({0, 2, 3}).sqrt());
  };
  return Run(
      trainer,
      {.state = o.state / (o.stage + ".safetensors"), .batch = o.batch, .loss = loss, .publish = publish});
}

// What a picture is called, as token ids, [kPromptTokens] each.
struct Captions {
  at::Tensor full, bare;             // "red apple, twemoji", "red apple"
  std::vector<at::Tensor> synonyms;  // "fruit, twemoji"
};

// Trains the vocabulary on every caption of the data, whatever is painted, so that more pictures can join
// later.
Result<std::shared_ptr<const ClipTokenizer>> MakeTokenizer(const EmojiData& data,
                                                           const std::filesystem::path& out) {
  std::vector<std::string> captions;
  for (const EmojiData::Row& row : data.rows) {
    captions.push_back(Caption(row));
    for (const std::string& tag : row.tags) captions.push_back(tag);
  }
  TEMPERA_ASSIGN(const BpeVocabulary vocabulary, TrainClipBpe(captions, kVocabulary));
  TEMPERA_TRY(MakeFolders(out / "tokenizer", "out"));
  TEMPERA_TRY(WriteClipVocabulary(vocabulary, kPromptTokens, out / "tokenizer", "tokenizer"));
  TEMPERA_ASSIGN(auto tokenizer, ClipTokenizer::Open(out / "tokenizer", "tokenizer"));
  // The text encoder is configured for this.
  if (tokenizer->eos() != kVocabulary - 1)
    return InvalidArgument("emoji-pairs.jsonl: too few words, got ", tokenizer->eos() + 1, " tokens, want ",
                           kVocabulary);
  return tokenizer;
}

Status TrainDenoiser(const Options& o, const EmojiData& data, Lanes& lanes) {
  TEMPERA_ASSIGN(const auto tokenizer, MakeTokenizer(data, o.out));
  const auto ids = [&](const std::string& text) -> Result<at::Tensor> {
    TEMPERA_ASSIGN(const TokenizedPrompt prompt, tokenizer->Encode(text));
    return at::tensor(prompt.ids, at::kLong);
  };
  const at::Tensor index = Select(data, [&](const EmojiData::Row& row) { return o.Paints(row); });
  std::vector<Captions> captions;
  for (int64_t i = 0; i < index.size(0); ++i) {
    const EmojiData::Row& row = data.rows[static_cast<size_t>(index[i].item<int64_t>())];
    Captions c;
    TEMPERA_ASSIGN(c.full, ids(Caption(row)));
    TEMPERA_ASSIGN(c.bare, ids(row.label));
    for (const std::string& tag : row.tags) {
      TEMPERA_ASSIGN(at::Tensor synonym, ids(Cat(tag, ", ", row.style)));
      c.synonyms.push_back(std::move(synonym));
    }
    captions.push_back(std::move(c));
  }
  TEMPERA_ASSIGN(const at::Tensor empty, ids(""));
  TEMPERA_ASSIGN(const auto vae, OpenAutoencoder(o.out));
  const at::Tensor latents = EncodeAll(*vae, data, index);
  std::printf("%lld pictures, latents of mean %.3f, deviation %.3f\n",
              static_cast<long long>(latents.size(0)), latents.mean().item<double>(),
              latents.std().item<double>());

  nn::Params text_params(o.seed, at::kCPU), unet_params(o.seed + 1, at::kCPU);
  TEMPERA_ASSIGN(const auto text,
                 BuildTextEncoder(EmojiTextConfig(), "text_encoder/config.json", text_params));
  TEMPERA_ASSIGN(const auto unet, BuildDenoiser(EmojiNetworkConfig(), "unet/config.json", unet_params));
  PrintSize("text encoder", text_params.taken());
  PrintSize("UNet", unet_params.taken());
  std::map<std::string, at::Tensor> parameters;
  for (const auto& [name, p] : text_params.taken()) parameters["text_encoder/" + name] = p;
  for (const auto& [name, p] : unet_params.taken()) parameters["unet/" + name] = p;
  Trainer trainer(parameters,
                  {.learning_rate = 1e-3,
                   .decay_part = 0.2,
                   .total_steps = o.steps,
                   .ema_decay = 0.998,
                   .shards = kShards},
                  lanes);
  const at::Tensor alphas = CosineAlphas();
  const auto loss = [&](int64_t step, int shard) {
    at::Generator generator = ShardGenerator(o.seed, step, kShards, shard);
    const int64_t rows = o.batch / kShards;
    const at::Tensor pick = at::randint(latents.size(0), {rows}, generator, at::kLong);
    const at::Tensor draw = at::rand({rows, 2}, generator);
    std::vector<at::Tensor> prompts;
    for (int64_t row = 0; row < rows; ++row) {
      const Captions& c = captions[static_cast<size_t>(pick[row].item<int64_t>())];
      const double kind = draw[row][0].item<double>(), which = draw[row][1].item<double>();
      // A tenth without words, for guidance.
      if (kind < 0.1)
        prompts.push_back(empty);
      else if (kind < 0.2)
        prompts.push_back(c.bare);
      else if (kind < 0.3 && !c.synonyms.empty())
        prompts.push_back(c.synonyms[static_cast<size_t>(which * static_cast<double>(c.synonyms.size()))]);
      else
        prompts.push_back(c.full);
    }
    nn::ForwardContext text_ctx;
    auto encoded = text->Encode(text_ctx, at::stack(prompts));
    TEMPERA_CHECK(encoded.ok(), Message(encoded.status()));  // the tokenizer made the ids
    return VelocityLoss(latents.index_select(0, pick), alphas, generator,
                        [&](const at::Tensor& x, const at::Tensor& timestep) {
                          nn::ForwardContext ctx;
                          ctx.timestep = timestep;
                          ctx.on.context = encoded->hidden;
                          return unet->Forward(ctx, x);
                        });
  };
  return Run(trainer, {.state = o.state / "unet.safetensors", .batch = o.batch, .loss = loss, .publish = [&] {
                         return WriteDenoiser(o.out, trainer.ema());
                       }});
}

Status Train(Options o) {
  TEMPERA_ASSIGN(const EmojiData data, LoadEmoji(o.data));
  if (o.stage != "vae") {
    TEMPERA_ASSIGN(const std::string text, ReadFile(o.out / "prompts.json", "prompts.json", 1 << 20));
    TEMPERA_ASSIGN(const Json prompts, ParseJson(text, "prompts.json"));
    for (const Json& prompt : prompts)
      if (prompt.is_string()) o.prompts.insert(prompt.get<std::string>());
    std::set<std::string> unknown = o.prompts;
    for (const EmojiData::Row& row : data.rows) unknown.erase(Caption(row));
    if (!unknown.empty() || o.prompts.empty())
      return InvalidArgument(
          "prompts.json: ", unknown.empty() ? "is empty" : Cat("no picture is called ", *unknown.begin()),
          ", want an array of such as \"red apple, twemoji\"");
  }
  TEMPERA_TRY(MakeFolders(o.out, "out"));
  TEMPERA_TRY(MakeFolders(o.state, "state"));
  Lanes lanes(static_cast<int>(o.threads), [] { at::set_num_threads(1); });
  return o.stage == "unet" ? TrainDenoiser(o, data, lanes) : TrainAutoencoder(o, data, lanes);
}

}  // namespace
}  // namespace tempera::zoo

int main(int argc, char** argv) {
  tempera::zoo::Options o;
  const std::map<std::string, std::function<void(const char*)>> flags{
      {"--data", [&](const char* v) { o.data = v; }},
      {"--out", [&](const char* v) { o.out = v; }},
      {"--state", [&](const char* v) { o.state = v; }},
      {"--stage", [&](const char* v) { o.stage = v; }},
      {"--steps", [&](const char* v) { o.steps = std::atoll(v); }},
      {"--batch", [&](const char* v) { o.batch = std::atoll(v); }},
      {"--threads", [&](const char* v) { o.threads = std::atoll(v); }},
      {"--seed", [&](const char* v) { o.seed = std::strtoull(v, nullptr, 10); }},
  };
  for (int i = 1; i + 1 < argc; i += 2) {
    const auto it = flags.find(argv[i]);
    if (it == flags.end()) {
      std::fprintf(stderr, "train-emoji: unknown flag %s\n", argv[i]);
      return 1;
    }
    it->second(argv[i + 1]);
  }
  if (o.data.empty() || o.out.empty() || o.state.empty() ||
      (o.stage != "vae" && o.stage != "unet" && o.stage != "decoder") || o.batch < 2 || o.threads < 1) {
    std::fprintf(
        stderr,
        "usage: train-emoji --data FOLDER --out FOLDER --state FOLDER --stage vae|unet|decoder [--steps N] "
        "[--batch B] [--threads N] [--seed S]\n");
    return 1;
  }
  if (o.steps == 0) o.steps = o.stage == "unet" ? 40000 : 4000;
  at::set_num_threads(1);
  const tempera::Status status = tempera::zoo::Train(o);
  if (!status.ok()) std::fprintf(stderr, "train-emoji: %s\n", tempera::Message(status).c_str());
  return status.ok() ? 0 : 1;
}
