"""A run's identity: what it depends on, and that it stays."""

import hashlib
import json

import pytest
from claim import claims
from networks import files_of
from settings import Run, Settings

from minidl.cfg.sections import read_sections

NETS = sorted({settings.net for claim in claims().values() for settings in claim.arms.values()})
BASE = Settings("80sec", epochs=10, drops=(8,))


def identity(settings: Settings = BASE, seed: int = 0, fingerprint: str = "bad7b27d2c988569") -> str:
    return Run(settings, seed, fingerprint).identity


def test_the_identity_of_a_finished_run_stays_what_it_is():
    """This one's line is in results/80sec.jsonl. If it changes here, hours of runs are lost."""
    assert identity() == "f38b3761dfb2d35a"


def test_it_depends_on_settings_seed_and_data_and_on_nothing_else():
    others = [
        identity(BASE.but(epochs=11)),
        identity(BASE.but(changes={"conv1": None})),
        identity(seed=1),
        identity(fingerprint="x"),
    ]
    assert len({identity(), *others}) == 5
    assert Run(BASE, 0, "bad7b27d2c988569", "another label").identity == identity()


def test_what_is_said_in_another_form_is_the_same_run():
    changes = {"conv1": {"wc": "0", "initB": "1"}, "pool1": {"sizeX": "2"}}
    turned = {"pool1": {"sizeX": "2"}, "conv1": {"initB": "1", "wc": "0"}}
    assert identity(BASE.but(changes=changes)) == identity(BASE.but(changes=turned))
    assert identity(BASE.but(drops=[8])) == identity()


def test_only_what_differs_from_the_defaults_is_declared():
    assert BASE.declared() == {"net": "80sec", "epochs": 10, "drops": [8]}
    assert Settings("80sec", 10, flips=False).declared() == {"net": "80sec", "epochs": 10}


@pytest.mark.parametrize("other", [{"rate": 2.0}, {"until": 0.25}, {"rule": "pytorch"}, {"images": 100}, {"batch_size": 64}])
def test_every_setting_is_declared(other):
    assert BASE.but(**other).declared() == BASE.declared() | other


# what the net files said when the runs in results/ were made
FILES = {
    "13pct": "30340ba7af1e11f1",
    "18pct": "9e47cd3fb85e2c9d",
    "19pct": "4b8704f1d00bf2ef",
    "80sec": "a74bb481f6c5eac9",
    "alexnet": "b32f1dd1861b66bd",
    "separate": "516a965b8d692c7a",
    "towers": "b609c29022989e1a",
    "wide": "907e69a0511e524d",
}


@pytest.mark.parametrize("net", NETS)
def test_a_net_file_says_what_it_said_when_its_runs_were_made(net):
    """Its values, not its comments. A net that is to be another one needs another name: results/ knows it by this one."""
    layers, params = map(read_sections, files_of(net))
    values = [[name, section.values] for sections in (layers, params) for name, section in sections.items()]
    assert hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16] == FILES[net]
