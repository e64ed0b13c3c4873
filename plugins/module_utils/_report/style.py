# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The style of the HTML report. Colours are those of Okabe and Ito, which the colour-blind tell apart, darker on white and lighter on
black where lines need it; arms differ in the pattern of their line as well."""

from __future__ import annotations

CSS = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1c2430;--dim:#5a6675;--line:#d5dbe3;--panel:#f5f7fa;--good:#00694c;--bad:#b3261e;
--warn:#8a5a00;
--a0:#0072b2;--a1:#d55e00;--a2:#009e73;--a3:#a3548a;--a4:#8f7a00;--a5:#4a90c2;--a6:#6b4f9e;--a7:#5c5c5c}
@media(prefers-color-scheme:dark){:root{--bg:#12161c;--fg:#e6eaf0;--dim:#9aa7b6;--line:#323b47;--panel:#1b212a;--good:#4cc9a0;
--bad:#ff8a80;
--warn:#f0b84a;--a0:#56b4e9;--a1:#ff9142;--a2:#2fd3a3;--a3:#e39cc9;--a4:#f0e442;--a5:#9ccbf0;--a6:#b9a2ea;--a7:#b5b5b5}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);
font:15px/1.45 system-ui,-apple-system,"Segoe UI","Helvetica Neue","DejaVu Sans",sans-serif}
main{max-width:1000px;margin:0 auto;padding:20px 20px 60px}
h1{font-size:27px;line-height:1.2;margin:0 0 8px}h2{font-size:19px;margin:36px 0 8px}h3{font-size:15px;margin:20px 0 2px}
p{margin:6px 0}.lead{font-size:18px}.dim,small{color:var(--dim)}code{font:13px ui-monospace,"DejaVu Sans Mono",monospace;
overflow-wrap:anywhere}
header{border-left:10px solid var(--tone);background:var(--panel);padding:16px 20px;border-radius:4px}
.promoted{--tone:var(--good)}.rolled_back,.failed,.interrupted{--tone:var(--bad)}.running,.unknown{--tone:var(--warn)}
h1 .mark{color:var(--tone)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:5px 18px;margin:12px 0 0}dt{color:var(--dim)}dd{margin:0}
.tiles{display:flex;flex-wrap:wrap;gap:10px;margin:14px 0 0}
.tile{flex:1 1 150px;border:1px solid var(--line);border-radius:4px;padding:8px 12px}.tile b{display:block;font-size:21px;line-height:1.25}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;vertical-align:top;padding:5px 10px 5px 0;border-bottom:1px solid var(--line);font-weight:400}
thead th{color:var(--dim);font-size:13px}.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.met,.pass{color:var(--good);font-weight:600}.missed,.fail,.hurt{color:var(--bad);font-weight:600}
.open{color:var(--warn);font-weight:600}
svg{display:block;width:100%;height:auto;font:11px system-ui,"DejaVu Sans",sans-serif}svg text{fill:var(--dim)}
.grid{stroke:var(--line);stroke-width:.6}.axis{stroke:var(--dim)}.b0{fill:var(--panel)}.b1{fill:none}
.line{fill:none;stroke-width:1.9;stroke-linejoin:round}.dot{stroke:none}.area{stroke:none;fill-opacity:.38}
path.a0,.key.a0{stroke:var(--a0)}path.a1,.key.a1{stroke:var(--a1)}path.a2,.key.a2{stroke:var(--a2)}path.a3,.key.a3{stroke:var(--a3)}
path.a4,.key.a4{stroke:var(--a4)}path.a5,.key.a5{stroke:var(--a5)}path.a6,.key.a6{stroke:var(--a6)}path.a7,.key.a7{stroke:var(--a7)}
.area.a0,circle.a0{fill:var(--a0)}.area.a1,circle.a1{fill:var(--a1)}.area.a2,circle.a2{fill:var(--a2)}.area.a3,circle.a3{fill:var(--a3)}
.area.a4,circle.a4{fill:var(--a4)}.area.a5,circle.a5{fill:var(--a5)}.area.a6,circle.a6{fill:var(--a6)}.area.a7,circle.a7{fill:var(--a7)}
.line.a0,.key.a0{stroke-dasharray:7 3}.line.a2,.key.a2{stroke-dasharray:2 2}.line.a3,.key.a3{stroke-dasharray:9 3 2 3}
path.seen,.key.seen{stroke:var(--fg);stroke-width:1.2}circle.seen{fill:var(--fg)}
path.e-harm,.key.e-harm{stroke:var(--a1)}circle.e-harm{fill:var(--a1)}path.e-excluded,.key.e-excluded{stroke:var(--a2);
stroke-dasharray:2 2}
circle.e-excluded{fill:var(--a2)}.line.s1,.line.s2,.line.s3{stroke-width:1.1}
.limit{stroke-width:1.4}.limit.abort{stroke:var(--bad);stroke-dasharray:10 3}.limit.good{stroke:var(--good);stroke-dasharray:3 3}
svg .mark-text{paint-order:stroke;stroke:var(--bg);stroke-width:3px;stroke-linejoin:round}
svg .abort.limit-text,svg .v-fail{fill:var(--bad)}svg .good.limit-text,svg .v-pass{fill:var(--good)}svg .v-other{fill:var(--warn)}
.verdict{stroke-width:1}.verdict.v-pass{stroke:var(--good)}.verdict.v-fail{stroke:var(--bad)}.verdict.v-other{stroke:var(--warn)}
path.area{stroke:none}
.back{stroke:var(--bad);stroke-width:2}
.keys{font-size:13px;color:var(--dim);margin:0}.keys span{margin-right:16px;white-space:nowrap}.keys svg{display:inline;width:30px;
height:8px;
vertical-align:middle;margin-right:5px}.key{stroke-width:3;fill:none}
figure{margin:0 0 6px}ul{padding-left:20px}li{margin:3px 0}summary{cursor:pointer;color:var(--dim)}
.stages td:last-child{min-width:230px}
@media print{main{max-width:none;padding:0}details{display:block}figure,tr{break-inside:avoid}}
@media(max-width:560px){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:8px}}
"""
