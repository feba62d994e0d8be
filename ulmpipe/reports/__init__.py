"""A training's report: one HTML file that needs nothing else, no network and no other file.

    facts.py   what a run knows of itself, as report.json       charts.py   its numbers, drawn as SVG
    page.py    the files of a run folder -> report.html         page.html   how it looks
    timing.py  where the seconds went                   marks.css   how words that mattered look

Between the trainings (tasks/report.py, vision/report.py), which write down the facts, and a browser. Knows nothing of texts and
pictures: a run is words, numbers and names of files. Measures nothing.
"""

from pathlib import Path

MARKS = Path(__file__).with_name("marks.css")  # for a notebook and the page of `serve` too
