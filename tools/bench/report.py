#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Prints the results of tools/bench.sh as ratios to esp4.

usage: tools/bench/report.py table|rst|check FOLDER ...

Each FOLDER has the name and the consoles of one column. table draws the first column as
bars. rst prints all columns for Documentation/performance.rst. check compares the first
column with that page, in KTAP: a ratio must not be more than a tenth higher.
"""
import itertools
import pathlib
import re
import sys

PAGE = pathlib.Path(__file__).parents[2] / "Documentation/performance.rst"
TOLERANCE = 1.1
SCALE, LONGEST = 15, 36    # characters of a bar for a ratio of 1, and of any bar
MACHINES = "default", "offload", "many"
PATHS = {"out 64": "out-64", "out 1400": "out-1400", "in 64": "in-64",
         "in 1400": "in-1400", "TCP": "tcp"}
CASES = {f"{prefix}{mode} {label}": (setting, mode, path)
         for (setting, prefix), mode, (label, path) in itertools.product(
             (("default", ""), ("offload", "offload ")), ("transport", "tunnel"),
             PATHS.items())}
MEMORY, SCALING = "bytes per SA", "tunnel in 64, 100,000 SAs"
LABELS = [*CASES, MEMORY, SCALING]


class Column:
    """The results of one kind of machine."""

    def __init__(self, folder):
        self.name = pathlib.Path(folder).name
        self.value, self.lost = {}, {}
        for file in (pathlib.Path(folder, setting) for setting in MACHINES):
            if not file.exists():
                continue
            for line in file.read_text(errors="replace").splitlines():
                if m := re.search(r"RESULT (\S+ \S+ \S+ \S+) (\d+) (\d+)", line):
                    case = tuple(m[1].split())
                    self.value[case], self.lost[case] = int(m[2]), int(m[3])
                elif "COMPLAINT" in line:
                    print(f"{file}: {line}", file=sys.stderr)

    def total(self, setting, kind, mode, path):
        """Returns the instructions per packet; raises KeyError without a result."""
        if path.startswith("in-"):
            size = path[3:]
            return (self.value[setting, kind, mode, f"both-{size}"] -
                    self.value[setting, kind, mode, f"out-{size}"])
        return self.value[setting, kind, mode, path]

    def costs(self, label):
        """Returns the cost of plain IP, and the extra cost of esp4 and of minesp. For many
        SAs: the extra cost of minesp with one SA, and with many."""
        if label == MEMORY:
            return 0, *(self.total("many", kind, "tunnel", "memory")
                        for kind in ("esp4", "minesp"))
        if label == SCALING:
            setting, mode, path = "many", "tunnel", "in-64"
            kinds = "none", "minesp", "many"
        else:
            setting, mode, path = CASES[label]
            kinds = "none", "esp4", "minesp"
        plain, *others = (self.total(setting, kind, mode, path) for kind in kinds)
        return plain, *(other - plain for other in others)

    def ratio(self, label):
        """Returns None without a result."""
        try:
            _, before, after = self.costs(label)
        except KeyError:
            return None
        return after / before


def page():
    """Returns {label: {heading: figure}} of the table of results in performance.rst."""
    rows = [re.split(r"  +", line) for line in PAGE.read_text().splitlines()]
    heading = next((row for row in rows if row[:2] == ["case", "goal"]), [])
    return {row[0]: {name: float(cell) for name, cell in zip(heading[1:], row[1:])
                     if re.fullmatch(r"[\d.]+", cell)}
            for row in rows if row[0] in LABELS and len(row) == len(heading)}


def bar(ratio, goal):
    """Returns a bar with : at the goal, and | at 1."""
    line = list(("#" * min(round(ratio * SCALE), LONGEST)).ljust(SCALE + 1))
    line[SCALE] = "|"
    if goal:
        line[round(goal * SCALE)] = ":"
    return "".join(line)


def table(columns):
    column, known = columns[0], page()
    print(f"\n{column.name:26}{'plain':>7}{'+esp4':>8}{'+minesp':>8}  ratio  goal  "
          f"{'':{SCALE}}1")
    for label in LABELS:
        ratio = column.ratio(label)
        if ratio is None:
            continue
        plain, before, after = column.costs(label)
        goal = known.get(label, {}).get("goal")
        print(f"{label:26}{plain or '':>7}{before:8,}{after:8,}{ratio:7.2f}"
              f"{goal and f'{goal:.2f}' or '':>6}  {bar(ratio, goal)}")
    for case, lost in column.lost.items():
        if lost:
            print(f"{lost} packets were lost: {' '.join(case)}")


def rst(columns):
    known = page()
    rows = [["case", "goal", *(column.name for column in columns)]]
    for label in LABELS:
        goal = known.get(label, {}).get("goal")
        ratios = [column.ratio(label) for column in columns]
        rows.append([label, *("-" if figure is None else f"{figure:.2f}"
                              for figure in (goal, *ratios))])
    widths = [max(map(len, cells)) for cells in zip(*rows)]
    line = "  ".join("=" * width for width in widths)
    rows = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    print(line, rows[0], line, *rows[1:], line, sep="\n")


def check(columns):
    column, known = columns[0], page()
    status = 0
    for label in CASES:
        ratio = column.ratio(label)
        named = {name: figure for name, figure in known.get(label, {}).items()
                 if name[0].isdigit()}
        # A kernel that the page does not have is compared with the page's newest.
        expected = named.get(column.name, [*named.values()][-1])
        good = ratio is not None and ratio <= TOLERANCE * expected
        print(f"{'ok' if good else 'not ok'} {label}: {ratio or float('nan'):.2f}, "
              f"{expected:.2f} in performance.rst")
        status |= not good
    good = not any(lost for case, lost in column.lost.items() if "minesp" in case)
    print(f"{'ok' if good else 'not ok'} minesp loses no packet")
    return status or not good


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("table", "rst", "check"):
        sys.exit(__doc__)
    sys.exit(globals()[sys.argv[1]]([Column(folder) for folder in sys.argv[2:]]))
