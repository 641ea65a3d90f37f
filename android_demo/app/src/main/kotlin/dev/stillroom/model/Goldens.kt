package dev.stillroom.model

/**
 * A text with what the bundle's model answered where the bundle was made: to be replayed on the phone.
 *
 * [typeIds] null where the model does not read them. [labels] the answer; [score] that of a regression, else
 * null.
 */
class Golden internal constructor(
    val text: String,
    val pair: String?,
    val ids: IntArray,
    val typeIds: IntArray?,
    val logits: DoubleArray,
    val labels: List<String>,
    val score: Double?,
)

/**
 * Read golden.json. Throws [BundleError.Malformed] where it has another form, [BundleError.TooLarge] on too
 * many, and [BundleError.WrongGolden] on one that no model of this task can have.
 */
internal fun readGoldens(bytes: ByteArray, manifest: Manifest, vocabularySize: Int): List<Golden> {
    if (manifest.goldenCount > Limits.GOLDENS) {
        throw BundleError.TooLarge(
            "${manifest.goldenCount} golden vectors, at most ${Limits.GOLDENS} are read: $MAKE_AGAIN",
        )
    }
    val entries = parsed(bytes, BundleFiles.GOLDEN) as? List<*>
        ?: throw BundleError.Malformed("golden.json is no list: $MAKE_AGAIN")
    if (entries.size != manifest.goldenCount) {
        throw BundleError.WrongGolden(
            "golden.json has ${entries.size} vectors, the manifest says ${manifest.goldenCount}: $MAKE_AGAIN",
        )
    }
    return entries.mapIndexed { index, entry ->
        readGolden(JsonFields(entry, "golden.json: [$index]"), index, manifest.task, vocabularySize)
    }
}

private fun readGolden(fields: JsonFields, index: Int, task: Task, vocabularySize: Int): Golden {
    val wanted = mutableSetOf("text", "input_ids", "logits", "label")
    if (task.pair) wanted += "pair"
    if (task.tokenTypes) wanted += "token_type_ids"
    fields.only(wanted)
    val ids = fields.wholes("input_ids", 0..Int.MAX_VALUE.toLong())
    if (ids.size !in 1..task.maxLength || ids.any { it !in 0 until vocabularySize }) {
        wrong(index, "its ids are not 1 to ${task.maxLength} of the vocabulary's $vocabularySize")
    }
    val typeIds = if (task.tokenTypes) fields.wholes("token_type_ids", 0..1L) else null
    if (typeIds != null && typeIds.size != ids.size) {
        wrong(index, "it has ${typeIds.size} type ids for ${ids.size} ids")
    }
    val logits = fields.list("logits").map { (it as? Number)?.toDouble() ?: Double.NaN }
    if (logits.size != task.labels.size || logits.any { it.isNaN() || it.isInfinite() }) {
        wrong(index, "its logits are not ${task.labels.size} finite numbers")
    }
    val answer = readAnswer(fields, task)
    return Golden(
        text = fields.text("text", Int.MAX_VALUE),
        pair = if (task.pair) fields.text("pair", Int.MAX_VALUE) else null,
        ids = ids.toIntArray(),
        typeIds = typeIds?.toIntArray(),
        logits = logits.toDoubleArray(),
        labels = answer,
        score = if (task.kind == TaskKind.REGRESSION) fields.number("label") else null,
    ).also { golden ->
        val said = chosenLabels(task, golden.logits)
        if (said != golden.labels || (golden.score != null && golden.score != golden.logits[0])) {
            wrong(index, "its label is not that of its logits")
        }
    }
}

private fun readAnswer(fields: JsonFields, task: Task): List<String> = when (task.kind) {
    TaskKind.CLASSIFICATION -> listOf(fields.text("label", 1000))
    TaskKind.MULTI_LABEL -> fields.texts("label", 1000)
    TaskKind.REGRESSION -> emptyList()
}

private fun wrong(index: Int, reason: String): Nothing =
    throw BundleError.WrongGolden(
        "golden vector $index of golden.json is no answer of this model, $reason: $MAKE_AGAIN",
    )
