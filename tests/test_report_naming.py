"""What rows are called: no more than tells them apart."""

from __future__ import annotations

from records import made_elsewhere, make_record, make_training, of_code

from trilemma_bench.report.table import tables


def test_runs_of_one_label_are_told_apart():
    names = lambda *records: {row.name for row in tables(records)[0].rows}  # noqa: E731
    assert names(make_record(seed=1), make_record(seed=2)) == {"ddgan, seed 1", "ddgan, seed 2"}
    edited = (of_code(make_record(seed=seed), 64 * letter) for seed, letter in enumerate("ab"))
    assert names(*edited) == {"ddgan, code aaaaaaa", "ddgan, code bbbbbbb"}
    apart = [make_record(id=f"run-{i}", training=make_training(checkpoint_sha256=f"{i}")) for i in range(2)]
    assert names(*apart) == {"ddgan, run-0", "ddgan, run-1"}  # two trainings, alike in all that was chosen


def test_seeds_and_a_single_run_of_one_label_are_told_apart():
    def trained(seed, budget):
        training = make_training(checkpoint_sha256=f"{budget}{seed}", budget=budget)
        return make_record(seed=seed, id=f"{budget}{seed}", training=training)

    (table,) = tables([trained(0, "2m"), trained(1, "2m"), trained(0, "9m")])
    assert {row.name for row in table.rows} == {"ddgan, 2m, 2 seeds", "ddgan, 9m"}


def swept(eta, steps=5, **changes):
    part = make_record("ddim", f"{steps} steps").model.model_copy(update={"settings": {"eta": eta, "steps": steps}})
    return make_record("ddim", id=f"{eta}-{steps}").model_copy(update={"model": part, **changes})


def test_a_sweep_shows_what_was_swept_and_no_more():
    (table,) = tables([swept(0.0), swept(0.5), swept(1.0), swept(0.0, steps=9)])
    names = {row.name for row in table.rows}
    assert names == {"ddim (5 steps), eta=0.0", "ddim (5 steps), eta=0.5", "ddim (5 steps), eta=1.0", "ddim (9 steps)"}


def test_a_setting_that_an_older_record_lacks_tells_apart_only_where_nothing_else_does():
    def trained(schedule, settings):
        training = make_training(checkpoint_sha256=schedule, settings={"lr_schedule": schedule})
        part = make_record("ddim", "5 steps").model.model_copy(update={"settings": settings})
        return make_record("ddim", id=schedule, training=training).model_copy(update={"model": part})

    (table,) = tables([trained("constant", {}), trained("cosine", {"augment": 0.0})])
    assert {row.name for row in table.rows} == {f"ddim (5 steps), lr_schedule={s}" for s in ("constant", "cosine")}
    (table,) = tables([swept(0.0), swept(0.0, id="older").model_copy(update={"model": trained("x", {}).model})])
    assert {row.name for row in table.rows} == {"ddim (5 steps)", "ddim (5 steps), eta=0.0"}


def test_settings_and_budget_tell_apart_together_where_neither_does_alone():
    records = [
        swept(eta, training=make_training(budget=budget, checkpoint_sha256=budget), id=f"{eta}{budget}")
        for eta in (0, 1)
        for budget in ("2m", "9m")
    ]
    (table,) = tables(records)
    assert {row.name for row in table.rows} == {f"ddim (5 steps), {b}, eta={e}" for e in (0, 1) for b in ("2m", "9m")}


def test_samples_made_elsewhere_are_told_apart_by_their_file():
    (table,) = tables([made_elsewhere("a.npz"), made_elsewhere("b.npz")])
    assert {row.name for row in table.rows} == {"theirs, samples=a.npz", "theirs, samples=b.npz"}
    (table,) = tables([made_elsewhere("a.npz", 0), made_elsewhere("b.npz", 1)])
    assert [row.name for row in table.rows] == ["theirs, 2 seeds"]
