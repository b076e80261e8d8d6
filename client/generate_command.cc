// `tempera generate`: pictures arrive, are checked and written whole.
#include <map>

#include "base/files.h"
#include "client/commands.h"
#include "client/json_view.h"
#include "client/paths.h"
#include "client/pictures.h"
#include "client/terminal.h"

namespace tempera {
namespace {

// The format by --format, else by the extension of --out, else PNG.
Result<v1::ImageFormat> ChooseFormat(const GenerateArgs& args) {
  if (!args.format.empty()) return ParseFormatWord(args.format);
  const std::string extension = std::filesystem::path(args.out).extension().string();
  if (extension.size() > 1) {
    const auto format = ParseFormatWord(extension.substr(1));
    if (format.ok()) return *format;
  }
  return v1::PNG;
}

struct Painted {
  std::string path;
  uint64_t seed = 0;
  std::string sha256;
  Json steps = Json::array();
};

Json StepJson(const v1::Progress& p) {
  return {{"step", p.step()},
          {"timestep", p.timestep()},
          {"milliseconds", p.milliseconds()},
          {"temporal_feature_error",
           p.has_temporal_feature_error() ? Json(p.temporal_feature_error()) : Json(nullptr)}};
}

std::string AcceptedText(const v1::Accepted& a) {
  std::string text =
      Cat(a.model(), a.artifact().empty() ? " in full precision" : Cat(" ", a.artifact().substr(0, 12)), ": ",
          a.count(), a.count() == 1 ? " picture " : " pictures ", a.width(), "x", a.height());
  if (a.has_class_label()) text += Cat(", class ", a.class_label());
  return text + Cat(", seed ", a.seed(), ", ", a.schedule().scheduler(), " ", a.schedule().steps(),
                    " steps, eta ", NumberText(a.schedule().eta()));
}

}  // namespace

Result<int> RunGenerate(const Session& s, const GenerateArgs& args) {
  v1::GenerateRequest request = args.request;
  const int count = request.has_count() ? request.count() : 1;
  TEMPERA_ASSIGN(const v1::ImageFormat format, ChooseFormat(args));
  request.set_format(format);
  TEMPERA_ASSIGN(const PictureNames names, PlanPictures(args.out, request.ref(), count, format, s.cwd));
  request.set_ref(RefToSend(request.ref(), s.cwd));

  std::map<int, Painted> painted;
  v1::Accepted accepted;
  bool told = false;
  int written = 0;
  Status preview_error;
  const PictureProtocol shown =
      !s.json && request.preview_interval() > 0 ? FindPictureProtocol() : PictureProtocol::kNone;
  ProgressBar bar(s.err, s.width);
  const GenerateCallbacks callbacks{
      .on_accepted =
          [&](const v1::Accepted& a) {
            accepted = a;
            if (!told && !s.json) bar.Line(AcceptedText(a));
            if (!told)
              for (const std::string& warning : a.warnings()) bar.Line("warning: " + warning);
            told = true;
            if (a.queue_position() > 0 && !s.json)
              bar.Show("queued", 0, Cat(a.queue_position(), " before this one"));
          },
      .on_progress =
          [&](const v1::Progress& p) {
            painted[p.picture()].steps.push_back(StepJson(p));
            if (s.json) return;
            const double done = p.picture() + (p.step() + 1.0) / std::max(1, p.steps());
            std::string detail =
                Cat("step ", p.step() + 1, "/", p.steps(), "  ", NumberText(p.milliseconds()), " ms");
            if (p.has_temporal_feature_error())
              detail += Cat("  temporal error ", NumberText(p.temporal_feature_error()));
            bar.Show(count > 1 ? Cat("picture ", p.picture() + 1, "/", count) : "painting", done / count,
                     detail);
          },
      .on_preview =
          [&](const v1::Preview& p) {
            if (shown != PictureProtocol::kNone) {
              bar.Clear();
              s.err << TerminalPicture(shown, p.data()) << std::flush;
              return;
            }
            const auto path = names.Preview(accepted.seed() + static_cast<uint64_t>(p.picture()), p.step());
            if (preview_error.ok()) preview_error = WriteFileAtomic(path, p.data(), path.filename().string());
          },
      .on_picture = [&](const ReceivedPicture& p) -> Status {
        TEMPERA_TRY(preview_error);
        const auto path = names.Picture(p.seed);
        TEMPERA_TRY(WriteFileAtomic(path, p.bytes, path.filename().string()));
        ++written;
        Painted& mine = painted[p.index];
        mine.path = path.string();
        mine.seed = p.seed;
        mine.sha256 = p.sha256;
        if (!s.json) {
          bar.Clear();
          s.out << mine.path << "  seed " << p.seed << "  sha256 " << p.sha256 << std::endl;
        }
        return OkStatus();
      },
  };
  auto result = s.client.Generate(s.scope, request, callbacks);
  bar.Clear();
  if (!result.ok() && written > 0)
    s.err << written << " of " << count << " pictures were written before the error" << std::endl;
  TEMPERA_ASSIGN(const v1::Summary summary, std::move(result));
  if (request.validate_only()) {
    if (s.json) s.out << OneLine(ToJson(accepted)) << std::endl;
    return kExitDone;
  }
  double denoise_ms = 0;
  for (const auto& p : summary.pictures()) {
    denoise_ms += p.denoise_ms();
    const Painted& mine = painted[p.picture()];
    if (s.json)
      s.out << OneLine({{"path", mine.path},
                        {"seed", mine.seed},
                        {"sha256", mine.sha256},
                        {"latent_sha256", p.latent_sha256()},
                        {"model", accepted.model()},
                        {"artifact", accepted.artifact().empty() ? Json(nullptr) : Json(accepted.artifact())},
                        {"class_label",
                         accepted.has_class_label() ? Json(accepted.class_label()) : Json(nullptr)},
                        {"denoise_ms", p.denoise_ms()},
                        {"decode_ms", p.decode_ms()},
                        {"encode_ms", p.encode_ms()},
                        {"steps", mine.steps}})
            << "\n";
  }
  s.out << std::flush;
  if (!s.json)
    s.err << "total " << NumberText(summary.total_ms()) << " ms: waiting " << NumberText(summary.queue_ms())
          << ", loading " << NumberText(summary.load_ms()) << ", denoising " << NumberText(denoise_ms)
          << std::endl;
  return kExitDone;
}

Result<int> RunView(const Session& s, const std::string& file) {
  TEMPERA_ASSIGN(const std::string bytes, ReadFile(s.cwd / file, file));
  const PictureProtocol protocol = FindPictureProtocol();
  const std::string text = TerminalPicture(protocol, bytes);
  if (protocol != PictureProtocol::kNone && text.empty())
    return InvalidArgument(file, ": is no PNG that can be read");
  if (text.empty()) {
    s.err << "this terminal shows neither kitty's pictures nor sixels; look at " << file << std::endl;
  } else {
    s.err << text << std::flush;
  }
  return kExitDone;
}

}  // namespace tempera
