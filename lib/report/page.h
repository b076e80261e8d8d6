// The parts of report.html. Private to lib/report.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "report/evaluation.h"
#include "report/html.h"
#include "report/measurements.h"
#include "report/report.h"

namespace tempera::page {

// A picture that was read: its bytes, and the size that its header states.
struct Embedded {
  std::string png;
  int64_t width = 0, height = 0;
};

// What every part reads.
struct Input {
  const std::string& artifact_id;
  const Evaluation& e;
  const Measurements& m;
  const Verdict& verdict;
  const std::map<std::string, Embedded>& pictures;  // by the name in the evaluation
};

// The whole document.
std::string Page(const Input& in);

// Each gives one <section>, or nothing where the evaluation has nothing to show.
Html VerdictPart(const Input& in);
Html PicturesPart(const Input& in);
Html MethodsPart(const Input& in);
Html TimePart(const Input& in);      // error over timesteps
Html FeaturesPart(const Input& in);  // step x temporal feature
Html LayersPart(const Input& in);
Html PartsPart(const Input& in);  // text encoders and first stage
Html SizePart(const Input& in);
Html CalibrationPart(const Input& in);
Html EnvironmentPart(const Input& in);
Html GlossaryPart(const Input& in);

// Opens a section: heading and how to read it. `lead` may hold markup.
Html Head(std::string_view id, std::string_view title, const Html& lead);
// Wraps what may be wider than a phone, so that it alone scrolls. `label` is read aloud.
Html Scroll(std::string_view label, const Html& content);
// The same with `caption` above it, for all to see.
Html Captioned(std::string_view caption, const Html& content);
// Opens a table: its class (may be empty) and the heads of its columns.
struct Column {
  enum Kind {
    kText,
    kNumber,
    kDrawn
  };  // kDrawn: named for those who hear the page, as what is drawn needs no title
  std::string name;
  Kind kind = kText;
};
Html TableHead(const Html& attributes, const std::vector<Column>& columns);
// "8-bit", "float"
std::string BitsText(int bits);
// A figure that is not there.
inline constexpr std::string_view kNone = "\u2013";
// Class of a series, "s0" to "s5": colour and dash of a method in every chart and table.
std::string Series(size_t method);
// A stroke in the colour and dash of a series, for legends.
Html Swatch(size_t method);

extern const std::string_view kStyle;  // CSS
extern const std::string_view
    kScript;  // JavaScript: sorts and filters tables; the page reads well without it

}  // namespace tempera::page
