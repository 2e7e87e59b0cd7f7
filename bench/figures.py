#!/usr/bin/env python3
"""What bench/python measured, shown: goals, the table, and the chart, a plain SVG. All of it is made of the JSON that
bench/python writes, so that it can be drawn again without measuring again:

    bench/figures.py RESULTS.json FOLDER

writes figures.svg there, and puts the table into benchmarks.md between two comments, where that has them.

The JSON: {"machine": {...}, "quick": ..., "sections": {section: {row: {"values": [one a round], "each": [...]}}}};
`each` is what the row cost itself, where the values are ratios."""

import html
import json
import os
import statistics
import sys
import textwrap

UVLOOP = "over uvloop's protocol server"
STANDARD = "the standard library's"

# section: what its values are, digits, what `each` is and its digits. The order is that of the chart and the table.
SECTIONS = {
    "instructions": ("instructions a 64-byte message", 0, None),
    "echo": (f"CPU time a 64-byte message, {UVLOOP}", 3, ("us a message", 2)),
    "idle": (f"CPU time a message among {{idle}} idle connections, {UVLOOP}", 3, ("us a message", 2)),
    "served": ("idle connections, each still there after a message came through", 0, None),
    "lines": (f"64-byte lines a second, over {STANDARD}", 2, ("us a line", 3)),
    "replies": (f"64-byte lines answered a second, over {STANDARD}", 2, ("us a line", 2)),
    "bulk": (f"bytes a second through a forwarder, over {STANDARD}", 2, ("ns a kB", 0)),
    "sends": (f"{{sends}} sends of 1,000 bytes while the peer sleeps: time over {STANDARD}", 4, ("s", 4)),
    "accept": ("CPU time of accepting the 10,000th connection over the 100th", 3, ("us each of the last", 2)),
    "memory": ("bytes an idle connection", 0, None),
}
ROWS = {"control": "control", "ours": "libasyncore", "pure": "libasyncore, Python alone", "stdlib": "standard library",
        "uvloop": "uvloop, protocol", "asyncio": "asyncio, protocol", "bare": "bare epoll loop in C"}
AT_LEAST = ("served", "lines", "bulk")
GOALS = {("instructions", version): 4500 if version == "3.11" else 5500
         for version in ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")}
GOALS.update({("echo", "ours"): 0.95, ("idle", "ours"): 1.0, ("served", "ours"): 19000, ("lines", "ours"): 4.0,
              ("bulk", "ours"): 1.2, ("sends", "ours"): 0.01, ("accept", "ours"): 1.2})


class Figure:
    """One value of the results, with its range, its goal, and the texts of all that."""

    def __init__(self, results, section, row):
        entry = results["sections"][section][row]
        self.section, self.row, self.rounds = section, row, len(entry["values"])
        self.name = ROWS.get(row) or f"libasyncore, Python {row}"
        self.ours = row not in ROWS or row == "ours"
        self.value = statistics.median(entry["values"])
        self.low, self.high = min(entry["values"]), max(entry["values"])
        self.each = statistics.median(entry["each"]) if entry.get("each") else None
        self.bound = entry.get("bound", False)  # what it is compared with was not waited for: the ratio is less
        # Ratios to something else than the goal is about, as where uvloop is missing, meet nothing.
        known = section not in results["machine"].get("bases", {})
        self.goal = GOALS.get((section, row)) if known else None
        self.digits = SECTIONS[section][1]

    def text(self, value):
        return f"{value:,.{self.digits}f}"

    def value_text(self):
        return ("< " if self.bound else "") + self.text(self.value)

    def range_text(self):
        return f"{self.text(self.low)} to {self.text(self.high)}" if self.rounds > 1 else ""

    def each_text(self):
        unit = SECTIONS[self.section][2]
        return f"{self.each:,.{unit[1]}f}" if unit and self.each is not None else ""

    def met(self):
        if self.section in AT_LEAST:
            return round(self.value, self.digits) >= self.goal
        return round(self.value, self.digits) <= self.goal

    def goal_text(self):
        if self.goal is None:
            return ""
        goal = f"{self.goal:,}" if isinstance(self.goal, int) else f"{self.goal:g}"
        return ("at least " if self.section in AT_LEAST else "at most ") + goal

    def verdict(self):
        return ("met" if self.met() else "MISSED") if self.goal is not None else ""


def title(results, section):
    text = SECTIONS[section][0].format(idle=f"{results['machine'].get('idle', 0):,}",
                                       sends=f"{results['machine'].get('sends', 0):,}")
    base = results["machine"].get("bases", {}).get(section)
    return f"{text} (here over {base})" if base else text


def all_figures(results):
    """(section, its figures) in order."""
    for section in SECTIONS:
        rows = results["sections"].get(section, {})
        if rows:
            yield section, [Figure(results, section, row) for row in rows]


# -- The table --------------------------------------------------------------------------------------------------------


def machine_text(machine):
    return (f"{machine['processor']}, {machine['processors']} processors that are shared with others, Linux"
            f" {machine['kernel']}; Python {machine['python']}, uvloop {machine['uvloop'] or 'missing'}")


def row_of(cells):
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def table(results):
    about = f"Measured on {machine_text(results['machine'])}." + (" A quick look." if results["quick"] else "")
    lines = [textwrap.fill(about, 120), "", "| | | range | cost | goal | |", "| --- | ---: | ---: | ---: | --- | --- |"]
    for section, figures in all_figures(results):
        unit = SECTIONS[section][2]
        lines.append(row_of([f"**{title(results, section)}**", "", "", unit[0] if unit else "", "", ""]))
        for figure in figures:
            lines.append(row_of([figure.name, figure.value_text(), figure.range_text(), figure.each_text(),
                                 figure.goal_text(), figure.verdict()]))
    return "\n".join(lines) + "\n"


# -- The chart --------------------------------------------------------------------------------------------------------

WIDTH, LEFT, BAR, NUMBERS = 860, 190, 400, 672  # of the picture; where bars begin, their room, where numbers end
ROW, HEAD, MARGIN = 19, 34, 14
STYLE = """
text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #24292f }
.page { fill: #ffffff } .title { font-weight: 600; font-size: 13px } .small { font-size: 11px; fill: #57606a }
.room { fill: #eaeef2 } .ours { fill: #1a7f64 } .missed { fill: #bc4c00 } .other { fill: #8c959f }
.goal { stroke: #cf222e; stroke-width: 2 } .same { stroke: #57606a; stroke-dasharray: 2 2 }
.range { stroke: #24292f; stroke-width: 1.2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .page { fill: #0d1117 } .small { fill: #9198a1 } .room { fill: #21262d }
  .ours { fill: #3fb68b } .missed { fill: #f0883e } .other { fill: #6e7681 }
  .goal { stroke: #ff7b72 } .same { stroke: #9198a1 } .range { stroke: #e6edf3 }
}"""


def shape(name, **attributes):
    return f"<{name} " + " ".join(f'{key.rstrip("_")}="{value}"' for key, value in attributes.items()) + "/>"


def words(x, y, text, class_="", anchor="start"):
    return f'<text x="{x}" y="{y}" class="{class_}" text-anchor="{anchor}">{html.escape(text)}</text>'


def bar(figure, scale, y):
    """A row: name, bar with its range and goal, numbers. A bar that is too long for the scale ends in a gap."""
    kind = "other" if not figure.ours else "missed" if figure.goal is not None and not figure.met() else "ours"

    def place(value):
        return round(LEFT + min(value / scale, 1) * BAR, 1)

    middle, end = y + ROW / 2, place(figure.value)
    parts = [words(LEFT - 8, y + 14, figure.name, anchor="end"),
             shape("rect", x=LEFT, y=y + 3, width=BAR, height=ROW - 6, class_="room"),
             shape("rect", x=LEFT, y=y + 3, width=max(1, round(end - LEFT, 1)), height=ROW - 6, class_=kind)]
    if figure.value > scale:
        parts.append(shape("rect", x=LEFT + BAR - 14, y=y + 3, width=5, height=ROW - 6, class_="page"))
    elif place(figure.high) - place(figure.low) > 3:
        parts.append(shape("line", x1=place(figure.low), x2=place(figure.high), y1=middle, y2=middle, class_="range"))
    if figure.section != "instructions" and scale > 1:
        parts.append(shape("line", x1=place(1), x2=place(1), y1=y, y2=y + ROW, class_="same"))
    if figure.goal is not None:
        x = place(figure.goal)
        parts.append(shape("line", x1=x, x2=x, y1=y, y2=y + ROW, class_="goal"))
    parts.append(words(NUMBERS, y + 14, figure.value_text(), "title", "end"))
    if figure.goal is not None:
        parts.append(words(NUMBERS + 14, y + 14, f"goal: {figure.goal_text()}, {figure.verdict()}", "small"))
    elif figure.range_text():
        parts.append(words(NUMBERS + 14, y + 14, figure.range_text(), "small"))
    return parts


def scale_of(figures):
    """What the whole room for a bar is worth: ours and the goals decide, the others may be cut."""
    ours = [figure.value for figure in figures if figure.ours]
    goals = [figure.goal for figure in figures if figure.goal is not None]
    return max(max(ours or [figure.value for figure in figures]) * 1.4, max(goals or [0]) * 1.4, 1e-9)


def chart(results):
    parts, y = [], MARGIN
    for section, figures in all_figures(results):
        figures = [figure for figure in figures if figure.row != "control"]
        if section in ("served", "memory") or not figures:
            continue
        heading = title(results, section)
        parts.append(words(MARGIN, y + 20, heading[0].upper() + heading[1:], "title"))
        y += HEAD - 4
        scale = scale_of(figures)
        for figure in figures:
            parts += bar(figure, scale, y)
            y += ROW
        y += MARGIN
    legend = ("Medians. Red line: the goal; dashed: 1, the same; thin line: from the least to the greatest; a bar with"
              " a gap is longer.")
    parts += [words(MARGIN, y + 12, legend, "small"), words(MARGIN, y + 29, machine_text(results["machine"]), "small")]
    y += 42
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img"'
            f' aria-label="The figures of the Python package beside their goals">\n<style>{STYLE}\n</style>\n'
            + shape("rect", width=WIDTH, height=y, rx=8, class_="page") + "\n" + "\n".join(parts) + "\n</svg>\n")


# -- Files ------------------------------------------------------------------------------------------------------------

MARKS = "<!-- figures: bench/figures.py writes what is between here -->", "<!-- and here -->"


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def put_between_marks(page, text):
    before, mark, rest = page.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    return before + mark + "\n\n" + text + "\n" + end + after if end else page


def show(results, folder):
    """Draws the chart there, and puts the table into the page that waits for it."""
    write(os.path.join(folder, "figures.svg"), chart(results))
    page = os.path.join(folder, "benchmarks.md")
    if os.path.exists(page):
        with open(page) as file:
            old = file.read()
        write(page, put_between_marks(old, table(results)))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: figures.py RESULTS.json FOLDER")
    with open(sys.argv[1]) as results:
        show(json.load(results), sys.argv[2])
