"""Teachers: used as they are when they can answer, else given a new head, and refused when broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch

from stillroom.distill import teacher as teacher_module
from stillroom.distill.evaluate import predict_logits
from stillroom.distill.teacher import fast_tokenizer, open_source, train_teacher
from stillroom.distill.train import TrainSettings
from stillroom.errors import UsageError
from stillroom.student import load_model
from stillroom.tokens import Tokens, encode_one, tokenizer_from_json

SETTINGS = TrainSettings(1, 1e-3, 8, 0, freeze_word_embeddings=True)
Builder = Callable[..., Path]


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), encoding="utf-8")


@pytest.fixture
def copied(tiny_teacher: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_teacher, tmp_path / "copied"))


@pytest.mark.parametrize("labels", [("good", "bad"), ("bad", "good")])
def test_a_head_with_the_same_labels_is_used_as_it_is(
    labels: tuple[str, ...], tiny_teacher: Path, review_tokens: Callable[..., Tokens], tmp_path: Path
) -> None:
    source = open_source(tiny_teacher, labels, 32, pair=False)
    assert source.trained and source.notes == ()
    # The head's own order: its logits cannot be put in another one.
    assert source.task.labels == ("good", "bad")
    assert source.task.max_length == 32 and not source.task.pair
    assert source.task.inputs == ("input_ids", "attention_mask")
    tokens = review_tokens(tiny_teacher, 8, source.task.labels)
    model, facts = train_teacher(source, tokens, SETTINGS, tmp_path / "checkpoints", "key")
    assert facts == {}
    weights = load_model(tiny_teacher).state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("head", "labels", "trained"),
    [
        (("LABEL_0", "LABEL_1"), ("0", "1"), True),
        (("LABEL_0", "LABEL_1"), ("1", "0"), True),
        (("LABEL_0", "LABEL_1"), ("1", "2"), False),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ("0", "1"), False),
        (("LABEL_0", "LABEL_1"), ("bad", "good"), False),
        (("good", "bad"), ("0", "1"), False),
    ],
)
def test_heads_without_names_answer_integers(
    head: tuple[str, ...],
    labels: tuple[str, ...],
    trained: bool,
    make_model_folder: Builder,
    tmp_path: Path,
) -> None:
    source = open_source(
        make_model_folder(tmp_path / "model", head_labels=head, layers=1), labels, 32, pair=False
    )
    assert source.trained is trained
    assert source.task.labels == (("0", "1") if trained else labels)
    assert len(source.notes) == (0 if trained else 1)


def test_other_labels_get_a_new_head(
    tiny_teacher: Path,
    review_tokens: Callable[..., Tokens],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = ("bad", "good", "so-so")
    source = open_source(tiny_teacher, labels, 32, pair=False)
    assert not source.trained and source.task.labels == labels
    assert source.notes == (
        "the teacher's head answers ['good', 'bad'], not ['bad', 'good', 'so-so']: it gets a new head",
    )
    tokens = review_tokens(tiny_teacher, 12, ("good", "bad", "so-so"))
    model, facts = train_teacher(source, tokens, SETTINGS, tmp_path / "checkpoints", "key")
    assert facts["rows"] == 12 and facts["steps"] == 2
    assert predict_logits(model, tokens, source.task.inputs, "test").shape == (12, 3)

    monkeypatch.setattr(teacher_module, "train", lambda *arguments, **options: {})
    one, other = (train_teacher(source, tokens, SETTINGS, tmp_path / "none", "key")[0] for _ in "ab")
    before = load_model(tiny_teacher).state_dict()
    for name, value in one.state_dict().items():
        # A new head that differs from call to call could not be resumed.
        assert torch.equal(value, other.state_dict()[name]), name
        assert name.startswith("classifier.") or torch.equal(value, before[name]), name
    assert one.classifier.weight.shape == (3, 32)


def test_a_bare_encoder_gets_a_head(
    tiny_bert: Path, review_tokens: Callable[..., Tokens], tmp_path: Path
) -> None:
    source = open_source(tiny_bert, ("bad", "good"), 32, pair=False)
    assert not source.trained and source.notes == () and source.task.labels == ("bad", "good")
    tokens = review_tokens(tiny_bert, 8, ("good", "bad"))
    model, facts = train_teacher(source, tokens, SETTINGS, tmp_path / "checkpoints", "key")
    assert facts["steps"] == 1 and model.config.num_labels == 2
    given = load_model(tiny_bert, num_labels=2, ignore_mismatched_sizes=True)
    embeddings = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(model.state_dict()[embeddings], given.state_dict()[embeddings])


@pytest.mark.parametrize(
    ("family", "inputs"),
    [("bert", 3), ("distilbert", 2), ("roberta", 2), ("xlm-roberta", 2)],
)
def test_families_and_their_inputs(
    family: str, inputs: int, make_model_folder: Builder, tmp_path: Path
) -> None:
    folder = make_model_folder(tmp_path / "model", family, ("good", "bad"), layers=1)
    source = open_source(folder, ("bad", "good"), 64, pair=True)
    assert source.trained and source.notes == ()
    names = ("input_ids", "attention_mask", "token_type_ids")
    assert source.task.pair and source.task.inputs == names[:inputs]
    too_long = open_source(folder, ("bad", "good"), 65, pair=False)
    assert too_long.task.max_length == 64 and too_long.task.inputs == names[:2]
    assert too_long.notes == ("max_length 65 cut to 64, the most this teacher can read",)
    # 64 tokens must be what it can really read: RoBERTa's positions begin after the padding id.
    ids = torch.full((1, 64), 20)
    with torch.inference_mode():
        assert load_model(folder)(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.isfinite().all()


@pytest.mark.parametrize("rows", [100, 400])
def test_a_tokenizer_of_another_model(rows: int, make_model_folder: Builder, tmp_path: Path) -> None:
    folder = make_model_folder(tmp_path / "model", vocab_size=rows, layers=1)
    with pytest.raises(UsageError, match=rf"has 124 tokens .* {rows} embedding rows.*different models"):
        open_source(folder, ("bad", "good"), 32, pair=False)


@pytest.mark.parametrize("rows", [124, 128, 252])
def test_padded_embeddings_are_fine(rows: int, make_model_folder: Builder, tmp_path: Path) -> None:
    folder = make_model_folder(tmp_path / "model", vocab_size=rows, layers=1)
    assert not open_source(folder, ("bad", "good"), 32, pair=False).trained


def test_a_broken_tokenizer(copied: Path) -> None:
    (copied / "tokenizer.json").write_text('{"model": "none"}', encoding="utf-8")
    with pytest.raises(UsageError, match="the tokenizer could not be read") as caught:
        open_source(copied, ("bad", "good"), 32, pair=False)
    assert "\n" not in str(caught.value)


def test_the_reasons_of_a_folder_reach_the_user(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="has no weights"):
        open_source(copied, ("bad", "good"), 32, pair=False)


@pytest.mark.parametrize(
    "changes", [{"hidden_size": "many"}, {"num_attention_heads": [4]}, {"max_position_embeddings": "long"}]
)
def test_a_config_of_the_wrong_types(changes: dict[str, Any], copied: Path) -> None:
    edit_json(copied / "config.json", **changes)
    with pytest.raises(UsageError):
        open_source(copied, ("bad", "good"), 32, pair=False)


def test_encoder_weights_that_do_not_fit_are_refused_with_a_new_head_too(
    copied: Path, review_tokens: Callable[..., Tokens], tmp_path: Path
) -> None:
    # Only the head may be another: an encoder filled with random numbers would be a teacher of nothing.
    edit_json(copied / "config.json", intermediate_size=128)
    source = open_source(copied, ("bad", "good", "so-so"), 32, pair=False)
    tokens = review_tokens(copied, 12, source.task.labels)
    with pytest.raises(UsageError):
        train_teacher(source, tokens, SETTINGS, tmp_path / "checkpoints", "key")


def test_code_in_a_folder_is_not_run(copied: Path, tmp_path: Path) -> None:
    proof = tmp_path / "was here"
    code = f"from pathlib import Path\nPath({str(proof)!r}).touch()\nclass Config: ...\nclass Model: ...\n"
    (copied / "evil.py").write_text(code, encoding="utf-8")
    kinds = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}
    edit_json(copied / "config.json", auto_map=kinds)
    edit_json(copied / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Config", "evil.Config"]})
    source = open_source(copied, ("bad", "good"), 32, pair=False)
    load_model(copied)
    assert source.trained and not proof.exists()


def test_a_vocabulary_file_becomes_a_tokenizer_json(copied: Path) -> None:
    # As the oldest BERT folders are: vocab.txt and nothing else.
    source = tokenizer_from_json((copied / "tokenizer.json").read_text("utf-8"), 32)
    pieces = sorted(source.get_vocab().items(), key=lambda item: item[1])
    (copied / "vocab.txt").write_text("".join(f"{piece}\n" for piece, _ in pieces), encoding="utf-8")
    (copied / "tokenizer.json").unlink()
    converted = tokenizer_from_json(fast_tokenizer(copied), 32)
    for text in ("What a GREAT hotel!", "naïve café", "", "zzz unknown ☃"):
        assert encode_one(converted, text) == encode_one(source, text)


def test_a_sentencepiece_model_becomes_a_tokenizer_json(
    tiny_xlmr: Path, review_csv: Callable[..., Path], tmp_path: Path
) -> None:
    # As XLM-R folders of older tools are; compared with SentencePiece itself.
    folder = Path(shutil.copytree(tiny_xlmr, tmp_path / "copied"))
    (folder / "tokenizer.json").unlink()
    corpus, trained = review_csv(tmp_path / "corpus.csv", rows=200), tmp_path / "trained"
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(trained), vocab_size=100, hard_vocab_limit=False, minloglevel=2
    )
    shutil.copyfile(trained.with_suffix(".model"), folder / "sentencepiece.bpe.model")
    converted = tokenizer_from_json(fast_tokenizer(folder), 64)
    original = sentencepiece.SentencePieceProcessor(model_file=str(trained.with_suffix(".model")))
    for text in ("the crew was lovely", "  two   spaces", "What a GREAT hotel!", "", "zzz unknown ☃"):
        pieces = original.encode(text, out_type=int)
        # XLM-R puts <pad> in at 1, which moves every id up by one; SentencePiece's unknown 0 is its 3.
        wanted = [0, *(piece + 1 if piece else 3 for piece in pieces), 2]
        assert encode_one(converted, text)[0] == wanted
