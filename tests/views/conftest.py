import pytest
from support import browser


@pytest.fixture(scope="module")
def chrome():
    """A browser, or a skip."""
    browser.find_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chrome = browser.launch(playwright)
        yield chrome
        chrome.close()
