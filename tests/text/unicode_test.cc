#include "text/unicode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tempera {
namespace {

TEST(FindInvalidUtf8, NamesTheFirstByteOfTheFirstBrokenSequence) {
  EXPECT_EQ(FindInvalidUtf8(""), std::nullopt);
  EXPECT_EQ(FindInvalidUtf8(std::string_view("a\0b", 3)), std::nullopt);
  EXPECT_EQ(FindInvalidUtf8("\u007f\u0080\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff"), std::nullopt);
  EXPECT_EQ(FindInvalidUtf8("ab\xff"), 2u);
  EXPECT_EQ(FindInvalidUtf8("\x80"), 0u);               // no lead
  EXPECT_EQ(FindInvalidUtf8("a\xc3"), 1u);              // cut short
  EXPECT_EQ(FindInvalidUtf8("a\xe2\x82"), 1u);          // cut short
  EXPECT_EQ(FindInvalidUtf8("\u00e9\xc0\xaf"), 2u);     // overlong
  EXPECT_EQ(FindInvalidUtf8("\xe0\x9f\xbf"), 0u);       // overlong
  EXPECT_EQ(FindInvalidUtf8("x\xed\xa0\x80"), 1u);      // surrogate
  EXPECT_EQ(FindInvalidUtf8("x\xf4\x90\x80\x80"), 1u);  // above U+10FFFF
  EXPECT_EQ(FindInvalidUtf8("\xf8\x88\x80\x80\x80"), 0u);
}

TEST(ReplaceInvalidUtf8, PutsOneMarkForEachMaximalPart) {
  EXPECT_EQ(ReplaceInvalidUtf8(""), "");
  EXPECT_EQ(ReplaceInvalidUtf8("caf\u00e9"), "caf\u00e9");
  EXPECT_EQ(ReplaceInvalidUtf8("a\xe2\x82"), "a\ufffd");
  EXPECT_EQ(ReplaceInvalidUtf8("\xe2\x82z"), "\ufffdz");
  EXPECT_EQ(ReplaceInvalidUtf8("\xf0\x9f\x98"), "\ufffd");
  EXPECT_EQ(ReplaceInvalidUtf8("\x98\x80"), "\ufffd\ufffd");
  // Unicode 15, table 3-8.
  EXPECT_EQ(ReplaceInvalidUtf8("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41"),
            "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\x41");
  EXPECT_EQ(ReplaceInvalidUtf8("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41"),
            "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\x41");
  EXPECT_EQ(ReplaceInvalidUtf8("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42"),
            "\ufffd\ufffd\ufffd\ufffd\ufffd\x41\ufffd\ufffd\x42");
  EXPECT_EQ(ReplaceInvalidUtf8("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"), "\ufffd\ufffd\ufffd\ufffd\x41");
}

TEST(NextCodePoint, WalksTheText) {
  const std::string_view text = "a\u00e9\u732b\U0001f431";
  std::vector<int32_t> points;
  for (size_t at = 0; at < text.size();) points.push_back(NextCodePoint(text, at));
  EXPECT_THAT(points, testing::ElementsAre('a', 0xe9, 0x732b, 0x1f431));
}

TEST(Nfc, Composes) {
  EXPECT_EQ(Nfc(""), U"");
  EXPECT_EQ(Nfc("e\u0301"), U"\u00e9");
  EXPECT_EQ(Nfc("\u212b"), U"\u00c5");
  EXPECT_EQ(Nfc("\u1100\u1161\u11a8"), U"\uac01");
  EXPECT_EQ(Nfc("\u0958"), U"\u0915\u093c");          // excluded from composition
  EXPECT_EQ(Nfc("\ufb01 \uff21"), U"\ufb01 \uff21");  // compatibility characters stay
}

TEST(Nfc, OrdersMarksByClassAndKeepsTheOrderWithinOne) {
  EXPECT_EQ(Nfc("q\u0307\u0323"), U"q\u0323\u0307");
  EXPECT_EQ(Nfc("q\u0307\u0301"), U"q\u0307\u0301");
  EXPECT_EQ(Nfc("q\u0301\u0307"), U"q\u0301\u0307");
  EXPECT_EQ(Nfc("a\u0307\u0323"), U"\u1ea1\u0307");
}

TEST(Nfc, KeepsTheVowelThatStandsBeforeTheTrailingConsonants) {
  EXPECT_EQ(Nfc("\uac00\u11a7"), U"\uac00\u11a7");
  EXPECT_EQ(Nfc("\u1100\u1161\u11a7\u11a8"), U"\uac00\u11a7\u11a8");
  EXPECT_EQ(Nfc("\u11a7\u0307\u0323e\u0301"), U"\u11a7\u0323\u0307\u00e9");
}

// Sorting neighbour by neighbour would take minutes.
TEST(Nfc, IsNotSlowedByMarksAlone) {
  std::string text;
  for (int i = 0; i < 200'000; ++i) text += "\u0301\u0323";
  const std::u32string points = Nfc(text);
  EXPECT_EQ(points.size(), 400'000u);
  EXPECT_EQ(points.front(), U'\u0323');
  EXPECT_EQ(points.back(), U'\u0301');
}

std::string Lower(std::u32string_view text) {
  std::string out;
  for (const char32_t c : text) AppendLower(c, out);
  return out;
}

TEST(AppendLower, LowersOneByOne) {
  EXPECT_EQ(Lower(U"ABC xyz 1\u00c9\u0410\U00010400"), "abc xyz 1\u00e9\u0430\U00010428");
  EXPECT_EQ(Lower(U"\u0130I\u0131"), "i\u0307i\u0131");
  EXPECT_EQ(Lower(U"\u00df\u1e9e"), "\u00df\u00df");
  EXPECT_EQ(Lower(U"\u039f\u03a3"), "\u03bf\u03c3");  // no final sigma
  EXPECT_EQ(Lower(U"\u01c5\u1fbc"), "\u01c6\u1fb3");
}

TEST(ClassOf, KnowsTheFourKinds) {
  for (const int32_t c : {0x09, 0x0a, 0x0d, 0x20, 0x85, 0xa0, 0x1680, 0x2003, 0x2028, 0x2029, 0x202f, 0x3000})
    EXPECT_EQ(ClassOf(c), CharClass::kSpace) << c;
  for (const int32_t c : {0x61, 0xaa, 0x1c5, 0x2b0, 0x732b, 0x5d0, 0xac00, 0x20000, 0x2ebe0})
    EXPECT_EQ(ClassOf(c), CharClass::kLetter) << c;
  for (const int32_t c : {0x30, 0xb2, 0xbd, 0x661, 0x2167, 0x2460, 0x3007, 0x1d7d8})
    EXPECT_EQ(ClassOf(c), CharClass::kNumber) << c;
  for (const int32_t c :
       {0x00, 0x1c, 0x21, 0x5f, 0x7f, 0x301, 0x200b, 0x200d, 0xad, 0xfeff, 0x1f431, 0x378, 0xe000, 0x10ffff})
    EXPECT_EQ(ClassOf(c), CharClass::kOther) << c;
}

}  // namespace
}  // namespace tempera
