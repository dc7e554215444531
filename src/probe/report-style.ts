/** The style of the HTML report: its hash is in the page's content security policy. */

export const STYLE = `
:root { --ink: #1c2430; --soft: #5b6675; --line: #d9dee5; --paper: #fff; --good: #146c3a; --bad: #b3201a; --warn: #8a5a00; --ok-fill: #e7f5ec; --bad-fill: #fdeceb; --warn-fill: #fdf4e0; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f8; color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 28px 64px; background: var(--paper); min-height: 100vh; }
h1 { font-size: 30px; line-height: 1.2; margin: 4px 0 8px; }
h1.good { color: var(--good); }
h1.bad { color: var(--bad); }
h2 { font-size: 19px; margin: 32px 0 8px; }
h3 { font-size: 15px; margin: 14px 0 2px; text-transform: capitalize; }
p { margin: 4px 0; }
.kind { color: var(--soft); font-size: 12px; letter-spacing: .08em; text-transform: uppercase; }
.url { font-family: ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.why { background: var(--bad-fill); border-left: 4px solid var(--bad); padding: 8px 12px; margin: 12px 0; }
.facts, small, figcaption, .ids { color: var(--soft); font-size: 13px; }
figure { margin: 26px 0 8px; }
figcaption { margin-top: 6px; }
.hops { width: 100%; max-height: 190px; display: block; }
.hops rect { fill: #f2f4f7; stroke: #8894a3; stroke-width: 2; }
.hops .checked rect { fill: var(--ok-fill); stroke: var(--good); }
.hops .dropped rect, .hops .open rect, .hops .risky rect { fill: var(--bad-fill); stroke: var(--bad); stroke-width: 4; }
.hops .unclear rect, .hops .accepted rect { fill: var(--warn-fill); stroke: var(--warn); stroke-dasharray: 7 4; }
.hops .name { font-size: 17px; font-weight: 600; fill: var(--ink); }
.hops .word { font-size: 14px; fill: var(--soft); }
.hops .dropped .word, .hops .open .word, .hops .risky .word { fill: var(--bad); font-weight: 700; }
.hops .checked .word { fill: var(--good); }
.hops .shaft { stroke: #8894a3; stroke-width: 3; fill: none; }
.hops .head { fill: #8894a3; }
.hops .arrow.dropped .shaft, .hops .arrow.open .shaft { stroke: var(--bad); stroke-dasharray: 6 4; }
.hops .arrow.dropped .head, .hops .arrow.open .head { fill: var(--bad); }
.todo { border: 1px solid var(--bad); border-radius: 8px; padding: 4px 18px 12px; margin-top: 18px; }
.todo h2 { margin-top: 12px; }
ul { margin: 4px 0; padding-left: 22px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 8px 10px 8px 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
thead th { color: var(--soft); font-size: 12px; text-transform: uppercase; letter-spacing: .05em; }
tbody th { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px; font-weight: 600; width: 17%; }
td:nth-child(3) { width: 21%; } td:nth-child(4) { width: 13%; } td:nth-child(5) { width: 11%; }
.mark { display: inline-block; border-radius: 5px; padding: 1px 8px; font-size: 13px; border: 1px solid var(--line); white-space: nowrap; }
.mark.held { color: var(--good); background: var(--ok-fill); border-color: var(--good); }
.mark.broken { color: #fff; background: var(--bad); border-color: var(--bad); font-weight: 700; }
.mark.unclear, .mark.accepted { color: var(--warn); background: var(--warn-fill); border-color: var(--warn); }
.mark.untried, .mark.uncovered { color: var(--soft); }
@media screen and (max-width: 760px) {
  main { padding: 20px 14px 48px; }
  table, tbody, tr, td, tbody th, .todo { display: block; }
  thead { display: none; }
  tbody th, td, td:nth-child(n) { width: auto; border: 0; padding: 1px 0; }
  tr { border-bottom: 1px solid var(--line); padding: 10px 0; }
  td[data-is]:not(:empty)::before { content: attr(data-is) " "; color: var(--soft); font-size: 13px; }
  figure { overflow-x: auto; }
  .hops { min-width: 640px; }
}
@media print {
  body { background: none; font-size: 11px; }
  main { max-width: none; padding: 0; }
  h1 { font-size: 22px; } h2 { font-size: 15px; margin-top: 20px; } h3 { font-size: 12px; }
  .facts, small, figcaption, .ids, tbody th, .mark, thead th { font-size: 9.5px; }
  th, td { padding: 5px 8px 5px 0; }
  tr, .todo, figure { break-inside: avoid; }
  thead { display: table-header-group; }
  .mark, .hops rect { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
`
