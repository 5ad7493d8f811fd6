"""Facts about the documents: their code runs, their links lead somewhere, their commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import pilotage

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_twenty_lines_of_the_readme_run(tmp_path):
    """As printed, in an empty folder with the shipped configuration."""
    (code,) = [one for one in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "Router" in one]
    (tmp_path / "pilotage.toml").write_bytes((ROOT / "pilotage.toml").read_bytes())

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    arm, propensity = done.stdout.split()
    assert arm in {"llama-3-1-8b", "mistral-large"}
    assert 0.0 < float(propensity) < 1.0
    assert (tmp_path / "record.db").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_to_a_file_leads_to_one(page):
    """Relative links only; the network is not asked."""
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_command_of_the_readme_exists():
    """`pilotage X` and `make X`, as the text names them."""
    commands = {command.name or command.callback.__name__ for command in pilotage.app.registered_commands}
    groups = {group.name for group in pilotage.app.registered_groups}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

    named = set(re.findall(r"(?:^|`|\()pilotage ([a-z]+)", TEXT, re.MULTILINE))
    assert named <= commands | groups
    assert len(named) >= 7
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", TEXT, re.MULTILINE)) <= targets


def test_the_times_that_the_readme_names_are_those_of_the_schedules():
    """Every five minutes, 02:00, 03:00, 06:00 UTC."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    crons = {d["entrypoint"].split(":")[1]: d["schedules"][0]["cron"] for d in deployments if d.get("schedules")}

    named = {"load": "*/5 * * * *", "maintain": "0 2 * * *", "nights": "0 3 * * *", "pilot": "0 6 * * *"}
    assert named.items() <= crons.items()
    assert "every\nfive minutes" in TEXT
    assert "the night at 03:00, the pilot at 06:00 UTC" in TEXT


def test_no_tracked_file_names_a_machine_or_an_index():
    """Paths of a machine and hosts of a package index do not belong into a repository."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    forbidden = re.compile("|".join(["/" + "root/", "pypi" + r"\.org", "python" + "hosted", "npmjs" + r"\."]))

    found = [
        name
        for name in filter(None, files)
        if (ROOT / name).is_file() and forbidden.search((ROOT / name).read_bytes().decode("utf-8", "ignore"))
    ]

    assert found == []


def test_the_readme_repeats_the_table_of_the_benchmarks():
    """Reward, spend, mix and fixed of each budget, rounded alike: nobody edits one without the other."""
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    block = page.split("<!-- paretobandit -->")[1].split("<!-- end -->")[0]
    measured = {}
    for line in block.strip().splitlines()[2:]:
        budget, reward, _, spend, _, _, _, mix, fixed, *_ = (cell.strip() for cell in line.strip("|").split("|"))
        measured[float(budget)] = [float(reward), round(float(spend), 2), float(mix), float(fixed)]

    shown = {}
    for line in TEXT.splitlines():
        cells = [cell.strip(" *") for cell in line.strip("|").split("|")]
        if re.fullmatch(r"0\.0\d+", cells[0]):
            shown[float(cells[0])] = [float(cell) for cell in cells[1:5]]

    assert len(shown) == 7
    for budget, numbers in shown.items():
        assert numbers == pytest.approx(measured[budget], abs=0.0051), budget
        assert numbers[0] == measured[budget][0]
