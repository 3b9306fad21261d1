"""A visit to the page in a network namespace of its own: `unshare -rn python offline_visit.py LAKE DATASET`.

Prints, as JSON, what listens meanwhile, what the browser asked of others, and what it saw.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from e2e.page_server import Visit, chromium, served

from sp_data.lake import Lake


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    listened = ["ss", "-Hltn"]
    with served(Lake(sys.argv[1], sys.argv[2])) as address, chromium() as browser:
        before = subprocess.run(listened, capture_output=True, text=True, check=True).stdout
        visit = Visit(browser, address)
        visit.fill("dream-prompts", "a kid in a red coat")
        visit.draw("dream")
        drawn = len(visit.cards("dream", 2))
        visit.tab("Dataset")
        visit.fill("dataset-query", "a kid in a red coat")
        visit.page.locator("#dataset-search").click()
        visit.results("dataset").locator(".sp-facts > span:nth-child(2)").first.wait_for()
        visit.tab("Runs")
        visit.page.locator(".sp-table").first.wait_for()
        seen = {
            "address": address,
            "drawn": drawn,
            "listens": before,
            "outside": visit.outside(),
            "errors": visit.errors,
        }
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main()
