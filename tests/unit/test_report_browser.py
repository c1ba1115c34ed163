# SPDX-License-Identifier: LGPL-2.1-or-later
"""The report as readers get it: in Chromium, on a phone, in the dark, in print, and by a screen reader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from oomslice.report.page import page
from tests.unit.chromium import Browser
from tests.unit.test_report import HOSTILE, hostile_report, report_of_a_ladder, two_decisions

CONTRASTS = """(() => {
  const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const colour = text => text.match(/[0-9.]+/g).map(Number);
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const c = colour(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const ratio = (a, b) => { const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05); };
  const bad = [];
  for (const element of document.querySelectorAll('body *')) {
    const style = getComputedStyle(element);
    const has = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    const svg = element instanceof SVGElement;
    const checks = [];
    if (has && !svg) checks.push(['text', style.color, 4.5]);
    if (svg && element.tagName === 'text') checks.push(['text', style.fill, 4.5]);
    if (svg && element.matches('.line, .limit, .dot')) checks.push(['stroke', style.stroke, 3]);
    if (svg && element.matches('.bar')) checks.push(['bar', style.fill, 3]);
    for (const [what, c, least] of checks) {
      const r = ratio(colour(c), ground(element.closest('svg') || element));
      if (r < least) bad.push(`${what} ${element.tagName}.${element.getAttribute('class')}: ${r.toFixed(2)}`);
    }
  }
  return bad;
})()"""
SMALL_TEXT = """[...document.querySelectorAll('svg text')].map(e => parseFloat(getComputedStyle(e).fontSize)
  * e.ownerSVGElement.getBoundingClientRect().width / e.ownerSVGElement.viewBox.baseVal.width)
  .filter(size => size < 9)"""
SIDEWAYS = "document.documentElement.scrollWidth - window.innerWidth"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "ladder.html"
    path.write_text(page(report_of_a_ladder()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "hostile.html"
    path.write_text(page(hostile_report()), encoding="utf-8")
    return path


def test_the_page_loads_nothing_and_the_console_is_empty(browser: Browser, ladder: Path) -> None:
    browser.open(ladder)
    assert browser.requested == [ladder.as_uri()]
    assert browser.complaints == []
    assert browser.evaluate("document.compatMode") == "CSS1Compat"


def test_hostile_names_load_and_run_nothing(browser: Browser, hostile: Path) -> None:
    browser.open(hostile)
    assert browser.requested == [hostile.as_uri()]
    assert browser.complaints == []
    assert browser.evaluate("document.querySelectorAll('script, img, iframe, b, [onerror], [onload]').length") == 0
    assert browser.evaluate("'hacked' in window") is False
    shown = browser.evaluate("[...document.querySelectorAll('tbody th bdi')].map(e => e.textContent)")
    assert set(HOSTILE) - {name for name in HOSTILE if not name.isprintable()} <= set(shown)


def test_a_screen_reader_finds_headings_tables_and_described_pictures(browser: Browser, ladder: Path) -> None:
    for width in (1100, 375):
        browser.open(ladder, width=width)
        assert len(browser.by_role("main")) == 1
        headings = [heading["name"] for heading in browser.by_role("heading")]
        assert headings[0] == "Memory was short, and hog.service did not have to die"
        assert {"What happened", "Course", "Who was looked at", "Settings in force"} <= set(headings)
        names = [table["name"] for table in browser.by_role("table")]
        assert "Candidates in the order of the choice" in names
        assert "Settings of hog.service" in names
        columns = [header["name"] for header in browser.by_role("columnheader")]
        assert columns.count("Reason") == 1, width
        assert "hog.service" in [header["name"] for header in browser.by_role("rowheader")]
        pictures = {picture["name"]: picture["description"] for picture in browser.by_role("image")}
        assert set(pictures) == {
            "What was done when",
            "Memory of the machine",
            "Memory of units",
            "Pressure: time lost waiting for memory",
        }
        assert "3 reclaim (64.0 MiB): late, 2.0 s" in pictures["What was done when"]
        assert "hog.service: 60.0 MiB at first" in pictures["Memory of units"]


@pytest.mark.parametrize("width", [320, 375, 1100])
def test_nothing_is_wider_than_the_window_and_text_in_pictures_is_readable(
    browser: Browser, ladder: Path, hostile: Path, width: int
) -> None:
    for path in (ladder, hostile):
        browser.open(path, width=width)
        assert browser.evaluate(SIDEWAYS) <= 0, path.name
        assert browser.evaluate(SMALL_TEXT) == [], path.name


@pytest.mark.parametrize(("scheme", "media"), [("light", "screen"), ("dark", "screen"), ("dark", "print")])
def test_text_and_lines_stand_out_from_the_ground(browser: Browser, ladder: Path, scheme: str, media: str) -> None:
    browser.open(ladder, scheme=scheme, media=media)
    assert browser.evaluate(CONTRASTS) == []
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light" or media == "print")


def test_several_decisions_are_reached_from_the_list(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "two.html"
    path.write_text(page(two_decisions()), encoding="utf-8")
    browser.open(path)
    assert browser.evaluate("[...document.querySelectorAll('main a')].every(a => document.querySelector(a.hash))")
    first, *_ = [region["name"] for region in browser.by_role("region")]
    assert first == "hog.service was killed because memory was short"
    ids = browser.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
