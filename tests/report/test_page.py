import json
import math
import re
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from report_cases import HOSTILE, Fold, final_test, hostile, part, refit, verdict, view
from torchshrink.report import words
from torchshrink.report.axes import StrengthAxis, loss_domain
from torchshrink.report.facts import facts as facts_of
from torchshrink.report.image_figure import image_shape
from torchshrink.report.inert import name, script_json, text, visible
from torchshrink.report.numbers import exactly, short
from torchshrink.report.page import page
from torchshrink.report.pictures import Pictures


class Read(HTMLParser):
    """What a browser makes of a page: elements, text, and what scripts hold."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.words, self.scripts, self._inside = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside.append(tag)

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside.pop()

    def handle_data(self, data):
        (self.scripts if self._inside else self.words).append(data)

    @property
    def said(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def facts(shown):
    return {fact.question: fact.answer for fact in facts_of(shown)}


def spec(shown, id):
    return next(each.spec for each in Pictures.of(shown).every if each.id == id)


def data_of(made):
    """Every value that a specification holds."""
    if isinstance(made, dict):
        yield from made.get("values", []) if isinstance(made.get("values"), list) else []
        for each in made.values():
            yield from data_of(each)
    elif isinstance(made, list):
        for each in made:
            yield from data_of(each)


class TestWords:
    def test_the_headline_is_what_the_issue_asks_for(self):
        shown = view()
        assert words.title(shown) == "Penalising helps: the loss on unseen rows falls by 80 %."
        said = words.summary(shown)
        assert said.startswith(
            "L1 at 0.0631: loss on unseen rows 7.00 → 1.40 (−80 %), 36 of 100 weights left, better in 10"
        )
        assert said.endswith("on 150 rows that nobody looked at 7.20 → 1.30.")

    @pytest.mark.parametrize(
        ("judged", "title"),
        [
            (verdict(0.02, (-0.1, 0.2)), "No gain on unseen rows is shown, but 64 % of the weights can go."),
            (verdict(0.3, (0.1, 0.5)), "Penalising harms here: the loss on unseen rows rises by 30 %."),
            (verdict(-2.5, (-3.0, -2.0), relative=False), "Penalising helps: the loss on unseen rows falls by 2.5."),
        ],
    )
    def test_the_title_claims_no_more_than_the_verdict(self, judged, title):
        assert words.title(replace(view(), verdict=judged)) == title

    def test_a_change_that_is_not_that_of_the_means_says_whose_it_is(self):
        said = words.summary(replace(view(), verdict=verdict(-0.9, (-0.95, -0.8), after=1.4)))
        assert "7.00 → 1.40 (−90 % in the typical fold)" in said

    def test_without_smaller_weights_there_is_no_benefit_at_all(self):
        shown = view()
        dense = [replace(each, nonzero=100) for each in shown.parts[0].points]
        each = replace(shown.parts[0], points=dense, best=dense[3], one_se=dense[4])
        about = replace(shown.about, refit=None)
        unsure = replace(shown, parts=[each], verdict=verdict(0.0, (-0.1, 0.1)), about=about)
        assert words.title(unsure) == "No benefit of penalising is shown."

    def test_a_stranger_finds_eight_answers(self):
        said = facts(view())
        assert (
            "houses.csv, 250 rows (100 to tune on, 150 set aside for the end), 6 columns (age, size"
            in said["On what data?"]
        )
        assert said["Which strength?"].startswith("L1 at 0.0631: the least loss on held-out rows of 11 strengths")
        assert "95 % interval 74 to 85 %" in said["How much better, and how sure?"]
        assert "150 rows that nobody looked at 7.20 → 1.30" in said["On rows that nobody looked at?"]
        assert "from 0.5000 to 0.8500 (+70 %)" in said["What was given up?"]
        assert "6 inputs that no fold uses any more: age, size, city" in said["What was given up?"]
        assert "36 of 100 penalised weights" in said["What is left?"]
        assert "in the final model 60 of 100" in said["What is left?"]
        assert said["Is it an optimum?"].startswith("A stationary point")
        assert said["How to make it again?"] == "torchshrink path houses.csv --target rent"

    def test_inputs_that_left_are_named_in_their_order(self):
        shown = view(strengths=5)  # the best is the third: inputs 0 and 1 have left there
        assert words.leaving(shown, shown.parts[0])[:3] == [
            ("age", pytest.approx(1e-3)),
            ("size", pytest.approx(1e-2)),
            ("city", pytest.approx(1e-1)),
        ]
        assert "age, size" in facts(shown)["What was given up?"]
        assert "noise, rooms, price, city" in facts(shown)["What is left?"]

    def test_a_category_s_columns_go_by_its_name(self):
        shown = view(columns=("age", "city"), inputs=4)
        about = replace(shown.about, sources=[0, 1, 1, 1])
        assert words.input_names(replace(shown, about=about), shown.parts[0]) == ["age", "city=0", "city=1", "city=2"]

    def test_of_a_strength_that_is_not_the_best_it_says_only_what_is_known_of_that(self):
        shown = view()
        part = shown.parts[0]
        sparse = part.one_se
        about = replace(shown.about, refit=refit(sparse.strength, choice="one_se"))
        said = words.summary(replace(shown, about=about))
        own, best = said.split(" At the least loss, 0.0631: ")
        assert own.startswith(f"L1 at {short(sparse.strength)}: loss on held-out rows ")
        assert f"→ {exactly(sparse.validation_loss, 3)} (" in own
        assert "7.00" not in own
        assert best.startswith("loss on unseen rows 7.00 → 1.40 (−80 %), better in 10")
        assert best.endswith("; on 150 rows that nobody looked at 7.20 → 1.30.")
        told = facts(replace(shown, about=about))
        assert told["On rows that nobody looked at?"].startswith("At the least loss, 0.0631, on 150 rows")
        assert "choosing the strength of the least loss, as 0.0631 is" in told["How much better, and how sure?"]
        assert words.title(replace(shown, about=about)).startswith(
            "Penalising helps: at the strength of the least loss"
        )

    def test_where_no_penalty_is_best_it_is_said_so(self):
        shown = view()
        each = shown.parts[0]
        none = replace(each, best=each.points[0], one_se=each.points[2])
        about = replace(shown.about, refit=refit(0.0))
        told = facts(replace(shown, parts=[none], about=about))["Which strength?"]
        assert "11 strengths above 0 none has a smaller loss" in told
        assert ("As sparse as" in told) == (none.one_se.nonzero < none.best.nonzero)
        dense = replace(none, one_se=replace(none.one_se, nonzero=none.best.nonzero))
        assert "As sparse" not in facts(replace(shown, parts=[dense], about=about))["Which strength?"]

    def test_models_that_are_the_same_are_not_better(self):
        assert "the same in" in words.summary(replace(view(), verdict=verdict(0.0, (0.0, 0.0))))
        assert "better in" in words.summary(replace(view(), verdict=verdict(0.01, (-0.1, 0.1))))

    def test_a_relaxed_model_is_called_that(self):
        shown = view()
        about = replace(shown.about, refit=refit(shown.parts[0].best.strength, relaxed=True))
        assert "trained on without the penalty" in facts(replace(shown, about=about))["Which strength?"]
        assert "without the penalty" not in facts(shown)["Which strength?"]

    def test_the_command_can_be_copied(self):
        shown = view()
        about = replace(shown.about, command="torchshrink path a.csv --target 'x % <y>'")
        assert "--target &#x27;x % &lt;y&gt;&#x27;</code>" in page(replace(shown, about=about))

    def test_an_input_leaves_at_a_strength_that_was_trained(self):
        shown = view(strengths=5)
        part = shown.parts[0]
        lost = [replace(point, diverged=k == 2) for k, point in enumerate(part.points)]
        assert all(lost[2].strength != at for _, at in words.leaving(shown, replace(part, points=lost)))

    def test_the_certificate_is_in_its_own_words(self):
        shown = view()
        about = replace(shown.about, refit=refit(0.1, certificate="the optimum, proved: <b>"))
        assert facts(replace(shown, about=about))["Is it an optimum?"] == "The optimum, proved: <b>."

    def test_what_is_not_known_is_said(self):
        shown = view()
        bare = replace(shown, about=type(shown.about)(), test=None)
        said = facts(bare)
        assert "On rows that nobody looked at?" not in said
        assert said["Is it an optimum?"].startswith("Not measured")
        assert "seed=3" in said["How to make it again?"]
        assert Read(page(bare)).said


class TestFigures:
    def test_strength_0_stands_apart(self):
        axis = StrengthAxis.of(view().parts)
        assert axis.place(1e-3) == -3.0
        assert axis.low < axis.place(0.0) < -3.0
        assert axis.place(1.0) < axis.high

    @pytest.mark.parametrize("strengths", [(0.0,), (0.0, 0.5), (0.0, 1e-30, 1e30), (0.0, 0.1, 0.2)])
    def test_any_grid_has_two_ticks_or_more(self, strengths):
        points = [replace(view().parts[0].points[0], strength=each) for each in strengths]
        axis = StrengthAxis.of([replace(view().parts[0], points=points)])
        assert len(axis.x["axis"]["values"]) >= 2
        assert axis.x["axis"]["values"] == sorted(axis.x["axis"]["values"])

    def test_a_training_far_off_does_not_flatten_the_rest(self):
        shown = view().parts[0]
        points = [*shown.points[:-1], replace(shown.points[-1], validation_loss=1e9)]
        assert loss_domain([replace(shown, points=points)])[0][1] < 10

    def test_the_losses_are_the_points(self):
        shown = view("l1", "l2")
        rows = [each for each in spec(shown, "fig-loss")["layer"][2]["data"]["values"] if each["part"] == 1]
        assert [each["loss"] for each in rows] == pytest.approx([p.validation_loss for p in shown.parts[1].points])
        assert [each["train"] for each in rows] == pytest.approx([p.train_loss for p in shown.parts[1].points])

    def test_diverged_points_are_left_out_and_said(self):
        shown = view()
        lost = replace(
            shown.parts[0].points[-1],
            diverged=True,
            train_loss=math.inf,
            validation_loss=math.inf,
            validation_se=math.inf,
            nonzero=math.inf,
        )
        points = [*shown.parts[0].points[:-1], lost]
        folds = [*shown.parts[0].folds[:-1], [Fold(math.inf, True)] * 5]
        lost_view = replace(shown, parts=[replace(shown.parts[0], points=points, folds=folds)])
        rows = spec(lost_view, "fig-loss")["layer"][2]["data"]["values"]
        assert len(rows) == 11
        assert "diverged" in Read(page(lost_view)).said
        assert "a training diverged here" in words.point_words(lost_view.parts[0], 11, False)

    @pytest.mark.parametrize(
        "id", ["fig-loss", "fig-gap", "fig-inputs", "fig-now", "fig-folds", "fig-curves", "fig-layers", "fig-sizes-0"]
    )
    def test_every_picture_follows_the_slider(self, id):
        made = json.dumps(spec(view(), id))
        assert "datum.k == at" in made
        assert "datum.part == part" in made

    def test_folds_stay_in_their_picture_at_every_strength(self):
        shown = view()
        domain = spec(shown, "fig-folds")["layer"][0]["encoding"]["y"]["scale"]["domain"]
        losses = [fold.validation_loss for point in shown.parts[0].folds for fold in point]
        assert domain[0] < min(losses) < max(losses) < domain[1]

    def test_alternatives_say_what_is_seen(self):
        for each in Pictures.of(view("l1", "l2")).every:
            assert len(each.alt) > 30
            assert re.search(r"\d", each.alt), each.id

    @pytest.mark.parametrize(
        ("row", "columns", "shape"),
        [
            ((4, 3), (), (4, 3)),
            ((1, 4, 3), (), (4, 3)),
            ((12,), tuple(f"pixel_{i}_{j}" for i in range(4) for j in range(3)), (4, 3)),
            ((12,), tuple(f"pixel_{j}_{i}" for i in range(4) for j in range(3)), None),
            ((12,), (), None),
        ],
    )
    def test_images_are_known_as_such(self, row, columns, shape):
        assert image_shape(view(inputs=12, row=row, columns=columns)) == shape

    def test_a_heat_map_has_its_pixels_in_their_places(self):
        made = spec(view(inputs=12, row=(4, 3), columns=()), "fig-now")
        first = next(data_of(made))
        assert first["v"] == [100] * 12
        second = list(data_of(made))[1]
        assert second["v"] == [round(100 * max(0, 1 - 1 / (j + 1))) for j in range(12)]

    def test_strength_0_alone_does_not_decide_how_high_the_path_is(self):
        shown = view()
        weights = shown.parts[0].weights
        far = [[70.0] * 6, *weights.inputs[1:]]
        high = replace(shown, parts=[replace(shown.parts[0], weights=replace(weights, inputs=far))])
        domains = [
            next(
                layer["encoding"]["y"]["scale"]["domain"][1]
                for layer in spec(each, "fig-inputs")["layer"]
                if layer["mark"]["type"] == "line"
            )
            for each in (shown, high)
        ]
        assert domains[0] >= 1.0
        assert domains[1] == pytest.approx(1.04 * max(max(row) for row in far[1:]))
        assert "go up to 70, outside of this picture" in Read(page(high)).said
        assert "outside of this picture" not in Read(page(shown)).said

    def test_what_is_left_out_is_said(self):
        shown = view(inputs=40, columns=())
        said = Read(page(shown)).said
        assert "16 more inputs are left out" in said


class TestInert:
    def test_names_make_no_element_and_end_no_script(self):
        bad, good = (
            Read(page(hostile())),
            Read(page(replace(view("l1", "l2", inputs=len(HOSTILE)), about=hostile().about))),
        )
        kinds = {tag for tag, _ in bad.elements}
        assert kinds <= {tag for tag, _ in good.elements} | {"ul", "li"}
        assert not any(attribute.startswith("on") for _, found in bad.elements for attribute in found)
        assert not any({"src", "href"} & set(found) for _, found in bad.elements)
        assert len(bad.scripts) == 4  # style, data, Vega, the page's own

    def test_nothing_unseen_is_left_in_the_text(self):
        said = "".join(Read(page(hostile())).words)
        assert not re.search("[\u202a-\u202e\u2066\u2067\u200e\u200f\u2028\u2029\x00\x1b]", said)
        assert said.count("\u2068") == said.count("\u2069") > 0
        assert "\\u202eexe.gnp" in said

    def test_data_are_data(self):
        made = page(hostile())
        drawn = re.search(r'<script type="application/json" id="drawn">(.*?)</script>', made, re.DOTALL)[1]
        assert not re.search("[<>&\u2028\u2029\n]", drawn)
        kept = json.dumps(json.loads(drawn))
        for bad in ("alert(1)", "datum.x}"):  # in no expression
            assert not re.search(rf'"(calculate|filter|test|labelExpr|expr|signal)": "[^"]*{re.escape(bad)}', kept)
        assert "x" * 100 not in kept

    @pytest.mark.parametrize("bad", HOSTILE)
    def test_a_name_is_short_seen_and_isolated(self, bad):
        made = name(bad)
        assert 0 < len(made) <= 62
        assert "\n" not in made
        assert visible(made.strip("\u2068\u2069")) == made.strip("\u2068\u2069")
        assert "<" not in text(bad)
        assert json.loads(script_json([bad])) == [bad]


class TestFile:
    def test_many_strengths_and_folds_are_quick_and_small(self):
        strengths, folds = 100, 10
        layers = ((256, 256), (128, 256), (16, 128))
        columns = tuple(f"column {j}" for j in range(256))
        shown = view(
            "l1", "l2", strengths=strengths, folds=folds, inputs=256, layers=layers, columns=columns, epochs=60
        )
        begun = time.perf_counter()
        made = page(shown)
        assert time.perf_counter() - begun < 10
        assert len(made.encode()) < 3e6

    def test_it_asks_for_nothing(self):
        read = Read(page(view("l1", "l2")))
        policy = next(found["content"] for tag, found in read.elements if found.get("http-equiv"))
        assert policy.startswith("default-src 'none'; img-src data:;")
        assert "unsafe-eval" not in policy
        assert not any({"src", "href"} & set(found) for _, found in read.elements)

    def test_it_needs_no_picture_library(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.delitem(sys.modules, "torchshrink.report.picture", raising=False)
        assert "<h1>" in page(view())

    def test_the_same_view_gives_the_same_bytes(self):
        assert page(view("l1", "l2")) == page(view("l1", "l2"))

    def test_vega_is_what_its_bundler_makes(self):
        convert = pytest.importorskip("vl_convert")
        sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
        try:
            from vega_bundle import bundle
        finally:
            sys.path.pop(0)
        kept = (Path(words.__file__).parent / "vega.js").read_text(encoding="utf-8")
        if f"vl-convert {convert.__version__};" not in kept[:400]:
            pytest.skip("another version of vl-convert than the one that made it")
        assert bundle() == kept

    def test_parts_without_weights_have_a_report_too(self):
        bare = [replace(each, weights=None, folds=()) for each in view("l1", "l2").parts]
        made = Pictures.of(replace(view("l1", "l2"), parts=bare))
        assert [each.id for each in made.every] == ["fig-loss", "fig-gap"]
        assert Read(page(replace(view("l1", "l2"), parts=bare))).said

    def test_not_a_number_is_no_fault(self):
        values = np.full((12, 6), np.nan).tolist()
        shown = view()
        odd = replace(shown.parts[0], weights=replace(shown.parts[0].weights, inputs=values))
        assert Read(page(replace(shown, parts=[odd]))).said


def test_cases_are_what_they_say():
    assert part(strengths=5).best.strength == pytest.approx(1e-2)
    assert final_test().rows == 150
