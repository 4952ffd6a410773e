"""The site in a browser under a name of its own, over plain http: what a local network or a proxy without TLS shows."""

import pytest
from browser import running_site, upload_of

from cxr.site.model_slot import ModelSlot

NAMES = ("cxr.hospital.example", "CXR.Hospital.Example.", "xray")  # of them, no browser takes one for trustworthy


@pytest.fixture(scope="module")
def address(predictor):
    slot = ModelSlot(__file__, load=lambda path, precision: predictor)
    slot.load()
    with running_site(slot, trusted_hosts=["localhost", *NAMES]) as address:
        yield address


@pytest.mark.fault("H62")
@pytest.mark.parametrize("name", NAMES)
def test_uploads_and_samples_work_under_any_trusted_name_over_plain_http(address, browser, name):
    for scripts in (True, False):
        context = browser.new_context(java_script_enabled=scripts)
        page = context.new_page()
        page.goto(address.replace("127.0.0.1", name))
        page.set_input_files("input[type=file]", upload_of(3))
        page.click("form.upload button[type=submit]")
        page.wait_for_selector("section.result")
        page.goto(address.replace("127.0.0.1", name))
        page.click("form.samples button >> nth=0")
        page.wait_for_selector("section.result")
        context.close()


@pytest.mark.fault("H62")
def test_a_form_of_another_page_is_refused_and_told_why(address, browser):
    page = browser.new_page()
    target = address.replace("127.0.0.1", "xray")
    form = f'<form action="{target}/predict" method="post"><input name="sample" value="00000011_001.png"></form>'
    page.route("http://evil.example/", lambda route: route.fulfill(body=form, content_type="text/html"))
    page.goto("http://evil.example/")
    with page.expect_navigation() as navigation:
        page.evaluate("document.forms[0].submit()")
    assert navigation.value.status == 403
    assert "http://evil.example" in page.inner_text("main")
    page.close()
