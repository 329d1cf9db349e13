"""Faults inside nipype nodes, outputs, costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nipype.interfaces.base import BaseInterfaceInputSpec, TraitedSpec, traits
from nipype.interfaces.utility import IdentityInterface

from boldmill.errors import ConfigError, DataFault, MachineFault
from boldmill.preprocess.nodes import Step, pe, run_workflow

FAULTS = {1.0: DataFault, 2.0: MachineFault, 3.0: ConfigError}


class RootIn(BaseInterfaceInputSpec):
    x = traits.Float(mandatory=True)


class RootOut(TraitedSpec):
    y = traits.Float()


class Minus(Step):
    input_spec, output_spec, label = RootIn, RootOut, "minus"

    def step(self, folder: Path) -> dict[str, Any]:
        if self.inputs.x in FAULTS:
            raise FAULTS[self.inputs.x]("cannot do", "it", "of a reason", "do that")
        if self.inputs.x == 4.0:
            raise ZeroDivisionError("a bug")
        return {"y": -self.inputs.x}


def workflow(x: float) -> Any:
    flow = pe.Workflow(name="w")
    first = pe.Node(IdentityInterface(fields=["x"]), name="inputnode")
    last = pe.Node(IdentityInterface(fields=["y", "z"]), name="outputnode")
    one, two = pe.Node(Minus(), name="one"), pe.Node(Minus(), name="two")
    flow.connect([(first, one, [("x", "x")]), (one, two, [("y", "x")])])
    flow.connect([(one, last, [("y", "y")]), (two, last, [("y", "z")])])
    flow.inputs.inputnode.x = x
    return flow


def test_outputs_and_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found, costs = run_workflow(workflow(7.0), tmp_path / "scratch")
    assert found == {"y": -7.0, "z": 7.0}
    assert set(costs) == {"minus"}
    assert [p.name for p in tmp_path.iterdir()] == ["scratch"]


@pytest.mark.parametrize("x", sorted(FAULTS))
def test_a_fault_keeps_its_class_and_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, x: float) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FAULTS[x]) as caught:
        run_workflow(workflow(x), tmp_path / "scratch")
    assert type(caught.value) is FAULTS[x]
    assert str(caught.value) == "cannot do: it: of a reason. Fix: do that"
    assert [p.name for p in tmp_path.iterdir()] == ["scratch"]  # no crash file beside the data
    assert Path.cwd() == tmp_path


def test_a_fault_of_a_later_node_too(tmp_path: Path) -> None:
    with pytest.raises(DataFault):
        run_workflow(workflow(-1.0), tmp_path)


def test_a_bug_stays_a_bug(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="a bug") as caught:
        run_workflow(workflow(4.0), tmp_path)
    assert not isinstance(caught.value, DataFault)
