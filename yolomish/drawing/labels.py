"""Names of classes and runs as pictures can show them."""

MOST_LETTERS = 60


def plot_label(text: str) -> str:
    """``text`` for matplotlib: ``$`` is a dollar and no formula, one line, no longer than a legend holds."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return (line if len(line) <= MOST_LETTERS else f"{line[: MOST_LETTERS - 1]}…").replace("$", r"\$")
