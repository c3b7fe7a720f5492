"""The page's style sheet: light and dark, from phone to desktop, no outside fonts."""

CSS = """
:root{color-scheme:light dark;--ink:#1c2330;--soft:#5b6575;--line:#dde2ea;--card:#fff;--page:#f5f7fa;--mark:#0072b2}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf2;--soft:#a3adbb;--line:#38414f;--card:#1d242e;--page:#141920;
--mark:#56b4e9}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1200px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:1.6rem;margin:.2em 0 .6em;overflow-wrap:anywhere}h2{font-size:1.15rem;margin:0 0 .4em}
h3{font-size:.95rem;margin:1em 0 .4em;font-weight:600;overflow-wrap:anywhere}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;margin:16px 0}
.headline{border-left:6px solid var(--mark);font-size:1.12rem}.headline p{margin:.4em 0;overflow-wrap:anywhere}
.headline .declared{font-size:.94rem;color:var(--soft)}
.badge{display:inline-block;padding:2px 12px;border-radius:99px;background:var(--mark);color:#fff;font-weight:600}
@media(prefers-color-scheme:dark){.badge{color:#10151b}}
.bad{border-left-color:#c62828}.bad .badge{background:#c62828;color:#fff}
.note{color:var(--soft);margin:0 0 .7em;font-size:.94rem;overflow-wrap:anywhere}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:7px 12px 7px 0;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:600}td:last-child{white-space:normal;min-width:6.5em}tr:last-child td{border-bottom:0}
.wrap td{white-space:normal}.wrap td:last-child{overflow-wrap:anywhere}
.limits{border-left:6px solid #e69f00}.limits ul{margin:.2em 0;padding-left:1.2em}
img{display:block;width:100%;height:auto;background:#fff;border-radius:6px}
.plots{display:grid;grid-template-columns:1fr 1fr;gap:16px;align-items:start}
.plots .wide,.plots figure:only-child{grid-column:1/-1}
.plots figure:only-child{max-width:760px;width:100%;justify-self:center}.plots .wide:only-child{max-width:none}
figure{margin:0}.row{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px}
figcaption{color:var(--soft);font-size:.9rem;margin-top:6px}
pre{overflow-x:auto;background:var(--page);border:1px solid var(--line);border-radius:6px;padding:12px;margin:0;font-size:.85rem}
summary{cursor:pointer;font-weight:600}details[open] summary{margin-bottom:.7em}
@media(max-width:720px){td:last-child{white-space:nowrap}.wrap td:last-child{white-space:normal}
main{padding:12px 10px 40px}section{padding:14px}.plots{grid-template-columns:minmax(0,1fr)}
body{font-size:15px}h1{font-size:1.35rem}.row{grid-template-columns:minmax(0,1fr)}}
@media print{body{background:#fff}section{break-inside:avoid;border-color:#ccc}}
"""
