"""The TOML config: mistakes with their line and advice, overrides, and a file that loads back equal."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnkit.checks import Choice, settings_of
from nnkit.data.pictures.columns import PictureSettings
from nnkit.data.preprocessing import SCALINGS
from nnkit.data.tables.options import TableOptions
from nnkit.data.targets.encoding import TASKS
from nnkit.errors import ConfigError, FileError
from nnkit.nn.schedules import Cosine, StepDecay
from nnkit.runs.config import Config, DataConfig, RunConfig, TrainingConfig, load_config
from nnkit.runs.sections import SECTIONS
from nnkit.training.periods import Period
from nnkit.training.settings import TrainingSettings

EVERYTHING = r"""# A config that sets every key.
[data]
train = "train.csv"
validation = "held/out.csv"
test = '/data/test.csv'
target = ["species", 3]
features = ["length", "width"]
drop = "id"
task = "multilabel"
positive = true
weight = "weight"
index = 0
types = {zip = "category", sold = "date:%d.%m.%Y"}
missing = ["-999", "n/a"]
separator = "whitespace"
header = "no"
skip_rows = 2
comment = "#"
quote = ""
encoding = "latin-1"
decimal = ","
thousands = "."
scaling = "unit"
image_size = [48, 64]
image_fit = "pad"
grayscale = true
image_column = "file"
on_bad = "skip"
augment = {shift = 0.1, flip = true, erase = 0.2}

[model]
hidden = [
    512,
    64,  # the narrow one
]
activation = "gelu"
dropout = [0.1, 0]
initializer = {name = "normal", std = 0.02}
output = "softplus"

[training]
epochs = 7
batch_size = 33
learning_rate = 1
warmup = "2 epochs"
loss = {name = "cross_entropy", label_smoothing = 0.1}
weight_decay = 1e-05
l1 = 1e-6
l2 = 0.5
clip_norm = 1.0
early_stopping = 3
restore_best = false
metrics = ["accuracy", "top_3_accuracy"]

[training.optimizer]
name = "adam"
beta1 = 0.8

[training.schedule]
name = "step"
every = 3

[training.class_weight]
"a b\u007f\n\"" = 2
"ü" = 0.5

[run]
device = "cuda:1"
precision = "fp16"
seed = 18446744073709551615
out = "runs/a"
checkpoint_every = "5 minutes"
data_placement = "pinned"
"""


def load(tmp_path: Path, text: str | bytes) -> Config:
    path = tmp_path / "c.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(path)


def mistake(tmp_path: Path, text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert message.count("\n") <= 1
    return message.replace(str(tmp_path / "c.toml"), "c.toml")


def test_every_key_is_read(tmp_path: Path) -> None:
    config = load(tmp_path, EVERYTHING)
    assert config.data.target == ["species", 3]
    assert config.data.drop == "id"
    assert config.data.augment == {"shift": 0.1, "flip": True, "erase": 0.2}
    options = config.data.pictures()
    assert options.settings == PictureSettings(48, 64, 1, "pad")
    assert (options.on_bad, options.column) == ("skip", "file")
    assert config.model.hidden == [512, 64]
    assert config.model.dropout == [0.1, 0.0]
    assert config.model.initializer == {"name": "normal", "std": 0.02}
    assert config.training.learning_rate == 1.0
    assert isinstance(config.training.learning_rate, float)
    assert config.training.optimizer == {"name": "adam", "beta1": 0.8}
    assert config.training.warmup == Period(2, "epochs")
    assert config.training.class_weight == {'a b\x7f\n"': 2.0, "ü": 0.5}
    assert config.run.seed == 2**64 - 1
    assert config.run.checkpoint_every == Period(5, "minutes")


def test_nothing_is_required(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Config()
    assert load(tmp_path, "[training]\n[model]\nhidden = []\n").model.hidden == []
    assert load(tmp_path, "[data]\ndrop = []\n").data.drop == []


@pytest.mark.parametrize("text", ["", EVERYTHING, "[training]\nlearning_rate = 1e-30\nwarmup = 5\n"])
def test_what_is_written_loads_back_equal(tmp_path: Path, text: str) -> None:
    config = load(tmp_path, text)
    elsewhere = tmp_path / "run"
    elsewhere.mkdir()
    again = load(elsewhere, config.to_toml())
    assert again == config
    assert again.to_toml() == config.to_toml()


def test_relative_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "iris").mkdir()
    config = load(folder, EVERYTHING)
    assert config.data.train == str(folder / "train.csv")
    assert config.data.validation == str(folder / "held" / "out.csv")
    assert config.data.test == "/data/test.csv"
    assert config.run.out == str(folder / "runs" / "a")
    assert load(folder, '[data]\ntrain = "digits"').data.train == "digits"
    assert load(folder, '[data]\ntrain = "iris"').data.train == str(folder / "iris")
    assert load(folder, '[data]\ntrain = "../x.csv"').data.train == str(tmp_path / "x.csv")
    monkeypatch.chdir(folder)
    assert load_config("c.toml").data.train == str(tmp_path / "x.csv")


def test_keys_of_tables_become_the_options_of_reading(tmp_path: Path) -> None:
    assert load(tmp_path, EVERYTHING).data.table() == TableOptions(
        separator="whitespace",
        header=False,
        encoding="latin-1",
        decimal=",",
        thousands=".",
        missing=("-999", "n/a"),
        comment="#",
        skip_rows=2,
        quote="",
        index=0,
        weight="weight",
        types={"zip": "category", "sold": "date:%d.%m.%Y"},
    )
    assert load(tmp_path, "").data.table() == TableOptions()
    assert load(tmp_path, '[data]\nheader = "yes"').data.table().header is True
    assert load(tmp_path, "[data]\nheader = 0").data.table().header == 0
    overridden = Config().with_overrides(
        ["data.header=no", "data.missing=-999", "data.types.zip=category", "data.separator=;"]
    )
    assert overridden.data.table() == TableOptions(
        separator=";", header=False, missing=("-999",), types={"zip": "category"}
    )


MISTAKES = [
    ("[data]\nseparator = ';;'", 'c.toml, line 2: data.separator must be one ASCII character, not ";;"'),
    ("[data]\nheader = true", 'c.toml, line 2: data.header must be "yes", "no" or the number of the row'),
    ("[data]\nheader = -1", 'c.toml, line 2: data.header must be "yes", "no" or the number of the row'),
    ("[data]\nencoding = 'utf-5'", "c.toml, line 2: data.encoding must be one that Python knows"),
    ("[data]\nencoding = 8", "c.toml, line 2: data.encoding must be one that Python knows"),
    ("[data]\ndecimal = ';'", "c.toml, line 2: data.decimal must be '.' or ','"),
    ("[data]\nthousands = 'x'", "c.toml, line 2: data.thousands must be one of"),
    (
        "[data]\ndecimal = ','\nthousands = ','",
        'c.toml, line 3: data.thousands must differ from decimal, which is "," too',
    ),
    ("[data]\nmissing = [true]", "c.toml, line 2: data.missing must be a list of words in quotes"),
    ("[data]\nskip_rows = -1", "c.toml, line 2: data.skip_rows must be a whole number of at least 0, not -1"),
    ("[data]\nquote = '<<'", "c.toml, line 2: data.quote must be one ASCII character"),
    ("[data]\nindex = true", "c.toml, line 2: data.index must be a column's name or number"),
    ("[data]\nweight = ''", "c.toml, line 2: data.weight must be a column's name or number"),
    ("[data]\npositive = [1]", "c.toml, line 2: data.positive must be a class of the target, not [1]"),
    ("[data]\ntypes = 'x'", "c.toml, line 2: data.types must be a table such as"),
    (
        "[data.types]\nzip = 'words'",
        "c.toml, line 2: data.types.zip must be one of number, category, boolean, date, text, dropped",
    ),
    # Unknown keys and sections.
    ("[training]\n\nepoch = 3", "c.toml, line 3: unknown key 'epoch' in [training]; did you mean epochs?"),
    (
        "[run]\nseed = 1\n[trainin]\nepochs = 3",
        "c.toml, line 3: unknown section 'trainin'; did you mean training?",
    ),
    ("\nepochs = 3", "c.toml, line 2: epochs stands outside its section: write it below [training]"),
    ("[run]\nepochs = 3", "c.toml, line 2: epochs belongs to [training], not to [run]"),
    ("data = 3", "c.toml, line 1: data is a section: write [data]"),
    ("[[training]]\nepochs = 3", "c.toml, line 1: training is a section"),
    ("training.epoch = 3", "c.toml, line 1: unknown key 'epoch' in [training]"),
    ("[training]\n'epo ch' = 3", "c.toml, line 2: unknown key 'epo ch'"),
    # Ranges and types.
    ("[training]\nepochs = 0", "c.toml, line 2: training.epochs must be a whole number of at least 1, not 0"),
    ("[training]\nepochs = 2.0", "line 2: training.epochs must be a whole number of at least 1, not 2.0"),
    ("[training]\nepochs = true", "line 2: training.epochs must be a whole number of at least 1, not true"),
    ('[training]\nepochs = "5"', 'line 2: training.epochs must be a whole number of at least 1, not "5"'),
    (
        "[training]\nbatch_size = 16777217",
        "line 2: training.batch_size must be a whole number of at least 1 and at most 16777216",
    ),
    (
        "[training]\nlearning_rate = 0",
        "line 2: training.learning_rate must be a finite number greater than 0 and at most 100, or "
        "a table such as {head = 1e-3, rest = 1e-4}, not 0",
    ),
    (
        "[training]\nlearning_rate = 101",
        "line 2: training.learning_rate must be a finite number greater than 0 and at most 100, or "
        "a table such as {head = 1e-3, rest = 1e-4}, not 101",
    ),
    (
        "[training]\nlearning_rate = nan",
        "line 2: training.learning_rate must be a finite number greater than 0 and at most 100, or "
        "a table such as {head = 1e-3, rest = 1e-4}, not nan",
    ),
    ("[training]\nl1 = -1", "line 2: training.l1 must be a finite number of at least 0, not -1"),
    (
        "[training]\nclip_norm = 0.0",
        "line 2: training.clip_norm must be a finite number greater than 0, not 0.0",
    ),
    (
        "[training]\nearly_stopping = -1",
        "line 2: training.early_stopping must be a whole number of at least 0, not -1",
    ),
    ('[training]\nrestore_best = "yes"', "line 2: training.restore_best must be true or false"),
    (
        "[run]\nseed = 18446744073709551616",
        "line 2: run.seed must be a whole number of at least 0 and at most 18446744073709551615",
    ),
    (
        "[model]\nhidden = 128",
        "line 2: model.hidden must be a list, each element a whole number of at least 1",
    ),
    (
        "[model]\nhidden = [\n 3,\n 0]",
        "line 2: each element of model.hidden must be a whole number of at least 1 and at most",
    ),
    ("[model]\ndropout = 1.0", "line 2: model.dropout must be from 0 up to 1"),
    ("[model]\ndropout = [0.1, 0.2, 0.3]", "line 2: model.dropout has 3 rates for 2 hidden layers"),
    ("[model]\nactivation = 3", "line 2: model.activation must be an activation's name, not 3"),
    ("[data]\nvalidation = 1", "line 2: data.validation must be a share of the samples from 0 up to 1"),
    ("[data]\nvalidation = -0.1", "line 2: data.validation must be a share"),
    ("[data]\ntarget = []", "line 2: data.target must name at least one column"),
    ("[data]\ntarget = 1.5", "line 2: data.target must be a column's name or number"),
    # Names.
    ('[data]\ntask = "regresion"', 'not "regresion"; did you mean regression?'),
    ('[run]\nprecision = "fp8"', "line 2: run.precision must be one of fp32, fp64, tf32, fp16, bf16"),
    ('[run]\ndevice = "cuda:x"', "line 2: run.device must be"),
    (
        '[training]\noptimizer = "adm"',
        "line 2: training.optimizer: unknown optimizer 'adm'; did you mean adam?",
    ),
    (
        "[training]\noptimizer = {beta1 = 0.9}",
        "line 2: training.optimizer must be an optimizer's name or a table",
    ),
    ('[training.optimizer]\nname = "adm"', "line 2: training.optimizer.name: unknown optimizer 'adm'"),
    ('[training.optimizer]\nname = "adam"\nbeta1 = 2.0', "line 3: training.optimizer.beta1"),
    ('[training.optimizer]\nname = "adam"\nbeta1 = "high"', "line 3: training.optimizer.beta1"),
    ('[training]\nloss = "hubber"', "line 2: training.loss: unknown loss 'hubber'"),
    ('[model]\ninitializer = "he"', "line 2: model.initializer: unknown initializer 'he'"),
    (
        '[training.schedule]\nname = "step"\n\nevery = 0',
        "line 4: training.schedule.every: schedule step: every = 0 must be a whole number of at least 1",
    ),
    (
        '[training]\nschedule = {name = "step", evry = 3}',
        "line 2: training.schedule.evry: unknown parameter 'evry'",
    ),
    ('[training]\nmetrics = ["r2", "acuracy"]', "unknown metric 'acuracy'; did you mean accuracy?"),
    ("[training]\nloss = {name = 'huber', delta = [{}]}", "line 2: training.loss.delta must be a number"),
    ('[training]\nclass_weight = "balance"', 'line 2: training.class_weight must be "balanced" or a table'),
    (
        "[training.class_weight]\na = 1\nb = -2",
        "line 3: training.class_weight.b must be a weight of at least 0",
    ),
    # Periods.
    (
        '[training]\nwarmup = "2 minutes"',
        'line 2: training.warmup must be a number of steps, or such as "2 epochs"',
    ),
    ("[training]\nwarmup = -1", "line 2: training.warmup must be a number of steps"),
    ('[run]\ncheckpoint_every = "often"', "line 2: run.checkpoint_every: a period is a number and a unit"),
    ("[run]\ncheckpoint_every = 5", "line 2: run.checkpoint_every: a period is a number and a unit"),
    # No TOML at all.
    (
        "[training]\n\nactivation = relu",
        "c.toml, line 3: not valid TOML: Invalid value; put a text in quotes\n    activ",
    ),
    ("[training\nx = 3", "c.toml, line 1: not valid TOML: Expected ']'"),
    ("x = [1,\n2,\n\n", "c.toml, line 2: not valid TOML"),
    (b"\n\nx = '\xff'", "c.toml, line 3: not UTF-8 text"),
    ("x = " + "[" * 100_000, "c.toml: values are nested too deeply"),
    ("x = " + "9" * 5000, "not valid TOML"),
    ("#" * (2**20 + 1), "c.toml: larger than 1 MiB"),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert expected in mistake(tmp_path, text)


def test_the_line_is_found_past_texts_and_lists_of_many_lines(tmp_path: Path) -> None:
    text = '''[training]
metrics = [
    "accuracy",  # epochs = 1
]
loss = """
epochs = 2
[run]
"""
epochs = -1
'''
    assert "c.toml, line 9: training.epochs" in mistake(tmp_path, text)
    assert "c.toml, line 9: training.epochs" in mistake(tmp_path, text.replace("\n", "\r\n"))
    assert "c.toml, line 9: training.epochs" in mistake(tmp_path, "\ufeff" + text)


def test_several_mistakes_take_two_lines_in_the_files_order(tmp_path: Path) -> None:
    text = '[training]\nl1 = -1\nepochs = 0\n[data]\ntask = "x"\n[run]\nseed = -1'
    first, second = mistake(tmp_path, text).split("\n")
    assert first.startswith("c.toml, line 2: training.l1")
    assert second.startswith("c.toml, line 3: training.epochs")
    assert second.endswith("(and 2 more)")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(FileError, match=path.name):
            load_config(path)


def test_overrides_are_toml_or_bare_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = Config().with_overrides(
        [
            "training.epochs=5",
            "run.device = cuda:1",
            "model.hidden=[32, 16]",
            'model.activation="tanh"',
            "training.optimizer.beta1=0.8",
            "training.schedule=exponential",
            "training.restore_best=false",
            "data.train=some/file.csv",
            "training.epochs=6",
        ]
    )
    assert config.training.epochs == 6
    assert config.run.device == "cuda:1"
    assert config.model.hidden == [32, 16]
    assert config.model.activation == "tanh"
    assert config.training.optimizer == {"name": "adam", "beta1": 0.8}
    assert config.training.schedule == "exponential"
    assert config.training.restore_best is False
    assert config.data.train == str(tmp_path / "some" / "file.csv")


def test_overrides_keep_what_the_file_says_and_leave_it_unchanged(tmp_path: Path) -> None:
    config = load(tmp_path, EVERYTHING)
    changed = config.with_overrides(["training.optimizer.beta2=0.9", "training.class_weight.new=3"])
    assert changed.training.optimizer == {"name": "adam", "beta1": 0.8, "beta2": 0.9}
    assert changed.training.class_weight == {'a b\x7f\n"': 2.0, "ü": 0.5, "new": 3.0}
    assert config == load(tmp_path, EVERYTHING)
    assert changed.with_overrides([]) == changed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "training.epochs=0",
            "--set training.epochs=0: training.epochs must be a whole number of at least 1, not 0",
        ),
        ("training.epoch=3", "unknown key 'epoch' in [training]; did you mean epochs?"),
        ("trainin.epochs=3", "unknown section 'trainin'; did you mean training?"),
        ("epochs=3", "--set epochs=3: the key's section is missing; write training.epochs=..."),
        ("training.epochs", "not of the form section.key=value"),
        (".=3", "not of the form section.key=value"),
        ("model.hidden=[3", "--set model.hidden=[3: the value is not valid TOML"),
        ("training.epochs=3\nrun = 4", "training.epochs must be a whole number"),
        ("training.epochs.x=3", "training.epochs must be a whole number"),
        ("training.restore_best=True", 'training.restore_best must be true or false, not "True"'),
    ],
)
def test_a_mistake_in_an_override_names_the_override(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config().with_overrides(["run.seed=3", text])
    assert expected in str(caught.value)
    assert str(caught.value).startswith(f"--set {text}: ")


@pytest.mark.parametrize(
    ("options", "schedule"),
    [
        ({}, Cosine()),
        ({"schedule": "cosine", "warmup": 5}, Cosine(warmup=5)),
        ({"schedule": "cosine", "warmup": "2 epochs"}, Cosine(warmup_epochs=2)),
        ({"schedule": "cosine", "warmup": "20 steps"}, Cosine(warmup=20)),
        ({"schedule": {"name": "step", "every": 4, "warmup": 3}}, StepDecay(4, warmup=3)),
    ],
)
def test_the_schedule_is_made_with_its_warmup(options: dict, schedule: object) -> None:
    assert TrainingConfig(**options).schedule_with_warmup() == schedule


def test_warmup_twice_is_a_mistake(tmp_path: Path) -> None:
    text = '[training]\nwarmup = 3\nschedule = {name = "cosine", warmup = 4}'
    assert "line 2: training.warmup has been given in the schedule's table too" in mistake(tmp_path, text)


def test_a_section_knows_which_keys_were_given() -> None:
    section = TrainingConfig(l1=0.0, schedule="step")
    assert section.given == {"l1", "schedule"}
    assert section.values(given_only=True) == {"l1": 0.0, "schedule": "step"}
    changed = section.changed(epochs=3)
    assert (changed.given, changed.epochs, changed.schedule) == ({"l1", "schedule", "epochs"}, 3, "step")
    assert pickle.loads(pickle.dumps(changed)).given == changed.given
    assert TrainingConfig(l1=0.0) == TrainingConfig()


def test_a_mistake_in_python_is_a_config_error_too() -> None:
    with pytest.raises(ConfigError, match="epochs = 0 must be a whole number of at least 1"):
        TrainingConfig(epochs=0)
    with pytest.raises(ConfigError, match="must differ from decimal"):
        DataConfig(decimal=",", thousands=",")


@pytest.mark.parametrize("section", SECTIONS)
def test_defaults_and_examples_are_allowed(section: str) -> None:
    for name, known in settings_of(SECTIONS[section]).items():
        assert known.plain(known.default) == known.default, name
        if known.example is not None:
            known.check(name, known.example)


def test_what_the_trainer_has_too_is_taken_over_from_it() -> None:
    trained, written = settings_of(TrainingSettings), settings_of(TrainingConfig)
    shared = {name for name in trained if name in written}
    own = set(written) - set(trained)
    assert own == {"learning_rate", "weight_decay", "warmup", "preset", "freeze"}
    for name in shared - {"loss", "early_stopping", "metrics"}:  # "auto", 0 and [] are the file's own words
        assert written[name].help == trained[name].help, name
    for name in ("batch_size", "l1", "l2", "clip_norm"):
        assert written[name] == trained[name], name
    run = settings_of(RunConfig)
    for name in ("precision", "seed", "data_placement"):
        assert run[name] == trained[name], name
    tables = settings_of(TableOptions)
    for name in ("separator", "skip_rows", "comment", "quote", "encoding", "decimal", "thousands", "weight"):
        assert settings_of(DataConfig)[name] == tables[name], name


def test_names_of_the_data_are_those_that_it_knows() -> None:
    known = settings_of(DataConfig)
    assert known["scaling"].check.words == Choice(SCALINGS).words
    assert known["task"].check.words == Choice(("auto", "classification", *TASKS)).words


def test_a_resume_may_change_what_no_result_depends_on() -> None:
    free = {
        f"{section}.{name}"
        for section, kind in SECTIONS.items()
        for name, known in settings_of(kind).items()
        if not known.must_match and section != "data"  # data that were moved are known by their content
    }
    assert free == {
        "training.epochs",
        "run.device",
        "run.data_placement",
        "run.diagnostics",
        "run.out",
        "run.checkpoint_every",
        "run.checkpoint_keep",
        "run.keep_checkpoints",
    }
    assert not any(known.must_match for known in settings_of(DataConfig).values())


def test_loading_a_config_imports_no_numpy(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[training]\nepochs = 3\nl1 = 0.1\nwarmup = '2 epochs'\n")
    code = (
        "import sys; from nnkit.runs.config import load_config; load_config(sys.argv[1]);"
        "assert {'numpy', 'numba', 'pydantic'}.isdisjoint(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "c.toml"], check=True)


def test_importing_nnkit_does_not_import_the_config() -> None:
    code = "import sys, nnkit; assert 'nnkit.runs.config' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


WORDS = """data model training run hidden epochs dropout optimizer schedule warmup seed validation train
metrics class_weight loss initializer checkpoint_every device learning_rate name every x"""
KEYS = st.sampled_from(WORDS.split())
VALUES = st.recursive(
    st.sampled_from(
        ["1", "-0.5", "nan", "inf", "true", '"adam"', '"2 epochs"', '"step"', '"a\\u0000b"', "0x" + "f" * 400]
    )
    | st.sampled_from(["1979-05-27", "07:32:00", "'''\n\n'''", "[]", "{}", "1e308", "0.5", "bare"])
    | st.text(max_size=8).map(lambda text: f'"{text}"'),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(KEYS, inner, max_size=3).map(
            lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"
        )
    ),
    max_leaves=5,
)
LINES = (
    KEYS.map("[{}]".format)
    | st.tuples(KEYS, KEYS).map("[{0[0]}.{0[1]}]".format)
    | st.tuples(KEYS, VALUES).map("{0[0]} = {0[1]}".format)
    | st.just("# a comment")
)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.lists(LINES, max_size=8).map(lambda lines: "\n".join(lines).encode()))
def test_any_bytes_give_a_config_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        config = load(folder, content)
    except ConfigError as error:
        lines = str(error).split("\n")
    else:
        lines = []
        assert load(folder, config.to_toml()) == config
    assert len(lines) <= 2


@settings(max_examples=100, deadline=None)
@given(st.tuples(KEYS, KEYS, KEYS | st.none(), VALUES | st.text(max_size=20)))
def test_any_override_gives_a_config_or_a_config_error(parts: tuple[str, str, str | None, str]) -> None:
    section, key, inner, value = parts
    path = f"{section}.{key}" + (f".{inner}" if inner else "")
    with contextlib.suppress(ConfigError):
        Config().with_overrides([f"{path}={value}"])
