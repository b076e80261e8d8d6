// How the page looks, and the one script that sorts and filters its layers.
#include "report/page.h"

namespace tempera::page {

// Colours are pairs for light and dark; text on its ground has a contrast of at least 4.5, strokes of 3. h0
// to h7 grow in one hue, so that they read without telling colours apart; series differ in dash as well as in
// colour.
const std::string_view kStyle = R"css(
:root{color-scheme:light dark;--ground:#f7f7f5;--card:#fff;--ink:#1c1f24;--soft:#565d68;--line:#dcdee2;--grid:#e6e8eb;
--accent:#0a58b5;--good:#1d6b39;--bad:#b3261e;--s0:#0a58b5;--s1:#b04a00;--s2:#6d3fc0;--s3:#0c7363;--s4:#9c2c6b;--s5:#5b6470;
--h0:#fdf3e7;--h1:#fbe0c0;--h2:#f7c795;--h3:#f0a868;--h4:#e08443;--h5:#c2602a;--h6:#97421a;--h7:#642810;--dark:#2a1206;--lite:#fff;
--full:#8b939e;--b0:#0a58b5;--b1:#5a94d6;--b2:#b04a00;--b3:#6d3fc0;--b4:#0c8a74;--shade:#0a58b51f}
@media (prefers-color-scheme:dark){:root{--ground:#131519;--card:#1b1e24;--ink:#e8eaee;--soft:#a3abb7;--line:#343943;--grid:#2b3038;
--accent:#7db5ff;--good:#7fd39a;--bad:#ff8f84;--s0:#7db5ff;--s1:#f4a259;--s2:#c1a3ff;--s3:#5fd0bb;--s4:#f08cc0;--s5:#a3abb7;
--h0:#2a211b;--h1:#43291a;--h2:#61371c;--h3:#854a22;--h4:#ad622b;--h5:#d5823f;--h6:#f2a96a;--h7:#ffd9b0;--dark:#fff;--lite:#1c1006;
--full:#6f7784;--b0:#7db5ff;--b1:#3f74b8;--b2:#f4a259;--b3:#c1a3ff;--b4:#5fd0bb;--shade:#7db5ff26}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
font-variant-numeric:tabular-nums;overflow-wrap:break-word}
main{max-width:1280px;margin:0 auto;padding:24px 24px 64px}
h1,h2{line-height:1.2;margin:0;overflow-wrap:anywhere}
h1{font-size:1.15rem;font-weight:600}
h1 span{color:var(--soft);font-weight:400}
h2{font-size:1.35rem}
p{margin:.5em 0}
small{font-size:.8125rem;color:var(--soft)}
a{color:var(--accent)}
code{font-family:ui-monospace,"DejaVu Sans Mono",monospace;font-size:.875em;overflow-wrap:anywhere}
.skip{position:absolute;left:-99em}
.skip:focus{left:8px;top:8px;background:var(--card);padding:8px;z-index:9}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.vh{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
header,section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:24px 28px;margin:0 0 20px}
section{scroll-margin-top:60px}
.kicker{margin:0 0 4px;color:var(--soft);font-size:.8125rem;letter-spacing:.06em;text-transform:uppercase}
.headline{font-size:1.75rem;line-height:1.25;font-weight:650;margin:.5em 0 .9em;max-width:30em;text-wrap:balance}
.lead{color:var(--soft);max-width:52em;margin:.4em 0 1.1em}
.note{color:var(--soft);font-size:.875rem}
ul.tiles{list-style:none;margin:0;padding:0;display:grid;grid-template-columns:repeat(auto-fit,minmax(158px,1fr));gap:12px}
ul.tiles li{border:1px solid var(--line);border-left:4px solid var(--accent);border-radius:8px;padding:10px 12px}
ul.tiles b{display:block;font-size:1.5rem;line-height:1.25;font-weight:650}
ul.tiles .alarm{border-left-color:var(--bad)}
ul.tiles .alarm b{color:var(--bad)}
ul.tiles span,ul.tiles small{display:block}
ul.tiles small{line-height:1.35;margin-top:2px}
ul.says{margin:1.2em 0 0;padding-left:1.2em;max-width:60em}
ul.says li{margin:.25em 0}
nav{position:sticky;top:0;z-index:5;background:var(--ground);margin:0 0 14px;padding:8px 0;border-bottom:1px solid var(--line)}
nav ul{list-style:none;display:flex;gap:4px 18px;margin:0;padding:0 2px;overflow-x:auto;white-space:nowrap;font-size:.9375rem}
nav a{text-decoration:none;display:block;padding:3px 0}
nav a:hover{text-decoration:underline}
.scroll{position:relative;overflow-x:auto;margin:0 0 18px;max-width:100%}
.cap{color:var(--soft);font-size:.875rem;margin:0}
table{border-collapse:collapse;width:100%;font-size:.9375rem}
th,td{text-align:left;padding:6px 12px 6px 0;border-bottom:1px solid var(--line);vertical-align:middle;font-weight:400}
thead th{color:var(--soft);font-size:.8125rem;line-height:1.3;vertical-align:bottom}
tbody th{font-weight:500}
.n{text-align:right;white-space:nowrap}
th>small{display:block;font-weight:400}
.keyed{padding-left:22px}
.keyed .key{margin-left:-22px}
.name{white-space:nowrap}
.n+td:not(.n),thead .n+th:not(.n){padding-left:10px}
tr.own{background:var(--shade)}
tr.own th{font-weight:700}
tr.sum th,tr.sum td{font-weight:650;border-top:2px solid var(--line)}
.bad{color:var(--bad);font-weight:650}
.sw{display:inline-block;width:26px;height:10px;margin-right:8px;vertical-align:middle;flex:none}
.name:has(.sw)+small,.sw~small{margin-left:34px}
.iv{width:150px;height:16px;display:block}
.s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}.s5{--c:var(--s5)}
.line{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round}
.s0 .line,.s0.sw .line{stroke-width:3}
.s1 .line{stroke-dasharray:7 4}.s2 .line{stroke-dasharray:2 3}.s3 .line{stroke-dasharray:10 3 2 3}.s4 .line{stroke-dasharray:4 2}
.s5 .line{stroke-dasharray:1 4}
.bar{stroke:var(--c);stroke-width:4;opacity:.55;fill:none}
circle{fill:var(--c);stroke:var(--card);stroke-width:.6}
.cross{stroke:var(--bad);stroke-width:2.2;fill:none}
.grid{stroke:var(--grid);fill:none}
figure{margin:0 0 12px}
.chart{width:100%;height:auto;display:block}
.chart text{font-size:13px;fill:var(--ink)}
.chart .dim{fill:var(--soft)}
.mid{text-anchor:middle}.end{text-anchor:end}
.narrow{display:none;max-width:560px}
.legend{display:flex;flex-wrap:wrap;gap:4px 20px;align-items:center;font-size:.9375rem;margin:0 0 10px}
.legend>span{display:inline-flex;flex-wrap:wrap;align-items:center;gap:2px 6px}
.ramp{display:inline-flex}
.ramp i{width:22px;height:14px;display:inline-block}
.key{width:14px;height:14px;display:inline-block;vertical-align:-2px;margin-right:8px;border-radius:2px}
details{margin:8px 0 0}
summary{cursor:pointer;color:var(--accent);padding:4px 0}
.sheet{width:auto;margin:0}
.sheet th,.sheet td{border:0;padding:3px 4px;text-align:center;vertical-align:top}
.sheet tbody th,.sheet thead td{position:sticky;left:0;z-index:2;background:var(--card);text-align:left;min-width:104px;padding-right:10px;vertical-align:middle}
.sheet th small{margin-left:0}
.sheet thead th{min-width:var(--col);font-weight:600;color:var(--ink);overflow-wrap:anywhere}
.sheet img{width:var(--col);height:auto;display:block;margin:0 auto;background:var(--grid);border-radius:3px}
.sheet td small{display:block;line-height:1.3}
.sheet tbody+tbody tr:first-child>*{padding-top:12px}
.sheet .diff th{font-weight:400;color:var(--soft)}
.px{image-rendering:pixelated}
.heat{table-layout:fixed;min-width:620px;font-size:.75rem}
.heat th:first-child{width:190px}
.heat thead th{padding:0 0 3px;overflow:visible;white-space:nowrap;font-size:.75rem}
.heat tbody th{position:sticky;left:0;z-index:1;background:var(--card);padding:0 8px 0 0;border:0;line-height:1.25;font-weight:400;overflow-wrap:anywhere}
.tall .heat thead th{position:sticky;top:0;background:var(--card);z-index:2}
.tall .heat{border-spacing:0}
.heat .group th{font-weight:650;color:var(--soft);padding:8px 0 2px}
.heat td{padding:0;height:18px;border:1px solid var(--card);font-size:1px;line-height:1px;color:transparent;overflow:hidden;user-select:none}
.h0{background-color:var(--h0)}.h1{background-color:var(--h1)}.h2{background-color:var(--h2)}.h3{background-color:var(--h3)}
.h4{background-color:var(--h4)}.h5{background-color:var(--h5)}.h6{background-color:var(--h6)}.h7{background-color:var(--h7)}
.h0,.h1,.h2,.h3,.h4{--mark:var(--dark)}.h5,.h6,.h7{--mark:var(--lite)}
.r{background-image:radial-gradient(circle,var(--mark) 0 2px,transparent 2.6px)}
.x{background-image:radial-gradient(circle,transparent 0 1.6px,var(--mark) 2px 3px,transparent 3.6px)}
.none{background:repeating-linear-gradient(45deg,var(--grid) 0 3px,transparent 3px 6px)}
.bars{margin:0 0 16px}
.bars p{margin:8px 0 3px}
.stack{height:24px;display:flex;gap:1px}
.stack i{display:block;min-width:2px}
.stack i:last-child{border-radius:0 4px 4px 0}
.full{background:var(--full)}
.b0{background:var(--b0)}.b1{background:var(--b1)}.b2{background:var(--b2)}.b3{background:var(--b3)}.b4{background:var(--b4)}
.meter{position:relative;min-width:120px}
.meter i{position:absolute;left:0;top:5px;bottom:5px;width:calc((100% - 56px)*var(--v));background:var(--shade);border-right:2px solid var(--accent)}
.wide-meter i{width:calc(100%*var(--v))}
.wide-meter{width:55%}
.medium{max-width:760px}
.cols{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));gap:0 44px}
.meter span{position:relative}
.tall .scroll{max-height:640px;overflow:auto;border:1px solid var(--line);border-radius:6px}
.layers{font-size:.8125rem}
@media screen and (min-width:1000px){.layers tbody th,.layers td{white-space:nowrap}.layers wbr{display:none}}
.layers thead th{white-space:normal;vertical-align:bottom}
.layers .meter{min-width:104px}
.layers th,.layers td{padding:4px 9px}
.layers thead th{position:sticky;top:0;background:var(--card);z-index:1;box-shadow:inset 0 -1px var(--line)}
.layers tbody th{font-family:ui-monospace,"DejaVu Sans Mono",monospace;font-size:.75rem;min-width:150px}
th button{all:unset;cursor:pointer;color:inherit;display:inline-flex;gap:4px;align-items:flex-end}
.n button{text-align:right}
th button:focus-visible{outline:2px solid var(--accent)}
th button::after{content:"\2195";opacity:.5}
th[aria-sort=ascending] button::after{content:"\2191";opacity:1}
th[aria-sort=descending] button::after{content:"\2193";opacity:1}
.filter{display:block;margin:0 0 8px;font-size:.9375rem}
.filter input{font:inherit;color:inherit;background:var(--ground);border:1px solid var(--soft);border-radius:6px;padding:4px 8px;margin-left:8px;width:18em;max-width:100%}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(240px,1fr));gap:10px 24px;margin:0 0 16px}
.facts dt{color:var(--soft);font-size:.8125rem}
.facts dd{margin:0;overflow-wrap:anywhere}
.whole dd{max-width:60em}
.hash{font-family:ui-monospace,"DejaVu Sans Mono",monospace;font-size:.8125rem}
.taus{font-size:.875rem}
.terms{display:grid;grid-template-columns:repeat(auto-fill,minmax(330px,1fr));gap:14px 32px;margin:0}
.terms dt{font-weight:650}
.terms dd{margin:0;color:var(--soft)}
@media screen and (max-width:760px){
main{padding:10px 10px 40px}
header,section{padding:16px 14px;border-radius:8px}
.headline{font-size:1.35rem}
ul.tiles{grid-template-columns:1fr 1fr;gap:8px}
ul.tiles b{font-size:1.25rem}
.wide{display:none}.narrow{display:block}
.sheet tbody th,.sheet thead td{min-width:78px;max-width:88px;font-size:.8125rem}
.sheet .sw{display:block}
.heat th:first-child{width:118px}
.heat{min-width:560px}
.terms{grid-template-columns:1fr}
.facts{grid-template-columns:1fr 1fr;gap:10px 14px}
.facts .whole{grid-column:1/-1}
.filter input{display:block;margin:4px 0 0}
.iv{width:90px}
}
@media print{
:root{--ground:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#bbb;--grid:#ddd;--accent:#0a58b5;--bad:#b3261e;
--s0:#0a58b5;--s1:#b04a00;--s2:#6d3fc0;--s3:#0c7363;--s4:#9c2c6b;--s5:#5b6470;
--h0:#fdf3e7;--h1:#fbe0c0;--h2:#f7c795;--h3:#f0a868;--h4:#e08443;--h5:#c2602a;--h6:#97421a;--h7:#642810;--dark:#2a1206;--lite:#fff;
--full:#8b939e;--b0:#0a58b5;--b1:#5a94d6;--b2:#b04a00;--b3:#6d3fc0;--b4:#0c8a74;--shade:#0a58b51f}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
@page{margin:14mm}
body{font-size:10.5pt}
main{max-width:none;padding:0}
ul.tiles{grid-template-columns:repeat(3,1fr)}
.layers th,.layers td{padding:3px 6px}
header,section{border:0;padding:0;margin:0 0 18px}
nav,.skip,.filter{display:none}
.scroll,.tall .scroll{overflow:visible;max-height:none;border:0}
.sheet{width:100%;table-layout:fixed}
.sheet thead td{width:84px}
.cols{display:block}
.sheet thead th,.sheet tbody th{min-width:0}
.sheet img{width:100%}
.heat{min-width:0}
.heat th:first-child{width:120px}
.layers{font-size:7.5pt}
.layers thead th{position:static}
.layers tbody th{min-width:0}
th button::after{content:none}
tr,figure,li,dl div{break-inside:avoid}
h2,.lead{break-after:avoid}
}
)css";

const std::string_view kScript = R"js(
'use strict';
for (const table of document.querySelectorAll('table[data-sortable]')) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells], given = [...body.rows];
  heads.forEach((head, column) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.append(...head.childNodes);
    head.append(button);
    const key = row => {
      const text = row.cells[column].textContent.trim(), number = Number.parseFloat(text);
      return head.classList.contains('n') ? (Number.isNaN(number) ? (text === 'float' ? 32 : -1) : number) : text;
    };
    // Largest first, then smallest first, then as given.
    const first = head.classList.contains('n') ? 'descending' : 'ascending';
    const second = first === 'ascending' ? 'descending' : 'ascending';
    button.addEventListener('click', () => {
      const now = head.getAttribute('aria-sort');
      const next = now === null ? first : now === first ? second : null;
      heads.forEach(other => other.removeAttribute('aria-sort'));
      const rows = [...given];
      if (next !== null) {
        head.setAttribute('aria-sort', next);
        const sign = next === 'ascending' ? 1 : -1;
        rows.sort((a, b) => {
          const x = key(a), y = key(b);
          return sign * (typeof x === 'number' ? x - y : x.localeCompare(y, 'en', {numeric: true}));
        });
      }
      body.append(...rows);
    });
  });
  const label = document.createElement('label'), input = document.createElement('input');
  label.className = 'filter';
  input.type = 'search';
  label.append('Show layers with', input);
  input.addEventListener('input', () => {
    const want = input.value.trim().toLowerCase();
    for (const row of given) row.hidden = !row.textContent.toLowerCase().includes(want);
  });
  table.closest('.scroll').before(label);
}
)js";

}  // namespace tempera::page
