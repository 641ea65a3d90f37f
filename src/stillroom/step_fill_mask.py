"""Fill-mask: raw text -> corpus; a head for an encoder that has none; student, baseline, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillroom.errors import UsageError
from stillroom.files import sha256_file, sha256_json, staged_folder
from stillroom.fill_mask_recipe import NOT_OF_THE_MODEL, OF_THE_CORPUS, OF_THE_TEACHER, FillMaskRecipe
from stillroom.model_folder import TOKENIZER_FILES, check_model_folder, require_masked_lm_head
from stillroom.processes import is_first
from stillroom.progress import say
from stillroom.step_train import training_settings
from stillroom.steps import Run, do_step, fingerprint, recorded
from stillroom.toml_tables import as_plain

if TYPE_CHECKING:
    from stillroom.distill.corpus import Corpus
    from stillroom.distill.masked_batch import Masking


Load = Callable[[], Any]  # the model a step starts from


def distill_fill_mask_steps(
    run: Run, recipe: FillMaskRecipe, source: Path, texts: Sequence[Path], *, baseline: bool = True
) -> dict[str, Any]:
    """corpus/, student/ and baseline/; returns the scores of the teacher and of these by name.

    baseline: False leaves the student without a teacher out.
    Raises UsageError for a teacher that cannot fill masks and for bad text.
    """
    require_masked_lm_head(check_model_folder(source))
    corpus_step(run, recipe, source, texts)
    student_step(run, recipe, source)
    if baseline:
        baseline_step(run, recipe, source)
    own = ("student", "baseline") if baseline else ("student",)
    return scores_step(run, recipe, "scores", {"teacher": source}, own)


def teach_steps(run: Run, recipe: FillMaskRecipe, source: Path, texts: Sequence[Path]) -> dict[str, Any]:
    """corpus/ and teacher/, the given encoder with a masked-LM head; returns its scores by name."""
    corpus_step(run, recipe, source, texts)
    teach_step(run, recipe, source)
    return scores_step(run, recipe, "teacher-scores", {}, ("teacher",))


def corpus_step(run: Run, recipe: FillMaskRecipe, source: Path, texts: Sequence[Path]) -> dict[str, Any]:
    """corpus/: the texts as rows of tokens, as this model's tokenizer reads them."""
    from stillroom.distill.corpus_text import check_text_files

    def work() -> dict[str, Any]:
        from stillroom.distill.corpus import build_corpus
        from stillroom.distill.masked_lm import open_masked_source

        opened = open_masked_source(source)
        length = min(recipe.max_length, opened.longest)
        if length < recipe.max_length:
            say(f"  max_length {recipe.max_length} cut to {length}, the most this model can read")
        folder = run.folder / "corpus"
        return build_corpus(
            texts, opened.tokenizer_json, length, folder, recipe.held_out_share, recipe.split_seed
        ).facts

    if run.record("data").is_file():
        raise UsageError(f"{run.folder} holds a run on labelled data: choose another --out")
    checked = check_model_folder(source)
    names = (*TOKENIZER_FILES, "tokenizer_config.json")
    tokenizer = {name: sha256_file(source / name) for name in names if (source / name).is_file()}
    made_from = {
        "recipe": {name: value for name, value in as_plain(recipe).items() if name in OF_THE_CORPUS},
        "texts": check_text_files(texts),
        "tokenizer": sha256_json(tokenizer),
        "positions": checked.config.get("max_position_embeddings"),
    }
    facts = do_step(run, "corpus", made_from, ("corpus",), work)
    say(
        f"  {facts['train_rows']} rows of {facts['max_length']} tokens to train on, {facts['held_out_rows']} "
        f"held out; {facts['text_bytes'] / 1e6:.1f} MB of text"
    )
    return facts


def teach_step(run: Run, recipe: FillMaskRecipe, source: Path) -> dict[str, Any]:
    """teacher/: the encoder with a head that fills masks."""

    def work() -> dict[str, Any]:
        from stillroom.distill.fill_mask import teach_mlm_head
        from stillroom.distill.masked_lm import open_masked_source

        opened, corpus = open_masked_source(source), _corpus(run)
        if opened.has_head:
            say("  it has a masked-LM head already: training goes on from that")
        model, training = teach_mlm_head(
            opened,
            corpus,
            training_settings(recipe, recipe),
            run.work / "teacher",
            _masking(recipe),
            freeze_encoder=recipe.freeze_encoder,
        )
        return _save(run, "teacher", model, corpus, {"source_sha256": source_sha256, "training": training})

    source_sha256 = fingerprint(source)
    return _model_step(run, recipe, "teacher", work, source_sha256)


def student_step(run: Run, recipe: FillMaskRecipe, source: Path) -> dict[str, Any]:
    """student/: some of the teacher's layers, distilled."""

    def train(load: Load, corpus: Corpus) -> tuple[Any, dict[str, Any]]:
        from stillroom.distill.fill_mask import FillMaskWeights, distill_fill_mask

        return distill_fill_mask(
            load(),  # held by nobody here: where its answers are kept it need not stay in memory
            corpus,
            training_settings(recipe, recipe),
            run.work / "student",
            recipe.layers,
            FillMaskWeights(recipe.soft_weight, recipe.hard_weight, recipe.cosine_weight, recipe.temperature),
            recipe.layer_choice,
            _masking(recipe),
            recipe.form,
            recipe.teacher_cache,
            recipe.teacher_cache_k,
        )

    return _layers_step(run, recipe, "student", source, "teacher_sha256", train)


def baseline_step(run: Run, recipe: FillMaskRecipe, source: Path) -> dict[str, Any]:
    """baseline/: the same layers, rows, masks and steps, without the teacher's answers."""

    def train(load: Load, corpus: Corpus) -> tuple[Any, dict[str, Any]]:
        from stillroom.distill.fill_mask import plain_fill_mask

        return plain_fill_mask(
            load(),
            corpus,
            training_settings(recipe, recipe),
            run.work / "baseline",
            recipe.layers,
            recipe.layer_choice,
            _masking(recipe),
            recipe.form,
        )

    return _layers_step(run, recipe, "baseline", source, "start_sha256", train)


def _layers_step(
    run: Run,
    recipe: FillMaskRecipe,
    name: str,
    source: Path,
    source_key: str,
    train: Callable[[Load, Corpus], tuple[Any, dict[str, Any]]],
) -> dict[str, Any]:
    """A model of some of source's layers. source_key: what the lineage calls that folder's fingerprint."""

    def work() -> dict[str, Any]:
        from stillroom.distill.masked_lm import load_masked_lm, open_masked_source

        corpus = _corpus(run)
        model, training = train(lambda: load_masked_lm(open_masked_source(source)), corpus)
        return _save(run, name, model, corpus, {source_key: source_sha256, "training": training})

    source_sha256 = fingerprint(source)
    return _model_step(run, recipe, name, work, source_sha256)


def scores_step(
    run: Run, recipe: FillMaskRecipe, name: str, given: dict[str, Path], own: Sequence[str]
) -> dict[str, Any]:
    """How well models fill masks in held-out rows: given ones, and own ones in folders of the run."""

    def work() -> dict[str, Any]:
        import torch

        from stillroom.distill.masked_lm import load_masked_lm, open_masked_source
        from stillroom.distill.mlm_scores import score_fill_mask
        from stillroom.student import parameter_count

        scores, corpus = {}, _corpus(run)
        for model_name, folder in {**given, **{one: run.folder / one for one in own}}.items():
            model = load_masked_lm(open_masked_source(folder))
            model.to("cuda" if torch.cuda.is_available() else "cpu")
            found = score_fill_mask(model, corpus, model_name, recipe.scored_rows, recipe.pseudo_rows)
            scores[model_name] = {"parameters": parameter_count(model), **found}
        return scores

    made_from = {
        "recipe": {"scored_rows": recipe.scored_rows, "pseudo_rows": recipe.pseudo_rows},
        "given": {model_name: fingerprint(folder) for model_name, folder in given.items()},
        **recorded(run, "corpus", *own),
    }
    return do_step(run, name, made_from, (), work)


def scores_table(scores: dict[str, Any]) -> str:
    """One line for each model."""
    lines = []
    for name, row in scores.items():
        perplexity = row.get("pseudo_perplexity")
        lines.append(
            f"{name:<8} {row['parameters'] / 1e6:6.1f} M parameters   masked accuracy "
            f"{row['masked_accuracy']:.2%}   masked loss {row['masked_loss']:.3f}"
            + (f"   pseudo-perplexity {perplexity:.1f}" if perplexity is not None else "")
        )
    return "\n".join(lines)


def _model_step(run: Run, recipe: FillMaskRecipe, name: str, work: Any, source_sha256: str) -> dict[str, Any]:
    left_out = (*NOT_OF_THE_MODEL, *OF_THE_CORPUS, *(OF_THE_TEACHER if name != "student" else ()))
    made_from = {
        "recipe": {key: value for key, value in as_plain(recipe).items() if key not in left_out},
        "model_sha256": source_sha256,
        **recorded(run, "corpus"),
    }
    return do_step(run, name, made_from, (name,), work, together=True)


def _corpus(run: Run) -> Corpus:
    from stillroom.distill.corpus import open_corpus

    return open_corpus(run.folder / "corpus")


def _masking(recipe: FillMaskRecipe) -> Masking:
    from stillroom.distill.masked_batch import Masking

    return Masking(recipe.mask_share, recipe.whole_words, recipe.soft_positions, recipe.mask_variants)


def _save(run: Run, name: str, model: Any, corpus: Corpus, lineage: dict[str, Any]) -> dict[str, Any]:
    """Write a model's folder, all or nothing. Of several processes the first does it."""
    if not is_first():
        return {}
    from stillroom.distill.masked_lm import save_masked_lm
    from stillroom.student import parameter_count

    lineage = {**lineage, "corpus": {"sha256": corpus.sha256, **corpus.facts}}
    with staged_folder(run.folder / name) as partial:
        save_masked_lm(partial, model, corpus.special, corpus.max_length, lineage)
    size_bytes = (run.folder / name / "model.safetensors").stat().st_size
    return {"parameters": parameter_count(model), "size_bytes": size_bytes, "training": lineage["training"]}
