"""The page's own style and the one script it has: a click on a header sorts the table."""

#: Of what is drawn, on the page and in files of their own.
DRAWING = """
text{fill:var(--dim);font-size:11px;font-family:inherit}.name,.label{fill:var(--fg)}.on{fill:var(--bg)}
.grid{stroke:var(--line);stroke-width:1}.axis{stroke:var(--dim)}.line{fill:none;stroke-width:2}.whisker{stroke:var(--fg);stroke-width:1.5}
.bar.up{fill:var(--up)}.bar.down{fill:var(--down)}
.cell.up{fill:var(--c0)}.cell.down{fill:var(--c1)}.many{fill-opacity:.55}
.dashed{stroke-dasharray:5 4}.dotted{stroke-dasharray:2 2.5}.mixed{stroke-dasharray:6 2 2 2}.none{color:var(--dim)}
""" + "".join(
    f".line.c{i}{{stroke:var(--c{i})}}.dot.c{i}{{fill:var(--c{i})}}.swatch.c{i}{{background:var(--c{i});fill:var(--c{i})}}"
    for i in range(8)
)

STYLE = (
    """
:root{color-scheme:light dark;
--fg:#1c2128;--dim:#667080;--bg:#fff;--card:#f6f7f9;--line:#d9dde3;--up:#1a7f4b;--down:#c2402d;
--c0:#3366cc;--c1:#d9541e;--c2:#1a7f4b;--c3:#9034b5;--c4:#b58900;--c5:#0d8ea3;--c6:#c2337e;--c7:#6b6f76}
@media(prefers-color-scheme:dark){:root{--fg:#e4e7ec;--dim:#98a2b3;--bg:#14171c;--card:#1d2129;--line:#353b45;
--up:#4cc38a;--down:#f2786a;
--c0:#7aa2f7;--c1:#ff9e64;--c2:#6ccb8b;--c3:#c792ea;--c4:#e0c074;--c5:#5fd0e0;--c6:#f28fb8;--c7:#a6adb8}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}
main{max-width:1100px;margin:0 auto;padding:20px 16px 60px}h1{font-size:1.35rem;overflow-wrap:anywhere}
h2{font-size:1.05rem;margin:28px 0 10px}summary h2{display:inline}details{margin-top:24px}
pre{background:var(--card);padding:14px;border-radius:8px;white-space:pre-wrap;overflow-wrap:anywhere;font-size:.9rem;line-height:1.45}
@media(max-width:600px){pre{padding:10px;font-size:.7rem}}
.scroll{overflow-x:auto}.plots+.scroll{margin-top:16px}table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:5px 12px 5px 0;border-bottom:1px solid var(--line);white-space:nowrap;text-align:left}
th{cursor:pointer;color:var(--dim);font-weight:600}th.n,td.n{text-align:right}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr));gap:16px}
figure{margin:0;background:var(--card);border-radius:8px;padding:12px}figcaption{font-size:.88rem;color:var(--dim);margin-bottom:6px}
.told{margin:-4px 0 6px;font-size:.82rem;color:var(--dim)}
svg{width:100%;height:auto;display:block}
.legend{margin:6px 0 0;font-size:.82rem;
display:flex;flex-wrap:wrap;gap:4px 14px}.key{display:inline-flex;align-items:center;gap:6px}
.swatch{flex:none;width:12px;height:12px;border-radius:3px;display:inline-block}
i.dashed,i.dotted,i.mixed{background-image:linear-gradient(90deg,transparent 60%,var(--card) 60%)!important}
i.dashed{background-size:6px!important}i.dotted{background-size:3px!important}i.mixed{background-size:9px!important}
"""
    + DRAWING
)

SCRIPT = """
for(const table of document.querySelectorAll('table'))table.tHead.addEventListener('click',event=>{
const head=event.target.closest('th');if(!head)return;const i=head.cellIndex,body=table.tBodies[0];
const up=head.dataset.up=head.dataset.up==='1'?'0':'1';const key=row=>row.cells[i].dataset.sort;
const rows=[...body.rows].sort((a,b)=>{const x=key(a),y=key(b),n=parseFloat(x)-parseFloat(y);
if(x===''||y==='')return x===y?0:x===''?1:-1;return (Number.isNaN(n)?x.localeCompare(y):n)*(up==='1'?1:-1)});
body.append(...rows)});
"""
