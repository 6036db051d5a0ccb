import json
import re

import readme_tables
from conftest import REPO

README = (REPO / "README.md").read_text("utf-8")


def test_the_tables_are_those_of_the_committed_reports():
    assert readme_tables.renewed(README) == README


def test_every_committed_report_of_a_pipeline_stands_in_the_readme():
    for file in (REPO / "docs/results").glob("*.json"):
        if "pipeline" in json.loads(file.read_text("utf-8")):
            assert f"<!-- docs/results/{file.name} -->" in README


def test_a_figure_that_the_report_does_not_have_is_noticed():
    changed = re.sub(r"(<!-- docs/results/.*?\d)\d( %)", r"\g<1>X\2", README, count=1, flags=re.S)
    assert changed != README
    assert readme_tables.renewed(changed) == README


def test_no_committed_result_says_where_it_was_made():
    for file in (REPO / "docs/results").glob("*"):
        assert not re.search(r"(?<![\w.])/(work|tmp|home|root)/", file.read_text("utf-8")), file
