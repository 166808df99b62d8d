"""Makes of all results one file and one table of features and clients: report.py FOLDER DOCUMENT show|check|write.

`check` fails if the document has another table between its marks, `write` puts the table there.
"""

import json
import sys
from pathlib import Path

BEGIN, END = "<!-- conformance: begin -->", "<!-- conformance: end -->"
TRANSPORTS = ("MQTT", "MQTT over WebSocket", "HTTPS", "HTTPS, through the gateway")


def table(records):
    """For each client its features as rows, its transports as columns."""
    columns = sorted({(r["client"], r["transport"]) for r in records}, key=lambda c: (c[0], TRANSPORTS.index(c[1])))
    lines = []
    for client in dict.fromkeys(client for client, _ in columns):
        own = [column for column in columns if column[0] == client]
        rows = sorted({r["feature"] for r in records if r["client"] == client})
        lines += ["", f"**{client}**", "", "| | " + " | ".join(transport for _, transport in own) + " |"]
        lines.append("| --- |" + " --- |" * len(own))
        lines += [f"| {row} | " + " | ".join(cell(records, column, row) for column in own) + " |" for row in rows]
    return "\n".join(lines[1:])


def cell(records, column, feature):
    """How many cases passed, and of how many if not all did."""
    verdicts = [r["passed"] for r in records if (r["client"], r["transport"]) == column and r["feature"] == feature]
    if not verdicts:
        return "–"
    return f"{sum(verdicts)}" if all(verdicts) else f"{sum(verdicts)} of {len(verdicts)}"


def main(folder, document, mode):
    files = sorted(folder.glob("*.jsonl"))
    records = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    (folder / "results.json").write_text(json.dumps(records, indent=1), encoding="utf-8")
    made = table(records)
    (folder / "table.md").write_text(made + "\n", encoding="utf-8")
    passed = sum(record["passed"] for record in records)
    print(f"{passed} of {len(records)} cases passed: {folder / 'results.json'}")
    if mode == "show":
        return 0
    before, shown = document.read_text(encoding="utf-8").split(BEGIN)
    shown, after = shown.split(END)
    if shown.strip() == made:
        return 0
    if mode == "write":
        document.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}", encoding="utf-8")
        return 0
    print(f"FAILED  {document} shows another table than this run made: conformance/run table writes it")
    return 1


sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
