"""The declared views in a real store: written once, kept current, and never over a person's own."""

import json

import pytest

from mvit.dashboard import read_views
from mvit.parent.request.keys import CONF
from mvit.parent.tracking import dashboard
from mvit.parent.tracking.dashboard import VIEW, keep_dashboard, path_of, state_of, write_views
from mvit.parent.tracking.store import connect, ensure_experiment

pytestmark = pytest.mark.mlflow


@pytest.fixture
def store(empty_store, tmp_path):
    import shutil

    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = connect(uri)
    return client, ensure_experiment(client, uri, "mvit")


def written(store, views):
    client, experiment = store
    return write_views(client, experiment, views)


def tags(store):
    client, experiment = store
    return client.get_experiment(experiment).tags


def test_views_are_written_once_and_again_when_they_change(store):
    views = read_views()
    assert written(store, views) == sorted(views)
    before = tags(store)
    assert before["mlflow.experimentKind"] == "custom_model_development"
    assert before["mlflow.experiment.primaryMetric.name"] == "best/val_acc1"
    assert written(store, views) == []
    assert tags(store) == before
    changed = {**views, "results": views["results"].model_copy(update={"ascending": True})}
    assert written(store, changed) == ["results"]
    state = json.loads(json.loads(tags(store)[VIEW + "results"])["state"])
    assert state["orderByAsc"] is True


@pytest.mark.parametrize("edit", ["state", "name", "not JSON"])
def test_a_view_that_a_person_has_changed_is_left_alone(store, edit):
    client, experiment = store
    written(store, read_views())
    content = json.loads(tags(store)[VIEW + "sweep"])
    theirs = "{" if edit == "not JSON" else json.dumps({**content, edit: "{}"})
    client.set_experiment_tag(experiment, VIEW + "sweep", theirs)
    assert written(store, read_views()) == []
    changed = {"sweep": read_views()["sweep"].model_copy(update={"ascending": True})}
    assert written(store, changed) == []
    assert tags(store)[VIEW + "sweep"] == theirs


def test_a_view_that_a_person_has_deleted_does_not_come_back(store):
    client, experiment = store
    written(store, read_views())
    client.delete_experiment_tag(experiment, VIEW + "sweep")
    assert written(store, read_views()) == []
    assert VIEW + "sweep" not in tags(store)


def test_a_long_view_is_packed_and_is_still_known(store, monkeypatch):
    monkeypatch.setattr(dashboard, "LONGEST", 1000)
    assert written(store, read_views())
    assert json.loads(tags(store)[VIEW + "results"])["state"].startswith("deflate;")
    assert written(store, read_views()) == []


def test_a_store_that_refuses_costs_a_line():
    class Refuses:
        def get_experiment(self, experiment_id):
            raise RuntimeError("PERMISSION_DENIED: no")

    line = keep_dashboard(Refuses(), "1", uri="sqlite://")  # pyright: ignore[reportArgumentType]
    assert line == "MLflow: the dashboard is not up to date: PERMISSION_DENIED: no"


def test_the_state_has_what_was_declared():
    view = read_views()["results"]
    state = state_of(view)
    assert state["searchFilter"] == "tags.`mvit.kind` != 'trial'"
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`best/val_acc1`", False)
    assert state["selectedColumns"][-1] == "attributes.`Duration`"
    assert len(state["selectedColumns"]) == len(view.columns)
    places = {section["uuid"]: section["name"] for section in state["compareRunSections"]}
    assert list(places.values()) == [section.name for section in view.sections]
    charts = [(places[chart["metricSectionId"]], chart["type"]) for chart in state["compareRunCharts"]]
    assert charts == [(section.name, chart.kind.upper()) for section in view.sections for chart in section.charts]
    assert len({chart["uuid"] for chart in state["compareRunCharts"]}) == len(charts)
    assert path_of("7", "results").startswith("/#/experiments/7/runs?")


def test_a_wrong_declaration_names_its_file(tmp_path):
    text = (CONF / "dashboard" / "sweep.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("kind: parallel", "kind: pie"))
    with pytest.raises(ValueError, match=r"mine\.yaml: [\s\S]*'pie'"):
        read_views(tmp_path)
