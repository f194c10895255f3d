"""The dashboard in MLflow: declared views as saved views of the experiment.

A saved view is a tag of the experiment, `mlflow.sharedViewState.<id>`, that MLflow's pages read (3.15 and later). Its
form is theirs alone, so that nothing else here knows it. MLflow promises to keep columns, order, filter and sorting;
charts are shown as long as its pages read them as they do today.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mvit.dashboard import Bar, Chart, Line, Parallel, Scatter, View, read_views
from mvit.files import json_digest
from mvit.parent.tracking.store import reason

if TYPE_CHECKING:
    from mvit.parent.tracking.store import MlflowClient

VIEW = "mlflow.sharedViewState."
WRITTEN = "mvit.view."
"""The sha256 of a view's name and state as they were written: what differs from it, a person has changed."""
EXPERIMENT: Mapping[str, str] = {
    "mlflow.experimentKind": "custom_model_development",  # the pages for training, not for language models
    "mlflow.experiment.primaryMetric.name": "best/val_acc1",
}
PACKED = "deflate;"
LONGEST = 18_000
"""Characters of a tag's value, with some distance to MLflow's limit of 20 000."""


def keep_dashboard(client: MlflowClient, experiment_id: str, *, uri: str) -> str | None:
    """Bring the declared views up to date; returns one line where that fails."""
    try:
        write_views(client, experiment_id, read_views())
    except Exception as error:  # noqa: BLE001  a client raises many kinds, and a view is no reason to lose a run
        return f"MLflow: the dashboard is not up to date: {reason(error, uri)}"
    return None


def write_views(client: MlflowClient, experiment_id: str, views: Mapping[str, View]) -> list[str]:
    """Bring the experiment's views up to date, and return the ids of those that were written.

    One that a person has changed or deleted stays as it is.
    """
    tags: dict[str, str] = dict(client.get_experiment(experiment_id).tags)
    for key, value in EXPERIMENT.items():
        if key not in tags:
            client.set_experiment_tag(experiment_id, key, value)
    written: list[str] = []
    for key, view in views.items():
        current, last = tags.get(VIEW + key), tags.get(WRITTEN + key)
        wanted = view.name, json.dumps(state_of(view))
        is_touched = last is not None and (current is None or _digest(_read(current)) != last)
        if is_touched or (current is not None and _read(current) == wanted):
            continue
        client.set_experiment_tag(experiment_id, VIEW + key, _envelope(*wanted, now=int(time.time() * 1000)))
        client.set_experiment_tag(experiment_id, WRITTEN + key, _digest(wanted))
        written.append(key)
    return written


def path_of(experiment_id: str, key: str) -> str:
    """Where a view is to be seen below the address of a server."""
    query = f"workflowType=machine_learning&viewStateShareKey={key}&compareRunsMode=CHART"
    return f"/#/experiments/{experiment_id}/runs?{query}"


def state_of(view: View) -> dict[str, Any]:
    """What MLflow's pages keep of a view."""
    sections = [
        {"uuid": _uuid(view.name, section.name), "name": section.name, "display": True, "isReordered": True}
        for section in view.sections
    ]
    charts = [
        {"uuid": _uuid(view.name, section.name, str(number)), "metricSectionId": placed["uuid"]} | _chart(chart)
        for section, placed in zip(view.sections, sections, strict=True)
        for number, chart in enumerate(section.charts)
    ]
    return {
        "searchFilter": view.filter,
        "orderByKey": _column(view.order_by),
        "orderByAsc": view.ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": [_column(column) for column in view.columns],
        "columnOrder": [_column(column) for column in view.columns],
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "isAccordionReordered": True,  # otherwise they are sorted by name
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "hideEmptyCharts": True,
        "runsHiddenMode": "FIRST_20_RUNS",
        "groupBy": None,
    }


def _chart(chart: Chart) -> dict[str, Any]:
    common = {"deleted": False, "isGenerated": False}
    match chart:
        case Line(metric=metric):
            curve = {"metricKey": metric, "selectedMetricKeys": [metric], "xAxisKey": "step", "useGlobalXaxisKey": True}
            unsmoothed = {"lineSmoothness": 0, "useGlobalLineSmoothing": True}
            return {**common, "type": "LINE", **curve, **unsmoothed, "runsCountToCompare": 20}
        case Bar(metric=metric):
            return {**common, "type": "BAR", "metricKey": metric, "runsCountToCompare": 20}
        case Scatter(x=x, y=y):
            return {**common, "type": "SCATTER", "xaxis": _axis(x), "yaxis": _axis(y), "runsCountToCompare": 100}
        case Parallel(params=params, metrics=metrics):
            chosen = {"selectedParams": list(params), "selectedMetrics": list(metrics)}
            return {**common, "type": "PARALLEL", **chosen, "showAllRuns": True}


def _axis(name: str) -> dict[str, str]:
    if name.startswith("params."):
        return {"key": name.removeprefix("params."), "type": "PARAM"}
    return {"key": name, "type": "METRIC"}


def _column(name: str) -> str:
    """`metrics.val/acc1` as MLflow's pages name it."""
    kind, _, key = name.partition(".")
    return f"{kind}.`{key}`"


def _envelope(name: str, state: str, *, now: int) -> str:
    if len(state) > LONGEST // 2:  # quoted once more below
        state = PACKED + base64.b64encode(zlib.compress(state.encode())).decode()
    return json.dumps({"name": name, "createdAt": now, "updatedAt": now, "state": state})


def _read(value: str) -> tuple[str, str]:
    """The name and the state in a tag; nothing where they are not in a form that we know."""
    try:
        content = json.loads(value)
        name, state = str(content["name"]), str(content["state"])
        if state.startswith(PACKED):
            state = zlib.decompress(base64.b64decode(state.removeprefix(PACKED))).decode()
    except (ValueError, KeyError, TypeError, zlib.error):
        return "", ""
    return name, state


def _digest(view: tuple[str, str]) -> str:
    return json_digest(list(view))


def _uuid(*names: str) -> str:
    """The same for the same view, so that writing it again changes nothing."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(("mvit", *names))))
