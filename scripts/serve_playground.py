#!/usr/bin/env python3
"""The playground of `pearl serve` in a real browser: two rounds under a plan, each token coloured by a probe, as pictures.

    python3 -m venv venv && venv/bin/pip install playwright
    venv/bin/python scripts/serve_playground.py target/release/pearl VECTORS OUT [CHROMIUM]

VECTORS is a folder with a probe and, for the two answers, a plan or a vector. Writes light.png, dark.png and narrow.png; exits with 1 where the page
reports an error, an answer is missing or no token is coloured.
"""

import pathlib
import subprocess
import sys

from playwright.sync_api import sync_playwright

SAID = [
    "it tricks my teacher . they call it lost . today i refuse to act . are rashes good ?",
    "i see . they call it fine . do guide me . describe corals please .",
]


def main(pearl: str, vectors: str, out: str, chromium: str = "/usr/bin/chromium") -> None:
    command = [pearl, "serve", "--port", "0", "--quiet", "--vectors", vectors]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().strip()
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for scheme in ["light", "dark"]:
                look(browser, address, scheme, pathlib.Path(out))
            browser.close()
    finally:
        server.terminate()
        server.wait(timeout=60)


def look(browser, address: str, scheme: str, out: pathlib.Path) -> None:
    # The page's own policy forbids code from texts, which is how the browser's driver waits.
    page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme=scheme, bypass_csp=True)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(address)
    page.wait_for_function("document.querySelectorAll('#probe option').length > 1")
    if page.locator("#plan option").count() > 1:
        page.select_option("#plan", index=1)
    else:
        slider = page.locator("#vectors input[type=range]").first
        slider.focus()
        for _ in range(8):
            page.keyboard.press("ArrowRight")
    for text in SAID:
        page.fill("#message", text)
        page.keyboard.press("Enter")
        page.wait_for_function("!document.getElementById('send').disabled", timeout=120_000)
    answers = page.locator(".answer p")
    assert answers.count() == 4, f"{answers.count()} answers"
    coloured = page.evaluate("[...document.querySelectorAll('.token')].filter((token) => token.style.background).length")
    assert coloured > 20, f"{coloured} coloured tokens"
    assert page.locator("#chart circle").count() == 4, "a point a message and a point an answer"
    assert not errors, errors
    # The address holds the settings: a page opened with it has them.
    page.locator("#temperature").focus()
    page.keyboard.press("ArrowRight")
    again = browser.new_page(bypass_csp=True)
    again.goto(page.url)
    again.wait_for_function("document.querySelectorAll('#probe option').length > 1")
    assert again.input_value("#temperature") == page.input_value("#temperature") != "0"
    again.close()
    page.screenshot(path=out / f"{scheme}.png")
    page.set_viewport_size({"width": 400, "height": 900})
    page.screenshot(path=out / "narrow.png")
    page.close()
    print(f"{scheme}: {coloured} coloured tokens, no error")


if __name__ == "__main__":
    main(*sys.argv[1:])
