"""Names of classes and runs as pictures can show them."""

MOST_LETTERS = 60


def plot_label(text: str, most: int = MOST_LETTERS) -> str:
    """``text`` for matplotlib: ``$`` is a dollar and no formula, one line, no longer than a legend holds, or ``most`` letters."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return (line if len(line) <= most else f"{line[: most - 1]}…").replace("$", r"\$")
