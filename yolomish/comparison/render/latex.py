"""The report's main tables as LaTeX that pdfLaTeX compiles, whatever the names in them hold."""

from __future__ import annotations

import unicodedata

from yolomish.comparison.render import tables, wording
from yolomish.comparison.render.numbers import NONE, percent
from yolomish.comparison.render.tables import Table
from yolomish.comparison.report import Report

SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
SPECIAL |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": "$<$", ">": "$>$", "|": "$|$"}
SPECIAL |= {"[": "{[}", "]": "{]}"}  # after a row's end or in an optional argument they would be LaTeX's own
SPECIAL |= {'"': r"{\char34}", "`": r"\textasciigrave{}"}  # babel's shorthand for German; the start of a quotation mark
SPECIAL |= {"ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ł": r"\l{}"}
SPECIAL |= {"Ł": r"\L{}", "ı": r"\i{}", "–": "--", "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''", "×": r"$\times$"}
SPECIAL |= {"²": "$^2$", "³": "$^3$", "°": r"$^\circ$", "≤": r"$\leq$", "≥": r"$\geq$", "→": r"$\rightarrow$"}
ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u0304": "=", "\u0307": "."}
ACCENTS |= {"\u0306": "u", "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c"}
OTHER = r"\otherscript"  # prints its first argument where the engine knows Unicode, else the second


def to_latex(report: Report) -> str:
    """Results, differences and, where measured, 8 bits as ``booktabs`` tables with short captions and labels, no wider than the
    text; what was not controlled and what the arms started from stand in the first."""
    lead = "" if report.controlled else f"NOT CONTROLLED ({', '.join(wording.not_controlled(report))}). "
    spread = "mean and standard deviation over trainings" if report.fewest > 1 else "one training in an arm, so no spread"
    first = " ".join((f"{lead}Validation {report.metric} x 100, {spread}.", *wording.starts(report)))
    shown = [d for d in report.primary if d.low is not None]
    level = f", {percent(shown[0].confidence)} intervals" if shown else ""
    found = [
        latex_table(tables.results(report), first, f"{report.metric} of the arms", "tab:arms"),
        latex_table(
            tables.differences(report),
            f"{lead}Differences of {report.metric} x 100{level}.",
            f"Differences of {report.metric}",
            "tab:differences",
        ),
    ]
    if report.eight_bits:
        third = f"{lead}AP x 100 in fp32 and in 8 bits, and time of one image. {' '.join(wording.eight_bits(report.eight_bits))}"
        found.append(latex_table(tables.eight_bits(report), third, "The arms in 8 bits", "tab:int8"))
    head = "% needs \\usepackage{booktabs,graphicx}\n"
    if any(OTHER in text for text in found):
        head += "% XeLaTeX and LuaLaTeX print other scripts, with a font that has them; pdfLaTeX prints their codes\n"
        head += f"\\providecommand{{{OTHER}}}[2]{{\\ifdefined\\Umathcode#1\\else#2\\fi}}\n"
    return head + "\n".join(found)


def latex_table(table: Table, caption: str, short: str, label: str) -> str:
    """Columns of numbers are aligned to the right, those of words to the left."""
    numeric = [
        all(any(c.isdigit() for c in row[j]) or row[j] == NONE for row in table.rows) and j > 0 for j in range(len(table.head))
    ]
    columns = "".join("r" if right else "l" for right in numeric)

    def cell(i: int, j: int, text: str) -> str:
        shown = escape(text)
        return f"\\textbf{{{shown}}}" if (i, j) in table.best else shown

    rows = "\n".join(" & ".join(cell(i, j, text) for j, text in enumerate(row)) + r" \\" for i, row in enumerate(table.rows))
    head = " & ".join(map(escape, table.head))
    return (
        "\\begin{table}\n\\centering\n\\small\n"
        f"\\caption[{escape(short)}]{{{escape(caption)}}}\n\\label{{{label}}}\n\\medskip\n"
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head} \\\\\n\\midrule\n{rows}\n"
        "\\bottomrule\n\\end{tabular}}\n\\end{table}\n"
    )


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    text = unicodedata.normalize("NFC", "".join(c if c.isprintable() else " " for c in text))
    return "".join(_character(c, text[i - 1 : i], text[i + 1 : i + 2]) for i, c in enumerate(text))


def _character(c: str, before: str, after: str) -> str:
    if c == "-":  # a minus, no dash of two hyphens
        return "$-$" if after.isdigit() and not (before.isalnum() or before == "_") else "-{}" if after == "-" else "-"
    if c.isascii() or c in SPECIAL:
        return SPECIAL.get(c, c)
    parts = unicodedata.normalize("NFD", c)
    if len(parts) == 2 and parts[0].isascii() and parts[1] in ACCENTS:
        return f"\\{ACCENTS[parts[1]]}{{{parts[0]}}}"
    words = unicodedata.name(c, "").lower().split()
    if words[:3] == ["greek", "small", "letter"] and len(words) == 4 and words[3] != "omicron":
        return f"$\\{words[3].replace('lamda', 'lambda')}$"
    return f"{OTHER}{{{c}}}{{U+{ord(c):04X}}}"
