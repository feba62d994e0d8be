from shapes import TrainedNetwork

from ulmpipe.reports.facts import Facts
from ulmpipe.tasks.report import report
from vision.evaluate import evaluate
from vision.model import KIND


def test_every_training_writes_its_page(network: TrainedNetwork):
    facts = Facts.load(network.net)
    page = (network.net / "report.html").read_text()
    assert facts.kind == KIND and page.count("data:image/png;base64,") == 2 and "<svg" in page
    assert sum(parts["to train on"] for parts in facts.classes.values()) == facts.data["pictures to train on"]
    assert sum(parts["held out"] for parts in facts.classes.values()) == facts.data["pictures held out"]


def test_held_out_pictures_are_judged_as_evaluate_does(small: None, network: TrainedNetwork):
    judged, evaluated = Facts.load(network.net).judged, evaluate(network.net, network.shapes, workers=1)
    assert judged is not None and judged.confusion == evaluated.confusion and judged.labels == evaluated.labels


def test_the_page_is_made_again_without_the_pictures_it_was_trained_on(network: TrainedNetwork):
    before = (network.net / "report.html").read_bytes()
    report(network.net)
    assert (network.net / "report.html").read_bytes() == before
