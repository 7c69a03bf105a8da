"""`flaxseg doctor`."""

from rich.console import Console

from flaxseg.doctor.clashes import examine_clashes
from flaxseg.doctor.devices import examine_devices
from flaxseg.doctor.packages import examine_packages
from flaxseg.doctor.section import Finding
from flaxseg.doctor.store import examine_stores
from flaxseg.printed import print_line

WRONG = 1
"""Exit code where something is to be mended."""


def examine(console: Console, *, clean: bool = False) -> int:
    """Reports what is installed, what JAX sees, what is in its way, and what to type.

    Args:
        console: where the report goes.
        clean: removes compiled programs and prepared data after naming them.

    Returns:
        The exit code: 0 if nothing is wrong, else 1.
    """
    parts = (examine_packages, examine_clashes, examine_devices, lambda: examine_stores(clean))
    findings: list[Finding] = []
    for part in parts:
        section = part()
        print_line(console, section.title)
        for line in section.lines:
            print_line(console, f"  {line}")
        findings += section.findings
    for finding in findings:
        print_line(console, f"wrong: {finding.what}")
        print_line(console, f"  mend: {finding.mend}")
    if not findings:
        print_line(console, "nothing is wrong")
    return WRONG if findings else 0
