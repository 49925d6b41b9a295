"""The night's configuration: TOML in, sentences out."""

from pathlib import Path

import pytest

from flows.config import ConfigError, NightlyConfig, load_config
from recsys_core.training.recipe import Choice
from tasks.contracts.recipe import Recipe
from tests.tiny import tiny_settings

CONFIGS = sorted((Path(__file__).parents[2] / "infra" / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_load_and_take_another_data_folder(path: Path) -> None:
    config = load_config(path, data=Path("/elsewhere"))

    assert str(config.events.interactions).startswith("/elsewhere")


def test_the_form_describes_every_field() -> None:
    schema = NightlyConfig.model_json_schema()

    models = [schema, *schema["$defs"].values()]
    undescribed = [
        f"{model['title']}.{name}"
        for model in models
        for name, facts in model.get("properties", {}).items()
        if "description" not in facts
    ]
    assert undescribed == []


def test_a_file_changes_what_it_says_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "night.toml"
    path.write_text("[teacher.training]\nepochs = 3", encoding="utf-8")

    teacher, default = load_config(path).teacher, NightlyConfig().teacher

    assert teacher.training == default.training.model_copy(update={"epochs": 3})
    assert teacher.model == default.model


def test_the_recipe_leaves_what_a_file_sets(tmp_path: Path) -> None:
    path = tmp_path / "night.toml"
    path.write_text(
        "[recipe]\nkeep = ['student.model.n_layers']\n"
        "[teacher]\ncontent_features = 64\n[teacher.model]\nn_layers = 5",
        encoding="utf-8",
    )

    keep = load_config(path).recipe.keep

    assert keep == (
        "student.model.n_layers",
        "teacher.content_features",
        "teacher.model.n_layers",
    )


def test_the_recipe_leaves_what_a_form_or_code_changed() -> None:
    config = NightlyConfig.model_validate(
        {"teacher": {"training": {"epochs": 3}}, "recipe": {"keep": ["student.model.dropout"]}}
    )

    keep = config.keeping_changes().recipe.keep

    assert {"teacher.training.epochs", "student.model.dropout"} <= set(keep)
    assert not any(name.startswith("student.training") for name in keep)
    assert NightlyConfig().keeping_changes() == NightlyConfig()


def test_a_recipe_replaces_settings_and_its_contradictions_are_sentences() -> None:
    deeper = Choice(settings={"teacher.model.n_layers": 6, "student.model.dropout": 0.4}, reason="")
    config = NightlyConfig().with_recipe(Recipe(log=None, choices=(deeper,)))
    assert (config.teacher.model.n_layers, config.student.model.dropout) == (6, 0.4)
    assert config.teacher.training == NightlyConfig().teacher.training
    odd = Choice(settings={"student.model.embedding_dim": 40}, reason="")
    with pytest.raises(ConfigError, match=r"multiple of 16.* add the others to recipe\.keep"):
        NightlyConfig().with_recipe(Recipe(log=None, choices=(odd,)))


def test_a_recipe_fits_its_sizes_to_those_that_are_kept() -> None:
    def chosen(**settings: int) -> NightlyConfig:
        named = {name.replace("__", ".model."): value for name, value in settings.items()}
        choice = Choice(settings=named, reason="")
        return NightlyConfig().with_recipe(Recipe(log=None, choices=(choice,)))

    assert chosen(student__max_length=100).student.model.max_length == 64
    assert chosen(student__embedding_dim=128).student.model.embedding_dim == 64
    assert chosen(teacher__max_length=16).teacher.model.max_length == 64, "the student reads 64"
    both = chosen(teacher__max_length=16, student__max_length=16)
    assert both.student.model.max_length == both.teacher.model.max_length == 16


def test_an_external_teacher_does_not_limit_the_student(tmp_path: Path) -> None:
    path = tmp_path / "night.toml"
    path.write_text(
        "[teacher]\nsource = 'external'\n[soft_labels]\nstore = 'labels'\n"
        "[student.model]\nembedding_dim = 128\nmax_length = 100",
        encoding="utf-8",
    )
    config = load_config(path)
    longer = Choice(settings={"student.model.max_length": 200}, reason="")
    chosen = config.with_recipe(Recipe(log=None, choices=(longer,)))
    assert (config.student.model.max_length, chosen.student.model.max_length) == (100, 200)


def test_a_family_is_a_table_of_differences(tmp_path: Path) -> None:
    path = tmp_path / "night.toml"
    path.write_text(
        "[student.sizes.S]\nn_repeats = 2\n[student.sizes.XS]\nencoder = 'pooling'\nepochs = 3",
        encoding="utf-8",
    )

    config = load_config(path)

    main, small, smallest = config.student.members().values()
    assert list(config.student.members()) == ["main", "S", "XS"]
    assert main.model == NightlyConfig().student.model
    assert small.model == main.model.model_copy(update={"n_repeats": 2})
    assert small.training == main.training
    assert smallest.model == main.model.model_copy(update={"encoder": "pooling"})
    assert smallest.training == main.training.model_copy(update={"epochs": 3})
    assert config.student.alone("XS").members() == {"main": smallest}
    wider = Choice(settings={"student.model.ffn_dim": 96}, reason="")
    chosen = config.with_recipe(Recipe(log=None, choices=(wider,)))
    assert chosen.student.members()["XS"].model.ffn_dim == 96


def test_the_gate_says_how_large_the_student_that_ships_may_be() -> None:
    assert NightlyConfig().max_shipped_bytes is None
    bounds = [("compressed", 500_000), ("compressed", 400_000), ("teacher", 300)]
    rules = [
        {"name": f"{model} {most}", "model": model, "metric": "size_bytes", "at_most": most}
        for model, most in bounds
    ]
    rules += [
        {"name": "large", "metric": "size_bytes", "at_least": 100},
        {"name": "fast", "metric": "latency_ms_p50", "at_most": 5},
    ]
    assert NightlyConfig.model_validate({"gate": {"rules": rules}}).max_shipped_bytes == 400_000


def test_the_control_recovers_only_where_the_student_is_pruned() -> None:
    def epochs(**compression: object) -> int:
        return NightlyConfig.model_validate({"compression": compression}).recovery_epochs

    assert epochs(ffn_keep_share=0.5) == NightlyConfig().compression.recovery.epochs == 2
    assert epochs(ffn_keep_share=1.0) == 0


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no configuration file .*none\.toml"):
        load_config(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("teacher = [", "can't be read as TOML"),
        ("[teacher.training]\nepochs = 0", "teacher.training.epochs: .*greater than or equal to 1"),
        ("[teacher.training]\nepoch = 3", "teacher.training.epoch: Extra inputs"),
        ("[distillation]\ntemperature = inf", "distillation.temperature"),
        ("[teacher]\nsource = 'external'", "soft_labels.store names no labels"),
        *(
            (
                f"[soft_labels]\nstore = 'labels'\n[distillation]\n{name} = 0.5",
                f"distillation.{name} is 0.5, but .* needs the teacher's states",
            )
            for name in ("ranking_weight", "closure_weight", "hidden_weight")
        ),
        (
            "[soft_labels]\nstore = 'labels'\n[distillation]\ndivergence = 'reverse_kl'",
            "distillation.divergence is 'reverse_kl'.* need a score for every item",
        ),
        ("[student.model]\nembedding_dim = 40\nn_heads = 2", "multiple of 16"),
        ("[student.model]\ntime_gaps = true", "asked with item ids alone"),
        ("[student.model]\nembedding_dim = 128", "wider than the teacher"),
        (
            "[student.sizes.S]\nembedding_dim = 24",
            r"student\.sizes\.S\.embedding_dim is 24; it must",
        ),
        ("[student.sizes.S]\nn_layers = 0", r"sizes\.S\.n_layers is 0.*greater than or equal to 1"),
        ("[student.sizes.S]\nmax_length = 8", r"student\.sizes\.S\.max_length: Extra inputs"),
        ("[student.sizes.S]\nn_heads = 3", r"student\.sizes\.S: n_heads=3 must divide"),
        ("[student.sizes.S]\nembedding_dim = 96", r"student\.sizes\.S\..* wider than the teacher"),
        ("[student.sizes.s]\n[student.sizes.S]", "differ in more than case"),
        ("[student.sizes.Main]", "'main' is \\[student\\] itself"),
        ('[student.sizes."a/b"]', "String should match pattern"),
        ('[source]\ninteractions = "{data}/x.csv"', "--data"),
        ('[[validation.expectations]]\ntype = "expect_much"', "validation: .*no such type"),
    ],
)
def test_bad_settings_name_the_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "night.toml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match=message) as refused:
        load_config(path)

    assert "night.toml" in str(refused.value)


def test_settings_survive_json(tmp_path: Path) -> None:
    config = NightlyConfig.model_validate(tiny_settings(tmp_path))

    assert NightlyConfig.model_validate(config.model_dump(mode="json")) == config
