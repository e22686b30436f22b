//! The style sheet of the matrix: light, dark, narrow and on paper.

/// Everything, inline: the file needs nothing beside itself.
pub const CSS: &str = r#"
:root{color-scheme:light dark;
--bg:#f6f7f9;--card:#fff;--ink:#1b2330;--soft:#5a6575;--line:#e1e5eb;--code:#f0f2f6;
--pass:#15713f;--pass-bg:#e2f5e9;--fail:#b3261e;--fail-bg:#fdeae8;
--doubt:#8a5a00;--doubt-bg:#fff2d6;--none:#5a6575;--none-bg:#eceff3;
--bar-pass:#2f9e62;--bar-fail:#d6453c;--bar-doubt:#e0a020;--bar-none:#c3cad4;--link:#2456b8}
@media (prefers-color-scheme:dark){:root{
--bg:#12161d;--card:#1a2029;--ink:#e6eaf0;--soft:#9aa6b6;--line:#2b3340;--code:#222a35;
--pass:#6fd39b;--pass-bg:#15301f;--fail:#ff8e85;--fail-bg:#3a1917;
--doubt:#f2c25c;--doubt-bg:#352a10;--none:#9aa6b6;--none-bg:#262e39;
--bar-pass:#3aa86b;--bar-fail:#d95850;--bar-doubt:#d69c2c;--bar-none:#3a4452;--link:#8db4ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:1040px;margin:0 auto;padding:32px 20px 64px}
a{color:var(--link)}
h1{font-size:26px;line-height:1.25;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:17px;margin:0}
h3{font-size:14px;margin:0}
.lead{color:var(--soft);margin:0 0 20px;overflow-wrap:anywhere}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px}
.head{padding:20px 22px;margin-bottom:28px}
.score{display:flex;align-items:baseline;gap:10px;flex-wrap:wrap}
.score b{font-size:40px;line-height:1;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.score span{color:var(--soft)}
.bar{display:flex;gap:2px;height:12px;margin:14px 0 12px;border-radius:6px;overflow:hidden;background:var(--none-bg)}
.bar i{display:block;min-width:3px}
.bar .pass{background:var(--bar-pass)}.bar .fail{background:var(--bar-fail)}
.bar .doubt{background:var(--bar-doubt)}.bar .none{background:var(--bar-none)}.bar .spared{background:none}
.legend{display:flex;flex-wrap:wrap;gap:6px 18px;margin:0;padding:0;list-style:none}
.legend li{display:flex;align-items:center;gap:7px}
.legend b{font-variant-numeric:tabular-nums}
.rule{margin:14px 0 0;padding-top:12px;border-top:1px solid var(--line);color:var(--soft);font-size:14px}
.note{margin:10px 0 0;padding:10px 14px;border-radius:8px;background:var(--doubt-bg);color:var(--doubt);font-size:14px;overflow-wrap:anywhere}
nav{display:grid;grid-template-columns:repeat(auto-fill,minmax(158px,1fr));gap:10px;margin-bottom:28px}
nav a{display:block;padding:10px 12px;color:inherit;text-decoration:none}
nav strong{font-size:14px}
nav a:hover{border-color:var(--link)}
nav span{display:flex;justify-content:space-between;gap:8px}
nav .bar{height:6px;margin:7px 0 2px;border-radius:3px}
nav small{color:var(--soft);font-variant-numeric:tabular-nums}
section{margin-bottom:26px}
.area{display:flex;align-items:baseline;justify-content:space-between;gap:12px;margin:0 4px 8px}
.area small{color:var(--soft);font-variant-numeric:tabular-nums}
details.row{border-top:1px solid var(--line)}
details.row:first-child{border-top:0}
details.row>summary{display:grid;grid-template-columns:132px 1fr auto 16px;gap:14px;align-items:center;padding:11px 16px;cursor:pointer;list-style:none}
summary::-webkit-details-marker{display:none}
details.row>summary:hover{background:color-mix(in srgb,var(--code) 60%,transparent)}
summary:focus-visible{outline:2px solid var(--link);outline-offset:-2px;border-radius:8px}
details.row>summary:after{content:"›";color:var(--soft);font-size:18px;line-height:1;transition:transform .12s}
details.row[open]>summary:after{transform:rotate(90deg)}
.what small{display:block;color:var(--soft);font-size:13px;overflow-wrap:anywhere}
.id{color:var(--soft);font:12px/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.chip{display:inline-flex;align-items:center;gap:6px;justify-self:start;padding:2px 10px 2px 8px;border-radius:999px;font-size:13px;font-weight:600;white-space:nowrap}
.chip.pass{color:var(--pass);background:var(--pass-bg)}.chip.fail{color:var(--fail);background:var(--fail-bg)}
.chip.doubt{color:var(--doubt);background:var(--doubt-bg)}.chip.none,.chip.spared{color:var(--none);background:var(--none-bg)}
.chip.spared{background:none;box-shadow:inset 0 0 0 1px var(--none-bg)}
.body{padding:2px 16px 16px}
.body>p{margin:0 0 10px;color:var(--soft);font-size:14px}
.proof{border:1px solid var(--line);border-radius:10px;padding:12px 14px;margin-top:10px}
.proof.absent{border-style:dashed}
.proof header{display:flex;align-items:center;gap:10px;flex-wrap:wrap}
.proof header .id{margin-left:auto}
.proof p{margin:8px 0 0;font-size:14px;overflow-wrap:anywhere}
.proof p.soft{color:var(--soft)}
.bad{margin:8px 0 0;padding:0 0 0 18px;color:var(--fail);font-size:14px}
.bad.doubt{color:var(--doubt)}
.bad li{overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:minmax(120px,260px) 1fr;gap:3px 16px;margin:10px 0 0;font-size:14px}
dt{color:var(--soft);overflow-wrap:anywhere}
dd{margin:0;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
code{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--code);border-radius:5px;padding:1px 6px;overflow-wrap:anywhere}
.files{margin-top:10px;font-size:13px}
.files summary{cursor:pointer;color:var(--soft)}
.files ul{margin:6px 0 0;padding-left:18px}
.files li{overflow-wrap:anywhere}
.files .hash{color:var(--soft);font:11px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
footer{color:var(--soft);font-size:13px;margin-top:32px;overflow-wrap:anywhere}
@media (max-width:640px){
main{padding:20px 12px 48px}
details.row>summary{grid-template-columns:1fr 16px;gap:6px 10px}
details.row>summary .chip{grid-column:1}
details.row>summary .what{grid-column:1}
details.row>summary>.id{display:none}
details.row>summary:after{grid-column:2;grid-row:1}
dl{grid-template-columns:1fr}
dd{margin-bottom:6px}
.proof header .id{margin-left:0;width:100%}}
@media print{
:root{--bg:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#bbb;--code:#f2f2f2}
body{font-size:11px}main{max-width:none;padding:0}
nav,.files,details.row>summary:after{display:none}
.card,.proof{break-inside:avoid;border-radius:4px}section{break-inside:auto}section>.card{break-inside:auto}
details.row::details-content{content-visibility:visible;height:auto;display:block}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
@media (prefers-reduced-motion:reduce){*{transition:none!important}}
"#;
