"""``rt-swap doctor``: what is here, what is wrong with it, and the command that helps."""

from __future__ import annotations

import argparse
import json
import sys

from rt_swap.cli.common import DOCTOR_PROBLEM, OK

_DESCRIPTION = """\
Looks at everything rt-swap needs or can use, and says of each whether it is well: ok, warning
(works, but something is missing or slow) or problem, with the command that helps. Changes nothing.
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "doctor",
        help="say what is missing or wrong, and how to mend it",
        description=_DESCRIPTION,
        epilog="exit code: 0 without a problem (warnings are none), 43 with one",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("-q", "--quiet", action="store_true", help="only warnings and problems")
    parser.add_argument("-v", "--verbose", action="store_true", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Look; returns the exit code."""
    from rt_swap.doctor.checks import Context, as_json, examine, lines_of

    findings = examine(Context())
    problems = sum(finding.state == "problem" for finding in findings)
    if arguments.json:
        print(json.dumps(as_json(findings), indent=2))
    else:
        shown = [f for f in findings if f.state != "ok"] if arguments.quiet else findings
        for line in lines_of(shown):
            print(line)
        warnings = sum(finding.state == "warning" for finding in findings)
        print(f"rt-swap: {problems} problems, {warnings} warnings", file=sys.stderr)
    return DOCTOR_PROBLEM if problems else OK
