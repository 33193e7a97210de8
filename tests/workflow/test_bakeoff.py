"""The comparison of tokenizers is made when it is asked for, and only then. The verbs are stand-ins."""

TABLE = "results/tiny/bakeoff/bakeoff.tsv"


def test_the_comparison_is_no_part_of_a_run(done):
    """A complete run has no table of tokenizers; asking for it runs one step and trains none of the run's models."""
    assert not (done.work / TABLE).exists()
    done.calls()
    done.run(TABLE, "--configfile", "config.yaml")
    assert done.verbs() == ["bakeoff"] and (done.work / TABLE).exists()
    assert "Nothing to be done" in done.run(TABLE, "--configfile", "config.yaml")


def test_its_settings_make_it_anew(done, make_config):
    """Other seeds of the comparison run it again, and it alone."""
    done.run(TABLE, "--configfile", "config.yaml")
    done.calls()
    document = make_config()
    document["runs"]["tiny"]["bakeoff"] = {"seeds": [4, 5]}
    done.write_config(document)
    done.run(TABLE, "--configfile", "config.yaml")
    assert done.verbs() == ["bakeoff"]
