"""A page as people see it, in Debian's Chromium."""

from contextlib import contextmanager
from types import SimpleNamespace


@contextmanager
def opened(browser, file, width=1280, scheme="light"):
    """Open a file of HTML; give the `page`, the `errors` of its scripts, and its `requests`."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    seen = SimpleNamespace(page=page, errors=[], requests=[])
    page.on("console", lambda said: seen.errors.append(said.text))
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("request", lambda asked: seen.requests.append(asked.url))
    page.goto(file.as_uri())
    yield seen
    page.close()
