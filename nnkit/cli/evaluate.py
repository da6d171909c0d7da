"""`nnkit evaluate`."""

from __future__ import annotations

from nnkit.cli.loading import decision_threshold, load_model, load_rows, no_target
from nnkit.cli.options import AsJson, Data, ModelPath, OnBad, OnBadPicture, Quiet, Threshold, TrueValues
from nnkit.cli.printing import decision_json, print_decision, print_json, print_metrics
from nnkit.working import working


def evaluate(
    model: ModelPath,
    data: Data,
    as_json: AsJson = False,
    quiet: Quiet = False,
    target: TrueValues = None,
    threshold: Threshold = None,
    on_bad: OnBadPicture = OnBad.error,
) -> None:
    """Measure a model on labelled rows.

    If the source has a test set, the test set is measured.
    """
    loaded = load_model(model, quiet)
    decision = decision_threshold(loaded, threshold)
    dataset = load_rows(loaded, data, on_bad, quiet=quiet, target=target)
    examples = dataset.train if dataset.test is None else dataset.test
    if examples.target is None:
        raise no_target(loaded, data)
    with working("measuring the model"):
        metrics = loaded.evaluate(
            examples.features, examples.target, sample_weight=examples.weight, threshold=decision
        )
    schema = loaded.preprocessor.schema
    weighing = None if examples.weight is None or schema is None else schema.options.weight
    undefined = loaded.undefined_metrics(metrics, examples.target, examples.weight)
    if as_json:
        extra: dict[str, object] = {"undefined": undefined} if undefined else {}
        if weighing is not None:
            extra["weight"] = weighing
        print_json({"metrics": metrics, "rows": len(examples), **extra, **decision_json(loaded, decision)})
        return
    weighted = "" if weighing is None else f", weighted by {weighing}"
    print_metrics(metrics, f"{len(examples):,} rows of {dataset.name}{weighted}", undefined)
    if not quiet:
        print_decision(loaded, decision)
