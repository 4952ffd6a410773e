"""The report draft on the result page: rule, numbers on demand, copying, print."""

import re

import pytest
from browser import upload_of
from page_actions import analyse, text_of

from cxr.imaging.radiograph import decode_with_notices
from cxr.inference.report_draft import draft_report
from cxr.network.model_info import DISCLAIMER
from gradcam import explain


@pytest.fixture
def drafts(page, predictor):
    """A result page, and the drafts by the common and by the chosen thresholds."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    analyse(page, upload_of(7))
    picture = decode_with_notices(upload_of(7)["buffer"])
    answer = explain(predictor, picture.radiograph)
    return [draft_report(predictor.info, answer, (), 180, 220, chosen=chosen) for chosen in (False, True)]


def clipboard(page):
    return page.evaluate("navigator.clipboard.readText()")


def words(text):
    return " ".join(text.split())


def shown_text(page):
    """The words of the visible draft; titles are in capitals in plain text alone."""
    return text_of(page, ".draft:visible").casefold()


def test_the_page_shows_and_copies_the_draft_by_the_rule_in_force(page, drafts):
    common, chosen = drafts
    assert common.text != chosen.text
    assert shown_text(page) == words(common.text).casefold()
    page.click("[data-copy]:visible")
    page.wait_for_selector("[data-copy]:has-text('Copied')")
    assert clipboard(page) == common.text
    page.check(".rule-chosen", force=True)
    assert shown_text(page) == words(chosen.text).casefold()
    page.click("[data-copy]:visible")
    page.wait_for_function("text => navigator.clipboard.readText().then((copied) => copied === text)", arg=chosen.text)


def test_without_a_clipboard_the_button_copies_all_the_same(page, drafts):
    page.evaluate("() => { window.kept = navigator.clipboard; Object.defineProperty(navigator, 'clipboard', {}); }")
    page.click("[data-copy]:visible")
    page.wait_for_selector("[data-copy]:has-text('Copied')")
    assert page.evaluate("window.kept.readText()") == drafts[0].text


def select(page, start, end):
    """Select from the start of one element to the end of another, and copy with the keyboard."""
    page.evaluate(
        """([start, end]) => {
          const [first, last] = [start, end].map((one) => document.querySelectorAll(one[0])[one[1]]);
          getSelection().setBaseAndExtent(first, 0, last, last.childNodes.length);
        }""",
        [start, end],
    )
    page.keyboard.press("Control+c")


def test_a_copied_part_of_the_draft_brings_the_disclaimer_along(page, drafts):
    draft = drafts[0]
    part = draft.sections[2].sentences[0].text
    position = sum(len(section.sentences) for section in draft.sections[:2])
    said = [".draft.at-default .said", position]
    select(page, said, said)
    copied = words(clipboard(page))
    assert copied == words(f"{draft.opening} {part} {draft.closing}")
    assert copied.startswith(DISCLAIMER)
    assert copied.endswith(DISCLAIMER)
    select(page, [".draft.at-default .draft-end", 0], [".draft.at-default .draft-end", 1])
    assert words(clipboard(page)).casefold() == words(draft.text).casefold()
    select(page, [".count", 0], [".count", 0])  # what is no part of it is copied as it is
    assert DISCLAIMER not in clipboard(page)


def test_each_sentence_shows_its_numbers_to_pointer_keyboard_and_finger(page, drafts):
    sentences = [one for section in drafts[0].sections for one in section.sentences]
    said = page.locator(".draft.at-default .said")
    assert said.count() == len(sentences)
    for position, sentence in enumerate(sentences):
        numbers = said.nth(position).locator(".from")
        assert not numbers.is_visible()
        said.nth(position).hover()
        assert numbers.is_visible()
        assert numbers.locator("b").count() == len(sentence.numbers)
        names = [words(re.sub(r"\S+$", "", line)) for line in numbers.locator("> span").all_inner_texts()]
        assert names == [words(one.name) for one in sentence.numbers]
    page.mouse.move(0, 0)
    said.nth(0).focus()
    page.keyboard.press("Tab")
    assert said.nth(1).evaluate("one => one === document.activeElement")
    assert said.nth(1).locator(".from").is_visible()
    assert not said.nth(0).locator(".from").is_visible()
    described = said.nth(1).get_attribute("aria-describedby")
    assert page.locator(f"#{described}").count() == 1
    page.keyboard.press("Escape")
    assert not said.nth(1).locator(".from").is_visible()
    page.keyboard.press("Shift+Tab")
    assert said.nth(0).locator(".from").is_visible()


def test_the_print_view_has_the_draft_on_a_page_of_its_own_without_tools(page, drafts):
    page.emulate_media(media="print")
    assert page.locator(".draft:visible").count() == 1
    assert page.locator("[data-copy]:visible, .draft-hint:visible").count() == 0
    page.locator(".draft.at-default .said").nth(0).focus()
    assert page.locator(".from:visible").count() == 0
    assert page.locator(".drafts").evaluate("one => getComputedStyle(one).breakBefore") == "page"


def test_the_picture_that_stays_in_sight_never_reaches_the_draft(page):
    page.set_viewport_size({"width": 1200, "height": 800})
    analyse(page, upload_of(7))
    for share in (0, 0.25, 0.5, 0.75, 1):
        picture, draft = page.evaluate(
            """share => {
              scrollTo(0, share * document.body.scrollHeight);
              const box = (name) => document.querySelector(name).getBoundingClientRect();
              return [box(".viewer").bottom, box(".drafts").top];
            }""",
            share,
        )
        assert picture <= draft
