// CLIP's text encoders against transformers and diffusers (golden/text_encoder), how their layers are laid
// out for quantizers, and what they refuse.
#include "models/text_encoder.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>

#include <cmath>

#include "base/temp_folder.h"
#include "golden/formula.h"
#include "golden/reader.h"

namespace tempera {
namespace {

using ::testing::ElementsAre;

std::unique_ptr<TextEncoder> Built(Result<std::unique_ptr<TextEncoder>> built) {
  EXPECT_TRUE(built.ok()) << built.status();
  return built.ok() ? *std::move(built) : nullptr;
}

// Fails the test where encoding fails.
TextEncoder::Output Encode(const TextEncoder& encoder, const at::Tensor& ids, const HiddenState& which = {},
                           nn::Observer* observer = nullptr) {
  nn::ForwardContext ctx;
  ctx.observer = observer;
  const auto out = encoder.Encode(ctx, ids, which);
  EXPECT_TRUE(out.ok()) << out.status();
  return out.ok() ? *out : TextEncoder::Output{.hidden = at::zeros({0}), .pooled = at::zeros({0})};
}

// What a pipeline recorded, and its encoders.
class Pipeline {
 public:
  explicit Pipeline(const std::string& name) : golden("golden/text_encoder/" + name) {
    at::set_num_threads(1);  // as the golden was computed
    for (const char* component : {"text_encoder", "text_encoder_2"}) {
      const std::filesystem::path folder = "golden/pipelines/" + name;
      if (!std::filesystem::exists(folder / component)) continue;
      const auto source = WeightSource::Open(folder / component, "model", component);
      EXPECT_TRUE(source.ok()) << source.status();
      if (!source.ok()) continue;
      nn::Params params(*source, at::kCPU);
      const std::string label = Cat(component, "/config.json");
      encoders.push_back(
          Built(BuildTextEncoder(golden::ReadJson(folder / component / "config.json"), label, params)));
    }
  }
  void Expect(const at::Tensor& got, const std::string& tensor) const {
    EXPECT_LE(golden::Difference(got, golden.Get(tensor)),
              golden.json["tensors"][tensor]["tolerance"].get<double>())
        << tensor;
  }

  const golden::Case golden;
  std::vector<std::unique_ptr<TextEncoder>> encoders;
};

class StableDiffusion : public ::testing::TestWithParam<const char*> {};

TEST_P(StableDiffusion, EmbeddingsAgree) {
  const Pipeline p(GetParam());
  ASSERT_EQ(p.encoders.size(), 1U);
  const TextEncoder& encoder = *p.encoders[0];
  const at::Tensor ids = p.golden.Get("prompt.input_ids"), negative = p.golden.Get("negative.input_ids");
  const TextEncoder::Output out = Encode(encoder, ids);
  p.Expect(out.hidden, "prompt.embeds");
  p.Expect(out.pooled, "prompt.pooled");
  p.Expect(Encode(encoder, negative).hidden, "negative.embeds");
  // Both rows of guidance in one batch.
  const TextEncoder::Output both = Encode(encoder, at::cat({negative, ids}));
  p.Expect(both.hidden.narrow(0, 0, 1), "negative.embeds");
  p.Expect(both.hidden.narrow(0, 1, 1), "prompt.embeds");
  p.Expect(both.pooled.narrow(0, 1, 1), "prompt.pooled");
}

TEST_P(StableDiffusion, EveryLayerAgrees) {
  const Pipeline p(GetParam());
  ASSERT_EQ(p.encoders.size(), 1U);
  const int64_t layers = p.encoders[0]->info().layers;
  const at::Tensor ids = p.golden.Get("prompt.input_ids");
  std::vector<at::Tensor> states;
  for (int64_t i = 0; i <= layers; ++i)
    states.push_back(Encode(*p.encoders[0], ids, {.skip = layers - i, .final_norm = false}).hidden);
  p.Expect(at::stack(states), "prompt.hidden_states");
  for (int64_t skip = 1; skip <= layers; ++skip) {
    const TextEncoder::Output out = Encode(*p.encoders[0], ids, {.skip = skip});
    p.Expect(out.hidden, Cat("clip_skip", skip, ".embeds"));
    p.Expect(out.pooled, "prompt.pooled");
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, StableDiffusion, ::testing::Values("sd1", "sd2"),
                         [](const auto& c) { return std::string(c.param); });

class Sdxl : public ::testing::TestWithParam<const char*> {};

TEST_P(Sdxl, EmbeddingsAgree) {
  const Pipeline p(GetParam());
  ASSERT_EQ(p.encoders.size(), 2U);
  EXPECT_EQ(p.encoders[0]->info().projection, 0);
  EXPECT_GT(p.encoders[1]->info().projection, 0);
  const auto expect = [&](const std::string& ids, const std::string& want, const HiddenState& which) {
    const TextEncoder::Output first = Encode(*p.encoders[0], p.golden.Get(ids + ".input_ids"), which);
    const TextEncoder::Output second = Encode(*p.encoders[1], p.golden.Get(ids + "_2.input_ids"), which);
    p.Expect(at::cat({first.hidden, second.hidden}, 2), want + ".embeds");
    p.Expect(second.pooled, ids + ".pooled");
  };
  for (const char* text : {"prompt", "negative_empty", "negative_text"})
    expect(text, text, {.skip = 1, .final_norm = false});
  expect("prompt", "clip_skip1", {.skip = 2, .final_norm = false});
}

INSTANTIATE_TEST_SUITE_P(Cases, Sdxl, ::testing::Values("sdxl", "sdxl_turbo"),
                         [](const auto& c) { return std::string(c.param); });

const golden::Case& Options() {
  static const golden::Case g("golden/text_encoder/options");
  return g;
}

const Json& OptionsCase(const std::string& name) {
  for (const Json& c : Options().json["cases"])
    if (c["name"] == name) return c;
  ADD_FAILURE() << "no golden case " << name;
  return Options().json["cases"][0];
}

Json ConfigOf(const Json& c) {
  Json config = c["config"];
  config["architectures"] = {c["class"]};
  return config;
}

// The encoder of `config` with these of the formula's parameters.
Result<std::unique_ptr<TextEncoder>> BuildFrom(const Json& config, const Json& parameters) {
  const TempFolder folder;
  const auto source = golden::WriteWeights(folder, "text_encoder", parameters);
  EXPECT_TRUE(source.ok()) << source.status();
  nn::Params params(*source, at::kCPU);
  return BuildTextEncoder(config, "text_encoder/config.json", params);
}

class TextEncoderOptions : public ::testing::TestWithParam<size_t> {
 protected:
  const Json& TheCase() const { return Options().json["cases"][GetParam()]; }
  at::Tensor Tensor(const char* name) const {
    return Options().Get(Cat(TheCase()["name"].get<std::string>(), ".", name));
  }
  void SetUp() override {
    at::set_num_threads(1);
    encoder_ = Built(BuildFrom(ConfigOf(TheCase()), TheCase()["parameters"]));
    ASSERT_NE(encoder_, nullptr);
  }
  void ExpectGolden() const {
    const int64_t layers = encoder_->info().layers;
    std::vector<at::Tensor> states, normed;
    for (int64_t skip = layers; skip >= 0; --skip) {
      states.push_back(Encode(*encoder_, Tensor("ids"), {.skip = skip, .final_norm = false}).hidden);
      normed.push_back(Encode(*encoder_, Tensor("ids"), {.skip = skip, .final_norm = true}).hidden);
    }
    const Json& tolerance = TheCase()["tolerance"];
    EXPECT_LE(golden::Difference(at::stack(states), Tensor("hidden_states")), tolerance["hidden_states"]);
    EXPECT_LE(golden::Difference(at::stack(normed), Tensor("normed")), tolerance["normed"]);
    EXPECT_LE(golden::Difference(Encode(*encoder_, Tensor("ids")).pooled, Tensor("pooled")),
              tolerance["pooled"]);
  }

  std::unique_ptr<TextEncoder> encoder_;
};

TEST_P(TextEncoderOptions, Agree) { ExpectGolden(); }

// The products of attention one by one, as quantizers see them, give what the fused ones do.
TEST_P(TextEncoderOptions, UnfusedAttentionAgrees) {
  for (nn::Slot& slot : encoder_->slots()) {
    if (slot.role != nn::Role::kMatmul) continue;
    slot.state = nn::State::kSimulate;
    slot.activation_bits = 8;
    slot.activations_on = false;
  }
  ExpectGolden();
}

INSTANTIATE_TEST_SUITE_P(Cases, TextEncoderOptions,
                         ::testing::Range<size_t>(0, Options().json["cases"].size()), [](const auto& c) {
                           return Options().json["cases"][c.param]["name"].template get<std::string>();
                         });

TEST(TextEncoderSlots, AreEveryProductInExecutionOrder) {
  const Json& c = OptionsCase("projected");
  Json config = ConfigOf(c);
  config["num_hidden_layers"] = 1;
  nn::Params params(uint64_t{1}, at::kCPU);
  const auto encoder = Built(BuildTextEncoder(config, "text_encoder/config.json", params));
  ASSERT_NE(encoder, nullptr);
  std::vector<std::string> names;
  for (const nn::Slot& slot : encoder->slots()) {
    names.push_back(slot.name);
    const bool matmul = slot.name.ends_with("scores") || slot.name.ends_with("values");
    EXPECT_EQ(slot.role, matmul ? nn::Role::kMatmul : nn::Role::kLinear) << slot.name;
  }
  const std::string layer = "text_model.encoder.layers.0.";
  EXPECT_THAT(
      names, ElementsAre(layer + "self_attn.q_proj", layer + "self_attn.k_proj", layer + "self_attn.v_proj",
                         layer + "self_attn.scores", layer + "self_attn.values", layer + "self_attn.out_proj",
                         layer + "mlp.fc1", layer + "mlp.fc2", "text_projection"));

  // Each of them shows its inputs to an observer once in a pass, in that order.
  class Names final : public nn::Observer {
   public:
    void OnInput(const nn::Slot& slot, size_t part, const at::Tensor&, const nn::ForwardContext&) override {
      if (part == 0) seen.push_back(slot.name);
    }
    std::vector<std::string> seen;
  } observer;
  for (nn::Slot& slot : encoder->slots()) {
    slot.state = nn::State::kObserve;
    slot.activation_bits = slot.weight_bits = 8;
    slot.activations_on = false;
    slot.simulated = slot.weight;
  }
  Encode(*encoder, Options().Get("projected.ids"), {}, &observer);
  EXPECT_EQ(observer.seen, names);
}

// Eight bits, min-max per output channel.
void QuantizeWeight(nn::Slot& slot) {
  nn::SlotPart& part = slot.parts[0];
  std::vector<float> scales;
  std::vector<int> zeros;
  const auto [low, high] = at::aminmax(slot.weight, 1);
  for (int64_t n = 0; n < slot.out_channels; ++n) {
    const nn::Range range = nn::RangeOf(low[n].item<float>(), high[n].item<float>(), 8);
    scales.push_back(range.scale);
    zeros.push_back(range.zero);
  }
  part.scale = at::tensor(scales);
  part.zero = at::tensor(zeros);
  const at::Tensor steps = at::round(slot.weight / part.scale.unsqueeze(1)) + part.zero.unsqueeze(1);
  part.codes = steps.clamp(0, 255).to(at::kByte);
  slot.weight_bits = 8;
  slot.simulated = nn::Dequantize(slot);
}

double Decibels(const at::Tensor& signal, const at::Tensor& other) {
  return 10 *
         std::log10(signal.square().mean().item<double>() / (other - signal).square().mean().item<double>());
}

// All products in eight bits, weights per channel, inputs with each row's own range. A quantizer of 255 steps
// over +-3.5 standard deviations leaves a noise of (7 / 255)^2 / 12 of the signal: -42 dB. A pass goes
// through 5 products a layer, of two operands each, and 3 layers: were these 30 noises to add up in full, 27
// dB would be left.
TEST(TextEncoderSlots, EightBitsKeepTheEmbeddings) {
  const Json& c = OptionsCase("projected");
  const auto encoder = Built(BuildFrom(ConfigOf(c), c["parameters"]));
  ASSERT_NE(encoder, nullptr);
  const at::Tensor ids = Options().Get("projected.ids");
  const TextEncoder::Output original = Encode(*encoder, ids);
  for (nn::Slot& slot : encoder->slots()) {
    slot.activation_bits = 8;
    slot.dynamic = true;
    slot.state = nn::State::kSimulate;
    if (slot.role == nn::Role::kLinear) QuantizeWeight(slot);
  }
  const auto expect_near = [&](const TextEncoder::Output& out) {
    EXPECT_GT(Decibels(original.hidden, out.hidden), 27);
    EXPECT_GT(Decibels(original.pooled, out.pooled), 27);
  };
  expect_near(Encode(*encoder, ids));
  for (nn::Slot& slot : encoder->slots()) nn::Pack(slot);
  expect_near(Encode(*encoder, ids));
}

// What checkpoints on the hub have in their config.json, without their weights.
TEST(TextEncoderConfig, RealOnesAreRead) {
  const auto info = [](const char* text) {
    nn::Params params(uint64_t{1}, at::kCPU);
    params.SetAbsent([](const std::string&) { return true; });
    const auto encoder = Built(BuildTextEncoder(Json::parse(text), "text_encoder/config.json", params));
    return encoder == nullptr ? TextEncoderInfo{} : encoder->info();
  };
  const TextEncoderInfo sd15 = info(R"({"_name_or_path":"openai/clip-vit-large-patch14",
      "architectures":["CLIPTextModel"],"attention_dropout":0.0,"bos_token_id":0,"dropout":0.0,
      "eos_token_id":2,"hidden_act":"quick_gelu","hidden_size":768,"initializer_factor":1.0,
      "initializer_range":0.02,"intermediate_size":3072,"layer_norm_eps":1e-05,"max_position_embeddings":77,
      "model_type":"clip_text_model","num_attention_heads":12,"num_hidden_layers":12,"pad_token_id":1,
      "projection_dim":768,"torch_dtype":"float32","transformers_version":"4.22.0.dev0","vocab_size":49408})");
  EXPECT_EQ(sd15.width, 768);
  EXPECT_EQ(sd15.projection, 0);
  EXPECT_EQ(sd15.layers, 12);
  EXPECT_EQ(sd15.vocabulary, 49408);
  EXPECT_EQ(sd15.positions, 77);
  EXPECT_EQ(sd15.eos_id, 2);
  const TextEncoderInfo sdxl2 = info(R"({"architectures":["CLIPTextModelWithProjection"],
      "attention_dropout":0.0,"bos_token_id":0,"dropout":0.0,"eos_token_id":2,"hidden_act":"gelu",
      "hidden_size":1280,"initializer_factor":1.0,"initializer_range":0.02,"intermediate_size":5120,
      "layer_norm_eps":1e-05,"max_position_embeddings":77,"model_type":"clip_text_model",
      "num_attention_heads":20,"num_hidden_layers":32,"pad_token_id":1,"projection_dim":1280,
      "torch_dtype":"float16","transformers_version":"4.32.0.dev0","vocab_size":49408})");
  EXPECT_EQ(sdxl2.width, 1280);
  EXPECT_EQ(sdxl2.projection, 1280);
  EXPECT_EQ(sdxl2.layers, 32);
  // The class's own values for everything.
  const TextEncoderInfo defaults = info("{}");
  EXPECT_EQ(defaults.width, 512);
  EXPECT_EQ(defaults.projection, 0);
  EXPECT_EQ(defaults.layers, 12);
  EXPECT_EQ(defaults.vocabulary, 49408);
  EXPECT_EQ(defaults.positions, 77);
  EXPECT_EQ(defaults.eos_id, 49407);
}

// Where the configuration does not name its class, the parameters say whether there is a projection.
TEST(TextEncoderConfig, WithoutAClassTheParametersDecide) {
  for (const char* name : {"projected", "eos_by_its_id"}) {
    const Json& c = OptionsCase(name);
    const auto encoder = Built(BuildFrom(c["config"], c["parameters"]));
    ASSERT_NE(encoder, nullptr);
    EXPECT_EQ(encoder->info().projection, std::string(name) == "projected" ? 20 : 0);
  }
}

struct Refused {
  const char* name;
  const char* changes;  // merged into the configuration of "projected"
  const char* says;
};

class RefusedTextEncoder : public ::testing::TestWithParam<Refused> {};

TEST_P(RefusedTextEncoder, NamesFileAndField) {
  Json config = ConfigOf(OptionsCase("projected"));
  config.update(Json::parse(GetParam().changes));
  nn::Params params(uint64_t{1}, at::kCPU);
  const auto built = BuildTextEncoder(config, "text_encoder/config.json", params);
  ASSERT_FALSE(built.ok());
  EXPECT_TRUE(absl::IsInvalidArgument(built.status()));
  EXPECT_EQ(Message(built.status()), Cat("text_encoder/config.json: ", GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    Fields, RefusedTextEncoder,
    ::testing::Values(
        Refused{"AnotherClass", R"({"architectures":["T5EncoderModel"],"d_model":32})",
                "architectures is not supported, got [\"T5EncoderModel\"], want [\"CLIPTextModel\"] or "
                "[\"CLIPTextModelWithProjection\"]"},
        Refused{"TwoClasses", R"({"architectures":["CLIPTextModel","CLIPModel"]})",
                "architectures is not supported, got [\"CLIPTextModel\",\"CLIPModel\"], want "
                "[\"CLIPTextModel\"] or [\"CLIPTextModelWithProjection\"]"},
        Refused{"AnotherModel", R"({"model_type":"clip"})",
                "model_type is not supported, got \"clip\", want clip_text_model"},
        Refused{"Activation", R"({"hidden_act":"laplace"})",
                "hidden_act is not supported, got \"laplace\", want silu, swish, mish, gelu, quick_gelu, "
                "gelu_new, gelu_pytorch_tanh or relu"},
        Refused{"HeadsDoNotDivide", R"({"num_attention_heads":5})",
                "num_attention_heads does not divide hidden_size, got 5 for 24"},
        Refused{"MoreHeadsThanChannels", R"({"num_attention_heads":48})",
                "num_attention_heads is out of range, got 48, want 1 to 24"},
        Refused{"NoLayers", R"({"num_hidden_layers":0})",
                "num_hidden_layers is out of range, got 0, want 1 to 1024"},
        Refused{"NegativeWidth", R"({"hidden_size":-768})",
                "hidden_size is out of range, got -768, want 1 to 65536"},
        Refused{"HugeVocabulary", R"({"vocab_size":99999999999})",
                "vocab_size is out of range, got 99999999999, want 1 to 4194304"},
        Refused{"NoProjection", R"({"projection_dim":0})",
                "projection_dim is out of range, got 0, want 1 to 65536"},
        Refused{"ProjectionIsNull", R"({"projection_dim":null})", "projection_dim is null, want a value"},
        Refused{"EosIsNull", R"({"eos_token_id":null})", "eos_token_id is null, want a value"},
        Refused{"SeveralEnds", R"({"eos_token_id":[2,3]})",
                "eos_token_id is wrong, got [2,3], want an integer"},
        Refused{"Eps", R"({"layer_norm_eps":0})", "layer_norm_eps is out of range, got 0, want > 0"},
        Refused{"AttentionMask", R"({"use_attention_mask":true})",
                "use_attention_mask is not supported, got true, want false"},
        Refused{"PrunedHeads", R"({"pruned_heads":{"0":[1]}})",
                "pruned_heads is not supported, got {\"0\":[1]}, want none"},
        Refused{"Quantized", R"({"quantization_config":{"load_in_8bit":true}})",
                "quantization_config is not supported, got {\"load_in_8bit\":true}"}),
    [](const auto& param) { return std::string(param.param.name); });

TEST(TextEncoderWeights, ErrorsNameTheFile) {
  const Json& c = OptionsCase("projected");
  const std::string file = "text_encoder/diffusion_pytorch_model.safetensors: tensor ";
  const auto message = [&](const Json& parameters) {
    return Message(BuildFrom(ConfigOf(c), parameters).status());
  };
  const std::string layer = "text_model.encoder.layers.1.";
  Json parameters = c["parameters"];
  parameters.erase(layer + "mlp.fc1.bias");
  EXPECT_EQ(message(parameters), file + layer + "mlp.fc1.bias: is missing, want [40]");
  parameters = c["parameters"];
  parameters["text_model.embeddings.token_embedding.weight"] = {41, 24};
  EXPECT_EQ(message(parameters),
            file + "text_model.embeddings.token_embedding.weight: wrong shape, got [41, 24], want [40, 24]");
  parameters = c["parameters"];
  parameters["text_model.encoder.layers.3.mlp.fc1.bias"] = {40};
  EXPECT_EQ(message(parameters),
            file + "text_model.encoder.layers.3.mlp.fc1.bias: the model has no such parameter");
}

TEST(TextEncoderIds, BadOnesAreRefused) {
  nn::Params params(uint64_t{1}, at::kCPU);
  const auto encoder =
      Built(BuildTextEncoder(ConfigOf(OptionsCase("projected")), "text_encoder/config.json", params));
  ASSERT_NE(encoder, nullptr);
  const auto message = [&](const at::Tensor& ids, int64_t skip = 0) {
    nn::ForwardContext ctx;
    const auto out = encoder->Encode(ctx, ids, {.skip = skip});
    EXPECT_TRUE(absl::IsInvalidArgument(out.status()));
    return Message(out.status());
  };
  const at::Tensor good = at::zeros({1, 16}, at::kLong);
  const std::string label = "text_encoder/config.json: ";
  const std::string shape = ", want Long [B, T] with T from 1 to 16";
  EXPECT_EQ(message(at::zeros({2, 17}, at::kLong)),
            label + "wrong shape of token ids, got Long [2, 17]" + shape);
  EXPECT_EQ(message(at::zeros({2, 0}, at::kLong)),
            label + "wrong shape of token ids, got Long [2, 0]" + shape);
  EXPECT_EQ(message(at::zeros({0, 2}, at::kLong)),
            label + "wrong shape of token ids, got Long [0, 2]" + shape);
  EXPECT_EQ(message(at::zeros({16}, at::kLong)), label + "wrong shape of token ids, got Long [16]" + shape);
  EXPECT_EQ(message(at::zeros({2, 16})), label + "wrong shape of token ids, got Float [2, 16]" + shape);
  const std::string range = "a token is not in the vocabulary, got ";
  EXPECT_EQ(message(at::full({1, 3}, 40, at::kLong)), label + range + "40, want 0 to 39");
  EXPECT_EQ(message(at::full({1, 3}, -1, at::kLong)), label + range + "-1, want 0 to 39");
  EXPECT_EQ(message(good, 4), label + "cannot skip so many layers, got 4, want 0 to 3");
  EXPECT_EQ(message(good, -1), label + "cannot skip so many layers, got -1, want 0 to 3");
}

}  // namespace
}  // namespace tempera
