// Writes an example report, to be looked at: report_example FOLDER [plain|colour|large|none]
#include <cstdio>
#include <string>

#include "base/files.h"
#include "report/example.h"

int main(int argc, char** argv) {
  using namespace tempera;
  if (argc < 2) {
    std::fprintf(stderr, "usage: report_example FOLDER [plain|colour|large|none]\n");
    return 2;
  }
  const std::filesystem::path folder = argv[1];
  const std::string kind = argc > 2 ? argv[2] : "";
  example::Shape shape;
  if (kind == "plain") shape.compared = false;
  if (kind == "colour")
    shape = {.steps = 20, .features = 12, .layers = 40, .samples = 4, .side = 160, .channels = 3};
  if (kind == "large") shape = {.features = 250, .layers = 250};
  if (kind == "none") shape = {.samples = 0, .painted = false};
  const Evaluation evaluation = example::MakeEvaluation(shape);
  example::WritePictures(evaluation, shape, folder);
  const auto report = BuildReport(std::string(64, 'a'), evaluation, example::MakeMeasurements(), folder);
  if (!report.ok()) {
    std::fprintf(stderr, "%s\n", Message(report.status()).c_str());
    return 1;
  }
  for (const auto& [name, text] :
       {std::pair("report.json", &report->json), std::pair("report.html", &report->html)})
    if (const Status s = WriteFileAtomic(folder / name, *text, name); !s.ok()) {
      std::fprintf(stderr, "%s\n", Message(s).c_str());
      return 1;
    }
  return 0;
}
