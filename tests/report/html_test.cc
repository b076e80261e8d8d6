#include "report/html.h"

#include <gtest/gtest.h>

#include <random>

namespace tempera {
namespace {

TEST(Html, EscapesTextAndKeepsMarkup) {
  const std::string name = "<script>alert(\"1\") & 'x'</script>";
  EXPECT_EQ(Html()("<b title=\"", name, "\">", std::string_view(name), "</b>").text(),
            "<b title=\"&lt;script&gt;alert(&quot;1&quot;) &amp; &#39;x&#39;&lt;/script&gt;\">"
            "&lt;script&gt;alert(&quot;1&quot;) &amp; &#39;x&#39;&lt;/script&gt;</b>");
  EXPECT_EQ(Html()("<i>", 7, "</i>", Html()("<u>")).text(), "<i>7</i><u>");
}

TEST(Html, ReplacesWhatCannotBeShown) {
  EXPECT_EQ(EscapeHtml("Fr\u00E9chet \u6F22 \U0001F456"), "Fr\u00E9chet \u6F22 \U0001F456");
  EXPECT_EQ(EscapeHtml(std::string("a\0b", 3)), "a\uFFFDb");
  EXPECT_EQ(EscapeHtml("a\u202Eb\u200B"), "a\uFFFDb\uFFFD");              // turns the line around; no width
  EXPECT_EQ(EscapeHtml("a\xC3"), "a\uFFFD");                              // cut off
  EXPECT_EQ(EscapeHtml("\xC0\xBC"), "\uFFFD\uFFFD");                      // an overlong "<"
  EXPECT_EQ(EscapeHtml("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");            // half of a pair
  EXPECT_EQ(EscapeHtml("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");  // beyond the last
  EXPECT_EQ(EscapeHtml("a\tb\n"), "a\tb\n");
}

TEST(Html, NeverLetsMarkupThroughRandomBytes) {
  std::mt19937 random(8);
  for (int i = 0; i < 2000; ++i) {
    std::string bytes(random() % 40, ' ');
    for (char& c : bytes) c = random() % 3 == 0 ? "<>&\"'"[random() % 5] : static_cast<char>(random() % 256);
    EXPECT_EQ(EscapeHtml(bytes).find_first_of("<>\"'"), std::string::npos);
  }
}

TEST(Figures, ReadAsPeopleWriteThem) {
  EXPECT_EQ(Fixed(33.1, 2), "33.10");
  EXPECT_EQ(Fixed(-0.0001, 2), "0.00");
  EXPECT_EQ(Fixed(-0.15, 2), "-0.15");
  EXPECT_EQ(Figure(0), "0");
  EXPECT_EQ(Figure(0.00412345), "0.00412");
  EXPECT_EQ(Figure(12.345), "12.3");
  EXPECT_EQ(Figure(1234.5), "1234");
  EXPECT_EQ(Figure(1.2e-7), "1.20e-07");
  EXPECT_EQ(Short(8), "8");
  EXPECT_EQ(Short(0.5), "0.5");
  EXPECT_EQ(Short(100), "100");
  EXPECT_EQ(Percent(0.00412), "0.412\u00A0%");
  EXPECT_EQ(Percent(0), "0\u00A0%");
  EXPECT_EQ(Percent(1), "100\u00A0%");
  EXPECT_EQ(Bytes(999), "999\u00A0B");
  EXPECT_EQ(Bytes(1000), "1.00\u00A0kB");
  EXPECT_EQ(Bytes(999'999), "1.00\u00A0MB");
  EXPECT_EQ(Bytes(7'934'468), "7.93\u00A0MB");
  EXPECT_EQ(Count(7), "7");
  EXPECT_EQ(Count(1234567), "1,234,567");
  EXPECT_EQ(Count(-123456), "-123,456");
  EXPECT_EQ(Seconds(12.34), "12.3\u00A0s");
  EXPECT_EQ(Seconds(59.96), "1\u00A0min 0\u00A0s");
  EXPECT_EQ(Seconds(3725), "1\u00A0h 2\u00A0min");
  EXPECT_EQ(Plural(1, "step", "steps"), "1 step");
  EXPECT_EQ(Plural(1100, "step", "steps"), "1,100 steps");
}

TEST(Dotted, BreaksAfterDotsOnly) {
  EXPECT_EQ(Dotted("a.b.c").text(), "a.<wbr>b.<wbr>c");
  EXPECT_EQ(Dotted("abc").text(), "abc");
  EXPECT_EQ(Dotted("").text(), "");
  EXPECT_EQ(Dotted("<.").text(), "&lt;.");
}

TEST(Base64, EqualsKnownAnswers) {
  EXPECT_EQ(Base64(""), "");
  EXPECT_EQ(Base64("f"), "Zg==");
  EXPECT_EQ(Base64("fo"), "Zm8=");
  EXPECT_EQ(Base64("foo"), "Zm9v");
  EXPECT_EQ(Base64("\xFF\xFE\xFD\xFC"), "//79/A==");
}

}  // namespace
}  // namespace tempera
