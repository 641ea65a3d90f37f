package dev.stillroom.model

import dev.stillroom.tokenization.WordPieceOptions

/** How logits become an answer, by the names of manifest.json. */
enum class TaskKind(val id: String, internal val metric: String, internal val labelCounts: IntRange) {
    /** One of the labels: softmax, the largest. */
    CLASSIFICATION("text-classification", "accuracy", 2..Limits.LABELS),

    /** Any of the labels: sigmoid of each, those of 0.5 and more. */
    MULTI_LABEL("multi-label", "micro_f1", 1..Limits.LABELS),

    /** A number: the one logit. */
    REGRESSION("regression", "pearson", 1..1),
}

/**
 * What the model answers.
 *
 * [labels] index in the logits -> name. [maxLength] tokens, special tokens included. [tokenTypes] whether the
 * model reads token_type_ids. [pair] whether it wants two texts.
 */
class Task(
    val kind: TaskKind,
    val labels: List<String>,
    val maxLength: Int,
    val tokenTypes: Boolean,
    val pair: Boolean,
) {
    /** Input names in calling order, each int64 [1, tokens]. */
    val inputs: List<String>
        get() = if (tokenTypes) INPUTS else INPUTS.take(2)

    internal companion object {
        val INPUTS = listOf("input_ids", "attention_mask", "token_type_ids")
    }
}

/**
 * The model file. [target] its format ("onnx"), [scheme] its numerics ("int8-dynamic"), [sha256] in hex.
 * [lengths] tokens an input may have, rising; empty: any up to the task's. [runtimeName] and [runtimeVersion]
 * what it was made for.
 */
class ModelFile(
    val file: String,
    val target: String,
    val scheme: String,
    val sha256: String,
    val sizeBytes: Long,
    val lengths: List<Int>,
    val runtimeName: String,
    val runtimeVersion: String,
)

/** A file of the bundle, as the manifest lists it. */
class ListedFile(val file: String, val sha256: String, val sizeBytes: Long)

/**
 * manifest.json, parsed and checked: everything in it that the app uses is as
 * docs/schemas/manifest.schema.json says. [notice] something to tell the user that is no error, or null.
 * [goldenMaxAbsError] is of logits.
 */
class Manifest internal constructor(
    val name: String,
    val task: Task,
    val padId: Int,
    val wordPiece: WordPieceOptions,
    val model: ModelFile,
    val goldenCount: Int,
    val goldenMaxAbsError: Double,
    val files: List<ListedFile>,
    val notice: String?,
)

/** Names of the files that every bundle of the app has. */
internal object BundleFiles {
    const val MANIFEST = "manifest.json"
    const val VOCABULARY = "vocab.txt"
    const val LABELS = "labels.txt"
    const val GOLDEN = "golden.json"

    private val NAME = Regex("[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")

    /** Throw [BundleError.PathEscape] unless a name is one of a file in the bundle's own folder. */
    fun check(name: String): String {
        if (!NAME.matches(name)) {
            throw BundleError.PathEscape(
                "the file name ${shown(name)} is not a plain one, wanted letters, digits, . _ - and no " +
                    "folder: do not use this bundle",
            )
        }
        return name
    }
}
