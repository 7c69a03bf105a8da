"""The built pages of the documentation on the screen of a phone: `make browser`."""

from pathlib import Path

import pytest

HTML = Path(__file__).parents[2] / "docs" / "_build" / "html"
WIDTH = 390


@pytest.fixture(scope="module")
def phone(chromium):
    context = chromium.new_context(viewport={"width": WIDTH, "height": 844})
    yield context.new_page()
    context.close()


def scrolls_sideways(page):
    return page.evaluate("document.scrollingElement.scrollWidth > innerWidth")


def test_no_page_scrolls_sideways_or_misses_a_picture(phone, serve):
    site = serve("-m", "http.server", "0", "--directory", str(HTML), "--bind", "127.0.0.1")
    pages = [path.relative_to(HTML).as_posix() for path in sorted(HTML.rglob("*.html"))]
    assert len(pages) > 30
    wide, missing = [], []
    for path in pages:
        phone.goto(site + path)
        wide += [path] * scrolls_sideways(phone)
        broken = phone.evaluate("[...document.images].some(image => !image.naturalWidth)")
        missing += [path] * broken
    assert not wide and not missing


def test_what_is_too_wide_is_seen(phone):
    phone.set_content("<meta name=viewport content='width=device-width'><p>short")
    assert not scrolls_sideways(phone)
    phone.set_content(f"<div style='width: {WIDTH + 10}px'>long</div>")
    assert scrolls_sideways(phone)
