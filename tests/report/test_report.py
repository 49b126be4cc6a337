"""The report in a real browser, with and without JavaScript."""

import json
import re
import shutil
from dataclasses import replace

import jaxtyping
import pytest
import torch

from commutant.evidence import Task, judge_runs, record, run_task
from commutant.laws import Invariance, SetPermutation, StatedLaw
from commutant.papers import paper
from commutant.report import _build, build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def site(tmp_path_factory, request):
    """Build the whole site; by default only the page that the tests read shows laws, which take long to check."""
    root = tmp_path_factory.mktemp("site")
    for seed in range(2):
        for experiment in ("batch-dependence",):
            assert run_task(Task("commutant.papers.lcm", experiment, "small", seed, str(root / "runs"))) is None
    jaxtyping.config.update("jaxtyping_disable", True)  # laws run for the pages; other tests check annotations
    check = _build._laws
    try:
        if not request.config.getoption("deep"):
            _build._laws = lambda shown: check(shown) if shown.slug == "lcm" else []
        return build(root / "runs", root / "report", results=root / "results").parent
    finally:
        _build._laws = check
        jaxtyping.config.update("jaxtyping_disable", False)


def test_the_worst_case_of_a_law_is_shown():
    def case(draw):
        first = lambda x: x.sum(1) + 0.1 * x[:, 0] * (draw.size > 5)  # noqa: E731  no symmetry on larger sets
        return Invariance(SetPermutation(1)), first, (draw.normal(4, draw.size, draw.width),)

    row = _build._check_law(StatedLaw(torch.sum, "order", case, holds=True))
    assert not row.agrees
    assert row.worst > 1e-3
    assert row.expected == "holds"


def test_pages_are_self_contained_and_say_what_was_found(site):
    index, page = (site / "index.html").read_text(), (site / "lcm.html").read_text()
    for text in (index, page):
        loaded = re.findall(r'(?:src|href)="([^"]+)"', text)
        assert not [a for a in loaded if a.startswith("http") and "arxiv" not in a]
        assert "<script src" not in text
        assert "@import" not in text
    assert "Learnable Commutative Monoids" in index
    assert 'id="batch-dependence"' in page
    assert "not run" in page  # the claims without runs are listed too
    assert "as stated" in page
    assert "not as stated" not in page
    assert "commutant.sets" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_a_single_seed_has_no_interval_and_still_a_page(tmp_path, monkeypatch):
    over_seeds = [replace(c, basis="seeds", cases=None) for c in paper("lcm").claims if c.name == "batch-dependence"]
    monkeypatch.setattr("commutant.papers.lcm.PAPER", replace(paper("lcm"), claims=tuple(over_seeds)))
    assert run_task(Task("commutant.papers.lcm", "batch-dependence", "small", 0, str(tmp_path / "runs"))) is None
    build(tmp_path / "runs", tmp_path / "report", results=tmp_path, check_laws=False)
    page = (tmp_path / "report" / "lcm.html").read_text(encoding="utf-8")
    assert "<dd>none</dd>" in page
    assert "A verdict needs at least 3 seeds, there is 1" in page


def test_claims_that_were_not_run_are_shown_from_their_records(tmp_path):
    lcm = paper("lcm")
    (claim,) = (claim for claim in lcm.claims if claim.name == "batch-dependence")
    for seed in range(3):
        assert run_task(Task("commutant.papers.lcm", "batch-dependence", "small", seed, str(tmp_path / "runs"))) is None
    path = record(judge_runs(lcm, claim, "small", tmp_path / "runs"), tmp_path / "results")
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "date": "2001-02-03", "hardware": "an abacus"}))
    for runs, recorded in (("nowhere", True), ("runs", False)):
        build(tmp_path / runs, tmp_path / "report", results=tmp_path / "results", check_laws=False)
        page = (tmp_path / "report" / "lcm.html").read_text(encoding="utf-8")
        assert ("Recorded on 2001-02-03 on an abacus, not run here" in page) == recorded
        assert ('<span class="chip plain">1 recorded</span>' in page) == recorded
        assert "not run" in page  # the claims without either
        assert claim.statement in page


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
class TestInABrowser:
    def page(self, browser, **options):
        page = browser.new_context(**options).new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        return page

    def test_opens_filters_and_stays_on_the_page(self, browser, site):
        page = self.page(browser)
        page.goto(f"file://{site}/index.html")
        cards = page.locator("a.card")
        assert cards.count() >= 1
        lcm = page.locator("a.card[href*='lcm']")
        page.fill("#query", "monoids")
        assert lcm.is_visible()
        assert cards.locator("visible=true").count() == 1
        page.fill("#query", "zebra")
        assert not lcm.is_visible()
        assert page.locator("#nothing").is_visible()
        page.fill("#query", "")
        page.select_option("#verdict", "refuted")
        assert cards.locator("visible=true").count() <= cards.count()
        page.select_option("#verdict", "")
        page.select_option("#room", "sets")
        assert lcm.is_visible()
        lcm.click()
        assert page.url.endswith("lcm.html")
        assert page.locator("h2#laws").is_visible()
        assert page.said == []
        assert all(url.startswith(("file://", "data:")) for url in page.asked)

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_fits_a_phone(self, browser, site, scheme):
        page = self.page(browser, viewport={"width": 375, "height": 740}, color_scheme=scheme)
        for name in ("index", "lcm"):
            page.goto(f"file://{site}/{name}.html")
            assert page.evaluate("document.documentElement.scrollWidth") <= 375
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(re.findall(r"\d+", colour)[0]) < 80) == (scheme == "dark")

    def test_readable_without_javascript(self, browser, site):
        page = self.page(browser, java_script_enabled=False)
        page.goto(f"file://{site}/index.html")
        assert page.locator("a.card").first.is_visible()
        assert not page.locator(".filters").is_visible()
