"""Text of every claim: a statement that stands alone, an effect with a unit, words for each reported figure."""

import re

import pytest

from commutant.papers import papers

PAPERS = [pytest.param(paper, id=paper.slug) for paper in papers()]
LEANING = re.compile(r"(And|But|It|Its|They|Their|Them|This|These|That|Those|Such|Here|There|So|Too|Also)\b")
NUMBERS = re.compile(
    r"(\d|(Half|One|Two|Three|Four|Five|Six|Seven|Eight|Nine|Ten|Eleven|Twelve|Twenty|Thirty|Forty|Fifty|Sixty|Seventy|"
    r"Eighty|Ninety|Hundred|Thousand)\b)"
)
LONGEST = 35  # words


@pytest.mark.parametrize("paper", PAPERS)
def test_a_statement_reads_alone(paper):
    for claim in paper.claims:
        assert re.fullmatch(r"[A-Z].*\.", claim.statement), claim.statement
        assert not LEANING.match(claim.statement), claim.statement
        assert not NUMBERS.match(claim.statement), claim.statement
        assert len(claim.statement.split()) <= LONGEST, claim.statement
    assert len({claim.statement for claim in paper.claims}) == len(paper.claims)


@pytest.mark.parametrize("paper", PAPERS)
def test_an_effect_has_a_unit_and_says_what_is_compared(paper):
    for claim in paper.claims:
        assert re.fullmatch(r".*[^.]", claim.unit), f"{claim.name}: tables write the unit behind the number"
        assert re.fullmatch(r"(\S+ ){3,}.*[^.]", claim.effect_label), claim.effect_label
        assert not LEANING.match(claim.effect_label.capitalize()), claim.effect_label


@pytest.mark.parametrize("paper", PAPERS)
def test_every_reported_figure_has_words(paper):
    for claim in paper.claims:
        assert claim.labels.keys() == claim.reported.keys(), claim.name
        assert len(set(claim.labels.values())) == len(claim.labels), f"{claim.name}: two figures by the same words"


@pytest.mark.parametrize("paper", PAPERS)
def test_a_claim_can_be_refuted_at_scales_that_it_has(paper):
    for claim in paper.claims:
        assert {"full"} <= set(claim.refutable_at) <= set(claim.experiment.settings), claim.name
        assert claim.basis != "identity" or "small" in claim.refutable_at, f"{claim.name} is refuted by one case"
